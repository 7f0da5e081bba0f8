//! The same machine without stead and libvirt: QEMU started by hand with the processor, memory,
//! kernel, seed and box image that a machine of stead's runs with, awaited by a loop of ssh.

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{Result, Trouble, While, project::Project, timing};

/// How long a boot may take before the measurement is given up.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// Between two looks at the port.
const POLL: Duration = Duration::from_millis(100);

/// Options of QEMU that make the machine what the guest sees, as opposed to how libvirt talks to
/// it. Each has one value.
const MACHINE_OPTIONS: [&str; 7] = [
    "-accel", "-cpu", "-smp", "-m", "-kernel", "-initrd", "-append",
];
/// Those that bring credentials; there may be several of each.
const SEED_OPTIONS: [&str; 2] = ["-smbios", "-fw_cfg"];

/// What is needed to run a machine of stead's by hand. Lives on after the machine.
pub(crate) struct Recipe {
    folder: PathBuf,
    emulator: PathBuf,
    /// As they were given to QEMU.
    options: Vec<(String, String)>,
    /// The box's image, which the machine's disk is an overlay of.
    pub image: PathBuf,
    pub image_format: String,
    pub login: Login,
}

/// How to log in: what `ssh` makes of the configuration that stead prints.
pub(crate) struct Login {
    pub user: String,
    /// A copy.
    pub key: PathBuf,
}

impl Recipe {
    /// Looks at the running QEMU of the only machine of a project, and keeps copies in `folder`.
    pub(crate) fn of(project: &Project, machine: &str, folder: &Path) -> Result<Recipe> {
        if folder.exists() {
            fs::remove_dir_all(folder).during(folder.display())?;
        }
        fs::create_dir(folder).during(folder.display())?;
        let name = project
            .path()
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let command_line = command_line_of(&format!("guest=stead-{name}-{machine}-"))?;
        let (emulator, arguments) = command_line
            .split_first()
            .ok_or_else(|| Trouble("the command line of QEMU is empty".into()))?;

        let mut options = Vec::new();
        let mut image = None;
        for pair in arguments.windows(2) {
            let [option, value] = pair else { continue };
            match option.as_str() {
                // Its memory backend is an object that libvirt names; QEMU makes one by itself.
                "-machine" => {
                    let kept: Vec<&str> = value
                        .split(',')
                        .filter(|part| !part.starts_with("memory-backend="))
                        .collect();
                    options.push((option.clone(), kept.join(",")));
                }
                "-blockdev" if image.is_none() => image = backing_image(value)?,
                kept if MACHINE_OPTIONS.contains(&kept) => {
                    options.push((option.clone(), value.clone()));
                }
                seed if SEED_OPTIONS.contains(&seed) => {
                    options.push((option.clone(), keep_file(value, folder)?));
                }
                _ => {}
            }
        }
        let (image, image_format) = image
            .ok_or_else(|| Trouble(format!("{machine}: no disk that is an overlay of a box")))?;
        Ok(Recipe {
            emulator: emulator.into(),
            options,
            image,
            image_format,
            login: Login::of(project, machine, folder)?,
            folder: folder.to_owned(),
        })
    }

    /// The value of an option, such as `-kernel`.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        let found = self.options.iter().find(|(option, _)| option == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The options that bring the seed, with their values.
    pub(crate) fn seed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.options
            .iter()
            .filter(|(option, _)| SEED_OPTIONS.contains(&option.as_str()))
            .map(|(option, value)| (option.as_str(), value.as_str()))
    }

    /// Seconds from starting QEMU on a new overlay to the end of the first command over ssh.
    pub(crate) fn seconds_to_ssh(&self) -> Result<f64> {
        let overlay = self.folder.join("overlay.qcow2");
        let mut create = Command::new("qemu-img");
        create
            .args([
                "create",
                "-q",
                "-f",
                "qcow2",
                "-F",
                &self.image_format,
                "-b",
            ])
            .arg(&self.image)
            .arg(&overlay);
        timing::output(&mut create)?;
        let port = free_port()?;
        let said = fs::File::create(self.folder.join("qemu.log")).during("qemu.log")?;
        let copy = said.try_clone().during("qemu.log")?;

        let mut qemu = Command::new(&self.emulator);
        for (option, value) in &self.options {
            qemu.arg(option).arg(value);
        }
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"])
            .arg("-drive")
            .arg(format!("file={},if=virtio,format=qcow2", overlay.display()))
            .arg("-netdev")
            .arg(format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22"))
            .args(["-device", "virtio-net-pci,netdev=net,romfile="])
            .args(["-device", "virtio-rng-pci"])
            .arg("-serial")
            .arg(format!(
                "file:{}",
                self.folder.join("console.log").display()
            ))
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(copy);
        let start = Instant::now();
        let mut running = Running(qemu.spawn().during(timing::written(&qemu))?);
        let deadline = start + BOOT_LIMIT;
        while !(banner(port) && self.login.logs_in(port)?) {
            if let Some(status) = running.0.try_wait().during("QEMU")? {
                let said = fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default();
                return Err(Trouble(format!("QEMU by hand: {status}\n{said}")));
            }
            if Instant::now() > deadline {
                let console =
                    fs::read_to_string(self.folder.join("console.log")).unwrap_or_default();
                let tail: Vec<&str> = console.lines().rev().take(20).collect();
                return Err(Trouble(format!(
                    "QEMU by hand: no login by ssh after {} s; its console, last line first:\n{}",
                    BOOT_LIMIT.as_secs(),
                    tail.join("\n")
                )));
            }
            sleep(POLL);
        }
        let elapsed = start.elapsed().as_secs_f64();
        drop(running);
        fs::remove_file(&overlay).during(overlay.display())?;
        Ok(elapsed)
    }
}

