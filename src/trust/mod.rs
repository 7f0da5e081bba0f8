//! Finds what a project would do to the host, shows it, asks, and remembers the answer.
//!
//! `demand` finds what goes beyond a project's machines: what would run on the host, what of the
//! host's would be handed in. `named` follows the files that a hook names, by the `words` of a shell, and `plays` those that a playbook names, by `play_words`; `owner` says whose files
//! they are. `agreement` is what its user has said yes to, and is asked again right before
//! something runs; `store` remembers it. Nothing here runs anything.

mod agreement;
mod demand;
mod error;
mod owner;
mod play_words;
mod plays;
mod scripts;
mod shell_words;
mod store;
#[cfg(test)]
mod tests;

pub use agreement::{Agreement, digest};
pub use demand::{Demand, Kind, host_runs, of_hook, of_playbook, of_project, shown};
pub use error::TrustError;
pub use owner::{Caller, Stranger, stranger};
pub use store::{Answer, Answers, Store};
