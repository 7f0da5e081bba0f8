//! `stead top`: what machines use, now and in the last minutes.

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

use super::output;

use collect::Collector;

#[derive(Args)]
pub struct TopArgs {
    /// Print one look and end
    #[arg(long)]
    once: bool,
    /// Time between two looks, 200ms at least
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < Duration::from_millis(200) {
        return Err("200ms at least".into());
    }
    Ok(time)
}

pub fn run(invocation: &Invocation, args: TopArgs) -> Result<ExitCode, Failure> {
    use std::io::IsTerminal;
    let connection = connect(invocation, None)?;
    let mut collector = Collector::new(connection);
    if args.once {
        // Rates are of the time between two looks.
        collector.look()?;
        std::thread::sleep(args.interval);
        let look = collector.look()?;
        if invocation.style.json {
            output::json(&look)?;
        } else {
            let mut state = view::State::new(&look.connect);
            state.take(look);
            output::data(&view::plain(&state))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if invocation.style.json {
        return lines(collector, args.interval);
    }
    if !stdio::stdout_is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "`stead top` draws on a terminal, and this is none",
            "`stead top --once` prints one look, `stead top --json` a line for each",
        ));
    }
    screen::run(invocation, collector, args.interval)
}

/// A line of JSON for every look, until nobody reads any more.
fn lines(mut collector: Collector, interval: Duration) -> Result<ExitCode, Failure> {
    collector.look()?;
    let mut next = Instant::now() + interval;
    loop {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += interval;
        let look = collector.look()?;
        if !output::json_line(&look)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
}
