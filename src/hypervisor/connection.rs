//! Connections to libvirt.

use std::{
    borrow::Cow,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use virt::{connect::Connect, error::Error};

use crate::{
    host::{address::without_logins, process::find_system},
    network::Cable,
    report::{MORE_PROCESSES, clean::Shown, warn},
};

use super::error::HypervisorError;

/// After this time, people are told that libvirt does not answer.
const SILENT: Duration = Duration::from_secs(5);
/// A libvirt of this host that does not answer for this long is given up. Until then, nothing was done.
const LIMIT: Duration = Duration::from_secs(120);

/// The variables that say where libvirt keeps a user's files.
const FOLDERS: [&str; 4] = [
    "HOME",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
];

/// A libvirt URI, with where it comes from, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    pub uri: String,
    pub source: &'static str,
}

impl Uri {
    /// Returns the URI for messages, without a login.
    pub fn shown(&self) -> Cow<'_, str> {
        without_logins(&self.uri, "")
    }

    /// Whether this is the user's own libvirt, which starts automatically and needs neither root nor a group.
    pub fn is_session(&self) -> bool {
        self.uri.starts_with("qemu:///session")
    }

    /// Whether this is root's libvirt on this host.
    pub fn is_system(&self) -> bool {
        self.uri.starts_with("qemu:///system")
    }

    /// How frames get to machines of this libvirt. `None`: they cannot have networks of the project.
    pub fn cable(&self) -> Option<Cable> {
        let is_root = nix::unistd::geteuid().is_root();
        match () {
            () if self.is_session() => Some(Cable::Sockets),
            // Another user's QEMU cannot open the sockets, and only root can make interfaces.
            () if self.is_system() && is_root => Some(Cable::Taps),
            () => None,
        }
    }

    /// Whether it has the form of a URI at all.
    pub fn is_uri(&self) -> bool {
        self.uri.contains("://")
    }

    /// Whether this is a libvirt on this host.
    pub fn is_local(&self) -> bool {
        // driver[+transport]://[user@][host][:port]/…: no host means this host (libvirt.org/uri.html).
        self.uri
            .split_once("://")
            .is_some_and(|(_, rest)| rest.starts_with('/'))
    }
}

/// Returns the URI of `--connect`, of `connect` in the Machinefile, or of `LIBVIRT_DEFAULT_URI`; else
/// qemu:///session for a user, and qemu:///system for root (for whom qemu:///session is the system's socket too).
pub fn choose_uri(flag: Option<&str>, machinefile: Option<&str>, root: bool) -> Uri {
    let of = |uri: &str, source| Uri {
        uri: uri.to_string(),
        source,
    };
    if let Some(uri) = flag {
        return of(uri, "--connect");
    }
    if let Some(uri) = machinefile {
        return of(uri, "connect in the Machinefile");
    }
    if let Some(uri) = std::env::var_os("LIBVIRT_DEFAULT_URI").filter(|uri| !uri.is_empty()) {
        return of(&uri.to_string_lossy(), "LIBVIRT_DEFAULT_URI");
    }
    if root {
        of("qemu:///system", "the default for root")
    } else {
        of("qemu:///session", "the default for a user")
    }
}

/// An open connection. Cheap to clone; every call on it blocks.
#[derive(Clone)]
pub struct Connection {
    pub(super) connect: Arc<Connect>,
    uri: Uri,
}

impl Connection {
    /// Connects to libvirt. Blocks.
    ///
    /// # Errors
    /// If libvirt does not answer or refuses.
    pub fn open(uri: &Uri) -> Result<Self, HypervisorError> {
        Self::ready()?;
        tracing::debug!("libvirt: connecting to {} ({})", uri.shown(), uri.source);
        let refused = |message: String, hint: &str| {
            Err(HypervisorError::Connect {
                uri: format!("{} ({})", uri.shown(), uri.source),
                message,
                hint: hint.into(),
            })
        };
        if !uri.is_uri() {
            return refused(
                "it is not a libvirt URI".into(),
                "write qemu:///session or qemu:///system",
            );
        }
        let told = |name: &str| std::env::var_os(name);
        if uri.is_session()
            && let Some(odd) = relative_folder(&told)
        {
            return refused(
                odd,
                "libvirt would keep its files below the folder that you are in: set it to an absolute path, or unset it",
            );
        }
        let opened = opened(uri, |uri| Connect::open(Some(uri)))?;
        let connect = opened.map_err(|error| {
            let message = error.message().to_string();
            HypervisorError::Connect {
                hint: connect_hint(uri, &message, &Installed::find()),
                uri: format!("{} ({})", uri.shown(), uri.source),
                message,
            }
        })?;
        Ok(Connection {
            connect: Arc::new(connect),
            uri: uri.clone(),
        })
    }

    /// Whatever libvirt needs before a connection.
    pub(super) fn ready() -> Result<(), HypervisorError> {
        super::library::load()?;
        // By default libvirt prints every error to stderr; stead reports them itself.
        virt::error::clear_error_callback();
        Ok(())
    }

