use std::process::ExitCode;

use clap::Args;

use crate::report::clean::words;

use super::{Failure, Global, output, session::load_project};

#[derive(Args)]
pub struct ValidateArgs {}

pub fn run(global: &Global, _args: ValidateArgs) -> Result<ExitCode, Failure> {
    let project = load_project(global)?;
    if global.json {
        output::json(&project)?;
    } else {
        let count = project.machines.len();
        output::say(
            global,
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
