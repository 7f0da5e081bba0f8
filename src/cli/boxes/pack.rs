//! `stead box pack`: makes a box from a machine.

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
    export::{format, say_written, warn_if_it_does_not_boot},
};

const EXAMPLES: &str = "\
Examples:
  stead box pack web --name shop-web --version 1.0      Add a box to the store
  stead box pack web --output web.qcow2 --format qcow2  Write a disk image";

// `--version` is the box's version here, not stead's.
#[derive(Args)]
#[command(disable_version_flag = true, after_help = EXAMPLES)]
pub(super) struct PackArgs {
    /// Machine to make the box from, running or halted
    machine: String,
    /// The box's name [default: PROJECT-MACHINE]
    #[arg(long)]
    name: Option<String>,
    /// The box's version [default: the time, in UTC, as 20261124.203000]
    #[arg(long)]
    version: Option<String>,
    /// Label of the box (KEY=VALUE); may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Write the box to this archive instead of adding it to the store
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write a disk image of this format instead of a box archive
    #[arg(long, requires = "output", value_parser = PossibleValuesParser::new(ExportFormat::NAMES))]
    format: Option<String>,
}

pub(super) fn run(invocation: &Invocation, args: PackArgs) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let session = Session::open(invocation)?;
    let packing = packing(invocation, &session, &args)?;
    let machine = session.one(&args.machine, "pack it")?;
    let mut operation = Operation::begin(invocation, "box pack", session, vec![machine], None)?;
    let (copy, parent) = prepare(&operation, &packing)?;
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
                "interrupted: no box was made, and {} is unchanged",
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

/// Checks the arguments before anything begins.
fn packing(
    invocation: &Invocation,
    session: &Session,
    args: &PackArgs,
) -> Result<Packing, Failure> {
    let now = Timestamp::now().strftime("%Y%m%d.%H%M%S").to_string();
    let to = match (&args.output, &args.format) {
        (None, _) => Destination::Store,
        (Some(file), None) => Destination::Archive(output::file(invocation, file, "--output")?),
        (Some(file), Some(name)) => {
            Destination::Image(format(name)?, output::file(invocation, file, "--output")?)
        }
    };
    let packing = Packing {
        name: (args.name.clone())
            .unwrap_or_else(|| format!("{}-{}", session.project.name, args.machine)),
        version: args.version.clone().unwrap_or(now),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        to,
    };
    packing.check().map_err(|message| {
        Failure::usage(message, "choose others with --name, --version and --label")
    })?;
    if packing.to == Destination::Store {
        let taken = session.store.list()?.into_iter().find(|stored| {
            stored.manifest.name == packing.name && stored.manifest.version == packing.version
        });
        if let Some(taken) = taken {
            return Err(Failure::usage(
                format!("box {} is in the store already", name(&taken)),
                "give the new box another --version, or remove the old one with `stead box remove`",
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
