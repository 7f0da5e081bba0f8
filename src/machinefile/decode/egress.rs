//! Decodes `egress` and `host-access`: what a machine reaches beyond the networks of its project.

use std::net::Ipv6Addr;

use crate::{
    machinefile::{
        diagnostics::{MachinefileError, Span, Spanned},
        node::{
            Node,
            values::{list_of, service},
        },
    },
    network::{Destination, DestinationError},
};

use super::forward::ports_of;

/// `egress { allow "deb.debian.org"; }`
#[derive(Clone)]
pub(crate) struct EgressDraft {
    pub allow: Vec<Spanned<Destination>>,
    pub here: Span,
}

/// What a machine says of its ways to this computer.
#[derive(Clone, Default)]
pub(crate) struct HostAccessDraft {
    /// First and last ports of ranges.
    pub tcp: Vec<Spanned<(u16, u16)>>,
    /// `host-access none=#true`
    pub none: Option<Span>,
}

impl HostAccessDraft {
    /// Completes what a machine says by what the defaults say.
    pub(crate) fn over(self, under: &HostAccessDraft) -> HostAccessDraft {
        if self.none.is_some() {
            return self;
        }
        if self.tcp.is_empty() {
            return under.clone();
        }
        let mut tcp = under.tcp.clone();
        tcp.extend(self.tcp);
        HostAccessDraft { tcp, none: None }
    }

    /// Where the machine says it first. `None`: it says nothing.
    pub(crate) fn here(&self) -> Option<&Span> {
        let first = self.tcp.first().map(|ports| &ports.span);
        self.none.as_ref().or(first)
    }
}

const EXAMPLE: &str = "egress { allow \"deb.debian.org\"; }";
const CLOSED: &str = "write `internet #false`, if the machine is to reach nothing outside";
const OPEN: &str = "remove `egress`; if the machine is to reach everything but this computer, write host-access none=#true";

pub(super) fn egress(node: &mut Node<'_>) -> Option<EgressDraft> {
    let here = node.here();
    let written = node.written();
    if !written.is_empty() || node.has_property("allow") {
        let help = match (node.first_as_written().as_deref(), node.first_bool()) {
            (Some("none"), _) | (_, Some(false)) => CLOSED.into(),
            (Some("*" | "all" | "any"), _) | (_, Some(true)) => OPEN.into(),
            (Some(_), _) => format!("write egress {{ allow {}; }}", written.join(" ")),
            _ => match node.property_as_written("allow") {
                Some(one) => format!("write egress {{ allow {one:?}; }}"),
                None => format!("write {EXAMPLE}"),
            },
        };
        let error = MachinefileError::new(
            &here,
            "`egress` has its destinations in braces",
            "no `allow`",
        );
        node.error(error.help(help));
        return None;
    }
    node.properties(&[]);
    let mut allow = Vec::new();
    let mut is_right = true;
    for inner in node.children() {
        if inner.name().value() != "allow" {
            match list_of(inner) {
                // Like a list of other languages.
                Some(list) => {
                    let place = node.child(inner).here();
                    let error = MachinefileError::new(
                        &place,
                        "`egress` names what it allows after `allow`",
                        "no `allow`",
                    );
                    node.error(error.help(format!("write egress {{ allow {list}; }}")));
                }
                None => node.unknown_child(inner, &["allow"]),
            }
            is_right = false;
            continue;
        }
        let mut child = node.child(inner);
        if no_ports(&mut child) {
            is_right = false;
            continue;
        }
        child.properties(&[]);
        child.no_children();
        for text in child.strings("a host name, or IPv4 addresses") {
            match destination(&text) {
                Ok(destination) => allow.push(Spanned::new(destination, text.span)),
                Err(error) => child.error(error),
            }
        }
        is_right &= !child.is_without_arguments();
    }
    if node.children().is_empty() {
        node.error(
            MachinefileError::new(&here, "this `egress` allows nothing", "no `allow`").help(
                format!("write {EXAMPLE}; or, if the machine is to reach nothing, internet #false"),
            ),
        );
        is_right = false;
    }
    is_right.then_some(EgressDraft { allow, here })
}

/// Reports `allow 443` and `allow port=443`. Returns whether it did.
fn no_ports(child: &mut Node<'_>) -> bool {
    const HELP: &str = "write the name of a host, all of whose ports are reached: allow \"deb.debian.org\"; a port of this computer is `host-access tcp=5432`, beside `egress`";
    const PROPERTIES: [&str; 6] = ["tcp", "udp", "port", "ports", "protocol", "proto"];
    if child.foreign_properties(&|name, _| PROPERTIES.contains(&name).then(|| HELP.into())) {
        return true;
    }
    let is_number = |written: &String| written.parse::<i128>().is_ok();
    // A number among many destinations is a mistake of its own.
    let written = child.written();
    if !written.iter().take(2).any(is_number) || written.len() > 2 {
        return false;
    }
    let place = child.here();
    let error = MachinefileError::new(&place, "`allow` takes destinations, not ports", "a port");
    child.error(error.help(HELP));
    true
}

