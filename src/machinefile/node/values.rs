//! Values of nodes as a Machinefile has them, and what people meant who wrote them as another type.

use kdl::{KdlEntry, KdlNode, KdlValue};

use crate::machinefile::{
    diagnostics::{MachinefileError, Span},
    units::Bytes,
};

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

/// Returns a number with the unit that people have in mind who write none. `example`: a value with its usual unit.
pub(super) fn with_likely_unit(number: i128, example: &str) -> String {
    let usual = example.trim_start_matches(|c: char| c.is_ascii_digit());
    match usual {
        // Libraries and other tools count memory in bytes, or in KiB as libvirt does.
        "GiB" if number >= 64 << 20 => match u64::try_from(number) {
            Ok(bytes) => Bytes(Bytes(bytes).mib() << 20).to_string(),
            Err(_) => example.into(),
        },
        "GiB" if number >= 1 << 20 => format!("{number}KiB"),
        // Nobody has `memory 512` GiB in mind, nor a script of 300 minutes.
        "GiB" if number >= 64 => format!("{number}MiB"),
        "m" if number >= 60 => format!("{number}s"),
        "s" if number >= 10_000 => format!("{number}ms"),
        usual => format!("{number}{usual}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_gets_the_unit_that_people_have_in_mind() {
        for (number, example, meant) in [
            (2, "2GiB", "2GiB"),
            (2048, "2GiB", "2048MiB"),
            (2_097_152, "2GiB", "2097152KiB"),
            (2_147_483_648, "2GiB", "2GiB"),
            (2_147_483_600, "2GiB", "2GiB"),
            (i128::MAX, "2GiB", "2GiB"),
            (10, "10m", "10m"),
            (300, "10m", "300s"),
            (300, "90s", "300s"),
            (90_000, "90s", "90000ms"),
            (10, "10mbit", "10mbit"),
        ] {
            assert_eq!(with_likely_unit(number, example), meant);
        }
    }
}
