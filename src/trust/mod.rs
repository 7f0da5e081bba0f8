//! Finds what a project would do to the host, and remembers what you agreed to. `session/agreement.rs` asks. Nothing
//! here runs anything.
//!
//! `project` lists the demands of a project: what would run on the host (`hook`, `playbook`), what it uses of the host
//! (`outside`), and who else can write what runs (`writers`, `owner`). `shown` words them.
//!
//! The files that a demand is bound to are collected in `run_files`. `follow` reads each of them, and adds the files
//! that it names: `scripts` reads the words of shells (`shell_words`), `plays` those of Ansible (`play_words`).
//!
//! `agreement` is what the user has agreed to. It is asked again right before something runs. `store` remembers it.

mod agreement;
mod demand;
mod error;
mod follow;
mod hook;
mod interpreters;
mod named_files;
mod outside;
mod owner;
mod play_words;
mod playbook;
mod plays;
mod project;
mod run_files;
mod scripts;
mod shell_words;
mod shown;
mod store;
#[cfg(test)]
mod tests;
mod writers;

pub use agreement::{Agreement, digest};
pub use demand::{Demand, Kind};
pub use error::TrustError;
pub use hook::of_hook;
pub use owner::{Caller, Stranger, stranger};
pub use playbook::of_playbook;
pub use project::{host_runs, of_project};
pub use shown::shown;
pub use store::{Answer, Answers, Store};
