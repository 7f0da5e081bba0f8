use std::process::ExitCode;

use clap::Args;

use crate::guest::ssh_config;

use super::{Failure, Global, output, select::Selection, session::{Session, ssh_target}};

#[derive(Args)]
pub struct SshConfigArgs {
    #[command(flatten)]
    selection: Selection,
}

pub fn run(global: &Global, args: SshConfigArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = session.select(&args.selection, false)?;
    let mut text = String::new();
    for subject in session.subjects(machines, None)? {
        let Some(observed) = &subject.existing.observed else {
            if !args.selection.is_all() {
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
