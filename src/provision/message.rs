//! What a provisioner reports while it runs.

use crate::sync::Progress;

/// A line that it writes, or how far it has copied.
pub enum ProvisionMessage<'a> {
    Line { stderr: bool, line: &'a str },
    Copied(Progress),
}
