//! Whether libvirt's sockets fit below a user's home. The path of a Unix socket may have 107 bytes (unix(7)), QEMU's options
//! end at a comma, and libvirt lets nobody choose the path of QEMU's monitor.

use std::path::Path;

use crate::{
    failure::Failure,
    hypervisor::{Fit, monitor_fit, user_folder},
    report::clean::Shown,
};

use super::Session;

/// Why machines do not start, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongSockets {
    pub why: String,
    pub remedy: String,
    /// Whether no machine starts; else some do, at first.
    pub is_always: bool,
}

/// `folder`: where the user's libvirt has its sockets. `None` if they fit.
pub fn long_sockets(folder: &Path) -> Option<LongSockets> {
    const REMEDY: &str = "before you create the first machine, set XDG_CONFIG_HOME to a folder with a short path, for stead and for virsh; your libvirtd must not run while you do (it ends by itself half a minute after its last use); or run machines as root";
    if folder.as_os_str().as_encoded_bytes().contains(&b',') {
        return Some(LongSockets {
            why: format!(
                "machines do not start: libvirt keeps their sockets below {}, and an option of QEMU's ends at a comma",
                folder.shown()
            ),
            remedy: REMEDY.replace("a short path", "a short path and no comma"),
            is_always: true,
        });
    }
    let (when, is_always) = match monitor_fit(folder) {
        Fit::Always => return None,
        Fit::AtFirst => (
            "stop starting when libvirt's daemon has started some",
            false,
        ),
        Fit::Never => ("do not start", true),
    };
    Some(LongSockets {
        why: format!(
            "machines {when}: libvirt keeps their sockets below {}, and the path of a Unix socket may have 107 bytes at most",
            folder.shown()
        ),
        remedy: REMEDY.into(),
        is_always,
    })
}

/// Fails if no machine can start, before anything is made.
pub fn check_sockets(session: &Session) -> Result<(), Failure> {
    let folder = (session.connection.uri().is_session())
        .then(user_folder)
        .flatten();
    match folder.and_then(|folder| long_sockets(&folder)) {
        Some(long) if long.is_always => Err(Failure::error(long.why, long.remedy)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_that_are_too_long_are_told_before_anything_is_made() {
        let of = |home: usize| {
            let home = "h".repeat(home);
            long_sockets(Path::new(&format!("/{home}/.config/libvirt/qemu")))
        };
        assert_eq!(of(18), None);
        let at_first = of(36).unwrap();
        assert!(!at_first.is_always && at_first.why.contains("stop starting"));
        assert!(of(60).unwrap().is_always);
        let comma = long_sockets(Path::new("/home/a,b/.config/libvirt/qemu")).unwrap();
        assert!(comma.is_always && comma.remedy.contains("no comma"));
    }
}
