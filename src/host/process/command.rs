//! The one way to run a program that does its work and ends: it is described first, then run within limits,
//! in a process group that is killed as a whole.

#![expect(unsafe_code, reason = "a system call between fork and exec")]

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    ffi::OsString,
    fmt, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::getppid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
};

use super::{
    error::ProgramError,
    start::{Start, line},
    tree::Tree,
};
use crate::host::interrupt::before_end;

/// The limits of a program.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `None`: no limit, for work whose duration depends on its input.
    pub time: Option<Duration>,
    /// The most bytes on stdout. Of stderr the last [`STDERR_KEPT`] bytes are kept, however much there is.
    pub output: usize,
}

impl Limits {
    /// For a program that answers a question.
    pub const ANSWER: Limits = Limits {
        time: Some(Duration::from_secs(60)),
        output: 16 << 20,
    };
    /// For work on files as large as disks.
    pub const WORK: Limits = Limits {
        time: None,
        output: 16 << 20,
    };

    pub const fn within(self, time: Duration) -> Self {
        Limits {
            time: Some(time),
            ..self
        }
    }
}

/// How many bytes of stderr are kept, from its end.
const STDERR_KEPT: usize = 64 << 10;
/// A longer line is passed on in pieces of about this size, in bytes.
pub(super) const LONGEST_LINE: usize = 64 << 10;
/// How long to wait for trailing output after the program has ended: a process that it left running may keep
/// the pipes open.
const LINGER: Duration = Duration::from_millis(200);

/// Which part of stead's environment a program gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// All of it: for programs that need the user's settings, such as the agent of ssh.
    Whole,
    /// Only what a program needs to find its files, and `LC_ALL=C.UTF-8`.
    Plain,
}

/// The variables of [`Environment::Plain`].
const PLAIN: [&str; 7] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
];

/// A program to run, with all its settings.
#[derive(Clone, Debug)]
pub struct Command {
    program: OsString,
    package: &'static str,
    arguments: Vec<OsString>,
    environment: Environment,
    without: Vec<&'static str>,
    variables: BTreeMap<OsString, OsString>,
    folder: Option<PathBuf>,
    user: Option<(u32, u32)>,
    input: Vec<u8>,
    limits: Limits,
}

/// The result of a program.
#[derive(Clone, Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    /// The end of stderr.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Returns stderr as text, for an error.
    pub fn message(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_string()
    }
}

