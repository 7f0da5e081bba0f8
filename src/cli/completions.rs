use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use crate::failure::Failure;

use super::{command, output};

#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell to print completions for
    shell: Shell,
}

pub fn run(args: CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "stead", &mut text);
    output::data(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}
