//! Finds valid KDL that does not mean what its author meant.

use kdl::{KdlEntry, KdlNode};

use super::{
    decode::{MACHINE, TOP},
    diagnostics::{Errors, MachinefileError, Span},
    syntax::{Files, Item, in_other_language},
};

/// Nodes that take at most one argument.
const ONE_ARGUMENT: [&str; 15] = [
    "project",
    "connect",
    "catalogue",
    "box",
    "cpus",
    "memory",
    "disk",
    "hostname",
    "user",
    "user-data",
    "accel",
    "internet",
    "cpu",
    "forward",
    "sync",
];

/// Whether a Machinefile has a node of this name, at the top or in a machine.
pub fn is_node(name: &str) -> bool {
    TOP.contains(&name) || MACHINE.contains(&name)
}

/// Reports it. Returns whether anything was found: then further errors would only be consequences.
pub(super) fn check(files: &Files, errors: &mut Errors) -> bool {
    let known = errors.len();
    let is_known = |item: &Item| is_node(item.node.name().value());
    if files.whole && !files.items.is_empty() && !files.items.iter().any(is_known) {
        errors.extend(in_other_language(&files.main.source));
    }
    for item in &files.items {
        joined(item, &item.node, &TOP, errors);
        let children = item
            .node
            .children()
            .map_or(&[][..], |children| children.nodes());
        for child in children {
            joined(item, child, &MACHINE, errors);
        }
    }
    errors.len() > known
}

/// Reports a node that continues where the next should begin: `box "debian-12" cpus 2`.
fn joined(item: &Item, node: &KdlNode, nodes: &[&str], errors: &mut Errors) {
    if !ONE_ARGUMENT.contains(&node.name().value()) {
        return;
    }
    let mut arguments = node
        .entries()
        .iter()
        .filter(|entry| entry.name().is_none())
        .skip(1);
    let Some(next) = arguments.find(|entry| is_word(entry) && names(entry, nodes)) else {
        return;
    };
    let name = next.value().as_string().unwrap_or_default();
    let span = next.span();
    // The parser's span includes the space before the argument.
    let length = name.len();
    let place = Span {
        source: item.file.source.clone(),
        range: (span.offset() + span.len() - length, length).into(),
    };
    errors.push(
        MachinefileError::new(
            &place,
            format!("`{name}` is on the line of `{}`", node.name().value()),
            "the next node",
        )
        .help(format!("write `;` before `{name}`, or begin a new line")),
    );
}

fn names(entry: &KdlEntry, nodes: &[&str]) -> bool {
    entry
        .value()
        .as_string()
        .is_some_and(|text| nodes.contains(&text))
}

/// Whether a value is written without quotes.
fn is_word(entry: &KdlEntry) -> bool {
    let written = entry.format().map(|format| format.value_repr.as_str());
    written.is_some_and(|written| !written.starts_with(['"', '#']))
}
