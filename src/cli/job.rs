//! `stead job`: jobs of machines, which `stead exec --detach` starts.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    failure::Failure,
    guest::{Job, JobName, JobState},
    host::shell::shell_quote,
    report::{Table, ago, bytes, clean::words, say, stdio},
    session::{Detail, Session, exec::Pass, invocation::Invocation, jobs::Jobs},
};

use super::{logs::Shown, output, select::OtherProjectArgs, ssh::as_ssh};

const EXAMPLES: &str = "\
Examples:
  stead job list web                    List the jobs of web
  stead job logs web 1f0c22ab --follow  Show what a job prints, until it ends
  stead job wait web 1f0c22ab           Wait for a job, and exit with its exit code";

const LIST_EXAMPLES: &str = "\
Examples:
  stead job list             List the jobs of the project's only machine
  stead job list web --json  Print those of web as JSON";

const LOGS_EXAMPLES: &str = "\
Examples:
  stead job logs web 1f0c22ab           Show what the job has printed
  stead job logs web 1f0c22ab --follow  Show what it prints, until it ends";

const WAIT_EXAMPLES: &str = "\
Examples:
  stead job wait web \"$job\"  Wait for the job whose name `exec --detach` has printed";

const STOP_EXAMPLES: &str = "\
Examples:
  stead job stop web 1f0c22ab";

const REMOVE_EXAMPLES: &str = "\
Examples:
  stead job remove web 1f0c22ab";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct JobArgs {
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Subcommand)]
enum JobCommand {
    /// List a machine's jobs: those that run, and the last 20 that have ended
    List(ListArgs),
    /// Show what a job has printed, on both streams
    Logs(LogsArgs),
    /// Wait until a job ends, and exit with its exit code
    Wait(WaitArgs),
    /// Stop a job, and all that it has started
    Stop(StopArgs),
    /// Remove a job that has ended, with its output
    Remove(RemoveArgs),
}

#[derive(Args)]
#[command(after_help = LIST_EXAMPLES)]
struct ListArgs {
    /// Machine whose jobs to list [default: the project's only machine]
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

/// A job of a machine.
#[derive(Args)]
struct OneArgs {
    /// Machine that has the job [default: the project's only machine]
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    /// Job, by the name that `stead exec --detach` has printed
    #[arg(value_name = "JOB", required = true)]
    job: String,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

#[derive(Args)]
#[command(after_help = LOGS_EXAMPLES, allow_missing_positional = true)]
struct LogsArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Keep printing new output, until the job ends
    #[arg(short = 'F', long)]
    follow: bool,
    /// Print it unfiltered: escape sequences of the guest act on your terminal
    #[arg(long)]
    raw: bool,
}

#[derive(Args)]
#[command(after_help = WAIT_EXAMPLES, allow_missing_positional = true)]
struct WaitArgs {
    #[command(flatten)]
    one: OneArgs,
}

#[derive(Args)]
#[command(after_help = STOP_EXAMPLES, allow_missing_positional = true)]
struct StopArgs {
    #[command(flatten)]
    one: OneArgs,
}

#[derive(Args)]
#[command(after_help = REMOVE_EXAMPLES, allow_missing_positional = true)]
struct RemoveArgs {
    #[command(flatten)]
    one: OneArgs,
}

pub(super) fn run(invocation: &Invocation, args: JobArgs) -> Result<ExitCode, Failure> {
    match args.command {
        JobCommand::List(args) => with_jobs(invocation, args.machine, args.other_project, |jobs| {
            list(invocation, jobs)
        }),
        JobCommand::Logs(args) => {
            let (follow, raw) = (args.follow, args.raw);
            one(invocation, args.one, |jobs, job| {
                logs(invocation, jobs, job, follow, raw)
            })
        }
        JobCommand::Wait(args) => {
            let waited = one(invocation, args.one, |jobs, job| {
                wait(invocation, jobs, job)
            });
            // 255 is no command's exit code in a guest.
            waited.map_err(|failure| match failure {
                Failure::Error { .. } => as_ssh(&failure, invocation.style),
                other => other,
            })
        }
        JobCommand::Stop(args) => one(invocation, args.one, |jobs, job| {
            let said = match jobs.stop(job)? {
                true => "was stopped",
                false => "had ended already",
            };
            say_of(invocation, jobs, job, said)
        }),
        JobCommand::Remove(args) => one(invocation, args.one, |jobs, job| {
            jobs.remove(job)?;
            say_of(invocation, jobs, job, "was removed")
        }),
    }
}

fn with_jobs(
    invocation: &Invocation,
    machine: Option<String>,
    other_project: OtherProjectArgs,
    act: impl FnOnce(&Jobs<'_>) -> Result<ExitCode, Failure>,
) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &other_project.into(), Detail::Existing)?;
    let (observed, remote) = session.reachable(machine.as_deref())?;
    act(&Jobs {
        session: &session,
        observed: &observed,
        remote: &remote,
    })
}

