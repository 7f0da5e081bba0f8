//! Forwards file events of the host to watchers in guests, for folders shared over virtiofs or 9p.

use std::{
    collections::HashMap,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use crate::{
    guest::{GuestError, Remote},
    host::shell::shell_quote,
};

/// provisioners/guest/stead-events.
const EVENTS_SCRIPT: &str = include_str!("../../provisioners/guest/stead-events");

/// The state of a file: modification time in seconds and nanoseconds, size in bytes, inode. The time of
/// status change is not part of it, because forwarding itself sets that.
type State = (i64, i64, u64, u64);

/// Forwards the events of one shared folder to one guest.
///
/// The guest touches the file for this, which is the host's file, so the host's own watchers see an event
/// too. Therefore a path is forwarded only if its state has changed since it last was; otherwise events
/// would go back and forth for ever.
#[derive(Debug, Default)]
pub struct Forwarder {
    seen: HashMap<PathBuf, Option<State>>,
}

impl Forwarder {
    /// Triggers the watchers in the guest for `changes`: paths, relative to `from` on the host, that were
    /// changed, made or removed. `from` is mounted at `to` in the guest. Returns how many of them had
    /// changed since they were last forwarded. It takes one command over the machine's connection,
    /// whatever their number. Events that cannot be forwarded, such as in a read-only folder, are
    /// silently dropped.
    ///
    /// # Errors
    /// If ssh cannot be run.
    pub async fn forward(
        &mut self,
        remote: &Remote,
        from: &Path,
        to: &str,
        changes: &[PathBuf],
    ) -> Result<usize, GuestError> {
        let news = self.news(from, changes);
        if news.is_empty() {
            return Ok(0);
        }
        let mut paths = Vec::new();
        for path in &news {
            paths.extend(path.as_os_str().as_bytes());
            paths.push(0);
        }
        let command = format!(
            "exec sh -c {} stead-events {}",
            shell_quote(EVENTS_SCRIPT),
            shell_quote(to)
        );
        remote
            .stream(&command, Some(&paths), &mut |_, _| {})
            .await?;
        Ok(news.len())
    }

    /// Returns the paths whose state has changed since they were last forwarded.
    fn news(&mut self, from: &Path, changes: &[PathBuf]) -> Vec<PathBuf> {
        let mut news = Vec::new();
        for path in changes {
            let inside = !path.as_os_str().is_empty()
                && path
                    .components()
                    .all(|part| matches!(part, std::path::Component::Normal(_)));
            if !inside {
                continue;
            }
            let state = fs::symlink_metadata(from.join(path))
                .ok()
                .map(|it| (it.mtime(), it.mtime_nsec(), it.size(), it.ino()));
            // A folder counts as changed when files in it come and go, though those have events of their
            // own. That is harmless.
            if self.seen.get(path) != Some(&state) {
                self.seen.insert(path.clone(), state);
                news.push(path.clone());
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
        time::{Duration, SystemTime},
    };

    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

    use super::*;

    fn run_here(folder: &Path, paths: &[u8]) {
        let mut child = Command::new("sh")
            .args(["-c", EVENTS_SCRIPT, "stead-events"])
            .arg(folder)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(paths).unwrap();
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn watchers_are_told_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let odd = "it's \"odd\" \n name";
        fs::create_dir(folder.path().join("sub")).unwrap();
        for name in ["plain", odd, "sub/-dash"] {
            fs::write(folder.path().join(name), name).unwrap();
            let file = fs::File::options()
                .write(true)
                .open(folder.path().join(name))
                .unwrap();
            let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
            file.set_modified(old).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        let flags = AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE;
        for path in [folder.path().to_path_buf(), folder.path().join("sub")] {
            watch.add_watch(&path, flags).unwrap();
        }
        let paths = format!("plain\0{odd}\0sub/-dash\0link\0gone/away\0");
        run_here(folder.path(), paths.as_bytes());
        let mut told: Vec<String> = Vec::new();
        while let Ok(events) = watch.read_events() {
            for event in events {
                assert!(
                    !event
                        .mask
                        .intersects(AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE),
                    "{event:?}"
                );
                let name = event.name.unwrap_or_else(|| ".".into());
                let what = match event.mask.contains(AddWatchFlags::IN_ATTRIB) {
                    true => "attrib",
                    false => "close",
                };
                told.push(format!("{what} {}", name.to_string_lossy()));
            }
        }
        for name in ["plain", odd, "-dash"] {
            assert!(told.contains(&format!("attrib {name}")), "{told:?}");
            assert!(told.contains(&format!("close {name}")), "{told:?}");
        }
        assert!(told.contains(&"attrib link".to_string()), "{told:?}");
        assert!(told.contains(&"attrib .".to_string()), "{told:?}");
        for name in ["plain", odd, "sub/-dash"] {
            let path = folder.path().join(name);
            assert_eq!(fs::read_to_string(&path).unwrap(), name);
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!(
                (metadata.mtime(), metadata.mtime_nsec()),
                (1_000_000_000, 123_456_789)
            );
        }
        assert!(!folder.path().join("gone").exists());
    }

    #[test]
    fn what_is_as_it_was_is_no_news() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        let mut forwarder = Forwarder::default();
        let mut news = |paths: &[&str]| {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            forwarder.news(folder.path(), &paths).len()
        };
        assert_eq!(news(&["a", "gone"]), 2);
        assert_eq!(news(&["a", "gone"]), 0);
        fs::write(folder.path().join("a"), "22").unwrap();
        fs::write(folder.path().join("gone"), "back").unwrap();
        assert_eq!(news(&["a", "gone"]), 2);
        assert_eq!(news(&["../out", "/etc/passwd", ""]), 0);
    }
}
