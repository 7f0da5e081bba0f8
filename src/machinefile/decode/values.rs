//! Values, and a mistake, that several nodes have.

use crate::{
    host::names::{is_user, nearest, one_of},
    machinefile::{
        diagnostics::{MachinefileError, Span, Spanned},
        node::Node,
    },
};

pub(super) fn twice(span: &Span, what: &str) -> MachinefileError {
    MachinefileError::new(span, format!("`{what}` is set twice"), "the second one")
        .help("keep one of them")
}

pub(super) fn not_a_label(name: &Spanned<String>, what: &str) -> MachinefileError {
    MachinefileError::new(
        &name.span,
        format!("{:?} is not a valid {what} name", name.value),
        "not a hostname label",
    )
    .help("use up to 63 lower-case ASCII letters, digits and dashes, with no dash at either end")
}

pub(super) fn port(number: i128) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// Reads `owner="user:group"`, in the form of chown(1).
pub(super) fn owner(node: &mut Node<'_>) -> Option<Spanned<String>> {
    let owner = node.property_string("owner")?;
    let good = match owner.value.split_once(':') {
        Some((user, group)) => is_user(user) && is_user(group),
        None => is_user(&owner.value),
    };
    if good {
        return Some(owner);
    }
    node.error(
        MachinefileError::new(
            &owner.span,
            format!("{:?} is not an owner", owner.value),
            "here",
        )
        .help("write \"user\" or \"user:group\""),
    );
    None
}

pub(super) fn choice<T: Copy>(
    node: &mut Node<'_>,
    word: &Spanned<String>,
    known: &[(&str, T)],
) -> Option<T> {
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == word.value) {
        return Some(*value);
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    let quoted: Vec<&str> = quoted.iter().map(String::as_str).collect();
    node.error(
        MachinefileError::new(
            &word.span,
            format!("{:?} is not a value of `{}`", word.value, node.name()),
            nearest(&word.value, names.iter().copied())
                .map_or("unknown".into(), |near| format!("did you mean {near:?}?")),
        )
        .help(format!("write {}", one_of(&quoted))),
    );
    None
}