impl Command {
    /// `package` is Debian's package with the program, for the hint if it is missing.
    pub fn new(program: impl Into<OsString>, package: &'static str) -> Self {
        Command {
            program: program.into(),
            package,
            arguments: Vec::new(),
            environment: Environment::Plain,
            without: Vec::new(),
            variables: BTreeMap::new(),
            folder: None,
            user: None,
            input: Vec::new(),
            limits: Limits::ANSWER,
        }
    }

    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Removes the variables of stead's environment whose names start with this.
    #[must_use]
    pub fn without(mut self, prefix: &'static str) -> Self {
        self.without.push(prefix);
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Sets the working folder; the default is stead's own.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Runs it as another user and group, which only root can. Root's supplementary groups are dropped.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// Sets its standard input; the default is empty.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Runs it to its end. The caller must check the exit status.
    pub fn run(&self) -> Result<Output, ProgramError> {
        // The thread has its own runtime, so this can also be called from within another.
        let (_go_on, stop) = oneshot::channel();
        self.in_thread(stop, Collected::new(self.limits.output))
            .join()
            .unwrap_or_else(|_| Err(self.panicked()))
    }

    /// Like [`Self::run`], but an exit status other than 0 is an error with the end of stderr.
    pub fn succeed(&self) -> Result<Output, ProgramError> {
        self.judge(self.run()?)
    }

    /// Like [`Self::run`], for async callers. If the future is dropped, the program is killed with everything
    /// that it started.
    pub async fn output(&self) -> Result<Output, ProgramError> {
        let (_go_on, stop) = oneshot::channel();
        let thread = self.in_thread(stop, Collected::new(self.limits.output));
        joined(thread).await.unwrap_or_else(|| Err(self.panicked()))
    }

    /// Runs it to its end and passes each line of its output to `each` (whether it is from stderr, and the
    /// line without its end). If the future is dropped, the program is killed with everything that it started.
    pub async fn lines(
        &self,
        each: &mut (dyn FnMut(bool, &str) + Send),
    ) -> Result<ExitStatus, ProgramError> {
        let (_go_on, stop) = oneshot::channel();
        let (sender, mut receiver) = mpsc::channel(64);
        let thread = self.in_thread(stop, Split::new(sender));
        while let Some((is_error, line)) = receiver.recv().await {
            each(is_error, &String::from_utf8_lossy(&line));
        }
        joined(thread).await.unwrap_or_else(|| Err(self.panicked()))
    }

    /// Like [`Self::lines`], for callers that block.
    pub fn run_lines(&self, each: &mut dyn FnMut(bool, &str)) -> Result<ExitStatus, ProgramError> {
        let (_go_on, stop) = oneshot::channel();
        let (sender, mut receiver) = mpsc::channel(64);
        let thread = self.in_thread(stop, Split::new(sender));
        while let Some((is_error, line)) = receiver.blocking_recv() {
            each(is_error, &String::from_utf8_lossy(&line));
        }
        thread.join().unwrap_or_else(|_| Err(self.panicked()))
    }

    fn judge(&self, output: Output) -> Result<Output, ProgramError> {
        if output.status.success() {
            return Ok(output);
        }
        Err(ProgramError::Failed {
            program: self.name(),
            status: output.status.to_string(),
            message: output.message(),
        })
    }

    /// Runs the program in a thread of its own. The kernel kills the program when the thread that started it
    /// ends (prctl(2), PR_SET_PDEATHSIG), and threads of a pool may end at any time.
    fn in_thread<S: Sink>(
        &self,
        stop: oneshot::Receiver<Infallible>,
        sink: S,
    ) -> Started<S::Result> {
        let command = self.clone();
        let span = tracing::Span::current();
        std::thread::spawn(move || {
            let _span = span.enter();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build()
                .map_err(|source| command.start(source))?;
            runtime.block_on(command.drive(stop, sink))
        })
    }

    async fn drive<S: Sink>(
        &self,
        stop: oneshot::Receiver<Infallible>,
        mut sink: S,
    ) -> Result<S::Result, ProgramError> {
        let started = std::time::Instant::now();
        let mut child = self.spawn()?;
        let group = child.id();
        let _killed = before_end(move || drop(Tree::of(group)));
        let tree = Tree::of(group);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let input = child.stdin.take();
        let feed = async {
            if let Some(mut input) = input {
                // If the program does not read all of it, its exit status shows why.
                let _ = input.write_all(&self.input).await;
            }
            std::future::pending::<Infallible>().await
        };
        let work = async {
            let mut pipes = Pipes { out, err };
            let ended = {
                let mut read = std::pin::pin!(pipes.read(&mut sink));
                tokio::select! {
                    status = child.wait() => {
                        match tokio::time::timeout(LINGER, &mut read).await {
                            Ok(Err(full)) => Err(full),
                            _ => Ok(status),
                        }
                    }
                    read = &mut read => match read {
                        Ok(()) => Ok(child.wait().await),
                        Err(full) => Err(full),
                    },
                }
            };
            match ended {
                Ok(status) => status.map_err(|source| self.start(source)),
                Err(Full) => Err(ProgramError::TooMuch {
                    program: self.name(),
                    limit: self.limits.output,
                }),
            }
        };
        let limit = async {
            match self.limits.time {
                Some(limit) => {
                    tokio::time::sleep(limit).await;
                    limit
                }
                None => std::future::pending().await,
            }
        };
        // An error drops the tree, and so kills it.
        let status = tokio::select! {
            biased;
            // The sender was dropped: nobody waits for the program any more.
            _ = stop => return Err(ProgramError::Interrupted { program: self.name() }),
            ended = work => ended?,
            limit = limit => return Err(ProgramError::TimedOut {
                program: self.name(),
                limit,
            }),
            never = feed => match never {},
        };
        // The program has ended. Processes that it left running were meant to stay, such as ssh's
        // ControlMaster.
        tree.let_go();
        tracing::debug!(
            "{} ended after {:.3} s: {status}",
            self.name(),
            started.elapsed().as_secs_f64()
        );
        Ok(sink.end(status).await)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one to use instead")]
    fn spawn(&self) -> Result<tokio::process::Child, ProgramError> {
        if let Some(folder) = self.folder.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(ProgramError::NoFolder {
                program: self.name(),
                folder: folder.clone(),
            });
        }
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.arguments);
        if self.environment == Environment::Plain {
            command.env_clear();
            for name in PLAIN {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
            command.env("LC_ALL", "C.UTF-8");
        }
        for prefix in &self.without {
            for (name, _) in std::env::vars_os() {
                if name.as_bytes().starts_with(prefix.as_bytes()) {
                    command.env_remove(name);
                }
            }
        }
        command.envs(&self.variables);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
            .stdin(if self.input.is_empty() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C only goes to stead, which decides what to do.
            .process_group(0)
            .kill_on_drop(true);
        let stead = nix::unistd::getpid();
        // SAFETY: between fork and exec this only makes system calls that are safe there (fork(2),
        // signal-safety(7)): prctl(2) and getppid(2).
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                // stead may have died before that call.
                if getppid() == stead {
                    Ok(())
                } else {
                    Err(io::ErrorKind::Interrupted.into())
                }
            });
        }
        command.start().map_err(|source| self.start(source))
    }

    fn name(&self) -> String {
        Path::new(&self.program)
            .file_name()
            .unwrap_or(&self.program)
            .to_string_lossy()
            .into_owned()
    }

    fn start(&self, source: io::Error) -> ProgramError {
        match source.kind() {
            io::ErrorKind::NotFound => ProgramError::NotInstalled {
                program: self.name(),
                package: self.package,
            },
            _ => ProgramError::Start {
                program: self.name(),
                source,
            },
        }
    }

    fn panicked(&self) -> ProgramError {
        self.start(io::Error::other("the thread that runs it panicked"))
    }
}

