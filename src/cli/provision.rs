use std::process::ExitCode;

use clap::Args;

use crate::{
    machinefile::Machine,
    plan::{self, Asked},
    report::{Event, EventKind},
};

use super::{
    Failure, Global,
    condition::need_running,
    project_runs::need_ansible,
    select::Selection,
    session::Session,
    trust::{self, Scope},
    work::Work,
};

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
    let machines = session.select_named(&args.selection, false)?;
    let names = names(&session, &machines);
    for name in args.only.iter().chain(&args.from) {
        check_name(name, &names)?;
    }
    let asked = match args.from {
        Some(name) => Asked::From(name),
        None if args.all => Asked::All,
        None if args.only.is_empty() => Asked::Due,
        None => Asked::Only(args.only),
    };
    let agreement = trust::need(global, &session.data, &session.project, Scope::Provision)?;
    let mut work = Work::begin(global, "provision", session, machines, None)?;
    work.agreement = agreement;
    if asked != Asked::Due {
        work.goes_on_with("the same command");
    }
    let runs = work.project_runs()?;
    if let Asked::Only(names) = &asked
        && let Some(run) = runs.left_out.iter().find(|run| names.contains(&run.name))
    {
        return Err(Failure::usage(
            format!(
                "provisioner {} is over {}",
                run.name,
                run.machines.join(", ")
            ),
            format!(
                "name all of these, or none: `stead provision --only {}`",
                run.name
            ),
        ));
    }
    let mut plan = plan::provision(&work.pairs(), &asked);
    plan.add_runs(plan::asked_runs(&runs.within, &work.pairs(), &asked));
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
        } else {
            need_running(name, observed)?;
            // OpenSSH's files may have been removed, or the port moved.
            work.session.reachable_files(subject)?;
        }
    }
    need_ansible(&work, &plan)?;
    let summary = work.apply(plan)?;
    if !matches!(asked, Asked::Only(_)) {
        runs.say_left_out(&work);
    }
    Ok(work.conclude(global, &summary))
}

/// Of machines and of the project.
fn names(session: &Session, machines: &[Machine]) -> Vec<String> {
    let of_machines = machines.iter().flat_map(|machine| &machine.provisioners);
    let of_project = (session.project.provisioners.iter()).map(|it| &it.provisioner);
    let mut names: Vec<String> = of_machines
        .chain(of_project)
        .map(|provisioner| provisioner.name.clone())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn check_name(name: &str, names: &[String]) -> Result<(), Failure> {
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    Err(Failure::usage(
        format!("there is no provisioner {name}"),
        if names.is_empty() {
            "there is none at all; `provision` in the Machinefile makes one".to_string()
        } else {
            format!("the provisioners are: {}", names.join(", "))
        },
    ))
}
