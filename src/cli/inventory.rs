//! `stead inventory`: prints the project's machines as an inventory for Ansible.

use std::process::ExitCode;

use clap::Args;

use crate::{
    apply::reachable_inventory,
    failure::Failure,
    provision::{Inventory, text_of},
    report::Table,
    session::{Session, invocation::Invocation},
};

use super::{output, status::state};

const EXAMPLES: &str = "\
Examples:
  stead inventory             Show a table of machines and groups
  stead inventory --host web  Print the variables of web as JSON";

/// Without options, prints a table for people. JSON lists only machines that run, so that Ansible
/// can reach all of them.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InventoryArgs {
    /// Print the whole inventory as JSON, as Ansible asks of a dynamic inventory
    #[arg(long, conflicts_with = "host")]
    list: bool,
    /// Print the variables of one machine as JSON
    #[arg(long, value_name = "MACHINE")]
    host: Option<String>,
}

pub(super) fn run(invocation: &Invocation, args: InventoryArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(invocation)?;
    let (mut inventory, up) =
        reachable_inventory(&session.project, &session.connection, &session.data)?;
    if let Some(name) = &args.host {
        let Some(vars) = inventory.host(name) else {
            return Err(session.unknown(name));
        };
        if !up.contains(name) {
            return Err(Failure::error(
                format!("machine {name} is not running"),
                format!("`stead up {name}` boots it"),
            ));
        }
        output::json(vars)?;
    } else if args.list || invocation.style.json {
        inventory.keep(|name| up.iter().any(|it| it == name));
        output::json(&inventory.list())?;
    } else {
        output::data(&table(&session, &inventory, &up)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(session: &Session, inventory: &Inventory, up: &[String]) -> Result<String, Failure> {
    let mut table = Table::new(&["MACHINE", "STATE", "SSH", "GROUPS"]);
    for machine in &session.project.machines {
        let name = &machine.name;
        let groups = inventory.groups_of(name).join(" ");
        let word = |key: &str| {
            let value = inventory.host(name).and_then(|vars| vars.get(key));
            value.map_or_else(String::new, |value| {
                text_of(value).map_or_else(|| value.to_string(), ToString::to_string)
            })
        };
        let observed = session.observe(name)?;
        table.row([
            name.clone(),
            state(observed.as_ref()).to_string(),
            if up.contains(name) {
                format!(
                    "{}@{}:{}",
                    word("ansible_user"),
                    word("ansible_host"),
                    word("ansible_port")
                )
            } else {
                "-".into()
            },
            if groups.is_empty() {
                "-".into()
            } else {
                groups
            },
        ]);
    }
    Ok(table.render())
}
