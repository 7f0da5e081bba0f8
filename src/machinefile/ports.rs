//! Gives each machine its ports of the host.

use crate::host::ports::{HostPort, HostPorts, NEAR, Protocol};

use super::{
    decode::ForwardDraft,
    diagnostics::{Errors, MachinefileError, Spanned},
    forward::Forward,
    tuning::Spans,
};

/// How many ports a machine may forward. QEMU takes them in one argument.
const MOST_PORTS: usize = 256;

/// A machine, as one of a `count`.
pub(super) struct Instance<'a> {
    pub name: &'a str,
    /// Its place among those of its `count`, from 0.
    pub n: usize,
}

impl Instance<'_> {
    /// Returns the first port of the host that a node gives this machine: after those of the machine before. `None`: it
    /// would be beyond 65535, or the last one would.
    fn first(&self, draft: &ForwardDraft) -> Option<u16> {
        let offset = u16::try_from(self.n).ok()?.checked_mul(draft.length)?;
        let first = draft.host.checked_add(offset)?;
        first.checked_add(draft.length - 1).map(|_| first)
    }
}

/// The ports of the host that the machines of a project have.
#[derive(Default)]
pub(super) struct Taken {
    /// By the names of the machines that got them so far.
    given: HostPorts<String>,
    /// Those that only one machine may have, because it does not say auto-correct. By its name.
    fixed: HostPorts<String>,
}

impl Taken {
    /// Adds the ports of a machine that it must have.
    pub(super) fn fix(&mut self, machine: &Instance<'_>, drafts: &[Spanned<ForwardDraft>]) {
        let fixed = drafts.iter().filter(|draft| !draft.value.auto_correct);
        for draft in fixed.take(MOST_PORTS) {
            let first = machine.first(&draft.value);
            for port in first.iter().flat_map(|first| draft.value.ports(*first)) {
                self.fixed.insert(port, machine.name.to_string());
            }
        }
    }

    /// Returns the first of the ports nearest above `first` that no other machine of the project has.
    fn corrected(&self, machine: &str, draft: &ForwardDraft, first: u16) -> Option<u16> {
        let others = |port| {
            let given = self.given.overlapping(port).is_some_and(|it| it != machine);
            given || self.fixed.overlapping(port).is_some_and(|it| it != machine)
        };
        let last = first
            .saturating_add(NEAR)
            .min(u16::MAX - (draft.length - 1));
        (first..=last).find(|first| !draft.ports(*first).any(others))
    }
}

/// Returns the forwards of a machine. `taken`: the ports of the machines before it, and those that others must have.
pub(super) fn forwards(
    machine: &Instance<'_>,
    drafts: &[Spanned<ForwardDraft>],
    taken: &mut Taken,
    spans: &mut Spans,
    errors: &mut Errors,
) -> Vec<Forward> {
    let name = machine.name;
    let mut found = Vec::new();
    for draft in drafts {
        let (span, draft) = (&draft.span, &draft.value);
        if found.len() + usize::from(draft.length) > MOST_PORTS {
            if machine.n == 0 {
                errors.push(
                    MachinefileError::new(
                        span,
                        format!("{name} forwards more than {MOST_PORTS} ports"),
                        "too many from here on",
                    )
                    .help("machines of one project reach each other without forwards, by name"),
                );
            }
            break;
        }
        let Some(first) = machine.first(draft) else {
            errors.push(MachinefileError::new(
                span,
                format!("{name} would get a port beyond 65535"),
                match draft.length {
                    1 => "each machine of a `count` gets the next port",
                    _ => "each machine of a `count` gets the next ports",
                },
            ));
            continue;
        };
        // Machines that run at once cannot have the same one.
        let first = match draft.auto_correct {
            true => taken.corrected(name, draft, first).unwrap_or(first),
            false => first,
        };
        let ports = &mut taken.given;
        for n in 0..draft.length {
            let forward = Forward {
                protocol: draft.protocol,
                address: draft.address,
                host: first + n,
                guest: draft.guest + n,
                auto_correct: draft.auto_correct,
                instead_of: None,
            };
            let port = forward.host_port();
            if let Some(other) = ports.overlapping(port) {
                if errors.is_full() {
                    errors.count();
                    break;
                }
                let what = match draft.protocol {
                    Protocol::Tcp => "port",
                    Protocol::Udp => "UDP port",
                };
                let message = match other == name {
                    true => format!("{name} forwards {what} {} of the host twice", port.port),
                    false => {
                        format!(
                            "both {other} and {name} forward {what} {} of the host",
                            port.port
                        )
                    }
                };
                let help = match draft.length {
                    1 => {
                        let mut above = (port.port..=u16::MAX).map(|it| HostPort { port: it, ..port });
                        match above.find(|it| ports.overlapping(*it).is_none()) {
                            Some(free) if other != name => format!(
                                "forward another port of the host, such as {}, or write auto-correct=#true at one of them",
                                free.port
                            ),
                            Some(free) => {
                                format!("forward another port of the host, such as {}", free.port)
                            }
                            None => "forward another port of the host".into(),
                        }
                    }
                    _ => "forward other ports of the host; each machine of a `count` has the ports that come after those of the machine before".into(),
                };
                errors.push(MachinefileError::new(span, message, "the second one").help(help));
                break;
            }
            ports.insert(port, name.to_string());
            spans.insert_port(port, span.clone());
            found.push(forward);
        }
    }
    found
}
