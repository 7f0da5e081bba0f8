//! The file of a run: held in memory until the run changes something, then written line by line.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, TryLockError},
    thread,
    time::Duration,
};

use super::OUTPUT;
use crate::{
    host::{file, open, paths::DataDir},
    report::{clean::Shown, stdio},
};

/// How many runs are kept, with the one that is written.
const KEPT: usize = 20;
/// A longer file loses the older half of its lines, in bytes.
const LONGEST: u64 = 2 << 20;
/// The same for what is held in memory.
const HELD: usize = 128 << 10;

static RUN: Mutex<Run> = Mutex::new(Run::Off);

enum Run {
    /// Nothing is to be kept, or cannot be.
    Off,
    Held {
        command: String,
        data: DataDir,
        lines: VecDeque<String>,
        bytes: usize,
    },
    Kept {
        file: File,
        path: PathBuf,
        bytes: u64,
    },
}

/// A panic may come while this thread holds the lock, and is logged too: so nobody waits for ever.
fn run() -> Option<MutexGuard<'static, Run>> {
    for _ in 0..100 {
        match RUN.try_lock() {
            Ok(run) => return Some(run),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

pub(super) fn begin(command: &str, data: Option<DataDir>) {
    if let (Some(mut run), Some(data)) = (run(), data) {
        *run = Run::Held {
            command: command.to_string(),
            data,
            lines: VecDeque::new(),
            bytes: 0,
        };
    }
}

pub(super) fn write(text: &str) {
    let Some(mut run) = run() else { return };
    match &mut *run {
        Run::Off => {}
        Run::Held { lines, bytes, .. } => {
            *bytes += text.len();
            lines.push_back(text.to_string());
            while *bytes > HELD {
                let Some(first) = lines.pop_front() else {
                    break;
                };
                *bytes -= first.len();
            }
        }
        Run::Kept { file, path, bytes } => {
            if let Err(error) = append(file, bytes, text) {
                let path = path.shown();
                *run = Run::Off;
                cannot(&path, &error);
            }
        }
    }
}

fn append(file: &mut File, bytes: &mut u64, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    *bytes += text.len() as u64;
    if *bytes > LONGEST {
        *bytes = shorten(file)?;
    }
    Ok(())
}

/// Removes the older half of the lines, but the first one. Returns the new size.
fn shorten(file: &mut File) -> io::Result<u64> {
    let mut all = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut all)?;
    let after_line = |from: usize| {
        let end = all[from..].iter().position(|byte| *byte == b'\n');
        end.map_or(all.len(), |end| from + end + 1)
    };
    let first = after_line(0);
    let kept = after_line(all.len() / 2);
    let mut text = all[..first].to_vec();
    text.extend_from_slice(b"(older lines were removed here)\n");
    text.extend_from_slice(&all[kept..]);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&text)?;
    file.set_len(text.len() as u64)?;
    Ok(text.len() as u64)
}

pub(super) fn keep() -> Option<PathBuf> {
    let mut run = run()?;
    let (command, data, lines) = match &mut *run {
        Run::Off => return None,
        Run::Kept { path, .. } => return Some(path.clone()),
        Run::Held {
            command,
            data,
            lines,
            ..
        } => (&*command, &*data, &*lines),
    };
    // The command itself says what is wrong with the data folder.
    if data.check().is_err() {
        *run = Run::Off;
        return None;
    }
    match create(command, data, lines) {
        Ok((file, path, bytes)) => {
            *run = Run::Kept {
                file,
                path: path.clone(),
                bytes,
            };
            Some(path)
        }
        Err(error) => {
            let folder = data.run_logs().shown();
            *run = Run::Off;
            cannot(&folder, &error);
            None
        }
    }
}

fn cannot(place: &str, error: &io::Error) {
    stdio::talk(&format!(
        "warning: cannot keep a log of this run in {place}: {error}\n"
    ));
}

fn create(
    command: &str,
    data: &DataDir,
    lines: &VecDeque<String>,
) -> io::Result<(File, PathBuf, u64)> {
    let folder = data.run_logs();
    if !folder.is_dir() {
        data.prepare()?;
    }
    let now = jiff::Timestamp::now();
    let pid = std::process::id();
    let path = folder.join(format!(
        "{}-{command}-{pid}.log",
        now.strftime("%Y%m%d-%H%M%S")
    ));
    // It grows while things happen, and is not synced: nothing relies on it.
    let mut file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .mode(file::PRIVATE)
        .open(&path)?;
    let mut bytes = 0;
    let first = format!(
        "stead {} {command} (pid {pid}), {now:.0}\n",
        env!("CARGO_PKG_VERSION")
    );
    append(&mut file, &mut bytes, &first)?;
    for line in lines {
        append(&mut file, &mut bytes, line)?;
    }
    remove_older(&folder)?;
    Ok((file, path, bytes))
}

