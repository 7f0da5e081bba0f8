//! `stead box pack`: a machine as a box.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Instant};

use clap::{Args, builder::PossibleValuesParser};
use jiff::Timestamp;

use crate::{
    boxes::{Destination, ExportFormat, Packing},
    failure::Failure,
    plan,
    report::{Outcome, bytes, elapsed, reporter, say},
    session::{
        Session,
        invocation::Invocation,
        operation::Operation,
        pack::{prepare, remove_copy},
    },
};

use super::{
    super::{output, select::label},
    describe::{describe, name},
    export::{format, output_file, say_written, warn_if_it_does_not_boot},
};

// `--version` is the box's here.
#[derive(Args)]
#[command(disable_version_flag = true)]
pub struct PackArgs {
    /// The machine to make a box of, running or halted
    machine: String,
    /// The box's name [default: PROJECT-MACHINE]
    #[arg(long)]
    name: Option<String>,
    /// The box's version [default: the time, in UTC, as 20261124.203000]
    #[arg(long)]
    version: Option<String>,
    /// A label of the box (KEY=VALUE); may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Write the box to this archive instead of adding it to the store
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write an image that others take, and no box archive
    #[arg(long, requires = "output", value_parser = PossibleValuesParser::new(ExportFormat::NAMES))]
    format: Option<String>,
}

pub fn run(invocation: &Invocation, args: PackArgs) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let session = Session::open(invocation)?;
    let packing = packing(invocation, &session, &args)?;
    let machine = session.one(&args.machine, "pack it")?;
    let mut operation = Operation::begin(invocation, "box pack", session, vec![machine], None)?;
    let (copy, parent) = prepare(&mut operation, &packing)?;
    if let Destination::Image(format, _) = &packing.to {
        format.check(&parent.manifest)?;
        warn_if_it_does_not_boot(&parent.manifest);
    }

    let wanted = copy.wanted.clone();
    let plan = plan::pack(&wanted, &copy.existing, packing.clone());
    operation.reporter = reporter(invocation.style, std::slice::from_ref(&wanted.machine.name));
    operation.targets = vec![copy];
    let summary = operation.apply(plan)?;
    let cleared = remove_copy(invocation, &mut operation)?;
    if !summary.of(Outcome::Interrupted).is_empty() {
        say(
            invocation.style,
            &format!(
                "interrupted: no box was made; {} is as it was",
                args.machine
            ),
        );
        return Ok(ExitCode::from(130));
    }
    if !summary.all_done() || !cleared {
        return Ok(ExitCode::from(1));
    }
    say_packed(
        invocation,
        &operation.session,
        &args.machine,
        &packing,
        started,
    )?;
    Ok(ExitCode::SUCCESS)
}

/// What was asked for, checked before anything is begun.
fn packing(
    invocation: &Invocation,
    session: &Session,
    args: &PackArgs,
) -> Result<Packing, Failure> {
    let now = Timestamp::now().strftime("%Y%m%d.%H%M%S").to_string();
    let to = match (&args.output, &args.format) {
        (None, _) => Destination::Store,
        (Some(file), None) => Destination::Archive(output_file(invocation, file)?),
        (Some(file), Some(name)) => {
            Destination::Image(format(name)?, output_file(invocation, file)?)
        }
    };
    let packing = Packing {
        name: (args.name.clone())
            .unwrap_or_else(|| format!("{}-{}", session.project.name, args.machine)),
        version: args.version.clone().unwrap_or(now),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        to,
    };
    packing
        .check()
        .map_err(|message| Failure::usage(message, "--name, --version and --label say others"))?;
    if packing.to == Destination::Store {
        let taken = session.store.list()?.into_iter().find(|stored| {
            stored.manifest.name == packing.name && stored.manifest.version == packing.version
        });
        if let Some(taken) = taken {
            return Err(Failure::usage(
                format!("box {} is in the store already", name(&taken)),
                "give the new one another --version, or `stead box remove` the old one",
            ));
        }
    }
    Ok(packing)
}

fn say_packed(
    invocation: &Invocation,
    session: &Session,
    machine: &str,
    packing: &Packing,
    started: Instant,
) -> Result<(), Failure> {
    match &packing.to {
        Destination::Archive(out) | Destination::Image(_, out) => {
            say_written(invocation, out, started);
        }
        Destination::Store => {
            let reference = format!("{}:{}", packing.name, packing.version);
            let stored = session.store.resolve(&reference)?;
            if invocation.style.json {
                output::json(&describe(&session.store, &stored))?;
            } else {
                say(
                    invocation.style,
                    &format!(
                        "packed {machine} as {} ({}, {}) in {}",
                        name(&stored),
                        stored.digest.short(),
                        bytes(session.store.disk_use(&stored)),
                        elapsed(started.elapsed())
                    ),
                );
            }
        }
    }
    Ok(())
}
