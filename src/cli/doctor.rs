//! `stead doctor`: checks this host, and says what to install or change.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::ExitCode};

use clap::Args;
use serde::Serialize;

use crate::{
    failure::Failure,
    host::{
        confine::{Confined, Isolation, Limits, RunEnd, lack},
        paths::DataDir,
        process::{Command, Environment, find, find_system, own_program},
    },
    hypervisor::{Connection, FirmwareAbilities, HostFacts, Uri, choose_acceleration, user_folder},
    log,
    machine::FirmwareSpec,
    machinefile::Accel,
    network::outward,
    report::{
        bytes,
        clean::{Shown, words},
    },
    session::{
        closed_folder::closed_folder,
        firmware::needed_here,
        invocation::Invocation,
        locate::{data_dir, uri},
        long_sockets::long_sockets,
        networks, watch,
    },
};

use super::output;

mod host;

#[derive(Args)]
pub(super) struct DoctorArgs {
    /// Print a bug report: versions, these checks and the end of the last log, without secrets or
    /// your name
    #[arg(long)]
    report: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// It works, but not as well as it could.
    Warning,
    Failed,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Check {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn not(
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Check {
            name,
            verdict,
            found: found.into(),
            remedy: Some(remedy.into()).filter(|remedy| !remedy.is_empty()),
        }
    }
}

/// Less free space for images is a warning, in bytes: a box and a machine's writes need some room.
const LITTLE_DISK: u64 = 5 << 30;
/// Less available memory is a warning, in bytes: one small machine and QEMU's own needs.
const LITTLE_MEMORY: u64 = 1 << 30;

pub(super) fn run(invocation: &Invocation, args: DoctorArgs) -> Result<ExitCode, Failure> {
    let uri = uri(invocation, None);
    let data = data_dir();
    let mut checks = host::checks();
    checks.extend([
        program(
            "qemu",
            "qemu-system-x86_64",
            &["--version"],
            "qemu-system-x86",
        ),
        program("qemu-img", "qemu-img", &["--version"], "qemu-utils"),
        confinement(),
        program("ssh", "ssh", &["-V"], "openssh-client"),
        program("ssh-keygen", "ssh-keygen", &[], "openssh-client"),
        rsync(),
        depmod(),
        companion(watch::PROGRAM, "synced folders with watch=#true need it"),
        companion(networks::PROGRAM, "machines need it for their networks"),
        libslirp(),
        virtiofsd(),
        optional(
            "unison",
            "unison",
            "synced folders with mode=\"two-way\" need it; Debian: `apt install unison`",
        ),
        optional(
            "ansible",
            "ansible-playbook",
            "playbooks that run on this host (`ansible`) need it; Debian: `apt install ansible-core`, others: `pipx install ansible-core`",
        ),
    ]);
    match Connection::open(&uri) {
        Ok(connection) => {
            let said = |what: &str| format!("{} ({}): {what}", uri.shown(), uri.source);
            checks.push(match connection.versions() {
                Ok((libvirt, qemu)) => {
                    Check::ok("libvirt", said(&format!("libvirt {libvirt}, QEMU {qemu}")))
                }
                Err(error) => Check::not(
                    "libvirt",
                    Verdict::Failed,
                    said(&error.to_string()),
                    "libvirt cannot run QEMU, so machines do not start: it needs QEMU, its driver for it (Debian: `apt install qemu-system-x86 libvirt-daemon-driver-qemu`), and space in its cache; then end libvirt's daemon; its log says more",
                ),
            });
            checks.extend(acceleration(&connection)?);
            if let Ok(data) = &data {
                checks.extend(images(&connection, data));
                checks.extend(firmware(invocation, &connection, data));
            }
        }
        Err(error) => {
            use miette::Diagnostic;
            checks.push(Check::not(
                "libvirt",
                Verdict::Failed,
                error.to_string(),
                error
                    .help()
                    .map(|help| help.to_string())
                    .unwrap_or_default(),
            ));
        }
    }
    checks.extend(sockets(&uri));
    checks.push(memory());
    checks.push(host::data(&data));
    checks.extend(data.as_ref().ok().map(disk));
    let failed = checks.iter().any(|check| check.verdict == Verdict::Failed);
    if args.report {
        output::data(&bug_report(&checks, data.as_ref().ok()))?;
    } else if invocation.style.json {
        output::json(&serde_json::json!({ "checks": checks }))?;
    } else {
        output::data(&lines(&checks))?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn lines(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Failed => "failed ",
        };
        text.push_str(&format!(
            "{mark}  {:<12}  {}\n",
            check.name,
            words(&check.found)
        ));
        if let Some(remedy) = &check.remedy {
            text.push_str(&format!("         {:<12}  → {}\n", "", words(remedy)));
        }
    }
    text
}

/// How much of the last log a report contains.
const LOG_LINES: usize = 200;

/// Returns everything that a maintainer asks for, in one text that may be published.
fn bug_report(checks: &[Check], data: Option<&DataDir>) -> String {
    let first_line = |path: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        words(text.lines().next().unwrap_or("unknown"))
    };
    let mut text = format!(
        "stead {} ({})\nhost: {}, Linux {}\nstarted by: {}\n\n{}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        distribution(),
        first_line("/proc/sys/kernel/osrelease"),
        if nix::unistd::geteuid().is_root() {
            "root"
        } else {
            "a user"
        },
        lines(checks)
    );
    match data.map_or(Ok(None), |data| log::last(data, LOG_LINES)) {
        Ok(Some((path, end))) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            text.push_str(&format!("end of the last log, {name}:\n{end}"));
        }
        Ok(None) => text.push_str("there is no log of a run that changed something\n"),
        Err(error) => text.push_str(&format!("cannot read the last log: {error}\n")),
    }
    let home = std::env::var("HOME").ok();
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten();
    log::without_names(
        &text,
        home.as_deref(),
        user.as_ref().map(|user| user.name.as_str()),
    )
}

