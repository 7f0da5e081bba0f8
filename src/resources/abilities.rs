//! Checks what this host and this connection can give a machine. What they cannot give is an error at its
//! place in the Machinefile.

use std::{collections::BTreeMap, fs, path::PathBuf};

use crate::{
    hypervisor::{Connection, WeightScale},
    machinefile::{Accel, Bytes, CpuSet, Machine, MachinefileError, Span},
    report::counted,
};

use super::{capacity::online_cpus, cgroup::weight_scale};

/// What this host and this connection offer, found out once for all machines.
#[derive(Clone, Debug, Default)]
pub struct Abilities {
    pub uri: String,
    /// Whether it is a user's libvirt, which does not use control groups.
    pub session: bool,
    /// CPUs that are online.
    pub cpus: CpuSet,
    /// Why memory cannot be locked. `None` if it can be, or if that is not known.
    pub no_locking: Option<String>,
    /// Free huge pages, by their size in bytes.
    pub hugepages: BTreeMap<u64, u64>,
    /// The scale of CPU weights in its control groups.
    pub weight_scale: WeightScale,
    /// CPU models by accelerator, for accelerators of machines that name a model.
    pub models: BTreeMap<&'static str, Vec<String>>,
}

impl Abilities {
    /// Finds them out. `kinds` are the accelerators of machines that name a CPU model.
    pub fn observe(
        connection: &Connection,
        kinds: &[Accel],
    ) -> Result<Self, crate::hypervisor::HypervisorError> {
        let session = connection.uri().is_session();
        let mut models = BTreeMap::new();
        for kind in kinds {
            let kind = kind_of(*kind);
            models.insert(kind, connection.usable_cpu_models(kind)?);
        }
        Ok(Abilities {
            uri: connection.uri().uri.clone(),
            session,
            cpus: online_cpus(),
            no_locking: connection.daemon_process().and_then(why_no_locking),
            hugepages: hugepages(),
            weight_scale: weight_scale(),
            models,
        })
    }
}

fn kind_of(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "qemu",
    }
}

/// Returns an error for each property of a machine that this host cannot give. `accel` is what the machine
/// will run on.
pub fn check(machine: &Machine, accel: Accel, abilities: &Abilities) -> Vec<MachinefileError> {
    let mut errors = Vec::new();
    let mut at = |what: &str, error: &dyn Fn(&Span) -> MachinefileError| {
        // Only properties that are set in the file have a place.
        if let Some(place) = machine.spans.get(what) {
            errors.push(error(place));
        }
    };
    let uri = &abilities.uri;
    if abilities.session {
        for (what, name) in [
            ("cpus.reserve", "reserved CPUs"),
            ("shares", "CPU shares"),
            ("quota", "a CPU quota"),
        ] {
            at(what, &|place| {
                MachinefileError::new(
                    place,
                    format!("{uri} does not support {name}"),
                    "needs control groups",
                )
                .help("a user's libvirt does not use control groups, even if some are delegated to the user; run stead as root, which uses qemu:///system, or remove this (`pin` works here)")
            });
        }
    }
    if let Some(pin) = &machine.tuning.cpu.pin
        && !pin.is_subset(&abilities.cpus)
    {
        let missing: CpuSet = pin.0.difference(&abilities.cpus.0).copied().collect();
        at("pin", &|place| {
            MachinefileError::new(
                place,
                format!("this host has no CPU {missing}"),
                "not all of these exist",
            )
            .help(format!("its CPUs are {}", abilities.cpus))
        });
    }
    let most = abilities.weight_scale.most_shares();
    if let Some(shares) = machine.tuning.cpu.shares
        && shares > most
    {
        at("shares", &|place| {
            MachinefileError::new(
                place,
                format!("{shares} is too much for control groups of version 2"),
                format!("at most {most} on this host"),
            )
        });
    }
    if let Some(model) = &machine.tuning.cpu.model
        && let Some(known) = abilities.models.get(kind_of(accel))
        && !known.contains(model)
    {
        at("model", &|place| {
            MachinefileError::new(
                place,
                format!("QEMU has no CPU model {model:?} for {accel} on this host"),
                "not available here",
            )
            .help(if known.is_empty() {
                "libvirt lists none for it; remove `model`".to_string()
            } else {
                format!("available: {}", known.join(", "))
            })
        });
    }
    if let Some(why) = &abilities.no_locking {
        at("memory.reserve", &|place| {
            MachinefileError::new(
                place,
                format!("{uri} cannot lock memory: {why}"),
                "must be locked",
            )
            .help(if abilities.session {
                "as root, write `USER - memlock unlimited` into /etc/security/limits.d/stead.conf (USER is your user name), log in again, and stop your libvirtd (`pkill -u USER libvirtd`), so that it starts with the new limit; or run stead as root; or remove reserve=#true, so that no memory is reserved"
            } else {
                "give libvirtd CAP_SYS_RESOURCE, or no limit of its own (LimitMEMLOCK=infinity in its unit, or `ulimit -l unlimited` before you start it by hand; a container must allow that), or remove reserve=#true, so that no memory is reserved"
            })
        });
    }
    if let Some(size) = machine.tuning.memory.hugepages {
        let needed = machine.memory.0.div_ceil(size.0);
        let file = format!(
            "/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages",
            size.0 / 1024
        );
        match abilities.hugepages.get(&size.0) {
            None => {
                let sizes: Vec<String> = abilities
                    .hugepages
                    .keys()
                    .map(|size| Bytes(*size).to_string())
                    .collect();
                at("hugepages", &|place| {
                    MachinefileError::new(
                        place,
                        format!("this host has no huge pages of {size}"),
                        "no such size",
                    )
                    .help(if sizes.is_empty() {
                        "its kernel supports none".to_string()
                    } else {
                        format!("available: {}", sizes.join(", "))
                    })
                });
            }
            Some(free) if *free < needed => at("hugepages", &|place| {
                MachinefileError::new(
                    place,
                    format!(
                        "{} needs {} of {size}, but only {} free",
                        machine.name,
                        counted(needed, "huge page"),
 match free { 1 => "1 is".to_string(), free => format!("{free} are") }
                    ),
                    "not enough are configured",
                )
                .help(format!(
                    "as root, run `echo {needed} > {file}` (with more if other machines need some), preferably right after the host has booted"
                ))
            }),
            Some(_) => {}
        }
    }
    errors
}

