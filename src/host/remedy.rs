//! What to do about errors whose cause is the state of the computer, whatever file or program they are about.

use std::{error::Error, io};

use nix::errno::Errno;

/// What to do where a file system is full.
pub const FREE_SPACE: &str = "free some space there (`stead box prune` and `stead box remove` delete boxes), or set STEAD_DATA_DIR to a folder on a larger disk";

pub use crate::report::MORE_PROCESSES;

/// Returns what to do, if the computer itself is the cause.
pub fn of(error: &io::Error) -> Option<&'static str> {
    if let Some(errno) = error.raw_os_error().map(Errno::from_raw) {
        match errno {
            // "Too many open files"
            Errno::EMFILE => {
                return Some("raise the limit of open files: `ulimit -n 1024`, then run it again");
            }
            Errno::ENFILE => {
                return Some(
                    "all programs together have too many files open: end some, or raise it: `sudo sysctl fs.file-max=1000000`",
                );
            }
            _ => {}
        }
    }
    Some(match error.kind() {
        io::ErrorKind::StorageFull => FREE_SPACE,
        io::ErrorKind::QuotaExceeded => {
            "your quota is used up (`quota` shows it): free some space there (`stead box prune` and `stead box remove` delete boxes), or set STEAD_DATA_DIR to a folder on another disk"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "its file system is mounted read-only (`findmnt -T FOLDER` shows it): mount it for writing, or set STEAD_DATA_DIR to a folder elsewhere"
        }
        // "File too large"
        io::ErrorKind::FileTooLarge => {
            "raise the limit of the size of files: `ulimit -f unlimited`, then run it again"
        }
        io::ErrorKind::OutOfMemory => {
            "end other programs, or raise the limit of memory (`ulimit -v` shows it)"
        }
        _ => return None,
    })
}

/// As [`of`], for an error that another process has printed as std does: it ends in "(os error 28)".
pub fn of_words(said: &str) -> Option<&'static str> {
    let (_, number) = said.rsplit_once("(os error ")?;
    let number = number.split_once(')')?.0.parse().ok()?;
    of(&io::Error::from_raw_os_error(number))
}

/// Returns what to do about an error that one of the system caused.
pub fn of_causes(error: &dyn Error) -> Option<&'static str> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(remedy) = error.downcast_ref::<io::Error>().and_then(of) {
            return Some(remedy);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_computer_have_their_remedies() {
        let of = |errno: Errno| of(&io::Error::from(errno));
        for (errno, word) in [
            (Errno::ENOSPC, "free some space"),
            (Errno::EDQUOT, "quota"),
            (Errno::EROFS, "read-only"),
            (Errno::EFBIG, "ulimit -f"),
            (Errno::EMFILE, "ulimit -n"),
            (Errno::ENFILE, "fs.file-max"),
            (Errno::ENOMEM, "memory"),
        ] {
            assert!(of(errno).unwrap().contains(word), "{errno}");
        }
        assert_eq!(of(Errno::ENOENT), None);
        let said = io::Error::from(Errno::ENOSPC).to_string();
        assert_eq!(of_words(&format!("cannot write: {said}")), Some(FREE_SPACE));
        assert_eq!(of_words("cannot write (os error x)"), None);
    }
}