impl Login {
    fn of(project: &Project, machine: &str, folder: &Path) -> Result<Login> {
        let settings = settings_of_ssh(&project.ssh_config()?, machine)?;
        let of = |name: &str| {
            settings
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| Trouble(format!("stead ssh-config: no {name} for {machine}")))
        };
        let key = folder.join("key");
        let theirs = of("identityfile")?;
        fs::copy(&theirs, &key).during(&theirs)?;
        Ok(Login {
            user: of("user")?,
            key,
        })
    }

    fn logs_in(&self, port: u16) -> Result<bool> {
        let status = Command::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "IdentitiesOnly=yes",
            ])
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args(["-o", "ConnectTimeout=30", "-o", "LogLevel=ERROR", "-i"])
            .arg(&self.key)
            .args(["-p", &port.to_string()])
            .arg(format!("{}@127.0.0.1", self.user))
            .arg("true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .during("ssh")?;
        Ok(status.success())
    }
}

/// What `ssh -G` makes of a configuration, names in lower case.
pub(crate) fn settings_of_ssh(config: &Path, host: &str) -> Result<Vec<(String, String)>> {
    let printed = timing::output(
        Command::new("ssh")
            .arg("-G")
            .arg("-F")
            .arg(config)
            .arg(host),
    )?;
    Ok(printed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

/// Ends with its process, whatever happens to the measurement.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("figures: clean-up: QEMU by hand: {error}");
        }
    }
}

/// The arguments of the process that has one which holds `part`.
fn command_line_of(part: &str) -> Result<Vec<String>> {
    for entry in fs::read_dir("/proc").during("/proc")? {
        let path = entry.during("/proc")?.path().join("cmdline");
        // Not every entry is a process, and processes end while one looks.
        let Ok(text) = fs::read(&path) else { continue };
        let arguments: Vec<String> = text
            .split(|byte| *byte == 0)
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect();
        let is_qemu = arguments.first().is_some_and(|a| a.contains("qemu"));
        if is_qemu && arguments.iter().any(|argument| argument.contains(part)) {
            return Ok(arguments);
        }
    }
    Err(Trouble(format!("no QEMU runs with {part}…")))
}

/// The file and format behind a block device of libvirt's, if it is a file and an overlay.
fn backing_image(blockdev: &str) -> Result<Option<(PathBuf, String)>> {
    let Ok(device) = serde_json::from_str::<Value>(blockdev) else {
        return Ok(None);
    };
    let Some(file) = device.get("filename").and_then(Value::as_str) else {
        return Ok(None);
    };
    // -U: the running machine holds the file's lock.
    let printed =
        timing::output(Command::new("qemu-img").args(["info", "-U", "--output=json", file]))?;
    let info: Value = serde_json::from_str(&printed).during("qemu-img info")?;
    let text = |key: &str| info.get(key).and_then(Value::as_str);
    Ok(text("full-backing-filename")
        .or(text("backing-filename"))
        .map(|backing| {
            let format = text("backing-filename-format").unwrap_or("qcow2");
            (PathBuf::from(backing), format.to_owned())
        }))
}

/// An option's value, with a file of the machine's own that it names (a seed) replaced by a copy:
/// it goes away with the machine.
fn keep_file(value: &str, folder: &Path) -> Result<String> {
    let mut parts = Vec::new();
    for part in value.split(',') {
        let named = part
            .split_once('=')
            .filter(|(key, _)| *key == "path" || *key == "file");
        let Some((key, path)) = named else {
            parts.push(part.to_owned());
            continue;
        };
        let count = fs::read_dir(folder).during(folder.display())?.count();
        let copy = folder.join(format!("seed-{count}"));
        fs::copy(path, &copy).during(path)?;
        // QEMU of qemu:///system runs as a user of its own.
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).during(copy.display())?;
        parts.push(format!("{key}={}", copy.display()));
    }
    Ok(parts.join(","))
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).during("a free port")?;
    Ok(listener.local_addr().during("a free port")?.port())
}

/// Whether an SSH server answers. QEMU's user network accepts connections before the guest does,
/// hence the banner.
fn banner(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, POLL) else {
        return false;
    };
    let mut start = [0; 4];
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .and_then(|()| stream.read_exact(&mut start))
        .is_ok_and(|()| &start == b"SSH-")
}