    pub(super) fn of(connect: Arc<Connect>, uri: Uri) -> Self {
        Connection { connect, uri }
    }

    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns the versions of libvirt's daemon and of the hypervisor, as major.minor.patch.
    ///
    /// # Errors
    /// If libvirt does not answer.
    pub fn versions(&self) -> Result<(String, String), HypervisorError> {
        use super::error::Doing;
        let text = |v: u32| format!("{}.{}.{}", v / 1_000_000, v / 1_000 % 1_000, v % 1_000);
        let libvirt = self
            .connect
            .lib_version()
            .doing(|| "asking libvirt for its version".into())?;
        let qemu = self
            .connect
            .hyp_version()
            .doing(|| "asking libvirt for QEMU's version".into())?;
        Ok((text(libvirt), text(qemu)))
    }
}

/// Opens a connection, but does not wait for ever for a daemon that is stopped or hangs: it accepts connections, and never
/// answers. On another host, ssh may be asking for a password meanwhile, so that takes as long as it takes.
pub(super) fn opened(
    uri: &Uri,
    open: fn(&str) -> Result<Connect, Error>,
) -> Result<Result<Connect, Error>, HypervisorError> {
    match uri.is_local() {
        true => opened_within(uri, open, SILENT, LIMIT),
        false => Ok(open(&uri.uri)),
    }
}

fn opened_within(
    uri: &Uri,
    open: fn(&str) -> Result<Connect, Error>,
    silent: Duration,
    limit: Duration,
) -> Result<Result<Connect, Error>, HypervisorError> {
    let failed = |message: String| {
        HypervisorError::Connect {
        uri: format!("{} ({})", uri.shown(), uri.source),
        message,
        hint: "look whether its daemon is stopped or hangs (`ps -C libvirtd,virtqemud -o pid,stat,args`: T is stopped, and `kill -CONT PID` continues it), or start it again; running machines are not affected".into(),
    }
    };
    let (sender, receiver) = mpsc::channel();
    let address = uri.uri.clone();
    thread::Builder::new()
        .name("libvirt-open".into())
        .spawn(move || {
            // An error means that nobody waits for it any more.
            let _ = sender.send(open(&address));
        })
        .map_err(|error| HypervisorError::Connect {
            uri: format!("{} ({})", uri.shown(), uri.source),
            message: format!("cannot start a thread: {error}"),
            hint: MORE_PROCESSES.into(),
        })?;
    if let Ok(connect) = receiver.recv_timeout(silent) {
        return Ok(connect);
    }
    warn(&format!(
        "libvirt does not answer at {} ({}); waiting for it",
        uri.shown(),
        uri.source
    ));
    receiver
        .recv_timeout(limit.saturating_sub(silent))
        .map_err(|_| {
            failed(format!(
                "it accepts connections, but has not answered within {limit:?}"
            ))
        })
}

/// Says which variable names a folder of libvirt's by a relative path. An empty HOME does: GLib completes it to `.cache`.
fn relative_folder(told: &dyn Fn(&str) -> Option<OsString>) -> Option<String> {
    let is_relative = |name: &&str| match told(name) {
        Some(value) if value.is_empty() => *name == "HOME",
        Some(value) => !Path::new(&value).is_absolute(),
        None => false,
    };
    let name = FOLDERS.into_iter().find(is_relative)?;
    Some(match told(name).unwrap_or_default() {
        empty if empty.is_empty() => format!("{name} is empty"),
        value => format!("{name} is the relative path {}", Path::new(&value).shown()),
    })
}

/// What is on this host.
struct Installed {
    systemd: bool,
    /// The daemon that libvirt starts for a user.
    daemon: Option<PathBuf>,
}

impl Installed {
    fn find() -> Self {
        let mut daemons = ["virtqemud", "libvirtd"].iter();
        Installed {
            systemd: Path::new("/run/systemd/system").exists(),
            daemon: daemons.find_map(|name| find_system(name)),
        }
    }
}

