//! What becomes of a program's output while it runs: it is collected, or passed on line by line with what the program asks.

use std::{collections::VecDeque, process::ExitStatus, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::{mpsc, oneshot},
};

use super::{
    command::Output,
    question::{Asked, Reply},
    terminal::{Terminal, Wait},
};

/// How many bytes of stderr are kept, from its end.
pub(super) const STDERR_KEPT: usize = 64 << 10;
/// A longer line is passed on in pieces of about this size, in bytes.
pub(super) const LONGEST_LINE: usize = 64 << 10;
/// How long to wait for trailing output after the program has ended: a process that it left running may keep
/// the pipes open.
const LINGER: Duration = Duration::from_millis(200);
/// How much output is read after the program has ended, in bytes: what the pipes may hold by then (pipe(7)).
const TRAILING: usize = 2 << 20;
/// How often stead looks whether a program asks on its terminal.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// How long to wait before something is looked at again that is not a question.
const BEFORE_NEXT_QUESTION: Duration = Duration::from_millis(500);
/// How many of the last lines on stdout come with a question.
const LINES_BEFORE: usize = 8;

/// Why a program is killed.
pub(super) enum Stop {
    /// It printed more than its limit.
    Full,
    /// Nobody answers what it asks.
    Unanswered(Box<Asked>),
}

/// Takes the output of a program.
pub(super) trait Sink: Send + 'static {
    type Result: Send + 'static;
    fn take(&mut self, is_error: bool, bytes: &[u8]) -> impl Future<Output = Result<(), Stop>>;
    /// The program asks something.
    fn asked(&mut self, asked: Asked) -> impl Future<Output = Reply>;
    fn end(self, status: ExitStatus) -> impl Future<Output = Self::Result>;
}

pub(super) struct Pipes<'a> {
    pub out: Option<tokio::process::ChildStdout>,
    pub err: Option<tokio::process::ChildStderr>,
    /// The program's terminal, and its session.
    pub terminal: &'a mut Option<(Terminal, u32)>,
}

impl Pipes<'_> {
    /// Reads both to their ends. Has questions answered until the program has ended.
    pub(super) async fn read(
        &mut self,
        sink: &mut impl Sink,
        mut end: oneshot::Receiver<()>,
    ) -> Result<(), Stop> {
        let (mut first, mut second) = (vec![0; 16 << 10], vec![0; 16 << 10]);
        let mut next_look = tokio::time::Instant::now() + BETWEEN_LOOKS;
        let mut has_ended = false;
        let mut trailing = 0;
        while trailing < TRAILING {
            if has_ended {
                *self.terminal = None;
            }
            let is_open = self.out.is_some() || self.err.is_some();
            let (is_error, bytes) = tokio::select! {
                n = some(&mut self.out, &mut first), if self.out.is_some() => (false, &first[..n]),
                n = some(&mut self.err, &mut second), if self.err.is_some() => (true, &second[..n]),
                _ = &mut end, if !has_ended => {
                    has_ended = true;
                    continue;
                }
                () = tokio::time::sleep(LINGER), if has_ended && is_open => return Ok(()),
                () = tokio::time::sleep_until(next_look), if self.terminal.is_some() => {
                    tokio::select! {
                        pause = self.look(sink) => next_look = tokio::time::Instant::now() + pause?,
                        _ = &mut end => has_ended = true,
                    }
                    continue;
                }
                else => return Ok(()),
            };
            if has_ended {
                trailing += bytes.len();
            }
            sink.take(is_error, bytes).await?;
        }
        Ok(())
    }

    /// Has a question answered if there is one. Returns when to look again.
    async fn look(&mut self, sink: &mut impl Sink) -> Result<Duration, Stop> {
        let Some((terminal, session)) = &mut *self.terminal else {
            return Ok(BETWEEN_LOOKS);
        };
        let Some(wait) = terminal.look(*session) else {
            return Ok(BETWEEN_LOOKS);
        };
        let by_keys = matches!(wait, Wait::Keys { .. });
        let asked = Asked {
            // To a program that reads keys, it only shows what is typed.
            words: if by_keys {
                String::new()
            } else {
                terminal.words()
            },
            is_hidden: matches!(wait, Wait::HiddenLine | Wait::Keys { are_shown: false }),
            by_keys,
            ..Asked::default()
        };
        match sink.asked(asked).await {
            Reply::Answer(answer) => terminal.answer(&answer),
            Reply::NoQuestion => return Ok(BEFORE_NEXT_QUESTION),
            Reply::Nobody(asked) => return Err(Stop::Unanswered(asked)),
        }
        Ok(BETWEEN_LOOKS)
    }
}

