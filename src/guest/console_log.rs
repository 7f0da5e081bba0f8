//! Reads a console's log while libvirt writes it. virtlogd starts a new file after 2 MiB: `console.log`
//! becomes `console.log.0`, `console.log.0` becomes `console.log.1`, and so on (virtlogd.conf(5):
//! max_size, max_backups). Each boot starts a new file too, and stead renames the log of the previous boot.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// More backups than virtlogd keeps anywhere.
const MOST_PARTS: u32 = 64;

/// How many bytes are read at a time in the search for lines from the end.
const BLOCK: u64 = 64 * 1024;

/// The log and its older parts, read in order from the oldest.
pub struct ConsoleReader {
    path: PathBuf,
    now: File,
    /// The parts newer than `now`, the next one first.
    next: VecDeque<File>,
    /// Whether a part was deleted before it was read.
    lost: bool,
}

impl ConsoleReader {
    /// Opens the log at the start of its oldest part, or before its last `lines` lines.
    ///
    /// # Errors
    /// `NotFound` if there is no log yet.
    pub fn open(path: &Path, lines: Option<usize>) -> io::Result<Self> {
        let mut next = parts(path)?;
        if let Some(lines) = lines {
            let mut left = lines;
            let mut at_end = true;
            let mut from = 0;
            for (n, file) in next.iter_mut().enumerate().rev() {
                from = n;
                if last_lines(file, &mut left, &mut at_end)? {
                    break;
                }
            }
            next.drain(..from);
        }
        let now = next.pop_front().ok_or(io::ErrorKind::NotFound)?;
        Ok(ConsoleReader {
            path: path.into(),
            now,
            next,
            lost: false,
        })
    }

    /// Reads the next bytes; 0 if nothing more has been written yet.
    ///
    /// # Errors
    /// If a part cannot be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // A log that was truncated starts again.
            if self.now.metadata()?.len() < self.now.stream_position()? {
                self.now.rewind()?;
            }
            let rotated = self.rotated();
            // Read after the check for a newer part, so that this one is complete if there is one.
            match self.now.read(buffer)? {
                0 if rotated => self.go_on()?,
                length => return Ok(length),
            }
        }
    }

    /// Whether bytes are missing before those that are read next. Returns `true` once for each gap.
    pub fn has_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Whether there is a newer part than the current one.
    fn rotated(&self) -> bool {
        if !self.next.is_empty() {
            return true;
        }
        match (fs::metadata(&self.path), self.now.metadata()) {
            (Ok(path), Ok(now)) => (path.dev(), path.ino()) != (now.dev(), now.ino()),
            // For a moment between two parts, there is no file with this name.
            _ => false,
        }
    }

    fn go_on(&mut self) -> io::Result<()> {
        if self.next.is_empty() {
            let read = id(&self.now)?;
            let mut newer = parts(&self.path)?;
            let mut before = None;
            for (n, part) in newer.iter().enumerate() {
                if id(part)? == read {
                    before = Some(n);
                }
            }
            match before {
                Some(n) => drop(newer.drain(..=n)),
                // A log that a boot renamed is followed by all parts of the new boot.
                None => self.lost = self.now.metadata()?.nlink() == 0,
            }
            self.next = newer;
        }
        if let Some(next) = self.next.pop_front() {
            self.now = next;
        }
        Ok(())
    }
}

