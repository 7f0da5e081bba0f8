//! Decodes `ready`: when a machine counts as ready.

use crate::machinefile::{block::Block, diagnostics::Spanned, units};

use super::{
    draft::ReadyDraft,
    values::{port, twice},
};

pub(super) fn ready(block: &mut Block<'_>) -> Option<Spanned<ReadyDraft>> {
    block.properties(&[]);
    block.at_most(0);
    let here = block.here();
    let mut ready = ReadyDraft::default();
    const KNOWN: [&str; 3] = ["tcp", "exec", "timeout"];
    for node in block.children() {
        let mut child = block.child(node);
        match node.name().value() {
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
            _ => block.unknown_child(node, &KNOWN),
        }
    }
    Some(Spanned::new(ready, here))
}
