use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    report::{clean::words, say},
    session::{invocation::Invocation, locate::load_project},
};

use super::output;

#[derive(Args)]
pub(super) struct ValidateArgs {}

pub(super) fn run(invocation: &Invocation, _args: ValidateArgs) -> Result<ExitCode, Failure> {
    let project = load_project(invocation)?;
    if invocation.style.json {
        output::json(&project)?;
    } else {
        let count = project.machines.len();
        say(
            invocation.style,
            &format!(
                "{} is valid: project {}, {count} machine{}",
                words(&project.file.to_string_lossy()),
                words(&project.name),
                if count == 1 { "" } else { "s" }
            ),
        );
    }
    Ok(ExitCode::SUCCESS)
}
