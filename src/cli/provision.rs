use std::process::ExitCode;

use clap::Args;

use crate::{
    machinefile::Machine,
    plan::{self, Asked},
    report::{Event, EventKind},
};

use super::{Failure, Global, select::Selection, session::Session, work::Work};

#[derive(Args)]
pub struct ProvisionArgs {
    #[command(flatten)]
    selection: Selection,
    /// Run all of them again, but for those with run="never"
    #[arg(long, conflicts_with_all = ["only", "from"])]
    all: bool,
    /// Only this provisioner, whether it has run or not (may be repeated)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// This provisioner and those after it, whether they have run or not
    #[arg(long, value_name = "NAME", conflicts_with = "only")]
    from: Option<String>,
}

pub fn run(global: &Global, args: ProvisionArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = session.select(&args.selection, false)?;
    for name in args.only.iter().chain(&args.from) {
        check_name(name, &machines)?;
    }
    let asked = match args.from {
        Some(name) => Asked::From(name),
        None if args.all => Asked::All,
        None if args.only.is_empty() => Asked::Due,
        None => Asked::Only(args.only),
    };
    let mut work = Work::begin(global, "provision", session, machines, None)?;
    if asked != Asked::Due {
        work.goes_on_with("the same command");
    }
    let plan = plan::provision(&work.pairs(), &asked);
    for (subject, steps) in work.subjects.iter().zip(&plan.machines) {
        let name = &subject.wanted.machine.name;
        let observed = subject.existing.observed.as_ref();
        if steps.is_empty() {
            work.reporter.event(&Event::now(
                name,
                EventKind::Notice {
                    message: "nothing to do".into(),
                },
            ));
        } else if !observed.is_some_and(|observed| observed.is_up()) {
            return Err(Failure::error(
                format!("machine {name} is not running"),
                format!("`stead up {name}` boots it and runs what has not run yet"),
            ));
        } else {
            // OpenSSH's files may have been removed, or the port moved.
            work.session.reachable_files(subject)?;
        }
    }
    let summary = work.apply(plan)?;
    Ok(work.conclude(global, &summary))
}

fn check_name(name: &str, machines: &[Machine]) -> Result<(), Failure> {
    let mut names: Vec<&str> = machines
        .iter()
        .flat_map(|machine| machine.provisioners.iter().map(|it| it.name.as_str()))
        .collect();
    if names.contains(&name) {
        return Ok(());
    }
    names.sort_unstable();
    names.dedup();
    Err(Failure::usage(
        format!("there is no provisioner {name}"),
        if names.is_empty() {
            "there is none at all; `provision` in the Machinefile makes one".to_string()
        } else {
            format!("the provisioners are: {}", names.join(", "))
        },
    ))
}