fn connect_hint(uri: &Uri, message: &str, installed: &Installed) -> String {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    if says(&["Resource temporarily unavailable"]) {
        return MORE_PROCESSES.into();
    }
    if uri.is_session()
        && says(&[
            "Permission denied",
            "Not a directory",
            "Read-only file system",
            "Cannot create user",
            "Unable to create lock",
        ])
    {
        // After `su` and `sudo -E` they may be those of another user.
        return "qemu:///session keeps its files in folders that HOME, XDG_CONFIG_HOME, XDG_CACHE_HOME and XDG_RUNTIME_DIR name: they must be yours, and you must be able to write there (`su -` and `sudo -i` set them; `unset XDG_RUNTIME_DIR` if it is another user's)".into();
    }
    if message.contains("authentication") || message.contains("Permission denied") {
        return format!(
            "your user may not use {}; join the libvirt group (`sudo usermod -aG libvirt $USER`, then log in again), or use `--connect qemu:///session`, which needs no special rights",
            uri.shown()
        );
    }
    if let Some(daemon) = installed.daemon.as_ref().filter(|_| uri.is_session()) {
        return format!(
            "its daemon does not start: run `{}` in a terminal, where it says why (Ctrl-C ends it)",
            daemon.shown()
        );
    }
    if uri.is_session() {
        return "install the libvirt daemon and its QEMU driver (Debian: `apt install libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86`); qemu:///session starts it automatically".into();
    }
    if !uri.is_local() {
        return format!(
            "check that the host answers and runs libvirt: `virsh -c {} list` must work",
            uri.shown()
        );
    }
    if installed.systemd {
        "start libvirt: `sudo systemctl start libvirtd` (Debian: `apt install libvirt-daemon-system`); `stead doctor` checks the rest".into()
    } else {
        "start libvirt: `virtlogd -d && libvirtd -d` as root (systemd is not running here; Debian: `apt install libvirt-daemon-system`); `stead doctor` checks the rest".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_never_answers_is_given_up() {
        fn never(_: &str) -> Result<Connect, Error> {
            loop {
                thread::park();
            }
        }
        let uri = choose_uri(Some("qemu:///system"), None, true);
        let short = Duration::from_millis(20);
        let Err(error) = opened_within(&uri, never, short, short * 2) else {
            panic!("it answered");
        };
        assert_eq!(
            error.to_string(),
            "cannot reach libvirt at qemu:///system (--connect): it accepts connections, but has not answered within 40ms"
        );
    }

    #[test]
    fn the_flag_wins_over_the_file() {
        assert_eq!(choose_uri(Some("a:///"), Some("b:///"), true).uri, "a:///");
        assert_eq!(choose_uri(None, Some("b:///"), true).uri, "b:///");
    }

    #[test]
    fn the_hint_fits_the_host() {
        let system = choose_uri(Some("qemu:///system"), None, false);
        let installed = |systemd, daemon: Option<&str>| Installed {
            systemd,
            daemon: daemon.map(PathBuf::from),
        };
        let hint = |message, systemd| connect_hint(&system, message, &installed(systemd, None));
        assert!(hint("No such file", true).contains("systemctl start libvirtd"));
        assert!(hint("No such file", false).contains("libvirtd -d"));
        assert!(hint("Permission denied", true).contains("libvirt group"));
        let session = choose_uri(Some("qemu:///session"), None, false);
        let of_session =
            |message, daemon| connect_hint(&session, message, &installed(true, daemon));
        assert!(of_session("No such file", None).contains("apt install"));
        let silent = of_session("No such file", Some("/usr/sbin/libvirtd"));
        assert!(silent.contains("`/usr/sbin/libvirtd`"), "{silent}");
        let full = of_session(
            "cannot fork child process: Resource temporarily unavailable",
            None,
        );
        assert!(full.contains("ulimit -u"), "{full}");
        for odd in [
            "Cannot create user runtime directory '/etc/passwd/libvirt': Not a directory",
            "Unable to create lock '/home/a/.cache/libvirt/libvirtd.lock': Read-only file system",
        ] {
            assert!(of_session(odd, Some("/usr/sbin/libvirtd")).contains("XDG_CACHE_HOME"));
        }
        let denied =
            "Cannot create user runtime directory '/run/user/0/libvirt': Permission denied";
        let denied = of_session(denied, None);
        assert!(denied.contains("XDG_RUNTIME_DIR") && !denied.contains("libvirt group"));
    }

    #[test]
    fn folders_of_a_users_libvirt_are_absolute() {
        let said = |name: &'static str, value: &'static str| {
            relative_folder(&|asked| (asked == name).then(|| OsString::from(value)))
        };
        assert_eq!(said("HOME", "").as_deref(), Some("HOME is empty"));
        assert_eq!(
            said("XDG_CACHE_HOME", "rel").as_deref(),
            Some("XDG_CACHE_HOME is the relative path rel")
        );
        // As the specification has it, an empty one is not set.
        assert_eq!(said("XDG_RUNTIME_DIR", ""), None);
        assert_eq!(said("XDG_CONFIG_HOME", "/etc"), None);
    }

    #[test]
    fn hints_have_no_login() {
        let remote = choose_uri(Some("qemu+tls://u:pw66@h/system"), None, false);
        for message in ["No such file", "Permission denied"] {
            let installed = Installed {
                systemd: true,
                daemon: None,
            };
            let hint = connect_hint(&remote, message, &installed);
            assert!(!hint.contains("pw66"), "{hint}");
            assert!(hint.contains("qemu+tls://h/system"), "{hint}");
        }
    }

    #[test]
    fn a_uri_with_a_host_is_remote() {
        let uri = |text: &str| choose_uri(Some(text), None, false);
        assert!(uri("qemu:///session").is_local());
        assert!(uri("qemu+unix:///system").is_local());
        assert!(!uri("qemu+ssh://root@host/system").is_local());
    }
}
