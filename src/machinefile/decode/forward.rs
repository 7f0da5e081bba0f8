//! Reads `forward 8080 to=80 protocol="tcp" address="127.0.0.1"`.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    host::ports::{HostPort, Protocol},
    machinefile::{
        diagnostics::{MachinefileError, Spanned},
        node::Node,
        syntax,
    },
};

use super::values::{choice, port as port_number};

const PROPERTIES: [&str; 4] = ["to", "protocol", "address", "auto-correct"];

/// Properties of other tools, and what to write instead.
const OTHER_TOOLS: [(&[&str], &str); 8] = [
    (
        &[
            "host",
            "host_port",
            "hostPort",
            "hostPortRange",
            "published",
            "port",
            "ports",
        ],
        "the port of the host comes first, without a name: `forward 8080 to=80`",
    ),
    (
        &[
            "guest",
            "guest_port",
            "guestPort",
            "guestPortRange",
            "target",
            "container",
        ],
        "the port of the guest is `to`: `forward 8080 to=80`",
    ),
    (
        &[
            "host_ip",
            "hostIP",
            "host-ip",
            "ip",
            "bind",
            "listen",
            "host-address",
            "from",
        ],
        "the address of the host is `address`: `forward 8080 to=80 address=\"0.0.0.0\"`",
    ),
    (
        &["guest_ip", "guestIP", "guest-ip"],
        "remove it: a forward leads to the guest's login card",
    ),
    (&["auto_correct", "autocorrect"], "write auto-correct=#true"),
    (
        &["dev", "interface", "iface"],
        "the host is named by one of its addresses: `forward 8080 to=80 address=\"0.0.0.0\"`",
    ),
    (
        &["id", "name", "disabled"],
        "remove it: a forward is known by its port",
    ),
    (
        &["proto", "type", "udp", "tcp"],
        "write protocol=\"udp\"; without it, the protocol is \"tcp\"",
    ),
];

/// How many ports one node may have.
const MOST_PORTS: u16 = 100;

/// Ports of the host one after another, that lead to ports of the guest one after another. Each machine of a `count`
/// has its own.
#[derive(Clone, Debug)]
pub(crate) struct ForwardDraft {
    /// The first port of the first machine.
    pub host: u16,
    pub guest: u16,
    /// How many ports it has, at least one.
    pub length: u16,
    pub protocol: Protocol,
    pub address: Ipv4Addr,
    pub auto_correct: bool,
}

impl ForwardDraft {
    /// Returns the ports of the host from this one on.
    pub(in crate::machinefile) fn ports(&self, first: u16) -> impl Iterator<Item = HostPort> + '_ {
        (0..self.length).map(move |n| HostPort {
            protocol: self.protocol,
            address: self.address,
            port: first.saturating_add(n),
        })
    }
}

/// Ports one after another.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub first: u16,
    pub length: u16,
}

/// Reads `forward auto=#false`: whether the ports on which the machine listens appear on the host by themselves.
pub(super) fn auto(node: &mut Node<'_>) -> Option<Spanned<bool>> {
    let here = node.here();
    if let Some(port) = node.written().first() {
        let error = MachinefileError::new(
            &here,
            "`forward` with `auto` takes no port",
            "two settings in one node",
        );
        node.error(error.help(format!(
            "write two nodes: `forward {port}`, and `forward auto=#false`, which turns off what appears by itself"
        )));
        return None;
    }
    node.properties(&["auto"]);
    node.no_children();
    let off = here;
    Some(
        node.property_bool("auto")
            .unwrap_or(Spanned::new(true, off)),
    )
}

