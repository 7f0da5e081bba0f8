//! Arguments that name machines.

use clap::Args;

use crate::session::{OtherProject, Selection};

/// The machines that a command acts on.
#[derive(Args)]
pub struct SelectionArgs {
    /// Machines to act on [default: all]
    #[arg(value_name = "MACHINE")]
    names: Vec<String>,
    /// Only machines with this label (KEY=VALUE); if repeated, all labels must match
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

impl From<SelectionArgs> for Selection {
    fn from(args: SelectionArgs) -> Self {
        Selection {
            names: args.names,
            labels: args.labels,
        }
    }
}

/// Machines of another project than that of this folder.
#[derive(Args)]
pub struct OtherProjectArgs {
    /// Act on machines of this project, from any folder: its name, or the folder where it is or
    /// was
    #[arg(long, value_name = "NAME|FOLDER")]
    project: Option<String>,
    /// Act on the machine of this libvirt domain, from any folder
    #[arg(long, value_name = "NAME|UUID", conflicts_with = "project")]
    domain: Option<String>,
}

impl From<OtherProjectArgs> for OtherProject {
    fn from(args: OtherProjectArgs) -> Self {
        OtherProject {
            project: args.project,
            domain: args.domain,
        }
    }
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .ok_or_else(|| format!("{text:?} is not KEY=VALUE"))
}
