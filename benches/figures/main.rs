//! What stead costs, beside what it is made of and what it replaces. `./dev bench` builds and runs
//! this; see there for how.
//!
//! ```text
//! figures GROUP [--runs N] [--json FILE]      measure one group
//! figures summary PART… [--json FILE]         say again, as one, what several groups wrote
//! ```
//!
//! Exits 0 when every figure reaches its goal, 1 when one falls short or could not be measured,
//! 2 for a wrong command line.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    unsafe_code,
    reason = "a benchmark that cannot go on panics"
)]

mod ansible;
mod bare_qemu;
mod boxes;
mod figure;
mod folders;
mod guarantees;
mod https;
mod kernels;
mod main_job;
mod networks;
mod project;
mod provision;
mod reads;
mod sync;
mod timing;
mod vagrant;

use std::{path::PathBuf, process::ExitCode};

use figure::Figure;

/// Why something could not be measured: one message, for the developer who ran it.
#[derive(Debug)]
pub struct Trouble(pub String);

pub type Result<T> = std::result::Result<T, Trouble>;

/// Says what was being done when an error came up.
pub trait While<T> {
    fn during(self, what: impl std::fmt::Display) -> Result<T>;
}

impl<T, E: std::fmt::Display> While<T> for std::result::Result<T, E> {
    fn during(self, what: impl std::fmt::Display) -> Result<T> {
        self.map_err(|error| Trouble(format!("{what}: {error}")))
    }
}

struct Arguments {
    group: String,
    parts: Vec<PathBuf>,
    runs: usize,
    json: Option<PathBuf>,
}

/// Runs of the figures that boot machines, unless `--runs` says otherwise.
const DEFAULT_RUNS: usize = 3;

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut parsed = Arguments {
        group: String::new(),
        parts: Vec::new(),
        runs: DEFAULT_RUNS,
        json: None,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| Trouble(format!("{argument} needs a value")))
        };
        match argument.as_str() {
            // cargo bench adds this by itself.
            "--bench" => {}
            "--json" => parsed.json = Some(value()?.into()),
            "--runs" => {
                parsed.runs = value()?.parse().during("--runs")?;
                if parsed.runs == 0 {
                    return Err(Trouble("--runs: at least 1".into()));
                }
            }
            option if option.starts_with('-') => {
                return Err(Trouble(format!("no such option: {option}")));
            }
            _ if parsed.group.is_empty() => parsed.group = argument,
            _ => parsed.parts.push(argument.into()),
        }
    }
    Ok(parsed)
}

fn run(arguments: &Arguments) -> Result<Vec<Figure>> {
    match arguments.group.as_str() {
        "main-job" => main_job::measure(arguments.runs),
        "boxes" => boxes::measure(arguments.runs),
        "folders" => folders::measure(arguments.runs),
        "guarantees" => guarantees::measure(arguments.runs),
        "kernels" => kernels::measure(arguments.runs),
        "network" => networks::measure(arguments.runs),
        "provision" => {
            let mut figures = provision::measure(arguments.runs)?;
            figures.extend(ansible::measure(arguments.runs)?);
            Ok(figures)
        }
        "sync" => sync::measure(arguments.runs),
        "vagrant" => vagrant::measure(arguments.runs),
        "summary" => {
            let mut figures = Vec::new();
            for part in &arguments.parts {
                figures.extend(figure::read(part)?);
            }
            Ok(figures)
        }
        other => Err(Trouble(format!(
            "no such group: {other:?} (groups: main-job, boxes, folders, guarantees, kernels, network, provision, sync, vagrant)"
        ))),
    }
}

fn main() -> ExitCode {
    if timing::is_memory_measurement() {
        return timing::measure_memory_of_arguments();
    }
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(Trouble(message)) => {
            eprintln!("figures: {message}");
            return ExitCode::from(2);
        }
    };
    let finished = run(&arguments).and_then(|figures| {
        println!("{}", Figure::heading());
        for figure in &figures {
            println!("{figure}");
        }
        if let Some(path) = &arguments.json {
            figure::write(path, &figures)?;
        }
        Ok(figures.iter().all(Figure::reached))
    });
    match finished {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Trouble(message)) => {
            eprintln!("figures: {message}");
            ExitCode::FAILURE
        }
    }
}
