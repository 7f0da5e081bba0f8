//! Arguments that name machines.

use clap::Args;

use crate::session::{Elsewhere, Selection};

/// Which machines a command is about.
#[derive(Args)]
pub struct SelectionArgs {
    /// Machines; none means all
    #[arg(value_name = "MACHINE")]
    names: Vec<String>,
    /// Machines with this label (KEY=VALUE); given twice, both must fit
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

/// Machines of a project that is not the one of this folder.
#[derive(Args)]
pub struct ElsewhereArgs {
    /// Work on the machines of this project, wherever you are: its name, or the folder where it is
    /// or was
    #[arg(long, value_name = "NAME|FOLDER")]
    project: Option<String>,
    /// Work on the machine that is this libvirt domain, wherever you are
    #[arg(long, value_name = "NAME|UUID", conflicts_with = "project")]
    domain: Option<String>,
}

impl From<ElsewhereArgs> for Elsewhere {
    fn from(args: ElsewhereArgs) -> Self {
        Elsewhere {
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
