//! The kernels of a project's machines: looked up in the store, taken in where they are missing.

use crate::{
    boxes::{Boot, SeedKind, StoredBox},
    hypervisor::KernelSpec,
    kernel::{
        KernelError, KernelStore, Provenance, StoredKernel, Title,
        check::{Guest, judge},
        found_key, locate, running,
    },
    machinefile::{Cmdline, Kernel, KernelBoot, KernelSource, Machine},
    plan::Plan,
    report::{Event, EventKind, Reporter},
};

use super::{Failure, session::Session, work::Work};

/// What a machine's kernel is by the Machinefile, and why it cannot be booted now.
pub struct WantedKernel {
    pub spec: Option<KernelSpec>,
    pub missing: Option<Failure>,
}

/// Looks a machine's kernel up, in its own words of the command line.
pub fn wanted_kernel(
    session: &Session,
    machine: &Machine,
    stored: &StoredBox,
) -> Result<WantedKernel, Failure> {
    let Some(kernel) = &machine.kernel else {
        return Ok(WantedKernel {
            spec: None,
            missing: None,
        });
    };
    let own = own_cmdline(stored);
    let cmdline = join_cmdline(own.unwrap_or(BY_INIT), kernel.cmdline.as_ref());
    let mut spec = KernelSpec {
        source: kernel.source.to_string(),
        digest: None,
        release: None,
        root: option(&cmdline, "rootfstype").map(str::to_string),
        cmdline,
    };
    if kernel.source == KernelSource::Box {
        if own.is_none() {
            return Err(at(
                kernel,
                machine,
                format!(
                    "the box {} boots by its own bootloader, which keeps the command line to itself",
                    stored.manifest.name
                ),
                "give a kernel too (`package`, `path`, `host`), which QEMU loads with this command line",
            ));
        }
        return Ok(WantedKernel {
            spec: Some(spec),
            missing: None,
        });
    }
    let missing = match find(session, kernel, stored) {
        Ok(Some(found)) => {
            spec.digest = Some(found.digest.to_string());
            spec.release = Some(found.manifest.release.clone());
            fit(&found, &spec, stored)
                .err()
                .map(|error| placed(kernel, machine, error))
        }
        Ok(None) => Some(at(
            kernel,
            machine,
            format!("its kernel, {}, is not here yet", kernel.source),
            "`stead up` gets it",
        )),
        Err(error) => Some(placed(kernel, machine, error)),
    };
    Ok(WantedKernel {
        spec: Some(spec),
        missing,
    })
}

/// What our own init needs to be told where no box says anything: it finds the root by itself, and
/// the root's own fstab says how it is mounted in the end.
const BY_INIT: &str = "ro";

fn own_cmdline(stored: &StoredBox) -> Option<&str> {
    match &stored.manifest.boot {
        Boot::Direct { cmdline, .. } => Some(cmdline),
        Boot::Bootloader {} => None,
    }
}

/// Options by which the root is found, which a replaced command line keeps.
const ROOT_OPTIONS: [&str; 5] = ["root", "rootfstype", "rootflags", "ro", "rw"];

fn join_cmdline(own: &str, asked: Option<&Cmdline>) -> String {
    let Some(asked) = asked else {
        return own.to_string();
    };
    let kept: Vec<&str> = own
        .split_whitespace()
        .filter(|word| {
            let key = word.split('=').next().unwrap_or(word);
            let said = |key: &str| {
                (asked.text.split_whitespace()).any(|word| word.split('=').next() == Some(key))
            };
            if asked.replace {
                // Of ro and rw only one can hold.
                ROOT_OPTIONS.contains(&key)
                    && !said(key)
                    && !(matches!(key, "ro" | "rw") && (said("ro") || said("rw")))
            } else {
                true
            }
        })
        .collect();
    [kept.join(" "), asked.text.trim().to_string()]
        .join(" ")
        .trim()
        .to_string()
}

/// The last value of an option.
fn option<'a>(cmdline: &'a str, key: &str) -> Option<&'a str> {
    cmdline
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .next_back()
}

/// The kernel in the store, if the source as it is now is there.
fn find(
    session: &Session,
    kernel: &Kernel,
    stored: &StoredBox,
) -> Result<Option<StoredKernel>, KernelError> {
    let store = KernelStore::open(&session.data);
    match &kernel.source {
        KernelSource::Box => Ok(None),
        KernelSource::Path {
            image,
            modules,
            config,
        } => {
            let found = locate(image, modules.as_deref(), config.as_deref(), ARCH)?;
            store.of_source(&found_key(&found)?)
        }
        KernelSource::Host => store.of_source(&found_key(&running(ARCH)?)?),
        KernelSource::Capture { name } => store.resolve(name).map(Some),
        KernelSource::Package { .. } => {
            let _ = stored;
            Ok(None)
        }
    }
}

const ARCH: &str = std::env::consts::ARCH;

