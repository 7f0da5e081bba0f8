//! A confined program's run: what it says is bounded, and it ends when the disk gets full.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

use nix::libc;

use super::{Confined, Limits};
use crate::host::room;

/// Of what it says on each side, in bytes.
const MOST_WORDS: u64 = 1 << 20;
/// Between looks at the room that is left.
const LOOK: Duration = Duration::from_millis(200);

/// A run that has ended.
#[derive(Debug)]
pub struct Ran {
    pub ended: Ended,
    pub stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exit(i32),
    /// It took all the time that it may.
    OutOfTime {
        seconds: u64,
    },
    /// A file that it wrote grew larger than it may.
    TooLarge {
        bytes: u64,
    },
    /// It was ended since there would have been no room left but the reserve.
    NoRoom,
    Signal(i32),
}

impl Ran {
    /// Why it failed, in one line. Where a file's name is needed, it is `name`.
    pub fn why(&self, program: &str, given: &[(String, String)]) -> String {
        match self.ended {
            Ended::OutOfTime { seconds } => {
                format!("{program} was ended after {seconds} s of work on it")
            }
            Ended::TooLarge { bytes } => {
                format!("{program} was ended: what it writes would have more than {bytes} bytes")
            }
            Ended::NoRoom => "the disk is full, but for the room that is kept free".to_string(),
            Ended::Exit(_) | Ended::Signal(_) => {
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
                    Ended::Signal(signal) => {
                        format!("{program} was ended by signal {signal}: {said}")
                    }
                    _ if said.is_empty() => format!("{program} failed without a word"),
                    _ => said,
                }
            }
        }
    }
}

impl Confined {
    /// Runs it to its end. Where it writes, `out` is the file, whose file system keeps its reserve.
    pub fn run(self, out: Option<&File>) -> io::Result<Ran> {
        let limits = self.limits;
        let mut command = self.into_command()?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: one system call. It ends with the thread that waits for it below.
        unsafe {
            command.pre_exec(|| {
                super::check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into())
            });
        }
        let mut child = command.spawn()?;
        // It holds what was handed over.
        drop(command);
        let (words, said) = mpsc::channel();
        let stdout = listen(child.stdout.take(), words.clone());
        let stderr = listen(child.stderr.take(), words);
        let mut full = false;
        // Both ends closed: it has ended, or closed them and will.
        while let Err(mpsc::RecvTimeoutError::Timeout) = said.recv_timeout(LOOK) {
            if !full && out.is_some_and(room::is_out_of) {
                full = true;
                let _ = child.kill();
            }
        }
        let status = wait(&mut child, out, &mut full)?;
        Ok(Ran {
            ended: if full {
                Ended::NoRoom
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
        if !*full && out.is_some_and(room::is_out_of) {
            *full = true;
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads to the end, and keeps the start. The sender goes with the thread.
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

fn ended(status: ExitStatus, limits: Limits) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, Some(libc::SIGXCPU)) => Ended::OutOfTime {
            seconds: limits.cpu,
        },
        (None, Some(libc::SIGXFSZ)) => Ended::TooLarge { bytes: limits.file },
        (None, signal) => Ended::Signal(signal.unwrap_or_default()),
    }
}