/// Returns the distribution's name, from os-release(5).
fn distribution() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = (text.lines()).find_map(|line| line.strip_prefix("PRETTY_NAME="));
    words(name.map_or("an unknown distribution", |name| name.trim_matches('"')))
}

fn program(
    name: &'static str,
    program: &'static str,
    arguments: &[&str],
    package: &'static str,
) -> Check {
    let Some(path) = find(program) else {
        return Check::not(
            name,
            Verdict::Failed,
            format!("{program} is not installed"),
            format!(
                "Debian: `apt install {package}`; Fedora and others: the package that has {program}"
            ),
        );
    };
    if arguments.is_empty() {
        return Check::ok(name, path.shown());
    }
    let run = Command::new(&path, package)
        .args(arguments)
        .environment(Environment::Whole)
        .run();
    let reinstall = format!("reinstall it (Debian: `apt install --reinstall {package}`)");
    match run {
        // Such as a library that is missing.
        Ok(output) if !output.status.success() => {
            let said = words(String::from_utf8_lossy(&output.stderr).trim());
            let found = format!("{} does not run ({}): {said}", path.shown(), output.status);
            Check::not(name, Verdict::Failed, found, reinstall)
        }
        Ok(output) => {
            // `ssh -V` prints to stderr.
            let text = if output.stdout.is_empty() {
                output.stderr
            } else {
                output.stdout
            };
            let text = String::from_utf8_lossy(&text);
            Check::ok(name, text.lines().next().unwrap_or_default().trim())
        }
        Err(error) => Check::not(name, Verdict::Failed, error.to_string(), reinstall),
    }
}