fn hugepages() -> BTreeMap<u64, u64> {
    fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let kib: u64 = name
                .to_str()?
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            let free = fs::read_to_string(entry.path().join("free_hugepages")).ok()?;
            Some((kib * 1024, free.trim().parse().ok()?))
        })
        .collect()
}

/// Returns why a daemon's machines cannot lock memory. libvirt raises QEMU's limit of locked memory, which
/// works if the daemon may raise limits, or has none.
fn why_no_locking(daemon: u32) -> Option<String> {
    let folder = PathBuf::from(format!("/proc/{daemon}"));
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let limits = fs::read_to_string(folder.join("limits")).ok()?;
    locking_by(&status, &limits)
}

/// CAP_SYS_RESOURCE (linux/capability.h).
const SYS_RESOURCE: u64 = 1 << 24;

fn locking_by(status: &str, limits: &str) -> Option<String> {
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())?;
    if capabilities & SYS_RESOURCE != 0 {
        return None;
    }
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?
        .split_whitespace()
        .nth(1)?;
    (limit != "unlimited").then(|| match limit.parse() {
        Ok(number) => format!("its daemon may lock at most {}", Bytes(number)),
        Err(_) => format!("its daemon may lock at most {limit}"),
    })
}

#[cfg(test)]
mod tests {
    use miette::GraphicalTheme;

    use super::*;
    use crate::machinefile::{MachinefileErrors, load};

    #[test]
    fn what_cannot_be_had_is_told_where_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Machinefile");
        fs::write(
            &file,
            r#"project "shop"
machine "db" {
    box "debian-12"
    cpus 2 reserve=#true pin="1,7-9" shares=200000 quota="200%" model="Pentium9"
    memory "1GiB" reserve=#true hugepages="2MiB"
}
machine "web" {
    box "debian-12"
    memory "2GiB" hugepages="1GiB"
}
"#,
        )
        .unwrap();
        let project = load(&file, &|_| None).unwrap();
        let abilities = Abilities {
            uri: "qemu:///session".into(),
            session: true,
            cpus: (0..4).collect(),
            no_locking: Some("its daemon may lock at most 8MiB".into()),
            hugepages: [(2 << 20, 12)].into(),
            weight_scale: WeightScale::Weight,
            models: [("qemu", vec!["qemu64".into(), "Skylake-Client".into()])].into(),
        };
        let errors: Vec<_> = project
            .machines
            .iter()
            .flat_map(|machine| check(machine, Accel::Tcg, &abilities))
            .collect();
        let text = MachinefileErrors::new(errors).render(GraphicalTheme::unicode_nocolor(), 100);
        let text = text.replace(&*folder.path().to_string_lossy(), "/shop");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_can_be_had_is_no_error() {
        let abilities = Abilities {
            cpus: (0..4).collect(),
            ..Abilities::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Machinefile");
        fs::write(
            &file,
            "project \"shop\"\nmachine \"db\" {\n box \"debian-12\"\n cpus 2 reserve=#true pin=\"1-3\" shares=9 quota=\"250%\"\n memory \"1GiB\" reserve=#true\n}\n",
        )
        .unwrap();
        let project = load(&file, &|_| None).unwrap();
        assert!(check(&project.machines[0], Accel::Kvm, &abilities).is_empty());
    }

    #[test]
    fn a_daemon_that_may_raise_limits_may_lock() {
        let limits = "Max locked memory         8388608              8388608              bytes\n";
        assert_eq!(
            locking_by("CapEff:\t000001fffeffffff\n", limits).as_deref(),
            Some("its daemon may lock at most 8MiB")
        );
        assert_eq!(locking_by("CapEff:\t000001ffffffffff\n", limits), None);
        let none = "Max locked memory         unlimited            unlimited            bytes\n";
        assert_eq!(locking_by("CapEff:\t0000000000000000\n", none), None);
    }
}
