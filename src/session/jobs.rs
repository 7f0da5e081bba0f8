//! Jobs of a machine: commands that go on when the stead that started them ends.

use std::{
    ffi::OsString,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    failure::Failure,
    guest::{
        Answer, Job, JobName, JobOrder, JobState, NO_SUCH_JOB, Output, Remote, UserCommand,
        job_script, parse_answer, parse_jobs,
    },
    host::{runtime::runtime, unread::Input},
    machine::Observed,
    report::clean::words,
};

use super::{
    Session,
    exec::{ExecEnd, NO_READER, Pass, Streams, exec, start},
    reach::{Reboots, until_lost},
};

/// How often a name is tried that another job has.
const TRIES: usize = 5;

/// What the script says while one waits for a job is shorter, in bytes.
const MOST_SAID: usize = 64 << 10;

/// A running machine whose jobs are asked for.
pub struct Jobs<'a> {
    pub session: &'a Session,
    pub observed: &'a Observed,
    pub remote: &'a Remote,
}

/// What came of a command that was to be a job.
pub enum JobStart {
    Runs(JobName),
    /// The guest has no such program, in its shell's words.
    NoCommand(String),
}

impl Jobs<'_> {
    /// Starts a command, which runs when this returns.
    ///
    /// # Errors
    /// If the guest cannot be reached, or cannot keep a job.
    pub fn start(&self, command: &[OsString]) -> Result<JobStart, Failure> {
        for _ in 0..TRIES {
            let name =
                JobName::random().map_err(|error| Failure::io("read random bytes", &error))?;
            let output = self.ask(Some(&name), JobOrder::Start(command))?;
            return match parse_answer(&output.stdout) {
                Some(Answer::Started) => Ok(JobStart::Runs(name)),
                Some(Answer::NoCommand) => Ok(JobStart::NoCommand(output.stderr)),
                Some(Answer::Taken) => continue,
                _ => Err(self.failed("start a job", &output.last_words())),
            };
        }
        Err(self.failed("start a job", "the names of others are in its way"))
    }

    /// Lists the jobs, the oldest first.
    ///
    /// # Errors
    /// If the guest cannot be reached.
    pub fn list(&self) -> Result<Vec<Job>, Failure> {
        let output = self.ask(None, JobOrder::List)?;
        match output.status.success() {
            true => Ok(parse_jobs(&output.stdout)),
            false => Err(self.failed("list jobs", &output.last_words())),
        }
    }

    /// Passes on what a job has printed; with `follow` until it ends. What is said beside it goes to `notes`.
    ///
    /// # Errors
    /// If the guest cannot be reached, or has no such job.
    pub fn logs(
        &self,
        name: &JobName,
        follow: bool,
        out: Pass,
        notes: Pass,
    ) -> Result<(), Failure> {
        match self.run(name, JobOrder::Logs { follow }, out, notes)? {
            0 | NO_READER => Ok(()),
            NO_SUCH_JOB => Err(self.missing(name)),
            code => Err(self.failed(
                "read what the job has printed",
                &format!("its script exits with {code}"),
            )),
        }
    }

    /// Waits until a job ends. `at_wait` is called if that is not so yet. Returns the job's exit code.
    ///
    /// # Errors
    /// If the guest cannot be reached or ends, or has no such job, or the job has no exit code.
    pub fn wait(
        &self,
        name: &JobName,
        mut at_wait: impl FnMut() + Send + 'static,
    ) -> Result<u8, Failure> {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = said.clone();
        let out: Pass = Box::new(move |piece| {
            let mut said = heard.lock().unwrap_or_else(PoisonError::into_inner);
            if said.is_empty() && piece.starts_with(b"running") {
                at_wait();
            }
            match said.len() + piece.len() < MOST_SAID {
                true => said.extend_from_slice(piece),
                false => return Err(io::ErrorKind::FileTooLarge.into()),
            }
            Ok(())
        });
        let troubles = Box::new(|piece: &[u8]| {
            tracing::debug!("{}", words(&String::from_utf8_lossy(piece)));
            Ok(())
        });
        self.run(name, JobOrder::Wait, out, troubles)?;
        let said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let said = String::from_utf8_lossy(&said);
        match parse_answer(&said) {
            Some(Answer::Is(JobState::Exited(code))) => Ok(code),
            Some(Answer::Is(state)) => Err(self.without_code(name, state)),
            Some(Answer::Missing) => Err(self.missing(name)),
            _ => Err(self.failed("wait for the job", &said)),
        }
    }

    /// Ends a job with all that it has started. Returns whether it ran.
    ///
    /// # Errors
    /// If the guest cannot be reached, has no such job, or cannot end it.
    pub fn stop(&self, name: &JobName) -> Result<bool, Failure> {
        let output = self.ask(Some(name), JobOrder::Stop)?;
        match parse_answer(&output.stdout) {
            Some(Answer::Missing) => Err(self.missing(name)),
            Some(Answer::Stopped(_, JobState::Running)) => {
                let machine = &self.remote.machine;
                Err(Failure::error(
                    format!("cannot stop job {name} of {machine}: it goes on after SIGKILL"),
                    format!(
                        "a part of it may run as another user: end it by `sudo` in {machine}; `stead exec {machine} -- ps -ef` lists what runs"
                    ),
                ))
            }
            Some(Answer::Stopped(was, _)) => Ok(was == JobState::Running),
            _ => Err(self.failed("stop the job", &output.last_words())),
        }
    }

    /// Removes what is known of a job that has ended.
    ///
    /// # Errors
    /// If the guest cannot be reached, has no such job, or the job runs.
    pub fn remove(&self, name: &JobName) -> Result<(), Failure> {
        let output = self.ask(Some(name), JobOrder::Remove)?;
        let machine = &self.remote.machine;
        match parse_answer(&output.stdout) {
            Some(Answer::Removed) => Ok(()),
            Some(Answer::Missing) => Err(self.missing(name)),
            Some(Answer::Is(_)) => Err(Failure::error(
                format!("job {name} of {machine} is running"),
                format!("`stead job stop {machine} {name}` stops it"),
            )),
            _ => Err(self.failed("remove the job", &output.last_words())),
        }
    }

    /// Asks for what takes no longer than seconds, and is done even if this process is killed meanwhile.
    fn ask(&self, name: Option<&JobName>, order: JobOrder<'_>) -> Result<Output, Failure> {
        let script = job_script(name, order);
        let machine = &self.remote.machine;
        runtime()?.block_on(async {
            let asked = async {
                let child = start(self.session, self.observed, self.remote, &script).await??;
                Ok(self.remote.collect(child).await?)
            };
            tokio::select! {
                asked = asked => asked,
                lost = until_lost(self.session, self.observed, machine, Reboots::End) => Err(lost.failure),
            }
        })
    }

    /// Runs what may take long, and ends with this process. Returns its exit code.
    fn run(
        &self,
        name: &JobName,
        order: JobOrder<'_>,
        out: Pass,
        err: Pass,
    ) -> Result<u8, Failure> {
        let command = ["sh", "-c", &job_script(Some(name), order)].map(OsString::from);
        let streams = Streams {
            input: Input::Nothing,
            out,
            err,
        };
        let command = UserCommand::Words(&command);
        match exec(self.session, self.observed, self.remote, command, streams)? {
            ExecEnd::Code(code) => Ok(code),
            ExecEnd::Failed(failure) => Err(failure),
        }
    }

    fn missing(&self, name: &JobName) -> Failure {
        let machine = &self.remote.machine;
        Failure::error(
            format!("machine {machine} has no job {name}"),
            format!(
                "`stead job list {machine}` lists its jobs; a guest keeps the last 20 that have ended"
            ),
        )
    }

    fn without_code(&self, name: &JobName, state: JobState) -> Failure {
        let machine = &self.remote.machine;
        let why = match state {
            JobState::Rebooted => format!("{machine} stopped before it ended"),
            _ => "the process in the guest that watched it was killed".to_string(),
        };
        Failure::error(
            format!("job {name} of {machine} has no exit code: {why}"),
            format!("`stead job logs {machine} {name}` shows what it has printed"),
        )
    }

    fn failed(&self, doing: &str, said: &str) -> Failure {
        let machine = &self.remote.machine;
        Failure::error(
            format!("cannot {doing} in {machine}: {}", words(said)),
            format!(
                "jobs are kept in ~/.local/state/stead/jobs there; `stead exec {machine} -- df -h` shows how full its disks are"
            ),
        )
    }
}