/// Warns of releases that are unsafe with a hostile guest at the other end.
fn rsync() -> Check {
    use crate::sync::rsync_version::{RsyncSafety, rsync_safety};
    let mut check = program("rsync", "rsync", &["--version"], "rsync");
    if check.verdict == Verdict::Ok
        && let Some(path) = find("rsync")
        && rsync_safety(&check.found, &path) == RsyncSafety::Old
    {
        check.verdict = Verdict::Warning;
        check.remedy = Some(
            "a hostile guest can read other files of yours through releases before 3.4.0 (CVE-2024-12086), and write some during `stead sync --back` (CVE-2024-12087): install 3.4.0 or newer, or your distribution's patched release (Debian 12: 3.2.7-1+deb12u2)".into(),
        );
    }
    check
}

/// Only kernels from packages and builds need depmod. A user's PATH often lacks its folder.
fn depmod() -> Check {
    match find_system("depmod") {
        Some(path) => Check::ok("depmod", path.shown()),
        None => Check::not(
            "depmod",
            Verdict::Warning,
            "depmod is not installed",
            "machines whose `kernel` is a package or a build need it; Debian: `apt install kmod`",
        ),
    }
}

/// What leads out of networks. Without it, machines get a card on QEMU's own network.
fn libslirp() -> Check {
    const NAME: &str = "libslirp";
    let not = |why: String, remedy: &str| match qemu_has_a_network() {
        true => {
            let found = format!("networks have no way out: {why}");
            Check::not(NAME, Verdict::Warning, found, remedy)
        }
        // As on RHEL 10.
        false => {
            let found = format!(
                "machines do not start: networks have no way out ({why}), and this QEMU has no network of its own"
            );
            Check::not(NAME, Verdict::Failed, found, remedy)
        }
    };
    match watch::beside(networks::PROGRAM) {
        Err(lack) => not(lack.message(), lack.hint().unwrap_or_default()),
        Ok(program) => match outward::is_available(&program) {
            Ok(()) => Check::ok(NAME, "networks have a way out"),
            Err(why) => not(why, outward::HINT),
        },
    }
}

/// Whether QEMU is built with libslirp. A QEMU that cannot be asked is another check's.
fn qemu_has_a_network() -> bool {
    let Some(qemu) = find("qemu-system-x86_64") else {
        return true;
    };
    let listed = Command::new(&qemu, "qemu-system-x86")
        .args(["-M", "none", "-netdev", "help"])
        .environment(Environment::Whole)
        .run();
    match listed {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            text.lines().any(|line| line.trim() == "user")
        }
        _ => true,
    }
}

/// Only folders of types virtiofs and auto need virtiofsd.
fn virtiofsd() -> Check {
    use crate::sync::virtiofs::{Owner, find, no_sandbox};
    let own = Owner {
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
    };
    let found = find().and_then(|found| match no_sandbox(own) {
        Some(lack) => Err(lack),
        None => Ok(found),
    });
    match found {
        Ok(found) => Check::ok(
            "virtiofsd",
            format!("{} at {}", found.version, found.program.shown()),
        ),
        Err(lack) => Check::not(
            "virtiofsd",
            Verdict::Warning,
            lack.why,
            format!("synced folders of type virtiofs need it: {}", lack.remedy),
        ),
    }
}

/// Checks the sandbox that keeps qemu-img from other files while it reads a foreign image.
fn confinement() -> Check {
    const NAME: &str = "confinement";
    let limits = Limits {
        memory: 1 << 30,
        cpu: 10,
        file: 0,
    };
    let run = || {
        let mut probe = Confined::new("qemu-img", limits)?;
        probe.arg("--version");
        probe.run(None)
    };
    match run() {
        Ok(ran) if ran.ended == RunEnd::Exit(0) => {}
        Ok(ran) => {
            return Check::not(
                NAME,
                Verdict::Failed,
                format!(
                    "qemu-img does not run confined: {}",
                    ran.why("qemu-img", &[])
                ),
                "the sandbox gives it only the libraries in /lib*, /usr/lib* and /usr/local/lib: install it from packages",
            );
        }
        // The check of qemu-img itself reports that it is missing.
        Err(error) => {
            return Check::not(
                NAME,
                Verdict::Failed,
                format!("qemu-img does not run confined: {error}"),
                "foreign images cannot be imported without it",
            );
        }
    }
    match (lack(), Isolation::of_host()) {
        (Some(lack), _) => Check::not(
            NAME,
            Verdict::Warning,
            format!("foreign images are read with less protection: {lack}"),
            "boot a kernel with Landlock (Linux 5.13 and newer; `lsm=landlock,…` turns it on), or allow user namespaces: as root, `sysctl -w kernel.unprivileged_userns_clone=1` (Debian) or `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu)",
        ),
        (None, Isolation::Landlock(version)) => {
            Check::ok(NAME, format!("Landlock (version {version}) and seccomp"))
        }
        (None, _) => Check::ok(NAME, "namespaces and seccomp"),
    }
}

