//! `stead box pack`: a machine as a box.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Instant};

use clap::{Args, builder::PossibleValuesParser};
use jiff::Timestamp;

use crate::{
    boxes::{Destination, ExportFormat, Packing, StoredBox, ensure_room},
    machine::{Observed, Phase, Power},
    plan::{self, Existing},
    report::{Outcome, bytes, elapsed, reporter},
};

use super::{
    Failure, Global,
    box_command::{describe, name},
    condition::need_own_disks,
    export::{folder_of, format, one_disk, output_file, say_written, warn_if_it_does_not_boot},
    output,
    select::label,
    session::{Session, Subject},
    work::Work,
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

pub fn run(global: &Global, args: PackArgs) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let session = Session::open(global)?;
    let packing = packing(global, &session, &args)?;
    let machine = session.one(&args.machine, "pack it")?;
    let mut work = Work::begin(global, "box pack", session, vec![machine], None)?;
    let (copy, parent) = prepare(&mut work, &packing)?;
    if let Destination::Image(format, _) = &packing.to {
        format.check(&parent.manifest)?;
        warn_if_it_does_not_boot(&parent.manifest);
    }

    let wanted = copy.wanted.clone();
    let plan = plan::pack(&wanted, &copy.existing, packing.clone());
    work.reporter = reporter(
        output::style(global),
        std::slice::from_ref(&wanted.machine.name),
    );
    work.subjects = vec![copy];
    let summary = work.apply(plan)?;
    let cleared = remove_copy(global, &mut work)?;
    if !summary.of(Outcome::Interrupted).is_empty() {
        output::say(
            global,
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
    say_packed(global, &work.session, &args.machine, &packing, started)?;
    Ok(ExitCode::SUCCESS)
}

/// What was asked for, checked before anything is begun.
fn packing(global: &Global, session: &Session, args: &PackArgs) -> Result<Packing, Failure> {
    let now = Timestamp::now().strftime("%Y%m%d.%H%M%S").to_string();
    let to = match (&args.output, &args.format) {
        (None, _) => Destination::Store,
        (Some(file), None) => Destination::Archive(output_file(global, file)?),
        (Some(file), Some(name)) => Destination::Image(format(name)?, output_file(global, file)?),
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

/// The copy that is to be made of the machine at work, and the box that both are made from.
fn prepare(work: &mut Work, packing: &Packing) -> Result<(Subject, StoredBox), Failure> {
    let subject = work
        .subjects
        .first_mut()
        .ok_or_else(|| Failure::error("no machine is at work", crate::report::BUG))?;
    let machine = subject.wanted.machine.name.clone();
    let there = match &subject.existing.observed {
        Some(observed) if observed.record.phase == Phase::Created => observed.clone(),
        Some(_) => {
            return Err(Failure::error(
                format!("machine {machine} is not whole: an `up` or `destroy` of it did not end"),
                format!("`stead up {machine}` makes it whole"),
            ));
        }
        None => {
            return Err(Failure::error(
                format!("machine {machine} has not been made yet"),
                format!("`stead up {machine}` makes and boots it"),
            ));
        }
    };
    if let Some(failure) = subject.no_box.take() {
        return Err(failure);
    }
    let identity = work.session.identity(&plan::copy_name(&machine))?;
    let wanted = plan::copy_of(&subject.wanted, &subject.existing, identity);
    let (Some(wanted), Some(parent)) = (wanted, subject.stored_box.clone()) else {
        return Err(Failure::error(
            format!("the box that machine {machine} was made from is not in the store"),
            "`stead box add` with the same box puts it back",
        ));
    };
    one_disk(&parent.manifest)?;
    need_own_disks(&work.session, &work.subjects)?;
    let session = &work.session;
    ensure_enough_room(session, &there, &parent, packing)?;
    let disk = session.data.images().join(wanted.identity.overlay());
    let copy = Subject {
        existing: Existing {
            observed: session.connection.observe(&wanted.identity)?,
            disk: disk.exists(),
        },
        wanted,
        stored_box: Some(parent.clone()),
        no_box: None,
        no_kernel: None,
        no_share: None,
        shares_said: Vec::new(),
        leftover: true,
    };
    Ok((copy, parent))
}

/// A running machine's disk is copied whole, box and all, and the box is as large again.
fn ensure_enough_room(
    session: &Session,
    there: &Observed,
    parent: &StoredBox,
    packing: &Packing,
) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;
    let images = session.data.images();
    let own = std::fs::metadata(images.join(there.identity.overlay()))
        .map_or(0, |metadata| metadata.blocks() * 512);
    let whole = session.store.disk_use(parent).saturating_add(own);
    let copies = if there.power == Power::Off { 1 } else { 2 };
    ensure_room(&images, whole.saturating_mul(copies))?;
    if let Destination::Image(format, out) = &packing.to
        && !format.is_compressed()
    {
        ensure_room(folder_of(out), whole)?;
    }
    Ok(())
}

/// Takes the copy away, however packing ended. False when that failed, which has been said.
fn remove_copy(global: &Global, work: &mut Work) -> Result<bool, Failure> {
    for subject in &mut work.subjects {
        let observed = work.session.connection.observe(&subject.wanted.identity)?;
        subject.existing.disk = observed.is_some();
        subject.existing.observed = observed;
    }
    if !global.verbose && !global.json {
        let style = crate::report::Style {
            quiet: true,
            ..output::style(global)
        };
        work.reporter = reporter(style, &[]);
    }
    let summary = work.clear_away(plan::destroy(&work.pairs()))?;
    Ok(summary.all_done())
}

fn say_packed(
    global: &Global,
    session: &Session,
    machine: &str,
    packing: &Packing,
    started: Instant,
) -> Result<(), Failure> {
    match &packing.to {
        Destination::Archive(out) | Destination::Image(_, out) => {
            say_written(global, out, started);
        }
        Destination::Store => {
            let reference = format!("{}:{}", packing.name, packing.version);
            let stored = session.store.resolve(&reference)?;
            if global.json {
                output::json(&describe(&session.store, &stored))?;
            } else {
                output::say(
                    global,
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
