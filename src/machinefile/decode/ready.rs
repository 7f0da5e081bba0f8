//! Decodes `ready`: when a machine counts as ready.

use crate::machinefile::{diagnostics::Spanned, node::Node, units};

use super::{
    draft::ReadyDraft,
    script_text,
    values::{port, twice},
};

pub(super) fn ready(node: &mut Node<'_>) -> Option<Spanned<ReadyDraft>> {
    let foreign = node.foreign_properties(&in_braces);
    if !foreign {
        node.properties(&[]);
    }
    node.at_most_or(0, |written| {
        let port: u16 = written.first()?.trim_matches('"').parse().ok()?;
        in_braces("tcp", &port.to_string())
    });
    let here = node.here();
    let mut ready = ReadyDraft::default();
    const KNOWN: [&str; 3] = ["tcp", "exec", "timeout"];
    for inner in node.children() {
        let mut child = node.child(inner);
        match inner.name().value() {
            "tcp" => {
                child.properties(&[]);
                child.no_children();
                let ports = child.numbers("port", 1, 65535);
                ready.tcp.extend(ports.into_iter().map(|p| port(p.value)));
            }
            "exec" => {
                child.properties(&[]);
                child.no_children();
                let line = child.one_command("a command line");
                if let Some(line) = &line {
                    script_text::check(&mut child, line);
                }
                ready.exec.extend(line.map(|line| line.value));
            }
            "timeout" => {
                child.properties(&[]);
                child.no_children();
                let here = child.here();
                if ready.timeout.is_some() {
                    child.error(twice(&here, "timeout"));
                }
                ready.timeout = child
                    .with_unit("90s", units::duration)
                    .map(|timeout| timeout.value);
            }
            _ => node.unknown_child(inner, &KNOWN),
        }
    }
    Some(Spanned::new(ready, here))
}

/// Returns what to write in place of a check that is not in braces.
fn in_braces(name: &str, value: &str) -> Option<String> {
    let bare = value.trim_matches('"');
    match name {
        "tcp" | "port" | "ports" => Some(format!("write `ready {{ tcp {bare}; }}`")),
        "exec" | "command" | "cmd" => Some(format!("write `ready {{ exec {value}; }}`")),
        "timeout" => Some(format!("write `ready {{ timeout {value}; }}`")),
        "http" | "url" => Some(format!(
            "write `ready {{ exec \"curl --fail --silent {bare}\"; }}`"
        )),
        _ => None,
    }
}
