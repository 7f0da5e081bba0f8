//! A machine as it was seen.

use super::{Identity, Layout, Pause, Record, Running};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    Off,
    Running,
    Paused,
    /// It is shutting down.
    Stopping,
}

/// What libvirt knows about a machine.
#[derive(Clone, Debug)]
pub struct Observed {
    pub identity: Identity,
    pub record: Record,
    pub power: Power,
    pub running: Option<Running>,
    pub condition: Condition,
}

/// What is not in a machine's record, and may have happened without stead.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// Why it is paused, if it is.
    pub pause: Option<Pause>,
    /// Whether it is off, with its memory saved on disk (`virsh managedsave`). It continues from there when it is
    /// started.
    pub saved: bool,
    /// Whether it is off because QEMU ended without being told to.
    pub failed: bool,
    /// Whether it runs without a stored definition (`virsh undefine` while it ran), so that it is gone when it stops.
    pub transient: bool,
    /// Its definition as it runs, or as it was saved.
    pub live: Option<Layout>,
    /// Its definition for the next boot.
    pub next: Option<Layout>,
}

impl Observed {
    pub fn is_up(&self) -> bool {
        self.power != Power::Off
    }

    pub fn is_ready(&self) -> bool {
        self.power == Power::Running
            && self
                .running
                .as_ref()
                .is_some_and(|mark| mark.ready.is_some())
    }
}
