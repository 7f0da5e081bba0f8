//! `stead logs`: prints what a machine's console or its watcher has printed.

use std::{io::ErrorKind, process::ExitCode};

use clap::Args;

use crate::{
    failure::Failure,
    guest::{ConsoleReader, ConsoleWatch},
    report::{
        ColorChoice,
        clean::{Shown as _, text},
        stdio, talk, warn,
    },
    session::{Detail, Session, invocation::Invocation},
};

use super::{global::colors_are_wanted, output, select::OtherProjectArgs};

const EXAMPLES: &str = "\
Examples:
  stead logs web                 Show the console of web
  stead logs web -n 20 --follow  Show its last 20 lines, and what follows";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogsArgs {
    /// Machine to show [default: the project's only machine]
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    /// Keep printing new output
    #[arg(short = 'F', long)]
    follow: bool,
    /// Print only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Print it unfiltered: escape sequences of the guest act on your terminal
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

/// Bytes to read at a time.
const CHUNK: usize = 64 * 1024;

/// A longer line is shown in parts, in bytes.
const LONGEST_LINE: usize = 64 * 1024;

pub(super) fn run(invocation: &Invocation, args: LogsArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Existing)?;
    let name = session.the_machine(args.machine.as_deref())?;
    let log = session.files(&session.identity(&name)?).console_log();
    let reading = |error| Failure::io(format!("read {}", log.shown()), &error);
    let mut reader = ConsoleReader::open(&log, args.lines).map_err(|error| match error.kind() {
        ErrorKind::NotFound => session.known(&name).err().unwrap_or_else(|| {
            Failure::error(
                format!("machine {name} has no console log: it has never been booted"),
                format!("`stead up {name}` boots it"),
            )
        }),
        _ => reading(error),
    })?;
    // The watch begins before the first read, so that no output is missed.
    let watch = args.follow.then(|| ConsoleWatch::new(&log));
    if watch.as_ref().is_some_and(|watch| !watch.wakes()) {
        talk("note: inotify is not available; checking twice a second\n");
    }
    let mut shown = (!args.raw && stdio::stdout_is_terminal()).then(|| Shown::new(invocation));
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = reader.read(&mut buffer).map_err(reading)?;
        if reader.has_lost() {
            warn("some of the log was deleted before it could be shown");
        }
        if length == 0 {
            match &watch {
                Some(watch) if watch.wait() => continue,
                _ => break,
            }
        }
        let read = &buffer[..length];
        let here = match &mut shown {
            Some(shown) => output::raw(shown.take(read).as_bytes())?,
            None => output::raw(read)?,
        };
        if !here {
            return Ok(ExitCode::SUCCESS);
        }
    }
    if let Some(shown) = &mut shown {
        output::raw(shown.end().as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A guest's console on the host's terminal: its finished lines, and its current line as it changes.
pub(super) struct Shown {
    color: bool,
    /// The guest's current line.
    line: Vec<u8>,
    /// The part of it that the terminal shows.
    seen: String,
}

impl Shown {
    pub(super) fn new(invocation: &Invocation) -> Self {
        Shown {
            color: match invocation.color {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => colors_are_wanted(),
            },
            line: Vec::new(),
            seen: String::new(),
        }
    }

    /// Returns what to write to the terminal for these bytes of the guest's.
    pub(super) fn take(&mut self, bytes: &[u8]) -> String {
        let mut out = String::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() > LONGEST_LINE {
                out.push_str(&self.end());
            }
        }
        out.push_str(&self.change());
        out
    }

    /// Ends the current line.
    pub(super) fn end(&mut self) -> String {
        if self.line.is_empty() {
            return String::new();
        }
        let mut out = self.change();
        out.push('\n');
        self.line.clear();
        self.seen.clear();
        out
    }

    /// Returns what turns the shown part into the current line.
    fn change(&mut self) -> String {
        let bytes = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = text(&String::from_utf8_lossy(bytes), self.color).replace('\n', "");
        let out = match line.strip_prefix(self.seen.as_str()) {
            Some(more) => more.to_string(),
            None => format!("\r\u{1b}[K{line}"),
        };
        self.seen = line;
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(color: bool) -> Shown {
        Shown {
            color,
            line: Vec::new(),
            seen: String::new(),
        }
    }

    #[test]
    fn a_terminal_gets_lines_and_the_prompt_and_nothing_to_act_on() {
        let mut it = shown(false);
        assert_eq!(it.take(b"Booting\r\n\x1b]52;c;eA"), "Booting\n");
        // The sequence goes on in the next read.
        assert_eq!(it.take(b"\x07web lo"), "web lo");
        assert_eq!(it.take(b"gin: "), "gin: ");
        assert_eq!(it.take(b"root\r\n"), "root\n");
        assert_eq!(it.take(b"10%"), "10%");
        assert_eq!(it.take(b"\r20%"), "\r\u{1b}[K20%");
        assert_eq!(it.end(), "\n");
        assert_eq!(it.end(), "");
    }

    #[test]
    fn colors_end_with_the_line() {
        let mut it = shown(true);
        assert_eq!(
            it.take(b"\x1b[32mok\n\x1b[6n\n"),
            "\u{1b}[32mok\u{1b}[0m\n\n"
        );
        let mut it = shown(false);
        assert_eq!(it.take(b"\x1b[32mok\n"), "ok\n");
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut it = shown(false);
        for _ in 0..100 {
            it.take(&[b'x'; 10_000]);
        }
        assert!(it.line.len() <= LONGEST_LINE + 10_000);
    }
}
