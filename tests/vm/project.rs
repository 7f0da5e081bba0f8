//! A project in a folder of its own, and stead run in it.

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `./dev test`"))
}

pub(crate) fn is_system() -> bool {
    variable("STEAD_TEST_MODE") == "system"
}

pub(crate) fn uri() -> &'static str {
    if is_system() {
        "qemu:///system"
    } else {
        "qemu:///session"
    }
}

/// A box archive that `./dev` built.
pub(crate) fn archive(recipe: &str) -> PathBuf {
    Path::new(&variable("STEAD_TEST_BOXES")).join(format!("{recipe}.stead.tar.zst"))
}

/// Where test projects and data are; removed when the process ends by `./dev`.
fn scratch() -> PathBuf {
    // Not in a folder that only its owner enters: QEMU of qemu:///system has a user of its own.
    let base = std::env::temp_dir();
    base.join(format!("stead-vm-tests-{}", std::process::id()))
}

/// One data directory for all tests, with the boxes in it.
pub(crate) fn data() -> &'static Path {
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    DATA.get_or_init(|| {
        let data = scratch().join("data");
        fs::create_dir_all(&data).unwrap();
        for recipe in ["debian-12", "debian-12-cloud"] {
            let output = stead_in(Path::new("/"), &data)
                .args(["box", "add"])
                .arg(archive(recipe))
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", text(&output));
        }
        data
    })
}

/// Another user of the host finds nothing in stead's data that it may read, change or list.
#[track_caller]
pub(crate) fn assert_closed_to_others(data: &Path) {
    fn look(folder: &Path, open: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            // Other tests make and remove files meanwhile.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let mode = metadata.mode() & 0o7777;
            let name = entry.file_name().to_string_lossy().into_owned();
            let no_secret =
                name.ends_with(".pub") || ["ssh_config", "known_hosts"].contains(&&*name);
            if mode & 0o066 != 0 && !no_secret && !metadata.is_symlink() {
                open.push(format!("{mode:o} {}", entry.path().display()));
            }
            if metadata.is_dir() && mode & 0o011 != 0 {
                look(&entry.path(), open);
            }
        }
    }
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;
    let passable = if is_system() { 0o711 } else { 0o700 };
    assert_eq!(mode(data.to_path_buf()), passable);
    assert_eq!(mode(data.join("images")), passable);
    assert_eq!(mode(data.join("locks")), 0o700);
    let mut open = Vec::new();
    look(data, &mut open);
    assert!(open.is_empty(), "{open:#?}");
}

/// A data directory of a test's own, with nothing in it.
pub(crate) fn own_data(name: &str) -> PathBuf {
    let data = scratch().join(name);
    fs::create_dir_all(&data).unwrap();
    data
}

