//! Which sandbox the host's kernel offers.

use std::sync::OnceLock;

use super::{landlock, namespaces};

/// How this host's kernel keeps a program from other files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Landlock, with the version of its interface.
    Landlock(i32),
    Namespaces,
    /// The kernel has neither: there are only limits and the filter of system calls.
    Nothing,
}

impl Isolation {
    /// Returns what this host's kernel offers. It is only tried once.
    pub fn of_host() -> Self {
        static FOUND: OnceLock<Isolation> = OnceLock::new();
        *FOUND.get_or_init(|| match landlock::version() {
            Some(version) => Isolation::Landlock(version),
            None if namespaces::work() => Isolation::Namespaces,
            None => Isolation::Nothing,
        })
    }

    #[cfg(test)]
    pub(crate) fn namespaces_work() -> bool {
        namespaces::work()
    }
}
