//! Provisioners, which set a machine up once it can be reached, and hooks, which run before or after `up`,
//! `halt` and `destroy`.

pub mod ansible;
mod asking;
mod digest;
mod error;
mod failing_line;
mod file;
mod host;
mod host_files;
mod inventory;
mod launcher;
mod message;
mod run;
mod shell;

pub use asking::{Asking, Who};
pub use digest::{Digests, digest_file};
pub use error::ProvisionError;
pub use host::run_on_host;
pub use host_files::host_files;
pub use inventory::{Inventory, Reach, text_of};
pub use message::ProvisionMessage;
pub use run::{AnsibleContext, asks_by, run};
pub use shell::{Task, run as run_in_guest};
