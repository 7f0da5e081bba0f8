use std::process::ExitCode;

use clap::Args;

use crate::plan::{self, MachinePlan, Plan, ProjectRun, ProvisionReason, Step};

use super::{
    Failure, Global, project_runs::need_ansible, select::Selection, session::Session, work::Work,
};

#[derive(Args)]
pub struct ProvisionArgs {
    #[command(flatten)]
    selection: Selection,
    /// Only this provisioner (may be repeated)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// From this provisioner on
    #[arg(long, value_name = "NAME", conflicts_with = "only")]
    from: Option<String>,
}

pub fn run(global: &Global, args: ProvisionArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = session.select(&args.selection, false)?;
    let runs_named = session
        .project
        .provisioners
        .iter()
        .map(|it| &it.provisioner.name);
    let runs_named: Vec<String> = runs_named.cloned().collect();
    let known = |name: &str| {
        machines
            .iter()
            .any(|machine| machine.provisioners.iter().any(|p| p.name == name))
            || runs_named.iter().any(|run| run == name)
    };
    for name in args.only.iter().chain(&args.from) {
        if !known(name) {
            let mut names: Vec<&str> = machines
                .iter()
                .flat_map(|machine| machine.provisioners.iter().map(|p| p.name.as_str()))
                .chain(runs_named.iter().map(String::as_str))
                .collect();
            names.sort_unstable();
            names.dedup();
            return Err(Failure::usage(
                format!("there is no provisioner {name}"),
                format!("the provisioners are: {}", names.join(", ")),
            ));
        }
    }
    let work = Work::begin(global, "provision", session, machines, None)?;
    let mut plans = Vec::new();
    for subject in &work.subjects {
        let name = &subject.wanted.machine.name;
        let up = subject
            .existing
            .observed
            .as_ref()
            .is_some_and(|o| o.is_up());
        if !up {
            return Err(Failure::error(
                format!("machine {name} is not running"),
                format!("`stead up {name}` boots it and runs what has not run yet"),
            ));
        }
        let mut passed = args.from.is_none();
        let mut steps = vec![Step::Reach];
        if let Some(observed) = &subject.existing.observed
            && !observed.is_ready()
        {
            let kernel = observed.record.spec.kernel.as_ref();
            steps.extend(kernel.and_then(plan::install_kernel));
        }
        let before = steps.len();
        for provisioner in &subject.wanted.provisioners {
            passed |= args.from.as_ref() == Some(&provisioner.name);
            if passed && (args.only.is_empty() || args.only.contains(&provisioner.name)) {
                steps.push(Step::Provision {
                    name: provisioner.name.clone(),
                    reason: ProvisionReason::Asked,
                });
            }
        }
        if steps.len() == before {
            steps.clear();
        } else {
            steps.push(Step::Ready);
        }
        plans.push(MachinePlan {
            machine: name.clone(),
            after: subject.wanted.machine.depends_on.clone(),
            steps,
            drift: Vec::new(),
        });
    }
    let runs = work.project_runs()?;
    let asked = |name: &String| args.only.is_empty() || args.only.contains(name);
    // Those of the project come after those of machines: `--from` one of a machine has all of
    // them, `--from` one of the project those from it on.
    let first = (runs.within.iter())
        .position(|run| args.from.as_ref() == Some(&run.name))
        .unwrap_or(0);
    let asked_for = (runs.within[first..].iter())
        .filter(|run| asked(&run.name))
        .map(|run| ProjectRun::new(run, ProvisionReason::Asked))
        .collect();
    let mut plan = Plan {
        machines: plans,
        runs: Vec::new(),
    };
    plan.add_runs(asked_for);
    need_ansible(&work, &plan)?;
    if let Some(run) = runs
        .left_out
        .iter()
        .find(|run| args.only.contains(&run.name))
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
    let summary = work.apply(plan)?;
    if args.only.is_empty() {
        runs.say_left_out(&work);
    }
    Ok(work.conclude(global, &summary))
}
