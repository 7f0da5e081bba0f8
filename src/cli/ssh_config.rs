//! `stead ssh-config`: prints the settings with which ssh reaches the machines.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    guest::ssh_config,
    report::{clean::Shown, say},
    session::{
        Detail, Session, invocation::Invocation, leftover::Leftovers, reach::ssh_target,
        ssh_include,
    },
};

use super::{
    output,
    select::{OtherProjectArgs, SelectionArgs},
};

const EXAMPLES: &str = "\
Examples:
  stead ssh-config >~/.ssh/shop.conf  Write a file for `Include` in ~/.ssh/config
  stead ssh-config web                Print the configuration of web
  stead ssh-config --install          Let ssh, rsync and editors reach MACHINE.PROJECT
  stead ssh-config --remove           Take that out again";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SshConfigArgs {
    /// Put a line into ~/.ssh/config by which other programs reach the machines of all projects, as MACHINE.PROJECT
    #[arg(long, conflicts_with = "remove")]
    install: bool,
    /// Take that line out of ~/.ssh/config
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

pub(super) fn run(invocation: &Invocation, args: SshConfigArgs) -> Result<ExitCode, Failure> {
    if args.remove {
        let (path, done) = ssh_include::remove()?;
        let path = path.shown();
        let said = match done {
            true => format!("{path} no longer leads to machines of stead's"),
            false => format!("{path} does not lead to machines of stead's"),
        };
        say(invocation.style, &said);
        return Ok(ExitCode::SUCCESS);
    }
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Existing)?;
    let selection = session.selection(&args.selection.into())?;
    let leftovers = Leftovers {
        selection: &selection,
        asked: false,
    };
    let machines = session.select(&selection, false)?;
    let mut text = String::new();
    let survey = session.connection.survey()?;
    for target in session.targets(&survey, machines, Some(leftovers))? {
        let Some(observed) = &target.existing.observed else {
            if !selection.is_all() {
                let name = &target.wanted.machine.name;
                return Err(Failure::error(
                    format!("machine {name} has not been made yet"),
                    format!("`stead up {name}` makes and boots it"),
                ));
            }
            continue;
        };
        let target = ssh_target(&session, observed);
        let files = session.files(&observed.identity);
        if args.install {
            target.write(&files)?;
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&ssh_config(&target, &files));
    }
    if args.install {
        let (path, done) = ssh_include::install(&session.data)?;
        let path = path.shown();
        let said = match done {
            true => format!("{path} leads to the machines of all projects, as MACHINE.PROJECT"),
            false => format!("{path} leads to the machines of all projects already"),
        };
        say(invocation.style, &said);
        return Ok(ExitCode::SUCCESS);
    }
    if text.is_empty() {
        say(
            invocation.style,
            "no machine has been made yet, so there is nothing to print: `stead up` makes them",
        );
    }
    output::data(&text)?;
    Ok(ExitCode::SUCCESS)
}