/// The command line, for logs.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line(
            &self.program,
            self.arguments.iter().map(OsString::as_os_str),
        ))
    }
}

type Started<R> = std::thread::JoinHandle<Result<R, ProgramError>>;

/// Waits for the thread without blocking the runtime. `None`: it panicked.
async fn joined<R: Send + 'static>(thread: Started<R>) -> Option<Result<R, ProgramError>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        // An error means that nobody waits for it any more.
        let _ = sender.send(thread.join());
    });
    receiver.await.ok()?.ok()
}

/// The program printed more than its limit.
struct Full;

/// Takes the output of a program.
trait Sink: Send + 'static {
    type Result: Send + 'static;
    fn take(&mut self, is_error: bool, bytes: &[u8]) -> impl Future<Output = Result<(), Full>>;
    fn end(self, status: ExitStatus) -> impl Future<Output = Self::Result>;
}

struct Pipes {
    out: Option<tokio::process::ChildStdout>,
    err: Option<tokio::process::ChildStderr>,
}

impl Pipes {
    /// Reads both to their ends.
    async fn read(&mut self, sink: &mut impl Sink) -> Result<(), Full> {
        let (mut first, mut second) = (vec![0; 16 << 10], vec![0; 16 << 10]);
        loop {
            let (is_error, bytes) = tokio::select! {
                n = some(&mut self.out, &mut first), if self.out.is_some() => (false, &first[..n]),
                n = some(&mut self.err, &mut second), if self.err.is_some() => (true, &second[..n]),
                else => return Ok(()),
            };
            sink.take(is_error, bytes).await?;
        }
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

struct Collected {
    limit: usize,
    stdout: Vec<u8>,
    stderr: VecDeque<u8>,
}

impl Collected {
    fn new(limit: usize) -> Self {
        Collected {
            limit,
            stdout: Vec::new(),
            stderr: VecDeque::new(),
        }
    }
}

impl Sink for Collected {
    type Result = Output;

    async fn take(&mut self, is_error: bool, bytes: &[u8]) -> Result<(), Full> {
        if is_error {
            self.stderr.extend(bytes);
            let over = self.stderr.len().saturating_sub(STDERR_KEPT);
            self.stderr.drain(..over);
        } else if self.stdout.len() + bytes.len() > self.limit {
            return Err(Full);
        } else {
            self.stdout.extend(bytes);
        }
        Ok(())
    }

    async fn end(self, status: ExitStatus) -> Output {
        Output {
            status,
            stdout: self.stdout,
            stderr: self.stderr.into(),
        }
    }
}

/// Splits both streams into lines, in the order in which the lines end.
struct Split {
    to: mpsc::Sender<(bool, Vec<u8>)>,
    begun: [Vec<u8>; 2],
}

impl Split {
    fn new(to: mpsc::Sender<(bool, Vec<u8>)>) -> Self {
        Split {
            to,
            begun: [Vec::new(), Vec::new()],
        }
    }

    async fn send(&self, is_error: bool, mut line: Vec<u8>) {
        while matches!(line.last(), Some(b'\n' | b'\r')) {
            line.pop();
        }
        // An error means that the receiver was dropped, which also kills the program.
        let _ = self.to.send((is_error, line)).await;
    }
}

impl Sink for Split {
    type Result = ExitStatus;

    async fn take(&mut self, is_error: bool, bytes: &[u8]) -> Result<(), Full> {
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

#[cfg(test)]
mod tests;
