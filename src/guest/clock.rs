//! The clock of a guest: how far it is from this computer's, and how to put it right.

use jiff::Timestamp;

use super::{command::Remote, error::GuestError};

/// How far a clock may be off, in seconds.
const TOLERATED: i64 = 2;

/// How a guest's clock was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clock {
    Right,
    /// It was off by these seconds, less than 0 if it was behind, and is right now.
    Corrected(i64),
    /// It is off, and could not be set.
    Wrong {
        off: i64,
        said: String,
    },
    /// The guest does not say.
    Unknown(String),
}

impl Clock {
    /// Says what people should know.
    pub fn words(&self, machine: &str) -> Option<String> {
        let by = |off: i64| {
            let time = crate::report::elapsed(std::time::Duration::from_secs(off.unsigned_abs()));
            let side = if off < 0 { "behind" } else { "ahead" };
            format!("{time} {side}")
        };
        match self {
            Clock::Right | Clock::Unknown(_) => None,
            Clock::Corrected(off) => Some(format!("its clock was {}, and is right now", by(*off))),
            Clock::Wrong { off, said } => Some(format!(
                "warning: its clock is {}, and cannot be set: {said}; `stead restart {machine}` sets it",
                by(*off)
            )),
        }
    }
}

/// Returns the script that prints the guest's clock, in seconds since 1970. `to`: what it is set to before.
fn script(to: Option<i64>) -> String {
    let set = to.map(|to| {
        format!("if [ \"$(id -u)\" = 0 ]; then date -s @{to}; else sudo -n date -s @{to}; fi >/dev/null\n")
    });
    format!("{}date +%s", set.unwrap_or_default())
}

/// Reads what [`script`] prints.
fn read(output: &str) -> Option<i64> {
    output.trim().parse().ok()
}

/// How many seconds a guest's clock is off, which it said at some time between two of this computer's.
fn off(said: i64, before: i64, after: i64) -> i64 {
    match said {
        said if said < before => said - before,
        said if said > after => said - after,
        _ => 0,
    }
}

async fn ask(remote: &Remote, to: Option<i64>) -> Result<Result<i64, String>, GuestError> {
    let before = Timestamp::now().as_second();
    let output = remote.run(&script(to)).await?;
    let after = Timestamp::now().as_second();
    Ok(match read(&output.stdout) {
        // It cannot be set, but is told.
        Some(said) if off(said, before, after).abs() > TOLERATED && to.is_some() => {
            Err(output.last_words())
        }
        Some(said) => Ok(off(said, before, after)),
        None => Err(output.last_words()),
    })
}

/// Puts a guest's clock right if it is more than two seconds off.
///
/// # Errors
/// If ssh cannot be run.
pub async fn set_clock(remote: &Remote) -> Result<Clock, GuestError> {
    let off = match ask(remote, None).await? {
        Ok(off) if off.abs() <= TOLERATED => return Ok(Clock::Right),
        Ok(off) => off,
        Err(said) => return Ok(Clock::Unknown(said)),
    };
    Ok(
        match ask(remote, Some(Timestamp::now().as_second())).await? {
            Ok(_) => Clock::Corrected(off),
            Err(said) => Clock::Wrong { off, said },
        },
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    #[test]
    fn a_clock_is_off_only_if_no_moment_between_explains_it() {
        // A login took 9 seconds.
        assert_eq!(off(100, 100, 109), 0);
        assert_eq!(off(105, 100, 109), 0);
        assert_eq!(off(97, 100, 109), -3);
        assert_eq!(off(112, 100, 109), 3);
        assert_eq!(read("1700000000\n"), Some(1_700_000_000));
        assert_eq!(read("date: invalid option\n"), None);
    }

    #[test]
    fn what_people_read() {
        let words = |clock: Clock| clock.words("web").unwrap_or_default();
        assert_eq!(words(Clock::Right), "");
        assert_eq!(
            words(Clock::Corrected(-3700)),
            "its clock was 1h 01m behind, and is right now"
        );
        let wrong = Clock::Wrong {
            off: 5,
            said: "sudo: a password is required".into(),
        };
        insta::assert_snapshot!(words(wrong));
    }

    /// With a `date` that keeps its clock in a file, and a `sudo` that asks for no password.
    #[test]
    fn the_script_prints_the_clock_and_sets_it() {
        let folder = tempfile::tempdir().unwrap();
        let clock = folder.path().join("clock");
        fs::write(&clock, "1000\n").unwrap();
        let program = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let shown = clock.display();
        program(
            "date",
            format!(
                "case $1 in -s) echo \"${{2#@}}\" >{shown}; cat {shown};; +%s) cat {shown};; esac"
            ),
        );
        program("sudo", "[ \"$1\" = -n ] && shift; exec \"$@\"".into());
        let run = |to| {
            let path = std::env::var("PATH").unwrap();
            let output = Command::new("sh")
                .args(["-c", &script(to)])
                .env("PATH", format!("{}:{path}", folder.path().display()))
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(run(None), "1000\n");
        assert_eq!(run(Some(2000)), "2000\n");
        assert_eq!(fs::read_to_string(&clock).unwrap(), "2000\n");
    }
}
