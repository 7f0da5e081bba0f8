use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write, stdout},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use super::{Failure, Global, output, session::Session};

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
}

pub fn run(global: &Global, args: LogsArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let name = match (&args.machine, session.project.machines.as_slice()) {
        (Some(name), _) => name.clone(),
        (None, [only]) => only.name.clone(),
        (None, machines) => {
            let names: Vec<&str> = machines.iter().map(|m| m.name.as_str()).collect();
            return Err(Failure::usage(
                "this project has several machines; name one",
                format!("its machines are: {}", names.join(", ")),
            ));
        }
    };
    let log = session.files(&session.identity(&name)).console_log();
    let mut file = File::open(&log).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::error(
            format!("machine {name} has no console log: it has never been booted"),
            format!("`stead up {name}` boots it"),
        ),
        _ => Failure::io(format!("read {}", log.display()), &error),
    })?;
    let reading = |error| Failure::io(format!("read {}", log.display()), &error);
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(reading)?;
    let start = args.lines.map_or(0, |lines| last_lines(&content, lines));
    write(&content[start..])?;
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    let mut at = content.len() as u64;
    let mut watch = Watch::new(&log);
    loop {
        let length = file.metadata().map_err(reading)?.len();
        // A log that was cut is a new one.
        if length < at {
            at = 0;
        }
        file.seek(SeekFrom::Start(at)).map_err(reading)?;
        content.clear();
        file.read_to_end(&mut content).map_err(reading)?;
        at += content.len() as u64;
        if !write(&content)? {
            return Ok(ExitCode::SUCCESS);
        }
        watch.wait();
    }
}

/// Whether the reader is still there.
fn write(bytes: &[u8]) -> Result<bool, Failure> {
    let mut out = stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::io("write to standard output", &error)),
    }
}

fn last_lines(content: &[u8], lines: usize) -> usize {
    let mut seen = 0;
    let body = content.strip_suffix(b"\n").unwrap_or(content);
    for (at, byte) in body.iter().enumerate().rev() {
        if *byte == b'\n' {
            seen += 1;
            if seen == lines {
                return at + 1;
            }
        }
    }
    if lines == 0 { content.len() } else { 0 }
}

/// Wakes when the log is written to.
struct Watch {
    inotify: Option<nix::sys::inotify::Inotify>,
}

impl Watch {
    fn new(path: &std::path::Path) -> Self {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).ok().filter(|inotify| {
            inotify
                .add_watch(path, AddWatchFlags::IN_MODIFY)
                .is_ok()
        });
        if inotify.is_none() {
            output::talk("note: inotify is not available; looking twice a second\n");
        }
        Watch { inotify }
    }

    fn wait(&mut self) {
        match &self.inotify {
            Some(inotify) if inotify.read_events().is_ok() => {}
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_start_where_they_should() {
        let text = b"one\ntwo\nthree\n";
        assert_eq!(&text[last_lines(text, 1)..], b"three\n");
        assert_eq!(&text[last_lines(text, 2)..], b"two\nthree\n");
        assert_eq!(&text[last_lines(text, 9)..], text);
        assert_eq!(&text[last_lines(text, 0)..], b"");
    }
}