pub(super) fn forward(node: &mut Node<'_>) -> Option<Spanned<ForwardDraft>> {
    // Further errors would only be consequences.
    if node.properties_of_others(&OTHER_TOOLS) {
        return None;
    }
    if node.is_without_arguments() && !node.children().is_empty() {
        let here = node.here();
        let error =
            MachinefileError::new(&here, "`forward` has its ports on its line", "in braces");
        node.error(
            error.help("write `forward 8080 to=80`: the port of the host, and that of the guest"),
        );
        return None;
    }
    node.properties(&PROPERTIES);
    node.no_children_but_properties(&PROPERTIES);
    let written = node.first_as_written().unwrap_or_default();
    if let Some(help) = switched(node, &written) {
        let place = node.here();
        let error = MachinefileError::new(&place, "`forward` takes a port", "not a port");
        node.error(error.help(help));
        return None;
    }
    let guest = node.property_written("to");
    if node.is_without_arguments() {
        let is_port = |it: &String| syntax::range(it.trim_matches('"')).is_some();
        let to = guest.filter(is_port).unwrap_or_else(|| "80".into());
        let error = MachinefileError::new(
            &node.here(),
            "`forward` needs a port of the host",
            "no port after it",
        );
        node.error(error.help(format!(
            "write `forward 8080 to={to}`: the port of the host comes first, and that of the guest after it"
        )));
        return None;
    }
    node.at_most_or(1, |written| positional(written, guest));
    if let Some(help) = syntax::forward(&written) {
        if let Some(ports) = node.optional_first_string("a port") {
            let label = match written.contains(':') {
                true => "two ports",
                false => "a port and its protocol",
            };
            let error = MachinefileError::new(&ports.span, "`forward` takes one port", label);
            node.error(error.help(help));
        }
        return None;
    }
    let host = first_ports(node);
    let guest = match node.has_property("to") {
        true => Some(ports_of(node, "to")?),
        false => None,
    };
    let protocol = (node.property_string("protocol")).map_or(Some(Protocol::Tcp), |word| {
        let known = [Protocol::Tcp, Protocol::Udp].map(|it| (it.word(), it));
        choice(node, &word, &known)
    });
    let address = (node.property_string("address"))
        .map_or(Some(Ipv4Addr::LOCALHOST), |text| address(node, &text));
    let auto_correct = node.property_bool("auto-correct");
    let host = host?;
    let guest = match guest {
        None => host.value,
        Some(guest) if guest.value.length == host.value.length => guest.value,
        Some(guest) => {
            node.error(unequal(&host.value, &guest));
            return None;
        }
    };
    let draft = ForwardDraft {
        host: host.value.first,
        guest: guest.first,
        length: host.value.length,
        protocol: protocol?,
        address: address?,
        auto_correct: auto_correct.is_some_and(|it| it.value),
    };
    Some(Spanned::new(draft, host.span))
}

/// Returns what to write in place of `forward auto` and `forward none`.
fn switched(node: &Node<'_>, written: &str) -> Option<String> {
    let off = "`forward auto=#false`, so that the ports on which the machine listens do not appear by themselves";
    match (written, node.first_bool()) {
        ("auto", _) => Some(format!("write {off}; or remove it, since they do without it")),
        ("none" | "off", _) | (_, Some(false)) => Some(format!("write {off}")),
        (_, Some(true)) => Some(
            "remove it: the ports on which the machine listens appear by themselves; for another one, write `forward 8080 to=80`".into(),
        ),
        _ => None,
    }
}

/// Returns what to write in place of `forward 8080 80 "udp"`.
fn positional(written: &[String], guest: Option<String>) -> Option<String> {
    let (host, more) = written.split_first()?;
    let (mut guest, mut protocol) = (guest, None);
    for more in more {
        let bare = more.trim_matches('"');
        let is_protocol = matches!(bare, "tcp" | "udp");
        match syntax::range(bare) {
            Some(port) if guest.is_none() => guest = Some(port),
            None if is_protocol && protocol.is_none() => protocol = Some(more),
            _ => return None,
        }
    }
    let guest = guest.map(|it| format!(" to={it}")).unwrap_or_default();
    let protocol = (protocol.map(|it| format!(" protocol={it}"))).unwrap_or_default();
    Some(format!("write `forward {host}{guest}{protocol}`"))
}