/// Takes in the kernels of machines that have to be made or booted, where they are not here. Says
/// whether there were any.
pub fn take_missing(work: &Work, machines: &[String]) -> Result<bool, Failure> {
    let store = KernelStore::open(&work.session.data);
    let mut any = false;
    for subject in &work.subjects {
        let machine = &subject.wanted.machine;
        let (Some(kernel), Some(stored)) = (&machine.kernel, &subject.stored_box) else {
            continue;
        };
        if subject.leftover || !machines.contains(&machine.name) {
            continue;
        }
        let here =
            find(&work.session, kernel, stored).map_err(|error| placed(kernel, machine, error))?;
        if here.is_some() || kernel.source == KernelSource::Box {
            continue;
        }
        take(&work.session, &store, &work.reporter, machine, kernel)
            .map_err(|error| placed(kernel, machine, error))?;
        any = true;
    }
    Ok(any)
}

fn take(
    session: &Session,
    store: &KernelStore,
    reporter: &Reporter,
    machine: &Machine,
    kernel: &Kernel,
) -> Result<(), KernelError> {
    let _ = session;
    reporter.event(&Event::now(
        &machine.name,
        EventKind::StepStarted {
            step: "kernel".into(),
            doing: format!("taking in kernel {}", kernel.source),
        },
    ));
    let found = match &kernel.source {
        KernelSource::Path {
            image,
            modules,
            config,
        } => locate(image, modules.as_deref(), config.as_deref(), ARCH)?,
        KernelSource::Host => running(ARCH)?,
        KernelSource::Box | KernelSource::Capture { .. } | KernelSource::Package { .. } => {
            return Ok(());
        }
    };
    // Before it is read: what changes meanwhile is seen at the next look.
    let key = found_key(&found)?;
    let stored = store.add(
        &found,
        &Title {
            name: &found.release,
            from: match kernel.source {
                KernelSource::Host => Provenance::Host {},
                _ => Provenance::Path {},
            },
            facts: None,
        },
    )?;
    store.remember_source(&key, &stored)
}

/// Whether a kernel can boot a machine of this box.
fn fit(kernel: &StoredKernel, spec: &KernelSpec, stored: &StoredBox) -> Result<(), KernelError> {
    let guest = Guest {
        root: spec.root.as_deref(),
        credentials: stored.manifest.seed == SeedKind::Credentials,
    };
    let fatal: Vec<_> = judge(&kernel.manifest.options, guest)
        .into_iter()
        .filter(|finding| finding.is_fatal())
        .collect();
    if fatal.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = fatal
        .iter()
        .map(|it| format!("  {} is {} ({})", it.option, it.presence.word(), it.what))
        .collect();
    let remedies: Vec<String> = fatal.iter().map(|finding| finding.remedy()).collect();
    Err(KernelError::Unfit {
        name: kernel.manifest.name.clone(),
        release: kernel.manifest.release.clone(),
        findings: lines.join("\n"),
        remedies: format!("build it with {}", remedies.join(", ")),
    })
}

/// Fails when a machine that the plan makes or boots has no kernel, before anything is defined.
pub fn need_kernels(work: &mut Work, plan: &Plan) -> Result<(), Failure> {
    for machine in plan.machines.iter().filter(|machine| machine.boots()) {
        if let Some(subject) = work
            .subjects
            .iter_mut()
            .find(|subject| subject.wanted.machine.name == machine.machine)
        {
            if let Some(failure) = subject.no_kernel.take() {
                return Err(failure);
            }
            if let Some(kernel) = &subject.wanted.machine.kernel
                && kernel.boot == KernelBoot::Installed
            {
                return Err(at(
                    kernel,
                    &subject.wanted.machine,
                    "boot=\"installed\" is not there yet".into(),
                    "leave it out: QEMU loads the kernel, and its modules are on a disk",
                ));
            }
        }
    }
    Ok(())
}

fn placed(kernel: &Kernel, machine: &Machine, error: KernelError) -> Failure {
    match Failure::from(error) {
        Failure::Error { message, hint } => Failure::Error {
            message: format!("{}: machine {}: {message}", kernel.at, machine.name),
            hint,
        },
        other => other,
    }
}

fn at(kernel: &Kernel, machine: &Machine, message: String, hint: &str) -> Failure {
    Failure::error(
        format!("{}: machine {}: {message}", kernel.at, machine.name),
        hint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str, replace: bool) -> Cmdline {
        Cmdline {
            text: text.into(),
            replace,
        }
    }

    #[test]
    fn options_are_added_or_take_the_place_of_the_boxs() {
        let own = "root=/dev/vda rootfstype=ext4 rw loglevel=4";
        assert_eq!(join_cmdline(own, None), own);
        assert_eq!(
            join_cmdline(own, Some(&asked("mitigations=off", false))),
            "root=/dev/vda rootfstype=ext4 rw loglevel=4 mitigations=off"
        );
        assert_eq!(
            join_cmdline(own, Some(&asked("quiet ro", true))),
            "root=/dev/vda rootfstype=ext4 quiet ro"
        );
        assert_eq!(
            join_cmdline(own, Some(&asked("root=LABEL=x", true))),
            "rootfstype=ext4 rw root=LABEL=x"
        );
        assert_eq!(option("a=1 b=2 a=3", "a"), Some("3"));
    }
}
