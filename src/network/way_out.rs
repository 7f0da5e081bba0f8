//! The way out of a network, as the switch has it: the process that is it, or why there is none.

use std::{net::Ipv4Addr, rc::Rc};

use tokio::sync::Notify;

use super::outward::{Outward, Task};

#[derive(Default)]
pub(super) struct WayOut {
    /// What it is to be; `None`: no machine has a way out.
    wanted: Option<Task>,
    outward: Option<Rc<Outward>>,
    failed: Option<String>,
    /// Wakes the task that keeps the process.
    changed: Rc<Notify>,
}

impl WayOut {
    pub(super) fn want(&mut self, wanted: Option<Task>) {
        if self.wanted != wanted {
            self.wanted = wanted;
            self.changed.notify_one();
        }
    }

    pub(super) fn wanted(&self) -> Option<Task> {
        self.wanted.clone()
    }

    pub(super) fn changed(&self) -> Rc<Notify> {
        Rc::clone(&self.changed)
    }

    pub(super) fn is(&mut self, outward: Result<Rc<Outward>, String>) {
        match outward {
            Ok(outward) => (self.outward, self.failed) = (Some(outward), None),
            Err(said) => (self.outward, self.failed) = (None, Some(said)),
        }
    }

    /// Passes on a packet, or drops it if nobody takes it just now: whoever misses it sends it again. Returns whether
    /// somebody will.
    pub(super) fn send(&self, packet: &[u8]) -> bool {
        if let Some(outward) = &self.outward {
            outward.send(packet);
        }
        self.failed.is_none()
    }

    /// Ends the connections of a guest, which has begun anew.
    pub(super) fn restart(&self, guest: Ipv4Addr) {
        if let Some(outward) = &self.outward {
            outward.restart(guest);
        }
    }

    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }
}
