//! Runs playbooks: by the host's Ansible over machines, or by Ansible in a machine.

mod command;
mod config;
mod error;
pub(super) mod files;
mod folder;
mod galaxy;
mod host;
mod local;
mod output;
mod process;
mod prompts;

pub use command::settings;
pub use error::AnsibleError;
pub(super) use files::below;
pub use files::{STANDARD, files, places};
pub use host::{HostRun, check, run_on_host};
pub use local::{GuestRun, run_in_guest};
