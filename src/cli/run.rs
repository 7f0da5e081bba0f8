//! `stead run`: runs a command in throwaway machines, one per kernel.

use std::{
    ffi::OsString,
    fs::{self},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Args;

use crate::{
    failure::Failure,
    host::shell::shell_quote_any,
    machinefile::duration,
    report::{Style, Table, clean::Shown, elapsed, reporter, say},
    session::{
        Session,
        agreement::{self, Scope},
        invocation::Invocation,
        locate::start_folder,
        operation::Operation,
        run::{KernelRun, Order, RunResult, at_once, ephemeral, machine, prepare, run_all},
    },
};

use super::output;

const EXAMPLES: &str = "\
Examples:
  stead run -- make check                               Run tests in a throwaway machine
  stead run web --kernel host --kernel box -- uname -r  Run a command on two kernels";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArgs {
    /// Machine of the Machinefile that the throwaway ones are like [default: the project's only
    /// machine]
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    /// Kernel to run it on; may be repeated. A name or release of `stead kernel list`, a package of
    /// the box's distribution, a path with a `/`, `box` or `host` [default: the Machinefile's]
    #[arg(long = "kernel", value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Number of machines at a time [default: as many as the host has CPUs and memory for]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Stop the command after this time, such as 10m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// Folder for the command's output, one file per kernel [default: one in stead's data folder]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Command and its arguments; each argument reaches the guest unchanged
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn run(invocation: &Invocation, args: RunArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(invocation)?;
    let original = machine(&session, args.machine.as_deref())?;
    let machines = ephemeral(invocation, &original, &args.kernels)?;
    let jobs = match args.jobs {
        Some(jobs) => usize::from(jobs),
        None => at_once(&original, machines.len())?,
    };
    let labels: Vec<String> = machines.iter().map(|(label, _)| label.clone()).collect();
    let wanted = machines.into_iter().map(|(_, machine)| machine).collect();
    // Throwaway machines have no hooks and no forwards.
    let scope = Scope::Up {
        hooks: false,
        provisioners: true,
        networks: false,
    };
    let agreement = agreement::need(invocation, &session.data, &session.project, scope)?;
    let mut operation = Operation::begin_run(invocation, session, wanted, &original.name)?;
    operation.agreement = agreement;
    prepare(&mut operation)?;
    let folder = match &args.output {
        Some(folder) => start_folder(invocation)?.join(folder),
        None => operation.session.data.runs().join(format!(
            "{}-{}-{}",
            operation.session.project.name,
            original.name,
            jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ")
        )),
    };
    fs::create_dir_all(&folder)
        .map_err(|error| Failure::io(format!("create {}", folder.shown()), &error))?;
    let script: Vec<String> = args
        .command
        .iter()
        .map(|word| shell_quote_any(word))
        .collect();
    let order = Order {
        script: script.join(" "),
        timeout: args.timeout,
        folder,
        // The output of one kernel is shown live. That of several would be mixed up.
        alone: labels.len() == 1 && !invocation.style.json && !invocation.style.quiet,
        quiet: reporter(
            Style {
                quiet: true,
                live: false,
                ..invocation.style
            },
            &[],
        ),
    };
    let folder = order.folder.clone();
    let ran = run_all(Arc::new(operation), &labels, jobs, Arc::new(order))?;
    conclude(invocation, &folder, &ran)
}

fn conclude(
    invocation: &Invocation,
    folder: &Path,
    ran: &[KernelRun],
) -> Result<ExitCode, Failure> {
    let all = ran.iter().all(|ran| ran.result == RunResult::Passed);
    if invocation.style.json {
        // The last line of the event stream.
        let line = serde_json::json!({
            "at": jiff::Timestamp::now(),
            "event": "run",
            "passed": all,
            "runs": ran,
        });
        output::json_line(&line)?;
    } else {
        let mut table = Table::new(&["KERNEL", "RUNS", "RESULT", "EXIT", "TIME", "BOOT"]);
        for ran in ran {
            table.row([
                ran.kernel.clone(),
                ran.release.clone().unwrap_or_else(|| "-".into()),
                ran.result.word().to_string(),
                ran.exit.map_or_else(|| "-".into(), |code| code.to_string()),
                elapsed(Duration::from_secs_f64(ran.seconds)),
                elapsed(Duration::from_secs_f64(ran.boot_seconds)),
            ]);
        }
        output::data(&output::fitted(&table))?;
        for ran in ran.iter().filter(|ran| ran.result != RunResult::Passed) {
            let text = fs::read(&ran.output).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let end = &lines[lines.len().saturating_sub(5)..];
            if !end.is_empty() {
                say(
                    invocation.style,
                    &format!("\nlast lines of {}:", ran.kernel),
                );
                for line in end {
                    say(invocation.style, &format!("  {line}"));
                }
            }
        }
        say(
            invocation.style,
            &format!("\nfull output: {}", folder.shown()),
        );
    }
    if ran.iter().any(|ran| ran.result == RunResult::Interrupted) {
        return Ok(ExitCode::from(130));
    }
    Ok(ExitCode::from(u8::from(!all)))
}
