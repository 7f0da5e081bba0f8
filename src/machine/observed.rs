//! A machine as it was seen.

use super::{Identity, Layout, Pause, Record, Running};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    Off,
    Running,
    Paused,
    /// On its way down.
    Stopping,
}

/// What libvirt knows of one machine.
#[derive(Clone, Debug)]
pub struct Observed {
    pub identity: Identity,
    pub record: Record,
    pub power: Power,
    pub running: Option<Running>,
    pub condition: Condition,
}

/// What a machine's record does not say of it, and what may have come about without stead.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// Why it stands still, where it does.
    pub pause: Option<Pause>,
    /// It is off, and what was in its memory is on disk (`virsh managedsave`): it goes on from
    /// there when it is started.
    pub saved: bool,
    /// It is off because QEMU ended without being told to.
    pub failed: bool,
    /// As it runs, or as it was saved.
    pub live: Option<Layout>,
    /// As it would be booted.
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
