//! Decodes `egress` and `host-access`: what a machine reaches beyond the networks of its project.

use std::net::Ipv6Addr;

use crate::{
    machinefile::{
        diagnostics::{MachinefileError, Span, Spanned},
        node::Node,
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

pub(super) fn egress(node: &mut Node<'_>) -> Option<EgressDraft> {
    let here = node.here();
    let written = match node.first_as_written() {
        Some(first) => Some(first),
        None => node.property_as_written("allow"),
    };
    if written.is_some() || node.has_property("allow") {
        let example = written.map_or(EXAMPLE.into(), |it| format!("egress {{ allow {it:?}; }}"));
        let error = MachinefileError::new(
            &here,
            "`egress` has its destinations in braces",
            "no `allow`",
        );
        node.error(error.help(format!("write {example}")));
        return None;
    }
    node.properties(&[]);
    node.at_most(0);
    let mut allow = Vec::new();
    let mut is_right = true;
    for inner in node.children() {
        if inner.name().value() != "allow" {
            node.unknown_child(inner, &["allow"]);
            is_right = false;
            continue;
        }
        let mut child = node.child(inner);
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

fn destination(text: &Spanned<String>) -> Result<Destination, MachinefileError> {
    let written = text.value.as_str();
    let (label, help) = match written.parse::<Destination>() {
        Ok(destination) => return Ok(destination),
        Err(_) if written == "*" => (
            "everything",
            "remove `egress`; if the machine is to reach everything but this computer, write host-access none=#true"
                .to_string(),
        ),
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
            None => port.unwrap_or("5432").to_string(),
        };
        let error = MachinefileError::new(&here, "`host-access` takes no argument", "no `tcp=`");
        node.error(error.help(format!(
            "write the port of this computer's 127.0.0.1: host-access tcp={port}"
        )));
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
    node.no_children();
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
