//! A terminal of a program's own. stead sees when the program asks something there, and answers.
//!
//! Without it, a program that asks would write into stead's live lines and stop at its first read, since only stead is in
//! the foreground of the user's terminal (termios(3), "job control").

#![expect(unsafe_code, reason = "system calls that have no safe form")]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    libc,
    pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt},
    sys::termios::{LocalFlags, tcgetattr},
};

use super::tree::processes;

/// How many bytes of what a program shows there are kept, from its end.
const KEPT: usize = 4 << 10;

/// Which processes read is looked up at every third look only: a line that nobody waits for looks the same.
const LOOKS_PER_SEARCH: u32 = 3;

/// How a program waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Line,
    /// For a line that is not shown while it is typed.
    HiddenLine,
    Keys {
        are_shown: bool,
    },
}

pub(super) struct Terminal {
    master: PtyMaster,
    /// Open here too: otherwise the master could not be read while no program has it open (pty(7)).
    slave: File,
    path: PathBuf,
    shown: Vec<u8>,
    answered: Option<String>,
    seen: Option<Wait>,
    looks: u32,
}

impl Terminal {
    pub(super) fn new() -> io::Result<Self> {
        let master =
            posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = PathBuf::from(ptsname_r(&master)?);
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(&path)?;
        Ok(Terminal {
            master,
            slave,
            path,
            shown: Vec::new(),
            answered: None,
            seen: None,
            looks: 0,
        })
    }

    /// Returns the terminal as a standard input.
    pub(super) fn input(&self) -> io::Result<File> {
        self.slave.try_clone()
    }

    /// Has the command lead a session with this terminal (setsid(2), ioctl_tty(2)).
    pub(super) fn lead(&self, command: &mut tokio::process::Command) {
        let slave = self.slave.as_raw_fd();
        // SAFETY: between fork and exec this only makes two system calls, which are safe there (signal-safety(7)). The file
        // is open until then: it is closed by exec.
        unsafe {
            command.pre_exec(move || {
                if libc::setsid() == -1 || libc::ioctl(slave, libc::TIOCSCTTY, 0) == -1 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
    }

    /// Returns how a program of this session waits for an answer, if it did so at the last look too: what it printed for
    /// it has arrived by then.
    pub(super) fn look(&mut self, leader: u32) -> Option<Wait> {
        self.take_output();
        self.looks = self.looks.wrapping_add(1);
        let now = self.waits(leader);
        let before = std::mem::replace(&mut self.seen, now);
        now.filter(|_| now == before)
    }

    fn waits(&self, leader: u32) -> Option<Wait> {
        if self.has_unread() {
            return None;
        }
        let flags = tcgetattr(self.slave.as_fd()).ok()?.local_flags;
        let are_shown = flags.contains(LocalFlags::ECHO);
        if !flags.contains(LocalFlags::ICANON) {
            return Some(Wait::Keys { are_shown });
        }
        if !are_shown {
            return Some(Wait::HiddenLine);
        }
        let searches = self.seen.is_some() || self.looks.is_multiple_of(LOOKS_PER_SEARCH);
        (searches && self.is_read(leader)).then_some(Wait::Line)
    }

    /// Whether something was typed that nobody has read yet.
    fn has_unread(&self) -> bool {
        let mut count: libc::c_int = 0;
        // SAFETY: the file is open, and FIONREAD writes one int (ioctl_tty(2)).
        let done = unsafe { libc::ioctl(self.slave.as_raw_fd(), libc::FIONREAD, &mut count) };
        done == 0 && count > 0
    }

    /// Whether a process of the session waits in a read(2) of this terminal.
    fn is_read(&self, leader: u32) -> bool {
        (processes().into_iter())
            .filter(|it| it.session == leader)
            .any(|it| reads(&Path::new("/proc").join(it.pid.to_string()), &self.path))
    }

    fn take_output(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(n) = self.master.read(&mut buffer)
            && n > 0
        {
            self.shown.extend(&buffer[..n]);
            let over = self.shown.len().saturating_sub(KEPT);
            self.shown.drain(..over);
        }
    }

    /// Returns the line that was begun there since the last answer; often empty.
    pub(super) fn words(&self) -> String {
        begun_line(
            &String::from_utf8_lossy(&self.shown),
            self.answered.as_deref(),
        )
    }

    /// Types an answer, and Enter.
    pub(super) fn answer(&mut self, text: &str) {
        self.shown.clear();
        self.seen = None;
        // A program that has ended meanwhile needs no answer.
        let _ = self.master.write_all(format!("{text}\n").as_bytes());
        self.answered = Some(text.to_string());
    }
}

/// Returns the last line of what a terminal showed, without the answer that it showed first as it was typed. It shows Enter
/// as `^J` to programs that read keys (termios(3), ECHOCTL).
fn begun_line(shown: &str, answered: Option<&str>) -> String {
    let rest = answered
        .and_then(|answered| shown.strip_prefix(answered))
        .map_or(shown, |rest| rest.strip_prefix("^J").unwrap_or(rest));
    rest.rsplit(['\n', '\r'])
        .next()
        .unwrap_or_default()
        .to_string()
}

/// Whether a process waits in a read(2) of the terminal.
fn reads(process: &Path, terminal: &Path) -> bool {
    let is_of = |fd: u64| {
        fs::read_link(process.join("fd").join(fd.to_string()))
            .is_ok_and(|file| file == terminal || file == Path::new("/dev/tty"))
    };
    match fs::read_to_string(process.join("syscall")) {
        // proc_pid_syscall(5): the number of the call, then its arguments in hexadecimal.
        Ok(call) => {
            let mut words = call.split_whitespace();
            let is_read = words.next() == Some(libc::SYS_read.to_string().as_str());
            let fd = words.next().and_then(|word| word.strip_prefix("0x"));
            let fd = fd.and_then(|word| u64::from_str_radix(word, 16).ok());
            is_read && fd.is_some_and(is_of)
        }
        // Some kernels show calls to root only (ptrace(2), "ptrace_scope"). The name of the place in the kernel is that of
        // a read of a terminal, and of some sockets.
        Err(_) => {
            let place = fs::read_to_string(process.join("wchan")).unwrap_or_default();
            matches!(place.as_str(), "n_tty_read" | "wait_woken") && is_of(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_no_part_of_the_next_question() {
        assert_eq!(begun_line("Password: ", None), "Password: ");
        assert_eq!(begun_line("yes\r\nAgain? ", Some("yes")), "Again? ");
        assert_eq!(begun_line("yes^JAgain? ", Some("yes")), "Again? ");
        assert_eq!(begun_line("\r\nAgain? ", Some("hidden")), "Again? ");
        assert_eq!(begun_line("yes^J", Some("yes")), "");
    }
}
