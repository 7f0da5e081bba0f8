//! Decides which settings of a captured host a machine gets: its command line, sysctls and modules. Rules
//! keep, change or drop each one, and give a reason for a change and a drop. Pure.
//!
//! All except the command line reaches the guest in /run, which stead's init fills before the root's own init
//! starts (provisioners/init). systemd's sysctl.d(5), modules-load.d(5), tmpfiles.d(5) and kmod's
//! modprobe.d(5) read it there, after the box's own files. So the settings apply at every boot from the first
//! on, have no limit of length, write nothing to the machine's disk, and are gone once the machine boots
//! another kernel.

mod cmdline;
mod modules;
mod setting;
mod sysctl;

pub use cmdline::{option_name, options};
pub use modules::module_difference;
pub use setting::{Carried, CarriedSetting, Decision, Guest, Subject};
pub use sysctl::{is_state, sysctl_difference};

use super::facts::Facts;

/// Applies the rules. Without a guest, settings that depend on its size stay open.
pub fn carry(facts: &Facts, guest: Option<Guest>) -> Carried {
    let mut carried = Carried::default();
    cmdline::cmdline(facts, guest, &mut carried);
    sysctl::sysctls(facts, guest, &mut carried);
    modules::modules(facts, &mut carried);
    for patch in &facts.livepatches {
        carried.rows.push(CarriedSetting {
            subject: Subject::Kernel,
            name: "livepatch".into(),
            there: patch.clone(),
            here: None,
            verdict: Decision::Dropped,
            why: "a live patch: the host did not run the kernel of its image",
            set: true,
        });
    }
    carried.files = files(facts, &carried);
    carried
}

