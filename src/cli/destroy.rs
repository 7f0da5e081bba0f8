use std::process::ExitCode;

use clap::Args;

use crate::plan;

use super::{
    Failure, Global, output, select::Selection, session::Session, watch::end_if_unneeded,
    work::Work,
};

#[derive(Args)]
pub struct DestroyArgs {
    #[command(flatten)]
    selection: Selection,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub fn run(global: &Global, args: DestroyArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = session.select(&args.selection, false)?;
    let mut work = Work::begin(global, "destroy", session, machines, Some(&args.selection))?;
    work.add_copies()?;
    let plan = plan::destroy(&work.pairs());
    let names: Vec<&str> = plan
        .machines
        .iter()
        .filter(|machine| !machine.is_empty())
        .map(|machine| machine.machine.as_str())
        .collect();
    if names.is_empty() {
        output::say(global, "there is nothing to destroy");
    } else if !args.yes {
        let question = format!(
            "destroy {} and all data on {} disk{}?",
            names.join(", "),
            if names.len() == 1 { "its" } else { "their" },
            if names.len() == 1 { "" } else { "s" },
        );
        match output::ask(&question) {
            Some(true) => {}
            Some(false) => {
                output::say(global, "nothing was destroyed");
                return Ok(ExitCode::from(1));
            }
            None => {
                return Err(Failure::usage(
                    format!(
                        "destroy would delete {}, and there is no terminal to ask on",
                        names.join(", ")
                    ),
                    "add -y to destroy without a question",
                ));
            }
        }
    }
    let summary = work.apply(plan)?;
    end_if_unneeded(&work.session)?;
    Ok(work.conclude(global, &summary))
}
