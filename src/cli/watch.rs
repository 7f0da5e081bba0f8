//! The program stead-watch, which runs for `stead sync --watch` and for `watch=#true`.

use std::{io::IsTerminal, process::ExitCode, rc::Rc};

use clap::{Parser, Subcommand};

use crate::{
    failure::Failure,
    host::process::inherited,
    log,
    report::{ColorChoice, report_panics, reporter},
    session::{invocation::Invocation, locate::data_dir, watch::PROGRAM},
    sync::watch::{WatchReporter, Watched, run_in_background, watch},
};

use super::{Global, render::render, through};

/// Sends edits of the host to machines; `stead sync --watch` and `stead up` start it
///
/// stead writes the list of folders to its standard input.
#[derive(Parser)]
#[command(name = PROGRAM, version)]
struct WatchCommand {
    /// Detach from the terminal, and report on standard output once all folders are watched
    #[arg(long)]
    background: bool,
    #[arg(long)]
    json: bool,
    #[arg(long)]
    quiet: bool,
    #[arg(long)]
    verbose: bool,
    #[command(subcommand)]
    in_place_of_ssh: Option<InPlaceOfSsh>,
}

/// rsync gets the path of the program that runs it, whether that is stead or this.
#[derive(Subcommand)]
enum InPlaceOfSsh {
    #[command(hide = true)]
    Through(through::ThroughArgs),
}

pub fn main() -> ExitCode {
    inherited::close();
    report_panics(log::keep);
    let command = WatchCommand::parse();
    let invocation = Global {
        directory: None,
        file: None,
        connect: None,
        trust: None,
        json: command.json,
        quiet: command.quiet,
        verbose: u8::from(command.verbose),
        plain: true,
        color: ColorChoice::Auto,
    }
    .invocation();
    let ended = match command.in_place_of_ssh {
        Some(InPlaceOfSsh::Through(args)) => through::run(args),
        None => run(&invocation, command.background),
    };
    match ended {
        Ok(code) => code,
        Err(failure) => render(&failure, invocation.style),
    }
}

/// Runs with one thread and no connection to libvirt, to stay small.
fn run(invocation: &Invocation, background: bool) -> Result<ExitCode, Failure> {
    if std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            format!("{PROGRAM} cannot be used by hand: stead starts it"),
            "run `stead sync --watch`",
        ));
    }
    let watched: Watched = serde_json::from_reader(std::io::stdin()).map_err(|error| {
        Failure::usage(
            format!("cannot read the list of folders to watch: {error}"),
            "run `stead sync --watch`, which starts this program; both must be of the same release",
        )
    })?;
    let data = data_dir()?;
    let names: Vec<String> = (watched.machines.iter())
        .map(|machine| machine.machine.clone())
        .collect();
    let mut style = invocation.style;
    // A log that spans hours needs times.
    style.live = false;
    style.dated = background;
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
    // Do not wait for a thread that waits for another command's lock.
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