/// Reads some bytes and returns their number. Drops the pipe at its end.
async fn some(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    let Some(open) = pipe else { return 0 };
    match open.read(buffer).await {
        Ok(n) if n > 0 => n,
        _ => {
            *pipe = None;
            0
        }
    }
}

pub(super) struct Collected {
    limit: usize,
    stdout: Vec<u8>,
    stderr: VecDeque<u8>,
}

impl Collected {
    pub(super) fn new(limit: usize) -> Self {
        Collected {
            limit,
            stdout: Vec::new(),
            stderr: VecDeque::new(),
        }
    }
}

impl Sink for Collected {
    type Result = Output;

    async fn take(&mut self, is_error: bool, bytes: &[u8]) -> Result<(), Stop> {
        if is_error {
            self.stderr.extend(bytes);
            let over = self.stderr.len().saturating_sub(STDERR_KEPT);
            self.stderr.drain(..over);
        } else if self.stdout.len() + bytes.len() > self.limit {
            return Err(Stop::Full);
        } else {
            self.stdout.extend(bytes);
        }
        Ok(())
    }

    async fn asked(&mut self, asked: Asked) -> Reply {
        Reply::Nobody(Box::new(asked))
    }

    async fn end(self, status: ExitStatus) -> Output {
        Output {
            status,
            stdout: self.stdout,
            stderr: self.stderr.into(),
        }
    }
}

/// What a program says.
pub(super) enum Said {
    /// Whether it is on stderr, and the line.
    Line(bool, Vec<u8>),
    Asks(Asked, oneshot::Sender<Reply>),
}

/// Splits both streams into lines, in the order in which the lines end.
pub(super) struct Split {
    to: mpsc::Sender<Said>,
    begun: [Vec<u8>; 2],
    /// The last lines on stdout.
    last: VecDeque<String>,
}

impl Split {
    pub(super) fn new(to: mpsc::Sender<Said>) -> Self {
        Split {
            to,
            begun: [Vec::new(), Vec::new()],
            last: VecDeque::new(),
        }
    }

    async fn send(&mut self, is_error: bool, mut line: Vec<u8>) {
        while matches!(line.last(), Some(b'\n' | b'\r')) {
            line.pop();
        }
        if !is_error {
            if self.last.len() == LINES_BEFORE {
                self.last.pop_front();
            }
            self.last
                .push_back(String::from_utf8_lossy(&line).into_owned());
        }
        // An error means that the receiver was dropped, which also kills the program.
        let _ = self.to.send(Said::Line(is_error, line)).await;
    }
}

impl Sink for Split {
    type Result = ExitStatus;

    async fn take(&mut self, is_error: bool, bytes: &[u8]) -> Result<(), Stop> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let begun = &mut self.begun[usize::from(is_error)];
            begun.extend(piece);
            if begun.ends_with(b"\n") || begun.len() >= LONGEST_LINE {
                let line = std::mem::take(begun);
                self.send(is_error, line).await;
            }
        }
        Ok(())
    }

    async fn asked(&mut self, mut asked: Asked) -> Reply {
        // A line that was begun is a part of the question, and of no later line.
        for is_error in [true, false] {
            if asked.words.trim().is_empty() && !asked.by_keys {
                let begun = std::mem::take(&mut self.begun[usize::from(is_error)]);
                asked.words = String::from_utf8_lossy(&begun).into_owned();
            }
        }
        asked.before = self.last.iter().cloned().collect();
        let (reply, answer) = oneshot::channel();
        let lost = asked.clone();
        // An error means that nobody waits for the program any more.
        let _ = self.to.send(Said::Asks(asked, reply)).await;
        (answer.await).unwrap_or_else(|_| Reply::Nobody(Box::new(lost)))
    }

    async fn end(mut self, status: ExitStatus) -> ExitStatus {
        for is_error in [false, true] {
            let line = std::mem::take(&mut self.begun[usize::from(is_error)]);
            if !line.is_empty() {
                self.send(is_error, line).await;
            }
        }
        status
    }
}
