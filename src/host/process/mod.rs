//! Runs programs, and identifies processes, even if another process gets the same pid later.

mod as_root;
mod command;
mod error;
mod find;
pub mod inherited;
mod output;
mod question;
mod start;
mod terminal;
mod tree;

pub use as_root::run_as_root;
pub use command::{Asks, Command, Environment, Limits, Output};
pub use error::ProgramError;
pub use find::{SYSTEM_FOLDERS, find, find_all, find_system};
pub use question::{Answers, Asked, Reply};
pub use start::{Start, become_program, shown_script};
pub use tree::Tree;

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// Returns the path of this process's program, to run it again.
///
/// # Errors
/// If it cannot be read from /proc.
pub fn own_program() -> std::io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    // proc_pid_exe(5): if the program was replaced while it runs, these words follow its path, and the new
    // program has the old path.
    let text = path.as_os_str().as_bytes();
    Ok(match text.strip_suffix(b" (deleted)") {
        Some(before) if !path.exists() => OsStr::from_bytes(before).into(),
        _ => path,
    })
}

/// A process, identified by its pid, its start time and the host's boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// In clock ticks since the host booted (proc_pid_stat(5), field 22).
    pub started: u64,
    /// /proc/sys/kernel/random/boot_id
    pub boot: String,
    /// The inode of the pid's namespace (pid_namespaces(7)); `None` in records of older versions of stead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<u64>,
}

impl Process {
    /// This process. `None` if it cannot be read from /proc.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Process {
            pid,
            started: start_of(&stat)?,
            boot: boot.trim().to_string(),
            namespace: own_namespace(),
        })
    }

    /// Whether it runs, in this pid namespace, so that its pid can be used here.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| {
            let here = self.namespace.is_none() || self.namespace == now.namespace;
            here && now.started == self.started && now.boot == self.boot
        })
    }

    /// Whether it is stopped (SIGSTOP), and so does nothing.
    pub fn is_stopped(&self) -> bool {
        is_stopped(self.pid)
    }

    /// Whether it may still run. A process in another pid namespace (in a container, or outside of this one)
    /// cannot be checked by its pid here, so it counts as running until the host reboots.
    pub fn may_be_alive(&self) -> bool {
        let elsewhere = self.namespace.is_some() && self.namespace != own_namespace();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        self.is_alive() || (elsewhere && boot.is_ok_and(|boot| boot.trim() == self.boot))
    }
}

/// Whether the process with this pid is stopped (proc_pid_status(5)).
pub fn is_stopped(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|status| status.contains("\nState:\tT") || status.contains("\nState:\tt"))
}

fn own_namespace() -> Option<u64> {
    Some(std::fs::metadata("/proc/self/ns/pid").ok()?.ino())
}

/// Returns the start time from a `stat` file; `None` for a zombie.
fn start_of(stat: &str) -> Option<u64> {
    // The second field is the program's name, which may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_runs_is_alive_and_another_of_its_number_is_not_it() {
        let own = Process::own().unwrap();
        assert!(own.is_alive());
        let earlier = Process {
            started: own.started - 1,
            ..own.clone()
        };
        assert!(!earlier.is_alive());
        let before_a_reboot = Process {
            boot: "another".into(),
            ..own
        };
        assert!(!before_a_reboot.is_alive());
    }

    /// A claim of a process in a container is not taken for that of a dead process, and its pid means nothing
    /// here.
    #[test]
    fn one_of_another_pid_namespace_is_not_judged_by_its_pid() {
        let own = Process::own().unwrap();
        let contained = Process {
            namespace: own.namespace.map(|it| it + 1),
            ..own.clone()
        };
        assert!(!contained.is_alive() && contained.may_be_alive());
        let before_a_reboot = Process {
            boot: "another".into(),
            ..contained
        };
        assert!(!before_a_reboot.may_be_alive());
        let before_it_was_noted = Process {
            namespace: None,
            ..own
        };
        assert!(before_it_was_noted.is_alive());
    }

    #[test]
    fn names_of_programs_may_be_odd() {
        let stat = "7 (a) S (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(start_of(stat), Some(4242));
        assert_eq!(start_of(&stat.replace(") S 1", ") Z 1")), None);
    }
}