/// Returns the files for the guest's /run.
fn files(facts: &Facts, carried: &Carried) -> Vec<(String, String)> {
    let head = format!("# As on {}, by stead.\n", facts.host);
    let mut files = Vec::new();
    if !carried.sysctl.is_empty() {
        let mut text = head.clone();
        for (path, value) in &carried.sysctl {
            // "-": a key that does not exist, or not yet, is not an error.
            text.push_str(&format!("-{path} = {value}\n"));
        }
        // Sorts after all files of the box, of which 99-sysctl.conf is the last.
        files.push(("sysctl.d/zz-stead-capture.conf".to_string(), text));
    }
    if !carried.modules.is_empty() {
        let mut text = head.clone();
        for name in &carried.modules {
            text.push_str(&format!("{name}\n"));
        }
        files.push(("modules-load.d/stead-capture.conf".to_string(), text));
    }
    if !facts.thp.is_empty() {
        let mut text = head.clone();
        for (name, value) in &facts.thp {
            let place = "/sys/kernel/mm/transparent_hugepage";
            text.push_str(&format!("w {place}/{name} - - - - {value}\n"));
        }
        files.push(("tmpfiles.d/stead-capture.conf".to_string(), text));
    }
    for (name, text) in &facts.settings {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._+@".contains(c);
        if let Some((folder @ ("modprobe.d" | "modules-load.d"), file)) = name.split_once('/')
            && file.chars().all(plain)
            && !file.starts_with('.')
        {
            files.push((format!("{folder}/{file}"), text.clone()));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::{cmdline::OF_DISKS, modules::ONLY_FOR_DRIVERS, sysctl::SIZED, *};

    const SMALL: Guest = Guest {
        cpus: 2,
        memory: 1 << 30,
    };

    fn of_cmdline(cmdline: &str) -> Carried {
        let facts = Facts {
            cmdline: cmdline.into(),
            ..Facts::default()
        };
        carry(&facts, Some(SMALL))
    }

    #[test]
    fn what_belongs_to_that_host_is_dropped() {
        let carried = of_cmdline(
            "BOOT_IMAGE=/vmlinuz-6.1 root=UUID=0a1b2c3d-0000-1111-2222-333344445555 ro rootdelay=5 \
             rd.lvm.lv=vg/root resume=/dev/sda2 crashkernel=256M console=tty0 console=ttyS1,115200 \
             ip=dhcp quiet mitigations=off transparent_hugepage=never cgroup_enable=memory \
             lsm=apparmor systemd.unified_cgroup_hierarchy=0 systemd.machine_id=abc \
             cryptkey=UUID=1:2 foo=0a1b2c3d-0000-1111-2222-333344445555 -- single",
        );
        assert_eq!(
            carried.cmdline,
            "quiet mitigations=off transparent_hugepage=never cgroup_enable=memory lsm=apparmor \
             systemd.unified_cgroup_hierarchy=0"
        );
        let row = |name: &str| carried.rows.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row("crashkernel").verdict, Decision::Dropped);
        assert_eq!(row("foo").why, OF_DISKS);
        assert_eq!(row("single").why, "is for that host's init");
        assert_eq!(row("mitigations").verdict, Decision::Kept);
    }

    #[test]
    fn what_counts_cpus_and_memory_is_cut_down() {
        for (there, here) in [
            (
                "isolcpus=domain,managed_irq,1-7",
                "isolcpus=domain,managed_irq,1",
            ),
            ("isolcpus=2-7", ""),
            ("isolcpus=0-7", "isolcpus=1"),
            ("nohz_full=1,4-N", "nohz_full=1"),
            ("rcu_nocbs=0-7:1/2", ""),
            ("maxcpus=1", "maxcpus=1"),
            ("maxcpus=8", ""),
            ("mem=512M", "mem=512M"),
            ("mem=64G", ""),
            ("hugepages=64", "hugepages=64"),
            ("hugepages=4096", "hugepages=256"),
            ("hugepagesz=1G hugepages=16", "hugepagesz=1G"),
            ("isolcpus=18446744073709551616", ""),
            ("mem=99999999999999T", ""),
        ] {
            assert_eq!(of_cmdline(there).cmdline, here, "{there}");
        }
        let facts = Facts {
            cmdline: "isolcpus=1-7".into(),
            ..Facts::default()
        };
        let row = &carry(&facts, None).rows[0];
        assert_eq!((row.verdict, &row.here), (Decision::Changed, &None));
    }

    #[test]
    fn options_with_quotes_stay_whole() {
        assert_eq!(
            options(" a=\"b c\" \"d=e f\"  g "),
            ["a=\"b c\"", "\"d=e f\"", "g"]
        );
        assert_eq!(option_name("\"dyndbg=file x +p\""), "dyndbg");
        assert_eq!(
            of_cmdline("dyndbg=\"file x +p\" quiet").cmdline,
            "dyndbg=\"file x +p\" quiet"
        );
    }

    fn of_sysctl(set: &[(&str, &str)], in_files: &[&str]) -> Carried {
        let facts = Facts {
            memory_kib: 64 << 20,
            sysctl: set
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            sysctl_set: in_files.iter().map(|key| key.to_string()).collect(),
            ..Facts::default()
        };
        carry(&facts, Some(SMALL))
    }

    #[test]
    fn settings_are_kept_and_what_a_host_is_is_not() {
        let carried = of_sysctl(
            &[
                ("vm/swappiness", "1"),
                ("net/ipv4/conf/all/rp_filter", "2"),
                ("net/ipv4/conf/eth0/rp_filter", "2"),
                ("net/ipv4/ip_forward", "1"),
                ("kernel/hostname", "db1"),
                ("kernel/modules_disabled", "1"),
                ("kernel/core_pattern", "|/usr/bin/apport"),
                ("net/ipv4/tcp_mem", "1 2 3"),
                ("fs/file-max", "999"),
                ("vm/dirty_bytes", "0"),
                ("vm/nr_hugepages", "9999"),
                ("vm/min_free_kbytes", "2097152"),
                ("net/netfilter/nf_conntrack_tcp_loose", "0"),
                ("dev/cdrom/info", "a\nb"),
            ],
            &["fs/file-max", "vm/min_free_kbytes", "vm/swappiness"],
        );
        let kept: Vec<String> = carried
            .sysctl
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            kept,
            [
                "net/ipv4/ip_forward=1",
                "fs/file-max=999",
                "net/ipv4/conf/all/rp_filter=2",
                "net/netfilter/nf_conntrack_tcp_loose=0",
                "vm/min_free_kbytes=32768",
                "vm/nr_hugepages=256",
                "vm/swappiness=1",
            ]
        );
        let why = |key: &str| carried.announced(Subject::Sysctl, key);
        assert_eq!(why("net.ipv4.tcp_mem"), Some(SIZED));
        assert_eq!(why("vm.swappiness"), None);
        assert!(why("kernel.modules_disabled").is_some());
        let file = &carried.files[0];
        assert_eq!(file.0, "sysctl.d/zz-stead-capture.conf");
        assert!(file.1.contains("-vm/swappiness = 1\n"));
    }

    #[test]
    fn modules_that_no_hardware_asks_for_are_loaded() {
        let loaded = |name: &str, users: &[&str]| {
            let users = users.iter().map(|user| user.to_string()).collect();
            (name.to_string(), users)
        };
        let names = |all: &[&str]| all.iter().map(|name| name.to_string()).collect();
        let facts = Facts {
            modules: [
                loaded("e1000e", &[]),
                loaded("libata", &["ahci"]),
                loaded("ahci", &[]),
                loaded("br_netfilter", &[]),
                loaded("bridge", &["br_netfilter"]),
                loaded("wireguard_dkms", &[]),
                loaded("efivarfs", &[]),
            ]
            .into(),
            hardware: names(&["e1000e", "ahci"]),
            foreign: names(&["wireguard_dkms"]),
            settings: [
                ("modprobe.d/a.conf".to_string(), "blacklist x\n".to_string()),
                ("modprobe.d/../x".to_string(), "no\n".to_string()),
                ("sysctl.d/x.conf".to_string(), "no\n".to_string()),
            ]
            .into(),
            ..Facts::default()
        };
        let carried = carry(&facts, Some(SMALL));
        assert_eq!(carried.modules, ["br_netfilter"]);
        assert_eq!(
            carried.announced(Subject::Module, "libata"),
            Some(ONLY_FOR_DRIVERS)
        );
        assert_eq!(carried.announced(Subject::Module, "bridge"), None);
        let names: Vec<&str> = carried
            .files
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(
            names,
            ["modules-load.d/stead-capture.conf", "modprobe.d/a.conf"]
        );
    }
}
