//! `stead validate`: checks a Machinefile.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    report::{clean::words, counted, say},
    session::{invocation::Invocation, locate::load_with_warnings},
};

use super::output;

#[derive(Args)]
pub(super) struct ValidateArgs {}

pub(super) fn run(invocation: &Invocation, _args: ValidateArgs) -> Result<ExitCode, Failure> {
    let project = load_with_warnings(invocation)?;
    if invocation.style.json {
        output::json(&project)?;
    } else {
        say(
            invocation.style,
            &format!(
                "{} is valid: project {}, {}",
                words(&project.file.to_string_lossy()),
                words(&project.name),
                counted(project.machines.len(), "machine")
            ),
        );
    }
    Ok(ExitCode::SUCCESS)
}
