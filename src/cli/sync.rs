use std::process::ExitCode;

use clap::Args;

use crate::plan::{self, MachinePlan, Plan};

use super::{Failure, Global, output, select::Selection, session::Session, work::Work};

#[derive(Args)]
pub struct SyncArgs {
    #[command(flatten)]
    selection: Selection,
}

pub fn run(global: &Global, args: SyncArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = session.select(&args.selection, false)?;
    let work = Work::begin(global, "sync", session, machines, None)?;
    let mut plans = Vec::new();
    for subject in &work.subjects {
        let machine = &subject.wanted.machine;
        let up = subject
            .existing
            .observed
            .as_ref()
            .is_some_and(|o| o.is_up());
        if !up && !machine.syncs.is_empty() {
            return Err(Failure::error(
                format!("machine {} is not running", machine.name),
                format!("`stead up {}` boots and syncs it", machine.name),
            ));
        }
        // OpenSSH's files may have been removed, or the port moved.
        work.session.reachable_files(subject)?;
        plans.push(MachinePlan {
            machine: machine.name.clone(),
            after: Vec::new(),
            steps: match &subject.existing.observed {
                Some(observed) if up => {
                    let record = &observed.record;
                    plan::sync_steps(machine, &record.spec.shares, &record.mounted)
                }
                _ => Vec::new(),
            },
            drift: Vec::new(),
        });
    }
    if plans.iter().all(MachinePlan::is_empty) {
        output::say(global, "no machine has a folder to sync");
    }
    let summary = work.apply(Plan { machines: plans })?;
    Ok(work.conclude(global, &summary))
}