fn destination(text: &Spanned<String>) -> Result<Destination, MachinefileError> {
    let written = text.value.as_str();
    let (label, help) = match written.parse::<Destination>() {
        Ok(destination) => return Ok(destination),
        Err(_) if written == "*" => ("everything", OPEN.to_string()),
        Err(DestinationError::Ipv6) => (
            "an IPv6 address",
            "write IPv4 addresses, or a host name: the way out has no IPv6".into(),
        ),
        Err(error) => match written.rsplit_once(':') {
            Some((host, port)) if is_port(port) && host.parse::<Destination>().is_ok() => (
                "with a port",
                format!("write {host:?}: the machine reaches all its ports"),
            ),
            _ if is_ipv6_network(written) => (
                "IPv6 addresses",
                "write IPv4 addresses, or a host name: the way out has no IPv6".into(),
            ),
            _ => ("here", error.to_string()),
        },
    };
    let message = format!("{written:?} is not a destination");
    Err(MachinefileError::new(&text.span, message, label).help(help))
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

fn is_ipv6_network(text: &str) -> bool {
    let address = text.split('/').next().unwrap_or_default();
    (address.trim_matches(['[', ']']))
        .parse::<Ipv6Addr>()
        .is_ok()
}

/// What others write for `tcp`, and what to write instead.
const OTHER_WORDS: [(&[&str], &str); 3] = [
    (
        &["port", "ports", "host", "host_port", "guest", "to"],
        "the port of this computer is `tcp`: host-access tcp=5432",
    ),
    (
        &["udp", "protocol", "proto"],
        "the way to this computer is for TCP only: host-access tcp=5432",
    ),
    (
        &["address", "ip", "host_ip"],
        "remove it: the ports are those of 127.0.0.1",
    ),
];

pub(super) fn host_access(node: &mut Node<'_>, draft: &mut HostAccessDraft) {
    let here = node.here();
    if !node.is_without_arguments() {
        let written = node.first_as_written().unwrap_or_default();
        let port = written.rsplit(':').next().filter(|it| is_port(it));
        let number = node.first_number().filter(|it| (1..=65535).contains(it));
        let port = match number {
            Some(number) => number.to_string(),
            None => match service(&written) {
                Some(port) => port.to_string(),
                None => port.unwrap_or("5432").to_string(),
            },
        };
        let error = MachinefileError::new(&here, "`host-access` takes no argument", "no `tcp=`");
        let help = match (written.as_str(), node.first_bool()) {
            ("none" | "off", _) | (_, Some(false)) => {
                "write host-access none=#true, if the machine is to reach nothing of this computer"
                    .into()
            }
            ("all" | "*", _) | (_, Some(true)) => {
                "remove it, and all other `host-access`: then the machine reaches all ports of this computer".into()
            }
            _ => format!("write the port of this computer's 127.0.0.1: host-access tcp={port}"),
        };
        node.error(error.help(help));
        return;
    }
    // Further errors would only be consequences.
    if node.properties_of_others(&OTHER_WORDS) {
        return;
    }
    let known = node.errors.len();
    node.properties(&["tcp", "none"]);
    if node.errors.len() > known {
        return;
    }
    node.no_children_but_properties(&["tcp", "none"]);
    let none = node.property_bool("none");
    match none {
        Some(none) if !none.value => node.error(
            MachinefileError::new(&none.span, "`none=#false` says nothing", "here")
                .help("remove it, or name a port: host-access tcp=5432"),
        ),
        Some(none) if node.has_property("tcp") => node.error(
            MachinefileError::new(&none.span, "this opens a port, and none", "contradicts it")
                .help("keep one of them"),
        ),
        Some(_) => draft.none = Some(here),
        None if node.has_property("tcp") => {
            if let Some(ports) = ports_of(node, "tcp") {
                let last = ports.value.first + (ports.value.length - 1);
                draft.tcp.push(Spanned::new((ports.value.first, last), here));
            }
        }
        None if node.has_property("none") => {}
        None => node.error(
            MachinefileError::new(&here, "this `host-access` names no port", "no `tcp=`").help(
                "write host-access tcp=5432; or, if the machine is to reach nothing of this computer, host-access none=#true",
            ),
        ),
    }
}
