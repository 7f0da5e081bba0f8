use std::process::ExitCode;

use clap::Args;

use crate::plan;

use super::{
    Failure, Global, admission::check_abilities, output, select::Selection, session::Session,
    up::drift_lines,
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
    let machines = session.select(&args.selection, !args.destroy)?;
    let subjects = session.subjects(machines, args.destroy.then_some(&args.selection))?;
    let pairs: Vec<_> = subjects
        .iter()
        .map(|subject| (subject.wanted.clone(), subject.existing.clone()))
        .collect();
    let plan = if args.destroy {
        plan::destroy(&pairs)
    } else {
        let plan = plan::up(&pairs);
        check_abilities(&session, &subjects, &plan)?;
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
                })
            })
            .collect();
        output::json(&serde_json::json!({ "machines": machines }))?;
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
        for step in &machine.steps {
            text.push_str(&format!("  {}\n", step.describe()));
        }
        let said = (subjects.iter())
            .filter(|subject| subject.wanted.machine.name == machine.machine && !args.destroy)
            .flat_map(|subject| &subject.shares_said);
        for line in said {
            text.push_str(&format!("  . {line}\n"));
        }
        for line in drift_lines(machine) {
            text.push_str(&format!("  ! {line}\n"));
        }
    }
    for subject in &subjects {
        if let (false, Some(Failure::Error { message, .. })) = (args.destroy, &subject.no_share) {
            text.push_str(&format!("! {message}\n"));
        }
        if let Some(Failure::Error { message, .. }) = &subject.no_box {
            text.push_str(&format!("! {}: {message}\n", subject.wanted.machine.name));
        }
    }
    output::data(&text)?;
    Ok(ExitCode::SUCCESS)
}
