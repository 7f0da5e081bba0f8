//! `stead top`: shows what machines use, now and in the last minutes.

mod collect;
mod screen;
mod view;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    failure::Failure,
    machinefile::duration,
    report::stdio,
    session::{invocation::Invocation, locate::connect},
};

use super::{global::is_capable, output};

use collect::Collector;

const EXAMPLES: &str = "\
Examples:
  stead top                Show live use; q quits
  stead top --once --json  Print one sample as JSON";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TopArgs {
    /// Print one sample and exit
    #[arg(long)]
    once: bool,
    /// Time between samples, at least 200ms
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < Duration::from_millis(200) {
        return Err("must be at least 200ms".into());
    }
    Ok(time)
}

pub(super) fn run(invocation: &Invocation, args: TopArgs) -> Result<ExitCode, Failure> {
    use std::io::IsTerminal;
    let connection = connect(invocation, None)?;
    let mut collector = Collector::new(connection);
    if args.once {
        // A rate needs two samples.
        collector.sample()?;
        std::thread::sleep(args.interval);
        let sample = collector.sample()?;
        if invocation.style.json {
            output::json(&sample)?;
        } else {
            let mut state = view::State::new(&sample.connect);
            state.take(sample);
            output::data(&view::plain(&state))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if invocation.style.json {
        return lines(collector, args.interval);
    }
    if !stdio::stdout_is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "`stead top` needs a terminal, and standard output is not one",
            "`stead top --once` prints one sample, `stead top --json` one line per sample",
        ));
    }
    // Such a terminal cannot place the cursor, and would show each screen below the last one.
    if !is_capable() {
        let kind = std::env::var("TERM").unwrap_or_default();
        return Err(Failure::usage(
            format!("`stead top` needs a terminal that can redraw, and TERM is {kind:?}"),
            "`stead top --once` prints one sample, `stead top --json` one line per sample",
        ));
    }
    screen::run(invocation, collector, args.interval)
}

/// Prints a line of JSON per sample, until the reader is gone.
fn lines(mut collector: Collector, interval: Duration) -> Result<ExitCode, Failure> {
    collector.sample()?;
    let mut next = Instant::now() + interval;
    loop {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += interval;
        let sample = collector.sample()?;
        if !output::json_line(&sample)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
}