fn one(
    invocation: &Invocation,
    args: OneArgs,
    act: impl FnOnce(&Jobs<'_>, &JobName) -> Result<ExitCode, Failure>,
) -> Result<ExitCode, Failure> {
    let job: JobName = args.job.parse().map_err(|why: String| {
        Failure::usage(
            format!("{} is not the name of a job: {why}", words(&args.job)),
            "`stead job list` shows the names of jobs",
        )
    })?;
    with_jobs(invocation, args.machine, args.other_project, |jobs| {
        act(jobs, &job)
    })
}

fn say_of(
    invocation: &Invocation,
    jobs: &Jobs<'_>,
    job: &JobName,
    what: &str,
) -> Result<ExitCode, Failure> {
    let machine = &jobs.remote.machine;
    say(invocation.style, &format!("job {job} of {machine} {what}"));
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Running,
    Exited,
    Rebooted,
    Lost,
}

#[derive(Serialize)]
struct Row {
    job: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<jiff::Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<jiff::Timestamp>,
    output_bytes: u64,
    command: Vec<String>,
}

impl Row {
    fn of(job: Job) -> Self {
        let (state, exit) = match job.state {
            JobState::Running => (State::Running, None),
            JobState::Exited(code) => (State::Exited, Some(code)),
            JobState::Rebooted => (State::Rebooted, None),
            JobState::Lost => (State::Lost, None),
        };
        Row {
            job: job.name.to_string(),
            state,
            exit,
            started: job.began,
            ended: job.ended,
            output_bytes: job.output_bytes,
            command: job.command,
        }
    }
}

fn list(invocation: &Invocation, jobs: &Jobs<'_>) -> Result<ExitCode, Failure> {
    let machine = &jobs.remote.machine;
    let rows: Vec<Row> = jobs.list()?.into_iter().map(Row::of).collect();
    if invocation.style.json {
        output::json(&serde_json::json!({ "machine": machine, "jobs": rows }))?;
    } else if rows.is_empty() {
        let hint = format!("`stead exec --detach {machine} -- COMMAND` starts one");
        say(
            invocation.style,
            &format!("machine {machine} has no jobs: {hint}"),
        );
    } else {
        output::data(&output::fitted(&table(&rows)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["JOB", "STATE", "EXIT", "STARTED", "OUTPUT", "COMMAND"]);
    for row in rows {
        let state = match row.state {
            State::Running => "running",
            State::Exited => "ended",
            State::Rebooted => "ended with the guest",
            State::Lost => "lost",
        };
        let command: Vec<String> = row.command.iter().map(|word| shell_quote(word)).collect();
        table.row([
            row.job.clone(),
            state.to_string(),
            row.exit.map_or_else(|| "-".into(), |code| code.to_string()),
            row.started.map_or_else(|| "-".into(), ago),
            bytes(row.output_bytes),
            command.join(" "),
        ]);
    }
    table
}

fn logs(
    invocation: &Invocation,
    jobs: &Jobs<'_>,
    job: &JobName,
    follow: bool,
    raw: bool,
) -> Result<ExitCode, Failure> {
    let shown = (!raw && stdio::stdout_is_terminal()).then(|| Shown::new(invocation));
    let shown = Arc::new(Mutex::new(shown));
    let to = shown.clone();
    let out: Pass = Box::new(move |piece| {
        let mut shown = to.lock().unwrap_or_else(PoisonError::into_inner);
        let is_read = match &mut *shown {
            Some(shown) => stdio::raw(shown.take(piece).as_bytes())?,
            None => stdio::raw(piece)?,
        };
        match is_read {
            true => Ok(()),
            false => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    });
    let notes: Pass = Box::new(|piece| {
        stdio::talk(&String::from_utf8_lossy(piece));
        Ok(())
    });
    jobs.logs(job, follow, out, notes)?;
    let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shown) = &mut *shown {
        output::raw(shown.end().as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn wait(invocation: &Invocation, jobs: &Jobs<'_>, job: &JobName) -> Result<ExitCode, Failure> {
    let line = format!("waiting for job {job} of {}\n", jobs.remote.machine);
    let is_told = stdio::stderr_is_terminal() && !invocation.style.quiet && !invocation.style.json;
    let code = jobs.wait(job, move || {
        if is_told {
            stdio::talk(&line);
        }
    })?;
    Ok(ExitCode::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_read_well() {
        let job = |name: &str, state, began: i64, command: &[&str]| {
            Row::of(Job {
                name: name.parse().unwrap(),
                state,
                began: jiff::Timestamp::from_second(began).ok(),
                ended: None,
                output_bytes: 3 << 20,
                command: command.iter().map(ToString::to_string).collect(),
            })
        };
        let now = jiff::Timestamp::now().as_second();
        let rows = [
            job(
                "0a1b2c3d",
                JobState::Rebooted,
                now - 90_000,
                &["make", "all"],
            ),
            job(
                "1a1b2c3d",
                JobState::Exited(143),
                now - 7200,
                &["sh", "-c", "a\u{1b}[2J\nb"],
            ),
            job("2a1b2c3d", JobState::Lost, now - 3700, &[]),
            job("3a1b2c3d", JobState::Running, now, &["sleep", "60"]),
        ];
        insta::assert_snapshot!(table(&rows).fitted(None));
    }
}