/// The logs of a folder, the oldest first: their names begin with the time.
fn all(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "log") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn remove_older(folder: &Path) -> io::Result<()> {
    let paths = all(folder)?;
    for path in &paths[..paths.len().saturating_sub(KEPT)] {
        match fs::remove_file(path) {
            // Another stead removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// The most of a log that [`last`] reads, from its end, in bytes.
const LAST: u64 = LONGEST;
/// The longest line that [`last`] returns, in characters.
const LONGEST_LINE: usize = 1000;

/// The file of the last run that changed something, and its last lines, without what scripts printed. Only regular files count, and links are not
/// followed, because what this returns may be published.
///
/// # Errors
/// If the folder or the file cannot be read.
pub fn last(data: &DataDir, lines: usize) -> io::Result<Option<(PathBuf, String)>> {
    let folder = data.run_logs();
    if !folder.is_dir() {
        return Ok(None);
    }
    let is_file = |path: &PathBuf| path.symlink_metadata().is_ok_and(|it| it.is_file());
    let Some(path) = all(&folder.canonicalize()?)?.into_iter().rfind(is_file) else {
        return Ok(None);
    };
    let mut file = open::file_in_place(&path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(LAST)))?;
    let mut bytes = Vec::new();
    file.take(LAST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line may be cut.
    let text = match size > LAST {
        true => text.split_once('\n').map_or(&*text, |(_, rest)| rest),
        false => &text,
    };
    let is_own = |line: &&str| !line.contains(OUTPUT);
    let total = text.lines().filter(is_own).count();
    let mut end = String::new();
    for line in text
        .lines()
        .filter(is_own)
        .skip(total.saturating_sub(lines))
    {
        match line.char_indices().nth(LONGEST_LINE) {
            Some((cut, _)) => end.extend([&line[..cut], "…"]),
            None => end.push_str(line),
        }
        end.push('\n');
    }
    Ok(Some((path, end)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_private_and_begins_with_what_was_held() {
        let place = tempfile::tempdir().unwrap();
        let data = DataDir::at(place.path().join("data"));
        let held = VecDeque::from(["one\n".to_string(), "two\n".to_string()]);
        let (file, path, bytes) = create("up", &data, &held).unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.len() as u64, bytes);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("stead ") && lines[0].contains(" up (pid "));
        assert_eq!(lines[1..], ["one", "two"]);
    }

    #[test]
    fn the_last_runs_are_kept() {
        let place = tempfile::tempdir().unwrap();
        let data = DataDir::at(place.path());
        data.prepare().unwrap();
        let folder = data.run_logs();
        for n in 10..40 {
            fs::write(folder.join(format!("201501{n}-000000-up-1.log")), "old\n").unwrap();
        }
        fs::write(folder.join("notes.txt"), "").unwrap();
        let (_, path, _) = create("halt", &data, &VecDeque::new()).unwrap();
        let left = all(&folder).unwrap();
        assert_eq!(left.len(), KEPT);
        assert_eq!(left.last(), Some(&path));
        assert!(left[0].ends_with("20150121-000000-up-1.log"), "{left:?}");
        assert!(folder.join("notes.txt").exists());
        let printed = format!("T INFO machine{{web}}: {OUTPUT}: app | a secret\n");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(printed.as_bytes()).unwrap();
        let (found, end) = last(&data, 1).unwrap().unwrap();
        assert_eq!(found, path);
        assert!(end.contains(" halt (pid "), "{end}");
    }

    #[test]
    fn a_long_file_loses_its_older_half() {
        let mut file = tempfile::tempfile().unwrap();
        let mut bytes = 0;
        append(&mut file, &mut bytes, "first\n").unwrap();
        let mut n = 0;
        while n < 200_000 {
            append(&mut file, &mut bytes, &format!("line {n:020}\n")).unwrap();
            assert!(bytes <= LONGEST);
            n += 1;
        }
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text.len() as u64, bytes);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["first", "(older lines were removed here)"]);
        assert!(
            lines[2..].iter().all(|line| line.len() == 25),
            "{}",
            lines[2]
        );
        assert!(text.ends_with(&format!("line {:020}\n", n - 1)));
    }

    #[test]
    fn only_regular_files_of_its_own_are_read_and_not_too_much() {
        let place = tempfile::tempdir().unwrap();
        let data = DataDir::at(place.path().join("data"));
        data.prepare().unwrap();
        let at = |name: &str| data.run_logs().join(name);
        fs::write(at("20200101-000000-up-1.log"), "first\nlast\n").unwrap();
        let pipe = at("20300101-000000-up-1.log");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(place.path().join("secret"), "secret\n").unwrap();
        std::os::unix::fs::symlink(place.path().join("secret"), at("20300102-000000-up-1.log"))
            .unwrap();
        fs::create_dir(at("20300103-000000-up-1.log")).unwrap();
        let (path, end) = last(&data, 1).unwrap().unwrap();
        assert!(path.ends_with("20200101-000000-up-1.log"));
        assert_eq!(end, "last\n");
        let huge = format!("{}\n{}\nend\n", "a".repeat(3 << 20), "b".repeat(100_000));
        fs::write(at("20200102-000000-up-1.log"), huge).unwrap();
        let (_, end) = last(&data, 10).unwrap().unwrap();
        assert_eq!(end, format!("{}…\nend\n", "b".repeat(LONGEST_LINE)));
    }

    #[test]
    fn where_nothing_was_logged_there_is_no_last_log() {
        let place = tempfile::tempdir().unwrap();
        let data = DataDir::at(place.path().join("data"));
        assert_eq!(last(&data, 10).unwrap(), None);
    }
}