/// The stead under test with nothing of this process's environment that could matter.
pub(crate) fn stead_in(folder: &Path, data: &Path) -> Command {
    let mut command = Command::new(variable("STEAD_BIN"));
    command
        .current_dir(folder)
        .env("STEAD_DATA_DIR", data)
        .env_remove("LIBVIRT_DEFAULT_URI")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub(crate) struct Project {
    pub folder: PathBuf,
    pub data: PathBuf,
}

impl Project {
    pub(crate) fn new(name: &str, machinefile: &str) -> Self {
        Self::with_data(name, machinefile, data())
    }

    pub(crate) fn with_data(name: &str, machinefile: &str, data: &Path) -> Self {
        let folder = scratch().join(name);
        fs::create_dir_all(&folder).unwrap();
        let project = Project {
            folder,
            data: data.to_path_buf(),
        };
        project.write("Machinefile", machinefile);
        project
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn stead(&self, arguments: &[&str]) -> Command {
        // Whoever writes a project agrees to what it does. One that is broken cannot be agreed to,
        // and what is tested then says so.
        let _ = stead_in(&self.folder, &self.data)
            .args(["trust", "--yes", "--quiet"])
            .output();
        self.stead_without_trust(arguments)
    }

    /// For what somebody does with a project that nobody has agreed to.
    pub(crate) fn stead_without_trust(&self, arguments: &[&str]) -> Command {
        let mut command = stead_in(&self.folder, &self.data);
        command.args(arguments);
        command
    }

    /// Runs to a given exit code; anything else fails the test with all that was said.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str], code: i32) -> Said {
        let output = self.stead(arguments).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "stead {}: {}",
            arguments.join(" "),
            text(&output)
        );
        Said::from(output)
    }

    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> Said {
        self.run(arguments, 0)
    }

    #[track_caller]
    pub(crate) fn with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .stead(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let said = self.ok(arguments);
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.out))
    }

    /// The state of a machine, as `status` says it.
    #[track_caller]
    pub(crate) fn state(&self, machine: &str) -> String {
        self.field(machine, "state").as_str().unwrap().to_string()
    }

    #[track_caller]
    pub(crate) fn field(&self, machine: &str, field: &str) -> Value {
        let status = self.json(&["status", "--json"]);
        status["machines"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["machine"] == machine)
            .unwrap_or_else(|| panic!("no {machine} in {status}"))[field]
            .clone()
    }

    /// Step ids of what `stead plan` (with more arguments) would do to a machine.
    #[track_caller]
    pub(crate) fn steps(&self, machine: &str, arguments: &[&str]) -> Vec<String> {
        let mut all = vec!["plan", "--json"];
        all.extend(arguments);
        let plan = self.json(&all);
        plan["machines"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["machine"] == machine)
            .unwrap()["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["id"].as_str().unwrap().to_string())
            .collect()
    }

    #[track_caller]
    pub(crate) fn domain(&self, machine: &str) -> String {
        self.field(machine, "domain").as_str().unwrap().to_string()
    }

    /// Has the guest reboot by itself, does `meanwhile`, and waits until it is up again: it goes on
    /// answering for some seconds after it was told to, so that only another boot is one.
    #[track_caller]
    pub(crate) fn reboot(&self, machine: &str, meanwhile: impl FnOnce()) {
        let before = self.boot_id(machine).expect("it is up");
        // The connection goes with it, whatever its exit code.
        let _ = self
            .stead(&["exec", machine, "--", "sudo", "systemctl", "reboot"])
            .output();
        meanwhile();
        let deadline = Instant::now() + Duration::from_secs(900);
        while !matches!(self.boot_id(machine), Some(now) if now != before) {
            assert!(Instant::now() < deadline, "{machine} does not come back");
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Tells one boot from the next (random(4)); `None` while the guest cannot be asked.
    pub(crate) fn boot_id(&self, machine: &str) -> Option<Vec<u8>> {
        const FILE: &str = "/proc/sys/kernel/random/boot_id";
        let asked = self.stead(&["exec", machine, "--", "cat", FILE]).output();
        Some(asked.unwrap())
            .filter(|said| said.status.success())
            .map(|said| said.stdout)
    }

    /// Nothing of the project is left: no domain, no disk, no folder of keys, no lock.
    #[track_caller]
    pub(crate) fn assert_gone(&self, machine: &str) {
        assert_eq!(self.state(machine), "absent");
        let domain = self.domain(machine);
        let listed = virsh(&["list", "--all", "--name"]);
        assert!(!listed.lines().any(|line| line == domain), "{listed}");
        assert!(
            !self
                .data
                .join("images")
                .join(format!("{domain}.qcow2"))
                .exists(),
            "the disk of {domain} is left"
        );
        let uuid = self.field(machine, "uuid");
        let uuid = uuid.as_str().unwrap();
        for left in [
            self.data.join("machines").join(uuid),
            self.data.join("locks").join(format!("{uuid}.lock")),
        ] {
            assert!(!left.exists(), "{} is left", left.display());
        }
    }
}

/// Calls `each` with every process of the host and its command line, whose words end in NULs.
pub(crate) fn each_process(mut each: impl FnMut(i32, &str)) {
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = (process.file_name().to_str()).and_then(|name| name.parse().ok()) else {
            continue;
        };
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        each(pid, &String::from_utf8_lossy(&line));
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // A failing test leaves nothing running either.
        let _ = self.stead(&["destroy", "-y", "-q", "--leftovers"]).output();
    }
}

#[derive(Debug)]
pub(crate) struct Said {
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Fails unless every one of `parts` was said on stderr.
    #[track_caller]
    pub(crate) fn says(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in:\n{}", self.err);
        }
        self
    }
}

pub(crate) fn virsh(arguments: &[&str]) -> String {
    let output = Command::new("virsh")
        .args(["--quiet", "--connect", uri()])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "virsh {arguments:?}: {}",
        text(&output)
    );
    String::from_utf8(output.stdout).unwrap()
}
