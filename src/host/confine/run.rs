//! Runs a program in the sandbox. Its output is limited, and it is killed when the disk gets full.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

use nix::libc;

use super::{Confined, Limits};
use crate::host::{free_space, process::Start};

/// How much of its output is kept, in bytes, of each stream.
const MOST_WORDS: u64 = 1 << 20;
/// The time between checks of the free space.
const CHECK: Duration = Duration::from_millis(200);

/// A run that has ended.
#[derive(Debug)]
pub struct ConfinedOutput {
    pub ended: RunEnd,
    pub stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    Exit(i32),
    /// It used all of its CPU time.
    OutOfTime {
        seconds: u64,
    },
    /// A file that it wrote got too large.
    TooLarge {
        bytes: u64,
    },
    /// It was killed because only the reserve was left on the disk.
    NoRoom,
    Signal(i32),
}

impl ConfinedOutput {
    /// Returns why it failed. In its output, the paths of handed-over files are replaced by their names
    /// (`given`: path and name).
    pub fn why(&self, program: &str, given: &[(String, String)]) -> String {
        match self.ended {
            RunEnd::OutOfTime { seconds } => {
                format!("{program} was killed after {seconds} s of CPU time")
            }
            RunEnd::TooLarge { bytes } => {
                format!("{program} was killed, because its output got larger than {bytes} bytes")
            }
            RunEnd::NoRoom => {
                "the disk is full, except for the space that stead keeps free".to_string()
            }
            RunEnd::Exit(_) | RunEnd::Signal(_) => {
                let said = String::from_utf8_lossy(&self.stderr);
                let mut said = said.trim().to_string();
                for (path, name) in given {
                    said = said.replace(path, name);
                }
                let said: String = (said.chars())
                    .map(|c| {
                        if c.is_control() && c != '\n' {
                            '\u{fffd}'
                        } else {
                            c
                        }
                    })
                    .take(2000)
                    .collect();
                match self.ended {
                    RunEnd::Signal(signal) => {
                        format!("{program} was killed by signal {signal}: {said}")
                    }
                    _ if said.is_empty() => format!("{program} failed without a message"),
                    _ => said,
                }
            }
        }
    }
}

impl Confined {
    /// Runs it to its end. `out` is the file that it writes, if any: the free space is checked on its file
    /// system.
    pub fn run(self, out: Option<&File>) -> io::Result<ConfinedOutput> {
        let limits = self.limits;
        let mut command = self.into_command()?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.start()?;
        // The command keeps the handed-over files open.
        drop(command);
        let (words, said) = mpsc::channel();
        let stdout = listen(child.stdout.take(), words.clone());
        let stderr = listen(child.stderr.take(), words);
        let mut full = false;
        // When both streams are closed, it has ended, or is about to.
        while let Err(mpsc::RecvTimeoutError::Timeout) = said.recv_timeout(CHECK) {
            if !full && out.is_some_and(free_space::is_out_of) {
                full = true;
                let _ = child.kill();
            }
        }
        let status = wait(&mut child, out, &mut full)?;
        Ok(ConfinedOutput {
            ended: if full {
                RunEnd::NoRoom
            } else {
                ended(status, limits)
            },
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
        })
    }
}

fn wait(child: &mut Child, out: Option<&File>, full: &mut bool) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if !*full && out.is_some_and(free_space::is_out_of) {
            *full = true;
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads a stream to its end, and keeps the start. The sender is dropped at the end.
fn listen<R: Read + Send + 'static>(
    pipe: Option<R>,
    words: mpsc::Sender<()>,
) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let _ends = words;
        let mut said = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = (&mut pipe).take(MOST_WORDS).read_to_end(&mut said);
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
        said
    })
}

fn ended(status: ExitStatus, limits: Limits) -> RunEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => RunEnd::Exit(code),
        (None, Some(libc::SIGXCPU)) => RunEnd::OutOfTime {
            seconds: limits.cpu,
        },
        (None, Some(libc::SIGXFSZ)) => RunEnd::TooLarge { bytes: limits.file },
        (None, signal) => RunEnd::Signal(signal.unwrap_or_default()),
    }
}
