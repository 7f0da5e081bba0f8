//! Notices guests that have left the state in which stead had reached them: somebody reboots them from inside, and QEMU
//! goes on.
//!
//! libvirt tells a reboot only to those who listen at that moment. So this compares what can be seen from outside with what
//! was seen when stead had last reached the guest, and asks only a guest that differs.

use std::{path::Path, thread, time::Duration};

use crate::{
    failure::Failure,
    guest::{MachineFiles, answers_within, boots_since},
    host::paths::DataDir,
    hypervisor::{Connection, HypervisorError, Survey},
    machine::{Observed, Power},
};

use super::Session;

/// How long a guest may take to answer.
const PATIENCE: Duration = Duration::from_millis(300);

impl Session {
    /// Returns what exists, and which of the project's guests reboot by themselves.
    pub fn survey(&self) -> Result<Survey, Failure> {
        let mut survey = self.connection.survey()?;
        let owner = self.owner();
        let own = (survey.machines.iter_mut()).filter(|machine| owner.owns(&machine.record));
        note_reboots(&self.data, own);
        Ok(survey)
    }
}

/// Returns the machines of all projects, and which of their guests reboot by themselves.
pub fn survey_all(connection: &Connection) -> Result<Survey, HypervisorError> {
    let mut survey = connection.survey()?;
    if let Some(data) = DataDir::find() {
        note_reboots(&data, survey.machines.iter_mut());
    }
    Ok(survey)
}

/// Notes which guests reboot by themselves. A guest that has to be asked takes a moment, all of them together.
pub fn note_reboots<'a>(data: &DataDir, machines: impl Iterator<Item = &'a mut Observed>) {
    thread::scope(|scope| {
        for machine in machines {
            let log = MachineFiles::new(data, &machine.identity.uuid).console_log();
            if !differs(machine, &log) {
                continue;
            }
            // QEMU's user-mode network would keep the connection, and others, for the guest's sshd.
            if machine.record.led_card().is_none() {
                machine.condition.rebooting = boots(machine, &log);
                continue;
            }
            scope.spawn(|| {
                let port = machine.record.ssh_port;
                machine.condition.rebooting = !answers_within(port, PATIENCE);
            });
        }
    });
}

/// Whether a guest that stead had reached looks different. One whose agent is there has booted.
fn differs(machine: &Observed, log: &Path) -> bool {
    let signs = (machine.running.as_ref()).and_then(|running| running.signs);
    let has_agent = (machine.condition.live.as_ref()).is_some_and(|live| live.agent);
    machine.power == Power::Running
        && machine.provisioning().is_none()
        && !has_agent
        && signs.is_some_and(|signs| signs.agent || boots(machine, log))
}

/// Whether its console says that it boots.
fn boots(machine: &Observed, log: &Path) -> bool {
    let signs = (machine.running.as_ref()).and_then(|running| running.signs);
    signs.is_some_and(|signs| boots_since(log, signs.console))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        net::{Ipv4Addr, TcpListener},
    };

    use super::*;
    use crate::{
        machine::{Condition, Identity, Layout, Running, Signs, sample_record},
        network::Mac,
    };

    /// A machine that stead had reached when its agent was there, or not, and its console's log was empty.
    fn machine(agent: bool, port: u16) -> Observed {
        let mut record = sample_record();
        record.ssh_port = port;
        record.spec.login_card = Some(Mac([0x52, 0x54, 0, 0, 0, 1]));
        Observed {
            identity: Identity::of("shop", "/shop".as_ref(), "web"),
            record,
            power: Power::Running,
            running: Some(Running {
                ready: Some(jiff::Timestamp::UNIX_EPOCH),
                kernel: Some("6.1.0".into()),
                signs: Some(Signs { agent, console: 0 }),
                ..Running::default()
            }),
            condition: Condition::default(),
        }
    }

    fn rebooting(data: &DataDir, mut machine: Observed) -> bool {
        note_reboots(data, std::iter::once(&mut machine));
        assert_eq!(machine.is_ready(), !machine.condition.rebooting);
        machine.condition.rebooting
    }

    #[test]
    fn only_a_guest_that_differs_and_is_silent_reboots() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::at(folder.path());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let silent = free.local_addr().unwrap().port();
        drop(free);
        // Without a sign, it is not asked.
        assert!(!rebooting(&data, machine(false, silent)));
        let mut there = machine(true, silent);
        there.condition.live = Some(Layout {
            agent: true,
            ..Layout::default()
        });
        assert!(!rebooting(&data, there.clone()));
        let mut older = machine(true, silent);
        older.running.as_mut().unwrap().signs = None;
        assert!(!rebooting(&data, older));
        // Its agent is gone.
        assert!(rebooting(&data, machine(true, silent)));
        let log = MachineFiles::new(&data, &there.identity.uuid).console_log();
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        fs::write(&log, "reboot: Restarting system\n").unwrap();
        assert!(rebooting(&data, machine(false, silent)));
        // The agent is back before its SSH server.
        assert!(!rebooting(&data, there));
        // QEMU's network would keep the connection.
        let mut led_by_qemu = machine(false, port);
        led_by_qemu.record.spec.login_card = None;
        assert!(rebooting(&data, led_by_qemu));
        // Somebody has only ended its agent.
        thread::spawn(move || {
            for stream in listener.incoming() {
                stream.unwrap().write_all(b"SSH-2.0-x\r\n").unwrap();
            }
        });
        assert!(!rebooting(&data, machine(true, port)));
        let mut off = machine(true, silent);
        off.power = Power::Off;
        note_reboots(&data, std::iter::once(&mut off));
        assert!(!off.condition.rebooting);
    }
}
