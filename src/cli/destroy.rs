use std::process::ExitCode;

use clap::Args;

use crate::{machinefile::Moment, plan};

use super::{
    Failure, Global,
    adopt::say_stranded,
    belonging::Elsewhere,
    condition::snapshots_go,
    leftover::{Leftovers, say_left_alone},
    output,
    select::Selection,
    session::{Looks, Session},
    trust::hooks_or_without,
    watch::end_if_unneeded,
    work::Work,
};

#[derive(Args)]
pub struct DestroyArgs {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    elsewhere: Elsewhere,
    /// Take also machines of this project that its Machinefile does not name any more
    #[arg(long)]
    leftovers: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Leave out what `before "destroy"` and `after "destroy"` say
    #[arg(long)]
    no_hooks: bool,
}

pub fn run(global: &Global, args: DestroyArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(global, &args.elsewhere, Looks::There)?;
    let selection = session.selection(&args.selection)?;
    let leftovers = Leftovers {
        selection: &selection,
        asked: args.leftovers,
    };
    let machines = session.select(&selection, false)?;
    if !args.no_hooks {
        session.say_no_hooks();
    }
    let mut work = Work::begin(global, "destroy", session, machines, Some(leftovers))?;
    if selection.is_all() {
        say_left_alone(global, &work, leftovers, "destroy");
    }
    work.add_copies()?;
    let mut plan = plan::destroy(&work.pairs());
    if args.no_hooks {
        plan = plan.without_hooks();
    }
    let names: Vec<&str> = plan
        .machines
        .iter()
        .filter(|machine| !machine.is_empty())
        .map(|machine| machine.machine.as_str())
        .collect();
    for subject in &work.subjects {
        let observed = subject.existing.observed.as_ref();
        if let Some(line) = observed.and_then(|it| snapshots_go(&work.session, it)) {
            output::say(global, &line);
        }
    }
    if names.is_empty() {
        output::say(global, "there is nothing to destroy");
        say_stranded(&work.session, &work.survey, &work.subjects);
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
    (work.agreement, plan) = hooks_or_without(
        global,
        &work.session.data,
        &work.session.project,
        &[Moment::BeforeDestroy, Moment::AfterDestroy],
        plan,
    )?;
    let summary = work.apply(plan)?;
    end_if_unneeded(&work.session)?;
    Ok(work.conclude(global, &summary))
}