fn first_ports(node: &mut Node<'_>) -> Option<Spanned<Ports>> {
    if let Some(range) = node.first_as_written().as_deref().and_then(parts) {
        let text = node.optional_first_string("a port")?;
        return ports(node, text, range);
    }
    let port = node.number(0, "port", 1, 65535)?;
    Some(one(&port))
}

/// Reads a property that is a port or a range of ports.
pub(super) fn ports_of(node: &mut Node<'_>, property: &str) -> Option<Spanned<Ports>> {
    if let Some(range) = (node.property_as_written(property).as_deref()).and_then(parts) {
        let text = node.property_string(property)?;
        return ports(node, text, range);
    }
    let port = node.property_number(property, "port", 1, 65535)?;
    Some(one(&port))
}

fn one(port: &Spanned<i128>) -> Spanned<Ports> {
    let ports = Ports {
        first: port_number(port.value),
        length: 1,
    };
    Spanned::new(ports, port.span.clone())
}

/// Splits `8000-8010`. The numbers may be too large for ports.
fn parts(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| {
        let text = text.trim();
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    Some((number(first)?, number(last)?))
}

fn ports(
    node: &mut Node<'_>,
    text: Spanned<String>,
    (first, last): (u64, u64),
) -> Option<Spanned<Ports>> {
    let port = |number| u16::try_from(number).ok().filter(|port| *port > 0);
    let (first, last) = match (port(first), port(last)) {
        (Some(first), Some(last)) => (first, last),
        _ => {
            node.error(MachinefileError::new(
                &text.span,
                format!("{:?} has an invalid port", text.value),
                "expected 1 to 65535",
            ));
            return None;
        }
    };
    let mistake = match last.checked_sub(first) {
        None => Some((
            format!("{:?} ends before it begins", text.value),
            format!("write \"{last}-{first}\""),
        )),
        Some(more) if more >= MOST_PORTS => Some((
            format!("{first} to {last} are {} ports", u32::from(more) + 1),
            format!("one `{}` has at most {MOST_PORTS} ports", node.name()),
        )),
        Some(more) => {
            let ports = Ports {
                first,
                length: more + 1,
            };
            return Some(Spanned::new(ports, text.span));
        }
    };
    if let Some((message, help)) = mistake {
        node.error(MachinefileError::new(&text.span, message, "here").help(help));
    }
    None
}

fn unequal(host: &Ports, guest: &Spanned<Ports>) -> MachinefileError {
    let counted = |length: u16| match length {
        1 => "1 port".to_string(),
        length => format!("{length} ports"),
    };
    let error = MachinefileError::new(
        &guest.span,
        format!(
            "`forward` has {} of the host, but {} of the guest",
            counted(host.length),
            counted(guest.value.length)
        ),
        "must be as many",
    );
    let first = guest.value.first;
    match (host.length, first.checked_add(host.length - 1)) {
        (1, _) => error.help(format!("write to={first}")),
        (_, Some(last)) => error.help(format!("write to=\"{first}-{last}\"")),
        (_, None) => error,
    }
}

fn address(node: &mut Node<'_>, text: &Spanned<String>) -> Option<Ipv4Addr> {
    let (message, label) = match text.value.parse::<Ipv4Addr>() {
        Ok(address) if address.is_multicast() || address.is_broadcast() => (
            format!("{address} is the address of many computers, not of this one"),
            "not an address of a host",
        ),
        Ok(address) => return Some(address),
        Err(_) => {
            let bare = text.value.trim_matches(['[', ']']);
            if bare.parse::<Ipv6Addr>().is_ok() {
                (
                    format!("{:?} is an IPv6 address", text.value),
                    "QEMU forwards from IPv4 addresses only",
                )
            } else {
                (
                    format!("{:?} is not an IPv4 address", text.value),
                    "not an address",
                )
            }
        }
    };
    node.error(MachinefileError::new(&text.span, message, label).help(
        "write an IPv4 address of this computer: \"127.0.0.1\" for its own users and programs, \"0.0.0.0\" for all addresses, by which others reach it too",
    ));
    None
}