/// A program that only some Machinefiles need.
fn optional(name: &'static str, program: &str, need: &str) -> Check {
    match find(program) {
        Some(path) => Check::ok(name, path.shown()),
        None => Check::not(
            name,
            Verdict::Warning,
            format!("{program} is not installed"),
            need,
        ),
    }
}

/// A program that comes with stead, and that not everybody needs.
fn companion(name: &'static str, why: &'static str) -> Check {
    match own_program().map(|stead| stead.with_file_name(name)) {
        Ok(path) if path.is_file() => Check::ok(name, path.shown()),
        Ok(path) => Check::not(
            name,
            Verdict::Warning,
            format!("there is no {}", path.shown()),
            format!("{why}; {}", watch::how_to_get(name)),
        ),
        Err(error) => Check::not(
            name,
            Verdict::Warning,
            format!("cannot find stead itself: {error}"),
            "mount /proc",
        ),
    }
}

/// Checks that QEMU's user can reach the images.
fn images(connection: &Connection, data: &DataDir) -> Option<Check> {
    const NAME: &str = "images";
    match closed_folder(connection, data) {
        Some((found, remedy)) => Some(Check::not(NAME, Verdict::Warning, found, remedy)),
        None => (connection.uri().is_system())
            .then(|| Check::ok(NAME, format!("QEMU can reach {}", data.images().shown()))),
    }
}

/// Checks the firmware and the TPM that machines of the project in this folder want. Most want neither.
fn firmware(invocation: &Invocation, connection: &Connection, data: &DataDir) -> Vec<Check> {
    // `stead validate` says what is wrong with a Machinefile.
    let wanted = needed_here(invocation, data).unwrap_or_default();
    if wanted == FirmwareSpec::default() {
        return Vec::new();
    }
    match connection.firmware_abilities(Accel::Tcg) {
        Ok(abilities) => firmware_checks(abilities, wanted),
        Err(error) => vec![Check::not(
            "firmware",
            Verdict::Failed,
            error.to_string(),
            "machines of this folder's Machinefile need UEFI or a TPM",
        )],
    }
}

/// Returns a check for each of what is wanted.
fn firmware_checks(abilities: FirmwareAbilities, wanted: FirmwareSpec) -> Vec<Check> {
    let none = FirmwareSpec::default();
    [
        (
            wanted.is_uefi(),
            FirmwareSpec {
                kind: wanted.kind,
                ..none
            },
            "uefi",
            "libvirt has firmware for UEFI",
        ),
        (
            wanted.secure_boot && abilities.uefi,
            FirmwareSpec {
                tpm: false,
                ..wanted
            },
            "secure boot",
            "libvirt has firmware with secure boot",
        ),
        (
            wanted.tpm,
            FirmwareSpec { tpm: true, ..none },
            "tpm",
            "libvirt has swtpm",
        ),
    ]
    .into_iter()
    .filter(|(is_wanted, ..)| *is_wanted)
    .map(|(_, one, name, found)| match abilities.lack(&one) {
        None => Check::ok(name, found),
        Some((_, lack, remedy)) => Check::not(
            name,
            Verdict::Failed,
            format!("{lack}, but the Machinefile of this folder needs it"),
            remedy,
        ),
    })
    .collect()
}

