use std::process::ExitCode;

use clap::Args;

use crate::{
    plan::{self, Step, WantedRun},
    report::clean::words,
};

use super::{
    Failure, Global, admission::check_abilities, leftover::Leftovers, output,
    project_runs::stale_line, select::Selection, session::Session, up::drift_lines,
};

#[derive(Args)]
pub struct PlanArgs {
    #[command(flatten)]
    selection: Selection,
    /// Show what `destroy` would do instead
    #[arg(long)]
    destroy: bool,
}

pub fn run(global: &Global, args: PlanArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = match args.destroy {
        true => session.select(&args.selection, false)?,
        false => session.select_named(&args.selection, true)?,
    };
    let leftovers = Leftovers {
        selection: &args.selection,
        asked: false,
    };
    let survey = session.connection.survey()?;
    let subjects = session.subjects(&survey, machines, args.destroy.then_some(leftovers))?;
    let pairs: Vec<_> = subjects
        .iter()
        .map(|subject| (subject.wanted.clone(), subject.existing.clone()))
        .collect();
    let mut stale: Vec<WantedRun> = Vec::new();
    let plan = if args.destroy {
        plan::destroy(&pairs)
    } else {
        let mut plan = plan::up(&pairs);
        check_abilities(&session, &subjects, &plan)?;
        let runs = session.project_runs(&subjects)?;
        plan.add_runs(plan::pending_runs(&runs.within, &pairs, false));
        stale = (plan::stale_runs(&runs.within, &pairs).into_iter())
            .cloned()
            .collect();
        plan
    };
    if global.json {
        let machines: Vec<_> = plan
            .machines
            .iter()
            .map(|machine| {
                serde_json::json!({
                    "machine": machine.machine,
                    "after": machine.after,
                    "steps": machine.steps.iter().map(|step| serde_json::json!({
                        "id": step.id(),
                        "does": step.describe(),
                    })).collect::<Vec<_>>(),
                    "drift": machine.drift,
                    "changed_provisioners": machine.stale,
                })
            })
            .collect();
        let runs: Vec<_> = (plan.runs.iter())
            .map(|run| {
                serde_json::json!({
                    "provisioner": run.provisioner,
                    "machines": run.machines,
                    "reason": run.reason,
                    "steps": [{ "id": run.id(), "does": run.describe() }],
                })
            })
            .collect();
        let changed: Vec<&str> = stale.iter().map(|run| run.name.as_str()).collect();
        output::json(&serde_json::json!({
            "machines": machines,
            "runs": runs,
            "changed_provisioners": changed,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for machine in &plan.machines {
        let after = if machine.after.is_empty() || machine.is_empty() {
            String::new()
        } else {
            format!(" (after {})", machine.after.join(", "))
        };
        text.push_str(&format!("{}{after}\n", machine.machine));
        if machine.is_empty() {
            text.push_str("  nothing to do\n");
        }
        let over = plan.runs_over(&machine.machine);
        for step in &machine.steps {
            let after = if *step == Step::Ready && !over.is_empty() {
                format!(" (after {})", over.join(", "))
            } else {
                String::new()
            };
            text.push_str(&format!("  {}{after}\n", words(&step.describe())));
        }
        let said = (subjects.iter())
            .filter(|subject| subject.wanted.machine.name == machine.machine && !args.destroy)
            .flat_map(|subject| &subject.shares_said);
        for line in said {
            text.push_str(&format!("  . {}\n", words(line)));
        }
        for line in drift_lines(machine) {
            text.push_str(&format!("  ! {}\n", words(&line)));
        }
    }
    for run in &plan.runs {
        text.push_str(&format!(
            "{} (after {})\n  {}\n",
            run.provisioner,
            run.machines.join(", "),
            run.describe()
        ));
    }
    for run in &stale {
        text.push_str(&format!("{}\n  ! {}\n", run.name, stale_line(run)));
    }
    for subject in &subjects {
        if let (false, Some(Failure::Error { message, .. })) = (args.destroy, &subject.no_share) {
            text.push_str(&format!("! {}\n", words(message)));
        }
        if let Some(Failure::Error { message, .. }) = &subject.no_box {
            let name = &subject.wanted.machine.name;
            text.push_str(&format!("! {name}: {}\n", words(message)));
        }
    }
    output::data(&text)?;
    Ok(ExitCode::SUCCESS)
}
