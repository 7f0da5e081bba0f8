//! A machine as it was seen.

use jiff::Timestamp;

use super::{GivenCertificate, Identity, Layout, Pause, Record, Running};

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
    /// Whether it runs and was paused or saved since it booted.
    pub was_paused: bool,
    /// Whether its guest has left the state in which stead had reached it, and does not answer: it reboots by itself, or
    /// shuts down.
    pub rebooting: bool,
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

    /// Whether it runs, is on a network, and its guest needs another certificate. `authority` is the fingerprint of the
    /// user's authority, if there is one.
    pub fn needs_certificate(&self, authority: Option<&str>, now: Timestamp) -> bool {
        let is_good = |given: &GivenCertificate| {
            Some(given.authority.as_str()) == authority && now < given.renew_after
        };
        self.is_ready()
            && self.record.has_certificate()
            && !(self.running.as_ref())
                .and_then(|running| running.certificate.as_ref())
                .is_some_and(is_good)
    }

    /// The provisioner that runs in it, if one does.
    pub fn provisioning(&self) -> Option<&str> {
        let mark = self.running.as_ref()?.provisioning.as_ref()?;
        (self.power == Power::Running && mark.by.may_be_alive()).then_some(mark.name.as_str())
    }

    /// Whether stead has logged in since it booted.
    pub fn has_booted(&self) -> bool {
        self.power == Power::Running
            && !self.condition.rebooting
            && (self.running.as_ref()).is_some_and(|mark| mark.kernel.is_some())
    }

    pub fn is_ready(&self) -> bool {
        self.power == Power::Running
            && !self.condition.rebooting
            && self
                .running
                .as_ref()
                .is_some_and(|mark| mark.ready.is_some())
    }
}

#[cfg(test)]
mod tests {
    use crate::machine::{NetworkCard, Provisioning, Running, record::tests::record};

    use super::*;

    #[test]
    fn a_provisioner_runs_as_long_as_the_stead_that_started_it() {
        let mut machine = Observed {
            identity: Identity::of("shop", "/shop".as_ref(), "web"),
            record: record(),
            power: Power::Running,
            running: Some(Running {
                kernel: Some("6.1.0".into()),
                provisioning: Provisioning::of("app"),
                ..Running::default()
            }),
            condition: Condition::default(),
        };
        assert_eq!(machine.provisioning(), Some("app"));
        assert!(machine.has_booted() && !machine.is_ready());
        machine.power = Power::Off;
        assert_eq!(machine.provisioning(), None);
        machine.power = Power::Running;
        let by = machine
            .running
            .as_mut()
            .and_then(|it| it.provisioning.as_mut());
        by.unwrap().by.started += 1;
        assert_eq!(machine.provisioning(), None);
    }

    #[test]
    fn a_machine_that_runs_on_needs_another_certificate_in_time() {
        let now = Timestamp::constant(1_800_000_000, 0);
        let mut machine = Observed {
            identity: Identity::of("shop", "/shop".as_ref(), "web"),
            record: record(),
            power: Power::Running,
            running: Some(Running {
                ready: Some(now),
                ..Running::default()
            }),
            condition: Condition::default(),
        };
        // It is on no network.
        assert!(!machine.needs_certificate(None, now));
        machine.record.spec.cards = vec![NetworkCard {
            network: "default".into(),
            subnet: "10.77.0.0/24".parse().unwrap(),
            mac: crate::network::Mac([0x52, 0x54, 0, 0, 0, 1]),
            address: [10, 77, 0, 10].into(),
            aliases: Vec::new(),
        }];
        // A stead without certificates booted it.
        assert!(machine.needs_certificate(Some("A1"), now));
        let running = machine.running.as_mut().unwrap();
        running.certificate = Some(GivenCertificate {
            authority: "A1".into(),
            renew_after: now,
        });
        let second = std::time::Duration::from_secs(1);
        assert!(!machine.needs_certificate(Some("A1"), now - second));
        assert!(machine.needs_certificate(Some("A1"), now));
        assert!(machine.needs_certificate(Some("B2"), now - second));
        assert!(machine.needs_certificate(None, now - second));
        machine.power = Power::Off;
        assert!(!machine.needs_certificate(None, now));
    }
}
