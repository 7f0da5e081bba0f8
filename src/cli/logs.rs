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
    session::{Looks, Session, invocation::Invocation},
};

use super::{output, select::ElsewhereArgs};

#[derive(Args)]
pub struct LogsArgs {
    /// Machine; may be left out where the project has only one
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    /// Go on printing what is added
    #[arg(short = 'F', long)]
    follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Print it as it is, escape sequences of the guest too, which act on the terminal
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
}

/// Read at once.
const CHUNK: usize = 64 * 1024;

/// A line that is longer is shown in parts.
const LONGEST_LINE: usize = 64 * 1024;

pub fn run(invocation: &Invocation, args: LogsArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.elsewhere.into(), Looks::There)?;
    let name = session.the_machine(args.machine.as_deref())?;
    let log = session.files(&session.identity(&name)?).console_log();
    let reading = |error| Failure::io(format!("read {}", log.shown()), &error);
    let mut reader = ConsoleReader::open(&log, args.lines).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::error(
            format!("machine {name} has no console log: it has never been booted"),
            format!("`stead up {name}` boots it"),
        ),
        _ => reading(error),
    })?;
    // Watched before it is read, so that nothing is missed.
    let watch = args.follow.then(|| ConsoleWatch::new(&log));
    if watch.as_ref().is_some_and(|watch| !watch.wakes()) {
        talk("note: inotify is not available; looking twice a second\n");
    }
    let mut shown = (!args.raw && stdio::stdout_is_terminal()).then(|| Shown::new(invocation));
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = reader.read(&mut buffer).map_err(reading)?;
        if reader.has_lost() {
            warn("some of the log was thrown away before it could be shown");
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

/// A console on a terminal: the guest's lines, as they are in the end, and the one that it is at.
struct Shown {
    color: bool,
    /// The line that the guest is at.
    line: Vec<u8>,
    /// What of it is on the terminal.
    seen: String,
}

impl Shown {
    fn new(invocation: &Invocation) -> Self {
        Shown {
            color: match invocation.color {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => output::colors_are_wanted(),
            },
            line: Vec::new(),
            seen: String::new(),
        }
    }

    /// What the terminal gets of these bytes of the guest's.
    fn take(&mut self, bytes: &[u8]) -> String {
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

    /// The line is over.
    fn end(&mut self) -> String {
        if self.line.is_empty() {
            return String::new();
        }
        let mut out = self.change();
        out.push('\n');
        self.line.clear();
        self.seen.clear();
        out
    }

    /// From what is on the terminal to what the line is now.
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
