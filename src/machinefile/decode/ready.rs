//! Decodes `ready`: when a machine counts as ready.

use crate::machinefile::{diagnostics::Spanned, node::Node, units};

use super::{
    draft::ReadyDraft,
    values::{port, twice},
};

pub(super) fn ready(node: &mut Node<'_>) -> Option<Spanned<ReadyDraft>> {
    node.properties(&[]);
    node.at_most(0);
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
                ready
                    .exec
                    .extend(child.one_string("a command line").map(|word| word.value));
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
