//! `stead plan`: prints what `up` would do.

use std::{collections::BTreeMap, process::ExitCode};

use clap::Args;

use crate::{
    apply::{free_memory, rounds},
    failure::Failure,
    plan::{self, Step, WantedRun},
    report::{clean::words, secrets},
    resources::Room,
    session::{
        Session,
        admission::check_abilities,
        bridges::NextCards,
        invocation::Invocation,
        leftover::Leftovers,
        networks::{self, link_changes},
        project_runs::stale_line,
        up::drift_lines,
    },
};

use super::{output, select::SelectionArgs, status::NetworkRow};

const EXAMPLES: &str = "\
Examples:
  stead plan                Show what `stead up` would do
  stead plan web --destroy  Show what `stead destroy web` would do";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Show what `destroy` would do instead
    #[arg(long)]
    destroy: bool,
}

pub(super) fn run(invocation: &Invocation, args: PlanArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(invocation)?;
    let selection = args.selection.into();
    let machines = match args.destroy {
        true => session.select(&selection, false)?,
        false => session.select_named(&selection, true)?,
    };
    let leftovers = Leftovers {
        selection: &selection,
        asked: false,
    };
    let survey = session.survey()?;
    let targets = session.targets(&survey, machines, args.destroy.then_some(leftovers))?;
    let pairs: Vec<_> = targets
        .iter()
        .map(|target| (target.wanted.clone(), target.existing.clone()))
        .collect();
    let mut stale: Vec<WantedRun> = Vec::new();
    let plan = if args.destroy {
        plan::destroy(&pairs)
    } else {
        let mut plan = plan::up(&pairs);
        check_abilities(&session, &targets, &plan)?;
        networks::check(&session, &survey, &plan)?;
        let runs = session.project_runs(&targets)?;
        plan.add_runs(plan::pending_runs(&runs.within, &pairs, false));
        stale = (plan::stale_runs(&runs.within, &pairs).into_iter())
            .cloned()
            .collect();
        plan
    };
    let links = match args.destroy {
        true => Vec::new(),
        false => link_changes(&session),
    };
    let cards = match args.destroy {
        true => BTreeMap::new(),
        false => session.next_cards(&survey),
    };
    let spec_of = |name: &str| {
        let mut wanted = targets.iter().map(|target| &target.wanted);
        wanted.find(|it| it.machine.name == name)?.spec.as_ref()
    };
    let turns = rounds(Room::of_host(None), &plan.machines, spec_of, free_memory());
    if invocation.style.json {
        let machines: Vec<_> = plan
            .machines
            .iter()
            .map(|machine| {
                serde_json::json!({
                    "machine": machine.machine,
                    "after": machine.after,
                    "steps": machine.steps.iter().map(|step| serde_json::json!({
                        "id": step.id(),
                        "does": secrets::without(&step.describe()),
                    })).collect::<Vec<_>>(),
                    "drift": machine.drift,
                    "changed_provisioners": machine.stale,
                    "networks": cards.get(&machine.machine).map_or_else(Vec::new, networks_of),
                    "bridges": cards.get(&machine.machine).map_or_else(Vec::new, bridges_of),
                })
            })
            .collect();
        let runs: Vec<_> = (plan.runs.iter())
            .map(|run| {
                serde_json::json!({
                    "provisioner": run.provisioner,
                    "machines": run.machines,
                    "reason": run.reason,
                    "steps": [{ "id": run.id(), "does": secrets::without(&run.describe()) }],
                })
            })
            .collect();
        let changed: Vec<&str> = stale.iter().map(|run| run.name.as_str()).collect();
        output::json(&serde_json::json!({
            "machines": machines,
            "runs": runs,
            "changed_provisioners": changed,
            "links": links,
            "turns": turns,
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
        let target = (targets.iter())
            .find(|target| target.wanted.machine.name == machine.machine && !args.destroy);
        if let Some(name) = target.and_then(|target| target.fetches.as_ref()) {
            text.push_str(&format!(
                "  fetch box {} (it is not on this computer yet)\n",
                words(name)
            ));
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
        let cards = cards.get(&machine.machine).filter(|_| machine.boots());
        for line in cards.iter().flat_map(|cards| cards.lines()) {
            text.push_str(&format!("  . {}\n", words(&line)));
        }
        let said = (targets.iter())
            .filter(|target| target.wanted.machine.name == machine.machine && !args.destroy)
            .flat_map(|target| &target.share_notes);
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
    text.push_str(&lines_of_turns(&turns));
    if !links.is_empty() {
        text.push_str("links\n");
    }
    for line in &links {
        text.push_str(&format!("  {}\n", words(line)));
    }
    for target in &targets {
        if let (false, Some(Failure::Error { message, .. })) = (args.destroy, &target.no_share) {
            text.push_str(&format!("! {}\n", words(message)));
        }
        if let (None, Some(Failure::Error { message, .. })) = (&target.fetches, &target.no_box) {
            let name = &target.wanted.machine.name;
            text.push_str(&format!("! {name}: {}\n", words(message)));
        }
    }
    output::data(&secrets::without(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows which machines boot together, if not all do.
fn lines_of_turns(turns: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (n, machines) in turns.iter().enumerate() {
        let (title, word) = match n {
            0 => (
                "turns (what this computer can carry at the same time; `stead up --jobs N` has others)\n",
                "first",
            ),
            _ => ("", "then"),
        };
        let names = words(&machines.join(", "));
        text.push_str(&format!("{title}  {word} {names}\n"));
    }
    text
}

/// The cards on networks of the project.
fn networks_of(cards: &NextCards) -> Vec<NetworkRow<'_>> {
    cards.networks.iter().map(NetworkRow::of).collect()
}

/// The cards on bridges of the host.
fn bridges_of(cards: &NextCards) -> Vec<serde_json::Value> {
    (cards.bridges.iter())
        .map(|card| {
            serde_json::json!({
                "network": card.network,
                "bridge": card.interface,
                "mac": card.mac.to_string(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_listed_in_order() {
        let turns = [
            vec!["db".to_string(), "cache".to_string()],
            vec!["web".to_string()],
        ];
        let text = lines_of_turns(&turns);
        let (_, lines) = text.split_once('\n').unwrap();
        assert_eq!(lines, "  first db, cache\n  then web\n");
        assert_eq!(lines_of_turns(&[]), "");
    }
}
