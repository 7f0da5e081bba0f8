//! Values of nodes as a Machinefile has them, and what people meant who wrote them as another type.

use kdl::{KdlEntry, KdlNode, KdlValue};

use crate::machinefile::diagnostics::{MachinefileError, Span};

/// Ports that people know by name.
const SERVICES: [(&str, u16); 12] = [
    ("dns", 53),
    ("http", 80),
    ("https", 443),
    ("mariadb", 3306),
    ("memcached", 11211),
    ("mongodb", 27017),
    ("mysql", 3306),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("redis", 6379),
    ("smtp", 25),
    ("ssh", 22),
];

pub(super) fn arguments(node: &KdlNode) -> impl Iterator<Item = &KdlEntry> {
    (node.entries().iter()).filter(|entry| entry.name().is_none())
}

/// Returns the names and the arguments of a node that is meant to be a list of values, `{ "x" "y"; }`, as a Machinefile
/// has them. `None`: its name is a word, as a node's is.
pub(in crate::machinefile) fn list_of(node: &KdlNode) -> Option<String> {
    let is_quoted = (node.name().repr()).is_some_and(|written| written.starts_with(['"', '#']));
    if !is_quoted && !node.entries().is_empty() {
        return None;
    }
    let first = as_kdl(&node.name().value().into());
    let others = arguments(node).map(|entry| as_kdl(entry.value()));
    Some(
        std::iter::once(first)
            .chain(others)
            .collect::<Vec<_>>()
            .join(" "),
    )
}

/// Returns a value as a Machinefile has it.
pub(super) fn as_kdl(value: &KdlValue) -> String {
    match value {
        KdlValue::String(text) => format!("{text:?}"),
        KdlValue::Integer(number) => number.to_string(),
        KdlValue::Bool(true) => "#true".into(),
        KdlValue::Bool(false) => "#false".into(),
        other => other.to_string(),
    }
}

/// Returns #true or #false, if a value of another type is meant to be it.
fn bool_meant(value: &KdlValue) -> Option<&'static str> {
    match value {
        KdlValue::Integer(1) => Some("#true"),
        KdlValue::Integer(0) => Some("#false"),
        KdlValue::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some("#true"),
            "false" | "no" | "off" | "none" => Some("#false"),
            _ => None,
        },
        _ => None,
    }
}

/// Returns the port that people mean by a name.
pub(in crate::machinefile) fn service(name: &str) -> Option<u16> {
    let lower = name.to_ascii_lowercase();
    let known = SERVICES.iter().find(|(known, _)| *known == lower);
    known.map(|(_, port)| *port)
}

/// Returns what to write in place of a number of this kind.
pub(super) fn number_meant(what: &str, value: &KdlValue) -> Option<String> {
    let text = value.as_string()?;
    if text.parse::<i128>().is_ok() {
        return Some(format!("write {text}, without quotes"));
    }
    (what == "port").then(|| match service(text) {
        Some(port) => format!("write the number of the port: {port}"),
        None => "write the number of the port, such as 8080".into(),
    })
}

/// Returns the error about a value that is not #true or #false. `written`: how the node or property is written with each
/// of them.
pub(super) fn not_a_bool(
    place: &Span,
    message: String,
    value: &KdlValue,
    written: impl Fn(&str) -> String,
) -> MachinefileError {
    let message = format!("{message}, not {}", kind(value));
    MachinefileError::new(place, message, "here").help(match bool_meant(value) {
        Some(meant) => format!("write {}", written(meant)),
        None => format!("write {} or {}", written("#true"), written("#false")),
    })
}

pub(super) fn kind(value: &KdlValue) -> &'static str {
    match value {
        KdlValue::String(_) => "text",
        KdlValue::Integer(_) => "a number",
        KdlValue::Float(_) => "a fraction",
        KdlValue::Bool(_) => "#true or #false",
        KdlValue::Null => "#null",
    }
}
