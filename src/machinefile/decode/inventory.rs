//! Decodes `group`: machines under one name, for Ansible's inventory.

use crate::machinefile::{
    ansible::{ALL, Vars},
    diagnostics::{MachinefileError, Spanned},
    node::Node,
};

use super::ansible;

pub(crate) struct GroupDraft {
    pub name: Spanned<String>,
    pub machines: Vec<Spanned<String>>,
    pub children: Vec<Spanned<String>>,
    pub vars: Vars,
}

pub(super) fn group(node: &mut Node<'_>) -> Option<GroupDraft> {
    node.properties(&[]);
    let name = node.one_string("a name");
    if let Some(name) = &name
        && !is_group(&name.value)
    {
        node.error(not_a_group(name));
    }
    let mut machines = Vec::new();
    let mut children = Vec::new();
    let mut vars = Vars::default();
    let whole = name.as_ref().is_some_and(|name| name.value == ALL);
    for inner in node.children() {
        let mut child = node.child(inner);
        child.no_children();
        match inner.name().value() {
            what @ ("machines" | "children") => {
                if whole {
                    let place = child.here();
                    child.error(
                        MachinefileError::new(
                            &place,
                            "every machine is in \"all\"",
                            "has no effect",
                        )
                        .help("remove it: \"all\" can only have `vars`"),
                    );
                }
                child.properties(&[]);
                if what == "machines" {
                    machines.extend(child.strings("the name of a machine"));
                } else {
                    children.extend(child.strings("the name of a group"));
                }
            }
            "vars" => vars = ansible::vars(&mut child).over(&vars),
            _ => node.unknown_child(inner, &["machines", "children", "vars"]),
        }
    }
    Some(GroupDraft {
        name: name?,
        machines,
        children,
        vars,
    })
}

/// Ansible accepts more names with a warning. A name with a colon or a comma would be a pattern.
pub(super) fn is_group(name: &str) -> bool {
    name.chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && (name.chars()).all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        && name != "ungrouped"
}

pub(super) fn not_a_group(name: &Spanned<String>) -> MachinefileError {
    MachinefileError::new(
        &name.span,
        format!("{:?} is not a valid name of a group", name.value),
        "here",
    )
    .help("use ASCII letters, digits, _ and -, starting with a letter; \"all\" and \"ungrouped\" are Ansible's own groups")
}
