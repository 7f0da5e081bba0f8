//! What people meant who wrote what runs in a machine without braces, as Vagrant and others have it:
//! `provision "shell" inline="…"`.

use kdl::KdlNode;

use crate::machinefile::{diagnostics::MachinefileError, node::Node};

/// The longest text that is shown in a hint, in bytes.
const LONGEST: usize = 40;

/// What other tools call a provisioner in place of its name, and the node that it means.
const KINDS_OF_OTHERS: [(&str, &str); 10] = [
    ("shell", "shell"),
    ("script", "shell"),
    ("inline", "shell"),
    ("system", "shell"),
    ("user", "shell"),
    ("file", "file"),
    ("ansible", "ansible"),
    ("playbook", "ansible"),
    ("ansible-local", "ansible-local"),
    ("ansible_local", "ansible-local"),
];

/// Reports a `provision` without braces, and what to write instead. Returns whether it is one. `at_top`: it is at the
/// top, where only playbooks can be.
pub(super) fn without_braces(node: &mut Node<'_>, at_top: bool) -> bool {
    if !node.children().is_empty() {
        return false;
    }
    let arguments = node.written();
    let first = node.first_as_written();
    let known = (first.as_deref())
        .and_then(|first| KINDS_OF_OTHERS.iter().find(|(other, _)| *other == first))
        .map(|(_, kind)| *kind);
    let property = |names: &[&str]| {
        (names.iter()).find_map(|name| node.property_written(name).map(|value| shown(&value)))
    };
    let script = property(&["path", "shell", "script"]);
    let inline = property(&["inline", "cmd", "command"])
        .or_else(|| property(&["run"]).filter(|_| !is_policy(node)));
    let playbook = property(&["playbook", "ansible", "ansible_local"]);
    let source = property(&["source", "file", "src", "from"]);
    let target = property(&["destination", "dest", "to", "target"]);
    // The name is missing where its place has the kind, or the path of a script.
    let is_path = |text: &&str| text.contains('/') || text.ends_with(".sh") || is_playbook(text);
    let path = (first.as_deref().filter(is_path).map(|it| format!("{it:?}")))
        .or_else(|| arguments.get(1).map(|it| shown(it)));
    let runs = match (inline, script, playbook, source) {
        (Some(text), ..) => format!("shell inline={text}"),
        (_, Some(path), ..) => format!("shell {path}"),
        (_, _, Some(path), _) => format!("{} {path}", known.unwrap_or("ansible")),
        (.., Some(from)) => {
            let to = target.unwrap_or_else(|| "\"/etc/motd\"".into());
            format!("file {from} to={to}")
        }
        _ => match (path, known) {
            (Some(path), Some("file")) => {
                let to = target.unwrap_or_else(|| "\"/etc/motd\"".into());
                format!("file {path} to={to}")
            }
            (Some(path), Some(kind)) => format!("{kind} {path}"),
            (Some(path), None) if is_playbook(path.trim_matches('"')) => format!("ansible {path}"),
            (Some(path), None) => format!("shell {path}"),
            (None, Some("file")) => "file \"motd\" to=\"/etc/motd\"".into(),
            (None, Some(kind)) if kind != "shell" => format!("{kind} \"site.yml\""),
            (None, Some(_)) => "shell \"setup.sh\"".into(),
            (None, None) => return false,
        },
    };
    let privileged = match property(&["privileged"]).as_deref() {
        Some("#false") => " privileged=#false",
        _ => "",
    };
    let runs = match runs.strip_prefix("shell ") {
        Some(rest) => format!("shell{privileged} {rest}"),
        None => runs,
    };
    let policy = match is_policy(node) {
        true => property(&["run"]).map_or_else(String::new, |run| format!(" run={run}")),
        false => String::new(),
    };
    let named = first.filter(|first| known.is_none() && !is_path(&first.as_str()));
    let name = named.as_deref().unwrap_or("setup");
    let place = match at_top && !runs.starts_with("ansible ") {
        true => ", in a machine",
        false => "",
    };
    let here = node.here();
    node.error(
        MachinefileError::new(
            &here,
            "`provision` has a name of your choice, and what it runs in braces",
            "nothing in braces",
        )
        .help(format!(
            "write `provision {name:?}{policy} {{ {runs}; }}`{place}"
        )),
    );
    true
}

/// Whether `run` is stead's own property, which says when a provisioner runs.
fn is_policy(node: &Node<'_>) -> bool {
    let run = node.property_as_written("run");
    run.is_some_and(|run| matches!(run.as_str(), "once" | "changed" | "always" | "never"))
}

/// Reports a hook without braces, and what to write instead. Returns whether it is one.
pub(super) fn hook_without_braces(node: &mut Node<'_>, has_guest: bool) -> bool {
    if !node.children().is_empty() {
        return false;
    }
    let (written, name) = (node.written(), node.name());
    let property = |name: &str| node.property_written(name).map(|value| shown(&value));
    let otherwise = match has_guest {
        true => "guest",
        false => "host",
    };
    let script = ["host", "guest"]
        .into_iter()
        .find_map(|place| Some((place, property(place)?)));
    let inline = (property("inline").or_else(|| property("run")))
        .or_else(|| written.get(1).map(|text| shown(text)));
    let runs = match (script, inline) {
        (Some((place, script)), _) => format!("{place} {script}"),
        (None, Some(text)) => format!("{otherwise} inline={text}"),
        (None, None) => return false,
    };
    let moment = written.first().map_or("\"up\"", String::as_str);
    let here = node.here();
    node.error(
        MachinefileError::new(
            &here,
            format!("`{name}` has what it runs in braces"),
            "nothing in braces",
        )
        .help(format!("write `{name} {moment} {{ {runs}; }}`")),
    );
    true
}

fn is_playbook(path: &str) -> bool {
    path.ends_with(".yml") || path.ends_with(".yaml")
}

/// Returns a value for a hint. A long one, or one that would need other quotes, is the author's to fill in.
fn shown(value: &str) -> String {
    match value.len() <= LONGEST && !value.contains('\\') {
        true => value.into(),
        false => "#\"…\"#".into(),
    }
}

/// Returns what to write in place of a node of other tools in the braces of a provisioner.
pub(super) fn meant(child: &KdlNode) -> Option<String> {
    let argument = (child.entries().iter())
        .find(|entry| entry.name().is_none())
        .and_then(|entry| entry.value().as_string())
        .map_or_else(|| "#\"…\"#".into(), |text| shown(&format!("{text:?}")));
    match child.name().value() {
        "inline" | "run" | "cmd" | "command" | "commands" => {
            Some(format!("write `shell inline={argument}`"))
        }
        "path" | "script" => Some(format!("write `shell {argument}`")),
        "playbook" => Some(format!("write `ansible {argument}`")),
        "source" => Some(format!("write `file {argument} to=\"…\"`")),
        _ => None,
    }
}
