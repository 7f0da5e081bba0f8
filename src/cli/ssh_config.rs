use std::process::ExitCode;

use clap::Args;

use crate::guest::ssh_config;

use super::{
    Failure, Global,
    belonging::Elsewhere,
    leftover::Leftovers,
    output,
    select::Selection,
    session::{Looks, Session, ssh_target},
};

#[derive(Args)]
pub struct SshConfigArgs {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    elsewhere: Elsewhere,
}

pub fn run(global: &Global, args: SshConfigArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(global, &args.elsewhere, Looks::There)?;
    let selection = session.selection(&args.selection)?;
    let leftovers = Leftovers {
        selection: &selection,
        asked: false,
    };
    let machines = session.select(&selection, false)?;
    let mut text = String::new();
    let survey = session.connection.survey()?;
    for subject in session.subjects(&survey, machines, Some(leftovers))? {
        let Some(observed) = &subject.existing.observed else {
            if !selection.is_all() {
                let name = &subject.wanted.machine.name;
                return Err(Failure::error(
                    format!("machine {name} has not been made yet"),
                    format!("`stead up {name}` makes and boots it"),
                ));
            }
            continue;
        };
        let target = ssh_target(observed);
        let files = session.files(&subject.wanted.identity);
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&ssh_config(&target, &files));
    }
    output::data(&text)?;
    Ok(ExitCode::SUCCESS)
}
