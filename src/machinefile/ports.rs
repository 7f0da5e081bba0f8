//! Gives each machine its ports of the host.

use crate::host::ports::{HostPort, HostPorts, Protocol};

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

/// Returns the forwards of a machine. `ports`: those of the machines before it, by name.
pub(super) fn forwards(
    machine: &Instance<'_>,
    drafts: &[Spanned<ForwardDraft>],
    ports: &mut HostPorts<String>,
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
        // The ports of one machine come after those of the machine before.
        let first = u16::try_from(machine.n)
            .ok()
            .and_then(|n| n.checked_mul(draft.length))
            .and_then(|offset| draft.host.checked_add(offset));
        let last = first.and_then(|first| first.checked_add(draft.length - 1));
        let (Some(first), Some(_)) = (first, last) else {
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
