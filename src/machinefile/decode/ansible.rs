//! Decodes `ansible` and `ansible-local`: a playbook and its settings.

use std::path::PathBuf;

use kdl::KdlValue;

use crate::machinefile::{
    ansible::{AnsibleInstall, Playbook, Vars, VaultPassword},
    diagnostics::{MachinefileError, Spanned},
    model::ProvisionerKind,
    node::Node,
    paths::{Wants, resolve},
    syntax::{FileInfo, Files},
};

use super::{
    inventory::{is_group, not_a_group},
    values::{choice, twice},
};

/// Children of `ansible`. In a machine it also has `groups`, at the top `limit`.
const COMMON: [&str; 9] = [
    "vars",
    "vars-file",
    "tags",
    "skip-tags",
    "vault-password-file",
    "arguments",
    "requirements",
    "config",
    "groups",
];

/// The machines that a playbook runs over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Machine,
    Project,
}

pub(super) struct AnsibleDraft {
    pub playbook: Playbook,
    /// Names of machines and groups.
    pub limit: Vec<Spanned<String>>,
}

pub(super) fn ansible(
    node: &mut Node<'_>,
    over: Over,
    file: &FileInfo,
    files: &Files,
) -> Option<AnsibleDraft> {
    node.properties(&["become", "become-user", "verbosity"]);
    playbook(node, over, file, files)
}

pub(super) fn ansible_local(
    node: &mut Node<'_>,
    file: &FileInfo,
    files: &Files,
) -> Option<ProvisionerKind> {
    node.properties(&["become", "become-user", "verbosity", "install"]);
    let install = match node.property_string("install") {
        None => Some(AnsibleInstall::No),
        Some(word) => choice(
            node,
            &word,
            &[
                ("no", AnsibleInstall::No),
                ("package", AnsibleInstall::Package),
                ("pip", AnsibleInstall::Pip),
            ],
        ),
    };
    let draft = playbook(node, Over::Machine, file, files)?;
    Some(ProvisionerKind::AnsibleLocal {
        playbook: Box::new(draft.playbook),
        install: install?,
    })
}

fn playbook(
    node: &mut Node<'_>,
    over: Over,
    file: &FileInfo,
    files: &Files,
) -> Option<AnsibleDraft> {
    let here = node.here();
    let path = node.one_string("the path of a playbook");
    let user = node.property_user("become-user");
    let becomes = node.property_bool("become");
    if user.is_some()
        && let Some(becomes) = becomes.as_ref().filter(|it| !it.value)
    {
        node.error(
            MachinefileError::new(
                &becomes.span,
                "`become-user` sets a user to become, but become=#false says not to",
                "one of the two",
            )
            .help("remove one of them"),
        );
    }
    let verbosity = (node.property_number("verbosity", "number of v in -vvvv", 0, 4))
        .map_or(0, |it| u8::try_from(it.value).unwrap_or(4));
    let mut draft = AnsibleDraft {
        playbook: Playbook {
            playbook: PathBuf::new(),
            root: files.root.clone(),
            vars: Vars::default(),
            vars_files: Vec::new(),
            tags: Vec::new(),
            skip_tags: Vec::new(),
            r#become: user.is_some() || becomes.is_some_and(|it| it.value),
            become_user: user.map(|user| user.value),
            vault: Vec::new(),
            verbosity,
            arguments: Vec::new(),
            requirements: None,
            config: None,
            groups: Vec::new(),
            at: here.text(),
        },
        limit: Vec::new(),
    };
    let mut known: Vec<&str> = COMMON.to_vec();
    match over {
        Over::Machine => {}
        Over::Project => {
            known.retain(|name| *name != "groups");
            known.push("limit");
        }
    }
    let is_local = node.name() == "ansible-local";
    for inner in node.children() {
        let name = inner.name().value();
        if !known.contains(&name) {
            let misplaced = match name {
                "groups" => Some((
                    "`groups` belongs to the `ansible` of a machine",
                    "at the top, write group \"web\" { machines \"web\"; } instead",
                )),
                "limit" => Some((
                    "`limit` belongs to the `ansible` of the whole project",
                    "remove it: the `ansible` of a machine runs on that machine only",
                )),
                _ => None,
            };
            match misplaced {
                None => node.unknown_child(inner, &known),
                Some((message, help)) => {
                    let mut child = node.child(inner);
                    let place = child.here();
                    child.error(MachinefileError::new(&place, message, "not here").help(help));
                }
            }
            continue;
        }
        child(&mut node.child(inner), &mut draft, is_local, file, files);
    }
    draft.playbook.playbook = resolve(&path?, file, &files.root, Wants::File, node.errors)?;
    Some(draft)
}

