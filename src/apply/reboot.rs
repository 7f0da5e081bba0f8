//! Guests that reboot by themselves while a step works in them.

use std::{future::pending, time::Duration};

use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    guest::answers_within,
    host::runtime,
    hypervisor::Lifecycle,
    machinefile::{HookRuns, Machine, ProvisionerKind},
    plan::Step,
};

use super::error::ApplyError;

/// How long to look for the reason of a lost connection.
pub(super) struct Patience {
    /// A guest that goes down may still answer before this.
    before: Duration,
    /// How long its SSH server may take to answer, and the pause before it is asked again.
    answer: Duration,
    /// How long a guest may take to shut down after it has closed its connections.
    all: Duration,
}

pub(super) const PATIENCE: Patience = Patience {
    before: Duration::from_secs(4),
    answer: Duration::from_secs(2),
    all: Duration::from_secs(60),
};

/// Ends when the guest is reset, which a reboot ends with.
pub async fn until_rebooted(mut events: Receiver<(Uuid, Lifecycle)>, uuid: Uuid) {
    loop {
        match events.recv().await {
            Ok((who, Lifecycle::Rebooted)) if who == uuid => return,
            // A step whose connection is lost ends by itself.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => pending().await,
        }
    }
}

/// Returns the error for a guest that reboots under a step. `None`: the step allows that, or does it itself.
pub(super) fn rebooted(step: &Step, machine: &Machine) -> Option<ApplyError> {
    let name = &machine.name;
    let goes_on = format!("`stead up {name}` continues once it is back");
    let of_script = format!(
        "a script ends with the guest that it reboots: leave the reboot out, and run `stead restart {name}` after `stead up`, or reboot in a playbook of an `ansible` provisioner, which waits for the guest; `stead up {name}` runs it again"
    );
    let (what, hint) = match step {
        Step::Provision { name, .. } => {
            let provisioner = (machine.provisioners.iter()).find(|it| it.name == *name);
            let hint = match provisioner.map(|it| &it.kind) {
                // Ansible's module `reboot` waits for the guest.
                Some(ProvisionerKind::Ansible { .. }) => return None,
                Some(ProvisionerKind::File { .. }) => goes_on,
                Some(ProvisionerKind::Shell(_) | ProvisionerKind::AnsibleLocal { .. }) | None => {
                    of_script
                }
            };
            (format!("provisioner {name} ran"), hint)
        }
        Step::Hook { hook, .. } if matches!(hook.runs, HookRuns::Guest(_)) => (
            format!("the hook {} ({}) ran", hook.moment, hook.label()),
            of_script,
        ),
        // The first login may be to a guest that reboots once, and a kernel is installed by a reboot.
        Step::Reach | Step::InstallKernel { .. } => return None,
        _ if step.needs_guest().is_some() => (format!("stead was {}", step.doing()), goes_on),
        _ => return None,
    };
    Some(ApplyError::Rebooted { what, hint })
}

/// Returns why the connection of a step to the guest was lost: a guest that goes down closes it seconds before QEMU and
/// libvirt know. `None` if the guest answers on `port`, or nothing else is heard of it.
pub(super) async fn why_cut_off(
    lost: impl Future<Output = ApplyError>,
    rebooted: impl Future<Output = ApplyError>,
    port: u16,
    patience: &Patience,
) -> Option<ApplyError> {
    let answer = patience.answer;
    let answers = async {
        sleep(patience.before).await;
        while !runtime::blocking(move || answers_within(port, answer))
            .await
            .unwrap_or(false)
        {
            sleep(answer).await;
        }
    };
    let heard = async {
        tokio::select! {
            biased;
            lost = lost => Some(lost),
            rebooted = rebooted => Some(rebooted),
            () = answers => None,
        }
    };
    timeout(patience.all, heard).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use miette::Diagnostic;
    use tokio::{io::AsyncWriteExt, net::TcpListener, sync::broadcast};

    use super::*;
    use crate::{machinefile, plan::ProvisionReason};

    /// Only a playbook of the host waits for the guest that it reboots.
    #[test]
    fn a_reboot_under_a_step_has_an_error_that_fits() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(machinefile::MACHINEFILE);
        let text = "project \"shop\"\nmachine \"web\" {\nbox \"debian-12\"\n\
            provision \"app\" { shell inline=\"reboot; sleep 60\"; }\n\
            provision \"site\" { ansible \"site.yml\"; }\n}\n";
        std::fs::write(&file, text).unwrap();
        std::fs::write(folder.path().join("site.yml"), "- hosts: all\n").unwrap();
        let project = machinefile::load(&file, &|_| None).unwrap();
        let of = |step: Step| rebooted(&step, &project.machines[0]);
        let provision = |name: &str| Step::Provision {
            name: name.into(),
            reason: ProvisionReason::NeverRan,
        };
        let error = of(provision("app")).unwrap();
        assert_eq!(
            error.to_string(),
            "the guest rebooted while provisioner app ran"
        );
        let hint = error.help().unwrap().to_string();
        assert!(hint.contains("run `stead restart web` after `stead up`"));
        assert!(of(provision("site")).is_none());
        assert!(of(Step::Reach).is_none() && of(Step::Start).is_none());
        let error = of(Step::Ready).unwrap();
        assert_eq!(
            error.to_string(),
            "the guest rebooted while stead was checking readiness"
        );
        let hint = error.help().unwrap().to_string();
        assert_eq!(hint, "`stead up web` continues once it is back");
    }

    fn stopped() -> ApplyError {
        ApplyError::Stopped {
            machine: "web".into(),
        }
    }

    #[tokio::test]
    async fn a_reboot_of_this_guest_is_heard() {
        let (tell, events) = broadcast::channel(4);
        let (this, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for event in [
            (other, Lifecycle::Rebooted),
            (this, Lifecycle::AgentConnected),
            (this, Lifecycle::Rebooted),
        ] {
            tell.send(event).unwrap();
        }
        drop(tell);
        let soon = Duration::from_millis(200);
        let heard = timeout(soon, until_rebooted(events.resubscribe(), this));
        assert!(heard.await.is_err());
        assert!(timeout(soon, until_rebooted(events, this)).await.is_ok());
    }

    /// A guest that answers has only lost the connection. One that is silent is asked until libvirt knows more.
    #[tokio::test]
    async fn the_reason_of_a_lost_connection_is_waited_for() {
        let millis = Duration::from_millis;
        let quick = Patience {
            before: millis(20),
            answer: millis(20),
            all: millis(400),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serves = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
            }
        });
        let late = || async {
            sleep(millis(200)).await;
            stopped()
        };
        let found = why_cut_off(late(), pending(), port, &quick).await;
        assert!(found.is_none());
        serves.abort();
        let _ = serves.await;
        let found = why_cut_off(late(), pending(), port, &quick).await;
        assert!(matches!(found, Some(ApplyError::Stopped { .. })));
        let found = why_cut_off(pending(), ready(stopped()), port, &quick).await;
        assert!(found.is_some());
        let found = why_cut_off(pending(), pending(), port, &quick).await;
        assert!(found.is_none());
    }
}
