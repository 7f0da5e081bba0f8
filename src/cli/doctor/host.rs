//! What a host may lack that every program takes for granted. There is a line only where something is wrong, except for
//! stead's own folder.

use std::{env, ffi::OsStr, io::Write, path::Path};

use jiff::Timestamp;

use crate::{
    failure::Failure,
    host::{paths::DataDir, socket_folder},
    report::clean::Shown,
};

use super::{Check, Verdict};

/// 1 January 2026, in seconds since 1970: this program was not there before.
const BEFORE_STEAD: i64 = 1_767_225_600;

/// How many bytes a temporary file must take.
const SMALL: usize = 64 << 10;

pub(super) fn checks() -> Vec<Check> {
    let now = Timestamp::now();
    let found = [
        proc(Path::new("/proc/self/fd").exists()),
        path(env::var_os("PATH").as_deref()),
        clock(now),
        temporary(),
        sockets(),
    ];
    found.into_iter().flatten().collect()
}

/// Files get their names by /proc (open(2), O_TMPFILE), and processes are seen there.
fn proc(is_there: bool) -> Option<Check> {
    (!is_there).then(|| {
        Check::not(
            "/proc",
            Verdict::Failed,
            "/proc is not mounted, so stead can neither read nor write files",
            "mount it: `mount -t proc proc /proc`",
        )
    })
}

fn path(path: Option<&OsStr>) -> Option<Check> {
    let folders: Vec<_> = env::split_paths(path.unwrap_or_default()).collect();
    if !folders.iter().any(|folder| folder.is_absolute()) {
        return Some(Check::not(
            "PATH",
            Verdict::Failed,
            "PATH names no folder, so no programs are found",
            "set it: `export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`",
        ));
    }
    let relative: Vec<String> = (folders.iter())
        .filter(|folder| !folder.is_absolute() && !folder.as_os_str().is_empty())
        .map(|folder| folder.shown())
        .collect();
    (!relative.is_empty()).then(|| {
        Check::not(
            "PATH",
            Verdict::Warning,
            format!(
                "PATH has relative folders ({}), whose programs stead does not use: they depend on the folder that you are in",
                relative.join(", ")
            ),
            "remove them from PATH, or make them absolute",
        )
    })
}

fn clock(now: Timestamp) -> Option<Check> {
    (now.as_second() < BEFORE_STEAD).then(|| {
        Check::not(
            "clock",
            Verdict::Warning,
            format!(
                "the clock of this computer says {}, so certificates of servers are not valid yet, and downloads fail; machines get the same time",
                now.strftime("%Y-%m-%d")
            ),
            "set it: `sudo timedatectl set-ntp true`",
        )
    })
}

/// rsync's lists, scripts of hooks and configurations of scp are temporary files.
fn temporary() -> Option<Check> {
    let written = tempfile::tempfile().and_then(|mut file| file.write_all(&[0; SMALL]));
    let error = written.err()?;
    Some(Check::not(
        "TMPDIR",
        Verdict::Failed,
        format!(
            "no temporary file can be written in {}: {error}",
            env::temp_dir().shown()
        ),
        "free some space there, or set TMPDIR to a folder that you can write in",
    ))
}

fn sockets() -> Option<Check> {
    use miette::Diagnostic;
    let error = socket_folder::make(&socket_folder::of_user(), "sockets").err()?;
    let remedy = error.help().map(|help| help.to_string());
    Some(Check::not(
        "runtime",
        Verdict::Failed,
        error.to_string(),
        remedy.unwrap_or_default(),
    ))
}

/// Checks that stead's data folder can be used, and written in.
pub(super) fn data(found: &Result<DataDir, Failure>) -> Check {
    const NAME: &str = "data";
    let data = match found {
        Ok(data) => data,
        Err(failure) => {
            let hint = failure.hint().unwrap_or_default();
            return Check::not(NAME, Verdict::Failed, failure.message(), hint);
        }
    };
    // It is missing only if it cannot be made.
    let written = match data.root().exists() {
        true => tempfile::tempfile_in(data.root()).and_then(|mut file| file.write_all(&[0; SMALL])),
        false => data.prepare(),
    };
    match written {
        Ok(()) => Check::ok(NAME, format!("{} can be written", data.root().shown())),
        Err(error) => {
            let doing = format!("write in {}", data.root().shown());
            let failure = Failure::in_data(doing, &error);
            let hint = failure.hint().unwrap_or_default();
            Check::not(NAME, Verdict::Failed, failure.message(), hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_has_a_line() {
        let path = |text: &str| path(Some(OsStr::new(text)));
        assert!(path("/usr/bin:/bin:").is_none() && proc(true).is_none());
        let relative = path("/usr/bin:bin:.").unwrap();
        assert!(relative.found.contains("(bin, .)"), "{}", relative.found);
        for none in ["", "bin:."] {
            assert_eq!(path(none).unwrap().verdict, Verdict::Failed);
        }
        assert!(super::path(None).is_some() && proc(false).is_some());
        let old = clock(Timestamp::UNIX_EPOCH).unwrap();
        assert!(old.found.contains("1970-01-01"), "{}", old.found);
        assert!(clock(Timestamp::from_second(BEFORE_STEAD).unwrap()).is_none());
    }
}