fn child(
    node: &mut Node<'_>,
    draft: &mut AnsibleDraft,
    is_local: bool,
    file: &FileInfo,
    files: &Files,
) {
    node.no_children();
    let run = &mut draft.playbook;
    let name = node.name();
    if name == "vars" {
        run.vars = vars(node).over(&run.vars);
        return;
    }
    if name == "vault-password-file" {
        node.properties(&["id"]);
        let id = node.property_string("id");
        let Some(path) = node.one_string("a path") else {
            return;
        };
        if let Some(id) = id
            .as_ref()
            .filter(|id| id.value.is_empty() || id.value.contains('@'))
        {
            node.error(MachinefileError::new(
                &id.span,
                format!("{:?} is not a vault id", id.value),
                "expected a word without @",
            ));
        }
        if let Some(file) = private_path(node, &path, file) {
            run.vault.push(VaultPassword {
                id: id.map(|id| id.value),
                file,
            });
        }
        return;
    }
    node.properties(&[]);
    match name {
        "vars-file" => {
            for mut path in node.strings("a path") {
                // As on Ansible's command line.
                if let Some(rest) = path.value.strip_prefix('@') {
                    path.value = rest.to_string();
                }
                let found = resolve(&path, file, &files.root, Wants::File, node.errors);
                run.vars_files.extend(found);
            }
        }
        "tags" => run.tags.extend(tags(node)),
        "skip-tags" => run.skip_tags.extend(tags(node)),
        "arguments" => {
            for word in node.strings("an option of ansible-playbook") {
                refuse(node, &word, is_local);
                run.arguments.push(word.value);
            }
        }
        "requirements" | "config" => {
            let here = node.here();
            let slot = if name == "config" {
                &mut run.config
            } else {
                &mut run.requirements
            };
            if slot.is_some() {
                node.error(twice(&here, name));
                return;
            }
            if let Some(path) = node.one_string("a path") {
                let yaml = path.value.ends_with(".yml") || path.value.ends_with(".yaml");
                if name == "requirements" && !yaml {
                    node.error(
                        MachinefileError::new(
                            &path.span,
                            format!("{:?} does not end in .yml or .yaml", path.value),
                            "here",
                        )
                        .help("ansible-galaxy reads YAML files only"),
                    );
                }
                *slot = resolve(&path, file, &files.root, Wants::File, node.errors);
            }
        }
        "groups" => {
            for group in node.strings("the name of a group") {
                if !is_group(&group.value) || group.value == crate::machinefile::ansible::ALL {
                    node.error(not_a_group(&group));
                }
                run.groups.push(group.value);
            }
        }
        "limit" => draft
            .limit
            .extend(node.strings("the name of a machine or of a group")),
        _ => {}
    }
}

fn tags(node: &mut Node<'_>) -> Vec<String> {
    let mut tags = Vec::new();
    for tag in node.strings("a tag") {
        if tag.value.is_empty() || tag.value.contains(',') {
            node.error(
                MachinefileError::new(&tag.span, format!("{:?} is not a tag", tag.value), "here")
                    .help("write each tag in its own quotes: tags \"deploy\" \"config\""),
            );
        }
        tags.push(tag.value);
    }
    tags
}

/// Options that cannot work, or that make a run without effects look like a real one. `is_local`: Ansible runs in the
/// machine, where nobody can answer.
fn refuse(node: &mut Node<'_>, word: &Spanned<String>, is_local: bool) {
    let option = word.value.split('=').next().unwrap_or_default();
    let (message, help) = match option {
        "-k"
        | "-K"
        | "-J"
        | "--ask-pass"
        | "--ask-become-pass"
        | "--ask-vault-pass"
        | "--ask-vault-password"
        | "--step"
            if is_local =>
        {
            (
                "asks on a terminal, but Ansible in a machine has none",
                "remove it: sudo asks for no password there, and for vaults there is `vault-password-file`; `ansible`, which runs on your computer, can ask",
            )
        }
        "-C" | "--check" | "--syntax-check" | "--list-hosts" | "--list-tasks" | "--list-tags" => (
            "changes nothing, but stead would record that the provisioner has run",
            "remove it, and run `ansible-playbook -i` with stead's inventory yourself (docs/concepts/ansible.md)",
        ),
        _ => return,
    };
    node.error(MachinefileError::new(&word.span, format!("{option} {message}"), "here").help(help));
}

/// Returns the properties of a node, as variables with their types.
pub(super) fn vars(node: &mut Node<'_>) -> Vars {
    node.at_most(0);
    let mut vars = Vars::default();
    for (name, value) in node.free_values() {
        if !is_variable(&name.value) {
            node.error(
                MachinefileError::new(
                    &name.span,
                    format!("{:?} is not a valid name of a variable", name.value),
                    "letters, digits and _",
                )
                .help("use ASCII letters, digits and _, not starting with a digit; Ansible also refuses keywords of Python"),
            );
            continue;
        }
        let value_of = match value.value {
            KdlValue::String(text) => Some(text.into()),
            KdlValue::Bool(value) => Some(value.into()),
            KdlValue::Null => Some(serde_json::Value::Null),
            KdlValue::Integer(number) => match i64::try_from(number) {
                Ok(number) => Some(number.into()),
                Err(_) => None,
            },
            KdlValue::Float(number) => serde_json::Number::from_f64(number).map(Into::into),
        };
        match value_of {
            Some(found) => {
                vars.0.insert(name.value, found);
            }
            None => node.error(
                MachinefileError::new(
                    &value.span,
                    format!("`{}` cannot have this value", name.value),
                    "Ansible cannot read it",
                )
                .help("write text, a whole number of at most 64 bits, a fraction, #true, #false or #null; other values go in a `vars-file`"),
            ),
        }
    }
    vars
}

/// Names of variables that Ansible refuses: Python's keywords (`keyword.kwlist`).
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue",
    "def", "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import",
    "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while",
    "with", "yield",
];

fn is_variable(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty()
        && name.chars().all(plain)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !KEYWORDS.contains(&name)
}

/// Resolves a file that may be outside the project, and that some users do not have. Whether it exists is checked
/// when it is needed.
fn private_path(node: &mut Node<'_>, path: &Spanned<String>, file: &FileInfo) -> Option<PathBuf> {
    if path.value.is_empty() {
        node.error(MachinefileError::new(
            &path.span,
            "the path is empty",
            "expected a path",
        ));
        return None;
    }
    match path.value.strip_prefix("~/") {
        None => Some(file.folder.join(&path.value)),
        Some(rest) => match dirs::home_dir() {
            Some(home) => Some(home.join(rest)),
            None => {
                node.error(MachinefileError::new(
                    &path.span,
                    "cannot resolve ~: no home folder is known",
                    "here",
                ));
                None
            }
        },
    }
}