fn acceleration(connection: &Connection) -> Result<Vec<Check>, Failure> {
    let facts = HostFacts::observe(connection);
    let choice = choose_acceleration("", None, &facts)?;
    let device = Path::new("/dev/kvm");
    let group = fs::metadata(device).ok().map(|it| it.gid());
    let is_member = group.is_some_and(|group| {
        nix::unistd::getegid().as_raw() == group
            || nix::unistd::getgroups()
                .is_ok_and(|groups| groups.iter().any(|it| it.as_raw() == group))
    });
    Ok(speed(
        &facts,
        choice.why_not_kvm.as_deref(),
        &Device {
            exists: device.exists(),
            is_root: nix::unistd::geteuid().is_root(),
            is_member,
        },
    ))
}

/// What is known of /dev/kvm beside whether it opens.
struct Device {
    exists: bool,
    is_root: bool,
    /// Whether the user is in its group.
    is_member: bool,
}

/// Returns how fast machines run: one check per fact, and one warning if they are slow.
fn speed(facts: &HostFacts, why_not_kvm: Option<&str>, device: &Device) -> Vec<Check> {
    const SLOW: &str =
        "machines run on TCG, QEMU's emulation: everything works, but several times slower";
    let slow = |name, why: &str, remedy: &str| {
        Check::not(name, Verdict::Warning, format!("{why}, so {SLOW}"), remedy)
    };
    let Some(why) = why_not_kvm else {
        let mut checks = vec![
            Check::ok("/dev/kvm", "opens for reading and writing"),
            Check::ok("machines", "run on KVM"),
        ];
        if facts.virtualisation_flag {
            checks.insert(0, Check::ok("cpu", "the host CPU can virtualise"));
        }
        return checks;
    };
    if !facts.virtualisation_flag && facts.needs_virtualisation_flag() {
        // What else may be missing would not help.
        return vec![slow(
            "cpu",
            "the host CPU has neither the vmx nor the svm flag",
            "turn on virtualisation (VT-x, AMD-V) in the firmware; in a cloud or a VM, choose a type with nested virtualisation",
        )];
    }
    let mut checks = Vec::new();
    if facts.virtualisation_flag {
        checks.push(Check::ok("cpu", "the host CPU can virtualise"));
    }
    checks.push(match &facts.kvm_device {
        Ok(()) => slow(
            "machines",
            why,
            "install a QEMU with KVM for this architecture, and restart libvirt's daemon",
        ),
        Err(_) if !device.exists => slow(
            "/dev/kvm",
            "/dev/kvm does not exist",
            "load the module: `sudo modprobe kvm_intel` or `sudo modprobe kvm_amd`; a container needs the device from its host",
        ),
        Err(error) => slow(
            "/dev/kvm",
            &format!("/dev/kvm cannot be opened: {error}"),
            match () {
                () if !error.contains("ermission denied") => {
                    "another hypervisor may use the CPU's virtualisation: end it, or see `sudo dmesg`"
                }
                () if device.is_root => {
                    "this container may not use it: give it the device (`--device /dev/kvm`)"
                }
                () if device.is_member => {
                    "its mode or ACL does not let its group in, although you are in it: `ls -l /dev/kvm` and `getfacl /dev/kvm` show them"
                }
                () => "join its group: `sudo usermod -aG kvm $USER`, then log in again",
            },
        ),
    });
    checks
}

/// Checks that libvirt's socket paths below the user's home are short enough.
fn sockets(uri: &Uri) -> Option<Check> {
    const NAME: &str = "sockets";
    let folder = uri.is_session().then(user_folder).flatten()?;
    Some(match long_sockets(&folder) {
        None => Check::ok(
            NAME,
            format!("libvirt's sockets fit below {}", folder.shown()),
        ),
        Some(long) => {
            let verdict = match long.is_always {
                true => Verdict::Failed,
                false => Verdict::Warning,
            };
            Check::not(NAME, verdict, long.why, long.remedy)
        }
    })
}