fn id(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Returns virtlogd's name for the part with that number.
fn part(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(format!(".{number}"));
    name.into()
}

/// Opens all parts, the oldest first. They are opened from the newest on, so that a part which is renamed
/// meanwhile is found twice, not missed.
fn parts(path: &Path) -> io::Result<VecDeque<File>> {
    let mut found: VecDeque<File> = VecDeque::new();
    let mut seen = Vec::new();
    let names = std::iter::once(path.to_path_buf()).chain((0..MOST_PARTS).map(|n| part(path, n)));
    for name in names {
        match File::open(&name) {
            Ok(file) => {
                let id = id(&file)?;
                if !seen.contains(&id) {
                    seen.push(id);
                    found.push_front(file);
                }
            }
            // For a moment between two parts, there is no file with the first name.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == path => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Removes all older parts, which belong to a previous boot.
pub(super) fn remove_parts(path: &Path) -> io::Result<()> {
    for number in 0..MOST_PARTS {
        match fs::remove_file(part(path, number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            other => other?,
        }
    }
    Ok(())
}

/// Seeks to the start of the last `left` lines and returns whether the file has that many. If it has fewer,
/// this seeks to its start and reduces `left`. `at_end`: no other part follows, so no line starts after the
/// last newline.
fn last_lines(file: &mut File, left: &mut usize, at_end: &mut bool) -> io::Result<bool> {
    let mut end = file.seek(SeekFrom::End(0))?;
    if *left == 0 {
        return Ok(true);
    }
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.resize(usize::try_from(end - start).map_err(io::Error::other)?, 0);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        for (at, byte) in block.iter().enumerate().rev() {
            if *byte == b'\n' && !std::mem::take(at_end) {
                *left -= 1;
                if *left == 0 {
                    file.seek(SeekFrom::Start(start + at as u64 + 1))?;
                    return Ok(true);
                }
            }
            *at_end = false;
        }
        end = start;
    }
    // The first line may have started in the previous part.
    file.rewind()?;
    Ok(false)
}

/// Waits until a console's log is written to, or a new one starts.
pub struct ConsoleWatch {
    inotify: Option<Inotify>,
}

impl ConsoleWatch {
    pub fn new(path: &Path) -> Self {
        let watched = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).ok().filter(|inotify| {
            // The folder is watched, because a watch of the file would follow it when it is renamed.
            (path.parent()).is_some_and(|folder| inotify.add_watch(folder, watched).is_ok())
        });
        ConsoleWatch { inotify }
    }

    /// Whether it uses inotify, and not polling.
    pub fn wakes(&self) -> bool {
        self.inotify.is_some()
    }

    /// Waits, at most half a second without inotify. `false`: the folder was removed, so nothing more will
    /// be written.
    pub fn wait(&self) -> bool {
        let gone =
            AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
        match self.inotify.as_ref().map(Inotify::read_events) {
            Some(Ok(events)) => !events.iter().any(|event| event.mask.intersects(gone)),
            _ => {
                std::thread::sleep(Duration::from_millis(500));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    struct Log {
        folder: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Self {
            Log {
                folder: tempfile::tempdir().unwrap(),
            }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("console.log")
        }

        fn write(&self, text: &str) {
            let mut file = File::options()
                .create(true)
                .append(true)
                .open(self.path())
                .unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        /// Rotates like virtlogd with two backups.
        fn rotate(&self) {
            let _ = fs::remove_file(part(&self.path(), 1));
            let _ = fs::rename(part(&self.path(), 0), part(&self.path(), 1));
            fs::rename(self.path(), part(&self.path(), 0)).unwrap();
        }
    }

    fn all(reader: &mut ConsoleReader) -> String {
        let mut text = Vec::new();
        let mut buffer = [0; 7];
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => return String::from_utf8(text).unwrap(),
                length => text.extend(&buffer[..length]),
            }
        }
    }

    #[test]
    fn rotation_is_followed_and_nothing_is_left_out() {
        let log = Log::new();
        log.write("one\n");
        let mut reader = ConsoleReader::open(&log.path(), None).unwrap();
        assert_eq!(all(&mut reader), "one\n");
        log.write("end of the first\n");
        log.rotate();
        // For a moment there is no file with this name.
        assert_eq!(all(&mut reader), "end of the first\n");
        log.write("two\n");
        assert_eq!(all(&mut reader), "two\n");
        // Several rotations between two reads.
        log.write("more\n");
        log.rotate();
        log.write("three\n");
        log.rotate();
        log.write("four\n");
        assert_eq!(all(&mut reader), "more\nthree\nfour\n");
        assert!(!reader.has_lost());
        // More rotations than there are backups.
        for text in ["five\n", "six\n", "seven\n"] {
            log.rotate();
            log.write(text);
        }
        assert_eq!(all(&mut reader), "five\nsix\nseven\n");
        assert!(reader.has_lost());
        assert!(!reader.has_lost());
    }

    #[test]
    fn a_boot_begins_another_log() {
        let log = Log::new();
        log.write("boot one\n");
        let mut reader = ConsoleReader::open(&log.path(), None).unwrap();
        all(&mut reader);
        fs::rename(log.path(), log.folder.path().join("console.previous.log")).unwrap();
        log.write("boot two\n");
        log.rotate();
        log.write("goes on\n");
        assert_eq!(all(&mut reader), "boot two\ngoes on\n");
        assert!(!reader.has_lost());
        remove_parts(&log.path()).unwrap();
        assert_eq!(
            all(&mut ConsoleReader::open(&log.path(), None).unwrap()),
            "goes on\n"
        );
    }

    #[test]
    fn a_log_that_was_cut_is_read_from_its_start() {
        let log = Log::new();
        log.write("a long first line\n");
        let mut reader = ConsoleReader::open(&log.path(), None).unwrap();
        all(&mut reader);
        File::create(log.path()).unwrap();
        log.write("new\n");
        assert_eq!(all(&mut reader), "new\n");
    }

    #[test]
    fn last_lines_go_over_parts() {
        let log = Log::new();
        log.write("one\ntwo\n");
        log.rotate();
        log.write("three\nfour\nunfinished");
        let last = |lines| all(&mut ConsoleReader::open(&log.path(), Some(lines)).unwrap());
        assert_eq!(last(0), "");
        assert_eq!(last(1), "unfinished");
        assert_eq!(last(2), "four\nunfinished");
        assert_eq!(last(3), "three\nfour\nunfinished");
        assert_eq!(last(4), "two\nthree\nfour\nunfinished");
        assert_eq!(last(99), "one\ntwo\nthree\nfour\nunfinished");
        log.write(&"x".repeat(200_000));
        log.write("\nlast\n");
        assert_eq!(last(1), "last\n");
        assert_eq!(last(2).len(), 200_016);
    }

    #[test]
    fn no_log_is_not_found() {
        let log = Log::new();
        let error = ConsoleReader::open(&log.path(), None).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
