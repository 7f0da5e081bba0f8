//! `stead sync --watch`, and the process behind `watch=#true`: the program stead-watch.

use std::{
    io::IsTerminal,
    process::{Command as Program, ExitCode},
    rc::Rc,
};

use clap::Parser;

use crate::{
    host::process::own_program,
    machine::Observed,
    machinefile::Project,
    report::{Event, EventKind, Reporter, clean::Shown, report_panics, reporter},
    sync::watch::{
        WatchReporter, Watched, WatcherFiles, WatcherStart, ensure, run_in_background, stop,
        stop_if_unneeded, watch, written,
    },
};

use super::{
    ColorChoice, Failure, Global, output,
    session::{Session, data_dir},
    ssh::replace,
    work::Work,
};

pub const PROGRAM: &str = "stead-watch";

/// Sends edits of the host to machines; `stead sync --watch` and `stead up` start it
///
/// What to watch comes on its standard input, from stead.
#[derive(Parser)]
#[command(name = PROGRAM, version)]
struct WatchCommand {
    /// Leave the terminal, and say on standard output when all is watched
    #[arg(long)]
    background: bool,
    #[arg(long)]
    json: bool,
    #[arg(long)]
    quiet: bool,
    #[arg(long)]
    verbose: bool,
}

pub fn main() -> ExitCode {
    report_panics();
    let command = WatchCommand::parse();
    let global = Global {
        directory: None,
        file: None,
        connect: None,
        trust: None,
        json: command.json,
        quiet: command.quiet,
        verbose: command.verbose,
        plain: true,
        color: ColorChoice::Auto,
    };
    match run(&global, command.background) {
        Ok(code) => code,
        Err(failure) => failure.render(&global),
    }
}

/// Small and alone: it has no connection to libvirt, and one thread.
fn run(global: &Global, background: bool) -> Result<ExitCode, Failure> {
    if std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            format!("{PROGRAM} is started by stead, which tells it what to watch"),
            "`stead sync --watch`",
        ));
    }
    let watched: Watched = serde_json::from_reader(std::io::stdin()).map_err(|error| {
        Failure::usage(
            format!("what is to be watched cannot be read: {error}"),
            "`stead sync --watch` starts this program; both have to be of the same release",
        )
    })?;
    let data = data_dir()?;
    let names: Vec<String> = (watched.machines.iter())
        .map(|machine| machine.machine.clone())
        .collect();
    let mut style = output::style(global);
    // When it was is what one wants to know of something that runs for hours.
    style.live = false;
    let reporter = WatchReporter {
        reporter: reporter(style, &names),
        watched: watched.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start the async runtime", &error))?;
    let code = runtime.block_on(async {
        if background {
            return Ok(run_in_background(&data, watched, reporter).await);
        }
        tokio::select! {
            ended = watch(&data, &watched, Rc::new(reporter)) => ended.map(|()| 0),
            () = interrupted() => Ok(130),
        }
    })?;
    // A thread that waits for another command's lock is not waited for.
    runtime.shutdown_background();
    Ok(ExitCode::from(code))
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[expect(clippy::disallowed_methods, reason = "it runs on")]
fn own(global: &Global) -> Result<Program, Failure> {
    let stead = own_program().map_err(|error| Failure::io("find stead itself", &error))?;
    let program = stead.with_file_name(PROGRAM);
    if !program.exists() {
        return Err(Failure::error(
            format!("there is no {PROGRAM} beside {}", stead.shown()),
            format!("{PROGRAM} comes with stead: put both into one folder"),
        ));
    }
    let mut command = Program::new(program);
    for (given, flag) in [
        (global.json, "--json"),
        (global.quiet, "--quiet"),
        (global.verbose, "--verbose"),
    ] {
        if given {
            command.arg(flag);
        }
    }
    Ok(command)
}

/// Becomes the process that watches, in the foreground.
pub fn in_foreground(global: &Global, watched: &Watched) -> Result<ExitCode, Failure> {
    let mut command = own(global)?;
    command.stdin(written(watched)?);
    Err(replace(command))
}

/// After an `up`: what the Machinefile wants watched is, if a machine that has it is up. `false`
/// where that could not be had.
pub fn see_to(global: &Global, work: &Work, up: &[String]) -> Result<bool, Failure> {
    let project = &work.session.project;
    let place = WatcherFiles::of(&work.session.data, &work.session.owner());
    let uuid_of = |name: &str| work.session.identity(name).map(|it| it.uuid);
    let Some(watched) = Watched::by_itself(project, uuid_of)? else {
        stop(&place)?;
        return Ok(true);
    };
    let wanted = |machine: &String| (watched.machines.iter()).any(|it| it.machine == *machine);
    if !up.iter().any(wanted) {
        return Ok(true);
    }
    // Its log is for people, whatever this command prints.
    let plain = Global {
        json: false,
        quiet: false,
        verbose: false,
        ..global.clone()
    };
    let started = match own(&plain) {
        Ok(mut command) => {
            command.arg("--background");
            ensure(&work.session.data, &watched, &mut command)?.map_err(|said| (said, None))
        }
        Err(Failure::Error { message, hint }) => Err((message, hint)),
        Err(other) => return Err(other),
    };
    match started {
        Ok(WatcherStart::WasRunning) => Ok(true),
        Ok(WatcherStart::Started) => {
            for machine in &watched.machines {
                for folder in &machine.folders {
                    tell(
                        &work.reporter,
                        &machine.machine,
                        format!(
                            "{} → {}: edits go there as they are made (`stead status` shows how it goes)",
                            shown(project, &folder.from),
                            folder.to
                        ),
                    );
                }
            }
            Ok(true)
        }
        Err((said, hint)) => {
            work.reporter.event(&Event::now(
                "",
                EventKind::StepFailed {
                    step: "watch".into(),
                    error: format!("the folders are not watched: {said}"),
                    hint,
                    console: Vec::new(),
                },
            ));
            Ok(false)
        }
    }
}

fn shown(project: &Project, path: &std::path::Path) -> String {
    match path.strip_prefix(&project.root) {
        Ok(inner) if inner.as_os_str().is_empty() => ".".into(),
        Ok(inner) => inner.shown(),
        Err(_) => path.shown(),
    }
}

fn tell(reporter: &Reporter, machine: &str, message: String) {
    reporter.event(&Event::now(machine, EventKind::Notice { message }));
}

/// After a `halt` or `destroy`: ends the watcher where no machine of it is up any more.
pub fn end_if_unneeded(session: &Session) -> Result<(), Failure> {
    let place = WatcherFiles::of(&session.data, &session.owner());
    stop_if_unneeded(&place, |machine| {
        // What libvirt does not tell counts as up: the next command looks again.
        !matches!(
            session.observe(machine),
            Ok(observed) if !observed.as_ref().is_some_and(Observed::is_up)
        )
    })?;
    Ok(())
}