fn memory() -> Check {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let available = field("MemAvailable:").unwrap_or(0) * 1024;
    let total = field("MemTotal:").unwrap_or(0) * 1024;
    let found = format!("{} available of {}", bytes(available), bytes(total));
    if available < LITTLE_MEMORY {
        Check::not(
            "memory",
            Verdict::Warning,
            found,
            "halt machines that you do not need (`stead list` shows all), or give them less `memory`",
        )
    } else {
        Check::ok("memory", found)
    }
}

fn disk(data: &DataDir) -> Check {
    // The nearest folder that exists: stead may not have created its own yet.
    let folder = data
        .root()
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    match nix::sys::statvfs::statvfs(folder) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let found = format!("{} free for {}", bytes(free), data.root().shown());
            if free < LITTLE_DISK {
                Check::not(
                    "disk",
                    Verdict::Warning,
                    found,
                    "free some space, remove boxes with `stead box prune` or `stead box remove`, or set STEAD_DATA_DIR to a folder on a larger disk",
                )
            } else {
                Check::ok("disk", found)
            }
        }
        Err(error) => Check::not(
            "disk",
            Verdict::Failed,
            format!("cannot read the free space of {}: {error}", folder.shown()),
            "set STEAD_DATA_DIR to a folder of your own",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(flag: bool, device: Result<(), &str>, is_member: bool) -> Vec<(String, String)> {
        let facts = HostFacts {
            arch: "x86_64".into(),
            virtualisation_flag: flag,
            kvm_device: device.map_err(str::to_string),
            kvm_listed: false,
        };
        let choice = choose_acceleration("", None, &facts).unwrap();
        let device = Device {
            exists: device != Err("No such file or directory (os error 2)"),
            is_root: false,
            is_member,
        };
        speed(&facts, choice.why_not_kvm.as_deref(), &device)
            .into_iter()
            .filter(|check| check.verdict == Verdict::Warning)
            .map(|check| (check.name.to_string(), check.remedy.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn firmware_is_checked_where_a_machinefile_wants_it() {
        use crate::machinefile::Firmware;
        let wanted = |kind, secure_boot, tpm| FirmwareSpec {
            kind,
            secure_boot,
            tpm,
        };
        let said = |uefi, secure_boot, tpm, wanted| -> Vec<String> {
            let abilities = FirmwareAbilities {
                uefi,
                secure_boot,
                tpm,
            };
            (firmware_checks(abilities, wanted).iter())
                .map(|it| format!("{} {:?}", it.name, it.verdict))
                .collect()
        };
        let all = wanted(Firmware::Uefi, true, true);
        assert_eq!(
            said(true, true, true, all),
            ["uefi Ok", "secure boot Ok", "tpm Ok"]
        );
        // What would be the same package is said once.
        assert_eq!(
            said(false, false, false, all),
            ["uefi Failed", "tpm Failed"]
        );
        assert_eq!(
            said(true, false, true, all),
            ["uefi Ok", "secure boot Failed", "tpm Ok"]
        );
        assert_eq!(
            said(false, false, true, wanted(Firmware::Bios, false, true)),
            ["tpm Ok"]
        );
    }

    #[test]
    fn slow_machines_are_one_warning_with_what_helps() {
        let denied = Err("Permission denied (os error 13)");
        let missing = Err("No such file or directory (os error 2)");
        for (flag, device, is_member, name, remedy) in [
            (false, denied, false, "cpu", "in the firmware"),
            (false, Ok(()), true, "cpu", "in the firmware"),
            (true, denied, false, "/dev/kvm", "join its group"),
            (true, denied, true, "/dev/kvm", "although you are in it"),
            (true, missing, false, "/dev/kvm", "load the module"),
            (true, Ok(()), true, "machines", "install a QEMU"),
        ] {
            let found = warnings(flag, device, is_member);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, name);
            assert!(found[0].1.contains(remedy), "{found:?}");
        }
    }
}
