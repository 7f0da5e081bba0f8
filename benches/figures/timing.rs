//! Runs commands and says how long they took and how much memory they used.

use std::{
    ffi::{OsStr, OsString},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use nix::sys::resource::{UsageWho, getrusage};

use crate::{Result, Trouble, While};

/// As people would type it, for messages.
pub(crate) fn written(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a command to its end and gives its standard output. It must exit 0.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let what = written(command);
    let output = command.stdin(Stdio::null()).output().during(&what)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(Trouble(format!(
        "{what}: {}\n{stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )))
}

/// Seconds that a command took, from before its start until it was waited for. It must exit 0.
/// Its output goes to a file, as it does for programs that call stead.
pub(crate) fn seconds(command: &mut Command) -> Result<f64> {
    seconds_to(0, command)
}

/// As [`seconds`], of a command that must exit with this code.
pub(crate) fn seconds_to(code: i32, command: &mut Command) -> Result<f64> {
    let what = written(command);
    let mut log = tempfile::tempfile().during("a file for output")?;
    let copy = |log: &std::fs::File| log.try_clone().during("a file for output");
    command
        .stdin(Stdio::null())
        .stdout(copy(&log)?)
        .stderr(copy(&log)?);
    let start = Instant::now();
    let status = command.status().during(&what)?;
    let elapsed = start.elapsed().as_secs_f64();
    if status.code() == Some(code) {
        return Ok(elapsed);
    }
    use std::io::{Read, Seek};
    let mut said = String::new();
    log.rewind().during("a file for output")?;
    log.read_to_string(&mut said).during("a file for output")?;
    Err(Trouble(format!("{what}: {status}\n{said}")))
}

/// Two commands in turn, `count` times, after one of each that does not count.
pub(crate) fn in_turn(
    count: usize,
    mut ours: impl FnMut() -> Result<f64>,
    mut theirs: impl FnMut() -> Result<f64>,
) -> Result<Vec<(f64, f64)>> {
    ours()?;
    theirs()?;
    (0..count)
        // Which of the two goes first changes from pair to pair.
        .map(|n| {
            if n % 2 == 0 {
                let first = ours()?;
                Ok((first, theirs()?))
            } else {
                let first = theirs()?;
                Ok((ours()?, first))
            }
        })
        .collect()
}

/// First argument with which this program runs the others as a command, as a process between, so
/// that the greatest memory of its children is that command's alone.
const MEMORY_MEASUREMENT: &str = "--memory-of";

pub(crate) fn is_memory_measurement() -> bool {
    std::env::args().nth(1).as_deref() == Some(MEMORY_MEASUREMENT)
}

pub(crate) fn measure_memory_of_arguments() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(2).collect();
    let Some((program, rest)) = arguments.split_first() else {
        return ExitCode::from(2);
    };
    let status = Command::new(program)
        .args(rest)
        .stdout(Stdio::null())
        .status();
    match (status, getrusage(UsageWho::RUSAGE_CHILDREN)) {
        (Ok(status), Ok(usage)) if status.success() => {
            println!("{}", usage.max_rss());
            ExitCode::SUCCESS
        }
        (status, usage) => {
            eprintln!("{status:?} {usage:?}");
            ExitCode::FAILURE
        }
    }
}

/// Peak resident memory of a command and of those it waits for, in MiB.
pub(crate) fn peak_memory(command: &Command) -> Result<f64> {
    let mut between = Command::new(std::env::current_exe().during("where this program is")?);
    between
        .arg(MEMORY_MEASUREMENT)
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        between.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => between.env(name, value),
            None => between.env_remove(name),
        };
    }
    let kibibytes: f64 = output(&mut between)?
        .trim()
        .parse()
        .during("peak memory, in KiB")?;
    Ok(kibibytes / 1024.0)
}
