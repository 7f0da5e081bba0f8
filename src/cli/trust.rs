//! `stead trust`: shows what the project does to the host, and asks for agreement.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    machinefile::Project,
    report::{say, secrets, talk, warn},
    session::{
        agreement::{Reply, ask, list},
        invocation::Invocation,
        locate::{data_dir, load_project},
    },
    trust::{self, Answer, Answers, Demand, Store},
};

use super::output;

const EXAMPLES: &str = "\
Examples:
  stead trust         Show what the project does, and ask
  stead trust --show  Show it, and ask nothing";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TrustArgs {
    /// Show what the project does to this computer and whether you agreed; ask nothing
    #[arg(long, conflicts_with_all = ["yes", "edits", "revoke"])]
    show: bool,
    /// Agree without being asked
    #[arg(short, long)]
    yes: bool,
    /// Agree to later edits of the files that run here, too: only new commands, paths and names ask
    /// again
    #[arg(long)]
    edits: bool,
    /// Withdraw your agreement
    #[arg(long, conflicts_with_all = ["yes", "edits"])]
    revoke: bool,
}

pub(super) fn run(invocation: &Invocation, args: TrustArgs) -> Result<ExitCode, Failure> {
    let project = load_project(invocation)?;
    let store = Store::open(&data_dir()?);
    if args.revoke {
        let any = store.forget(&project)?;
        say(
            invocation.style,
            if any {
                "agreement withdrawn: the next command that needs it asks again"
            } else {
                "there was no agreement to withdraw"
            },
        );
        return Ok(ExitCode::SUCCESS);
    }
    let demands = trust::of_project(&project)?;
    let answers = store.read(&project)?;
    if args.show {
        return show(invocation, &project, &demands, &answers);
    }
    if demands.is_empty() {
        say(
            invocation.style,
            &format!(
                "project {} does nothing to this computer, so there is nothing to agree to",
                project.name
            ),
        );
        return Ok(ExitCode::SUCCESS);
    }
    let all: Vec<&Demand> = demands.iter().collect();
    let open: Vec<&Demand> = (all.iter().copied())
        .filter(|demand| {
            let answer = answers.of(demand);
            match answer {
                Answer::New | Answer::Changed => true,
                Answer::Edits => false,
                // Agreement to files that guests write is for their current content only.
                Answer::Exact => args.edits && !demand.others_can_edit,
            }
        })
        .collect();
    if open.is_empty() {
        say(invocation.style, "you have agreed to all of it already");
        return Ok(ExitCode::SUCCESS);
    }
    if !invocation.style.quiet && !invocation.style.json {
        talk(&list(&project, &open, &answers, false));
    }
    let edits = if args.yes {
        args.edits
    } else {
        match ask(&open, args.edits) {
            Reply::Yes { edits } => edits,
            Reply::No => {
                say(invocation.style, "you agreed to nothing");
                return Ok(ExitCode::from(1));
            }
            Reply::NoTerminal => {
                return Err(Failure::usage(
                    "cannot ask: standard input is not a terminal",
                    "add --yes to agree to what is listed above",
                ));
            }
        }
    };
    store.remember(&project, &open, edits)?;
    let answers = store.read(&project)?;
    for demand in open
        .iter()
        .filter(|demand| answers.of(demand) == Answer::New)
    {
        let remedy = match demand.others_can_edit {
            true => "have it run fewer files",
            false => {
                "`stead trust --edits` agrees to all edits of them, or have it run fewer files"
            }
        };
        warn(&format!(
            "{} asks for agreement each time, because it may run more files than stead checks; {remedy}",
            demand.what
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(
    invocation: &Invocation,
    project: &Project,
    demands: &[Demand],
    answers: &Answers,
) -> Result<ExitCode, Failure> {
    let digest = trust::digest(demands);
    if invocation.style.json {
        let rows: Vec<_> = (demands.iter())
            .map(|demand| {
                serde_json::json!({
                    "project": demand.kind.heading(),
                    "what": secrets::without(&demand.whole),
                    "at": demand.at,
                    "script": demand.lines.iter().map(|line| secrets::without(line)).collect::<Vec<_>>(),
                    "note": demand.note,
                    "files": demand.files.keys().collect::<Vec<_>>(),
                    "agreed": word(answers.of(demand)),
                    "changed": match answers.of(demand) {
                        Answer::Changed => answers.changed(demand),
                        _ => Vec::new(),
                    },
                })
            })
            .collect();
        output::json(&serde_json::json!({ "digest": digest, "demands": rows }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if demands.is_empty() {
        output::data(&format!(
            "project {} does nothing to this computer\n",
            project.name
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let all: Vec<&Demand> = demands.iter().collect();
    output::data(&format!(
        "{}\n{}\n--trust={digest}\n",
        secrets::without(&list(project, &all, answers, true)),
        agreed_words(demands, answers)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// How much of the list the user agreed to.
fn agreed_words(demands: &[Demand], answers: &Answers) -> String {
    let count = |wanted: &[Answer]| {
        (demands.iter())
            .filter(|demand| wanted.contains(&answers.of(demand)))
            .count()
    };
    let (all, edits) = (demands.len(), count(&[Answer::Edits]));
    match count(&[Answer::Exact, Answer::Edits]) {
        0 => "you have agreed to none of it".to_string(),
        n if n == all && edits == all => "you have agreed to all of it, and to edits".to_string(),
        n if n == all && edits == 0 => "you have agreed to all of it".to_string(),
        n => format!("you have agreed to {n} of {all}, and to edits of {edits}"),
    }
}

fn word(answer: Answer) -> &'static str {
    match answer {
        Answer::Exact => "yes",
        Answer::Edits => "yes, and to edits",
        Answer::Changed => "changed since",
        Answer::New => "no",
    }
}
