//! `ansible` and `ansible-local`: a playbook, and how it is run.

use std::path::PathBuf;

use kdl::KdlValue;

use crate::machinefile::{
    ansible::{AnsibleInstall, Playbook, Vars, VaultPassword},
    block::Block,
    diagnostics::{MachinefileError, Spanned},
    model::ProvisionerKind,
    paths::{Wants, resolve},
    syntax::{FileInfo, Files},
};

use super::{
    choice,
    inventory::{is_group, not_a_group},
    twice,
};

/// Children of `ansible`; of a machine's, `groups` too, and of the project's, `limit`.
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

/// What a playbook is run over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Machine,
    Project,
}

pub struct AnsibleDraft {
    pub playbook: Playbook,
    /// Names of machines and groups.
    pub limit: Vec<Spanned<String>>,
}

pub(super) fn ansible(
    block: &mut Block<'_>,
    over: Over,
    file: &FileInfo,
    files: &Files,
) -> Option<AnsibleDraft> {
    block.properties(&["become", "become-user", "verbosity"]);
    playbook(block, over, file, files)
}

pub(super) fn ansible_local(
    block: &mut Block<'_>,
    file: &FileInfo,
    files: &Files,
) -> Option<ProvisionerKind> {
    block.properties(&["become", "become-user", "verbosity", "install"]);
    let install = match block.property_string("install") {
        None => Some(AnsibleInstall::No),
        Some(word) => choice(
            block,
            &word,
            &[
                ("no", AnsibleInstall::No),
                ("package", AnsibleInstall::Package),
                ("pip", AnsibleInstall::Pip),
            ],
        ),
    };
    let draft = playbook(block, Over::Machine, file, files)?;
    Some(ProvisionerKind::AnsibleLocal {
        playbook: Box::new(draft.playbook),
        install: install?,
    })
}

fn playbook(
    block: &mut Block<'_>,
    over: Over,
    file: &FileInfo,
    files: &Files,
) -> Option<AnsibleDraft> {
    let here = block.here();
    let path = block.one_string("the path of a playbook");
    let user = block.property_user("become-user");
    let becomes = block.property_bool("become");
    if user.is_some()
        && let Some(becomes) = becomes.as_ref().filter(|it| !it.value)
    {
        block.error(
            MachinefileError::new(
                &becomes.place,
                "`become-user` names whom to become, and this says not to",
                "one of the two",
            )
            .help("leave one of them out"),
        );
    }
    let verbosity = (block.property_number("verbosity", "number of v in -vvvv", 0, 4))
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
    for node in block.children() {
        let name = node.name().value();
        if !known.contains(&name) {
            let misplaced = match name {
                "groups" => Some((
                    "`groups` belongs to the `ansible` of a machine",
                    "write group \"web\" { machines \"web\"; } at the top instead",
                )),
                "limit" => Some((
                    "`limit` belongs to an `ansible` of the whole project",
                    "a machine's own runs on that machine alone; leave it out",
                )),
                _ => None,
            };
            match misplaced {
                None => block.unknown_child(node, &known),
                Some((message, help)) => {
                    let mut child = block.child(node);
                    let place = child.here();
                    child.error(MachinefileError::new(&place, message, "not here").help(help));
                }
            }
            continue;
        }
        child(&mut block.child(node), &mut draft, file, files);
    }
    draft.playbook.playbook = resolve(&path?, file, &files.root, Wants::File, block.errors)?;
    Some(draft)
}

fn child(block: &mut Block<'_>, draft: &mut AnsibleDraft, file: &FileInfo, files: &Files) {
    block.no_children();
    let run = &mut draft.playbook;
    let name = block.name();
    if name == "vars" {
        run.vars = vars(block).over(&run.vars);
        return;
    }
    if name == "vault-password-file" {
        block.properties(&["id"]);
        let id = block.property_string("id");
        let Some(path) = block.one_string("a path") else {
            return;
        };
        if let Some(id) = id
            .as_ref()
            .filter(|id| id.value.is_empty() || id.value.contains('@'))
        {
            block.error(MachinefileError::new(
                &id.place,
                format!("{:?} is no vault id", id.value),
                "a word without @",
            ));
        }
        if let Some(file) = private_path(block, &path, file) {
            run.vault.push(VaultPassword {
                id: id.map(|id| id.value),
                file,
            });
        }
        return;
    }
    block.properties(&[]);
    match name {
        "vars-file" => {
            for mut path in block.strings("a path") {
                // As on Ansible's command line.
                if let Some(rest) = path.value.strip_prefix('@') {
                    path.value = rest.to_string();
                }
                let found = resolve(&path, file, &files.root, Wants::File, block.errors);
                run.vars_files.extend(found);
            }
        }
        "tags" => run.tags.extend(tags(block)),
        "skip-tags" => run.skip_tags.extend(tags(block)),
        "arguments" => {
            for word in block.strings("an option of ansible-playbook") {
                refuse(block, &word);
                run.arguments.push(word.value);
            }
        }
        "requirements" | "config" => {
            let here = block.here();
            let slot = if name == "config" {
                &mut run.config
            } else {
                &mut run.requirements
            };
            if slot.is_some() {
                block.error(twice(&here, name));
                return;
            }
            if let Some(path) = block.one_string("a path") {
                let yaml = path.value.ends_with(".yml") || path.value.ends_with(".yaml");
                if name == "requirements" && !yaml {
                    block.error(
                        MachinefileError::new(
                            &path.place,
                            format!("{:?} does not end in .yml or .yaml", path.value),
                            "here",
                        )
                        .help("ansible-galaxy reads YAML files only"),
                    );
                }
                *slot = resolve(&path, file, &files.root, Wants::File, block.errors);
            }
        }
        "groups" => {
            for group in block.strings("the name of a group") {
                if !is_group(&group.value) || group.value == crate::machinefile::ansible::ALL {
                    block.error(not_a_group(&group));
                }
                run.groups.push(group.value);
            }
        }
        "limit" => draft
            .limit
            .extend(block.strings("the name of a machine or of a group")),
        _ => {}
    }
}

fn tags(block: &mut Block<'_>) -> Vec<String> {
    let mut tags = Vec::new();
    for tag in block.strings("a tag") {
        if tag.value.is_empty() || tag.value.contains(',') {
            block.error(
                MachinefileError::new(&tag.place, format!("{:?} is no tag", tag.value), "here")
                    .help("write each tag by itself: tags \"deploy\" \"config\""),
            );
        }
        tags.push(tag.value);
    }
    tags
}

/// What could not work, or would be taken for a run that was none.
fn refuse(block: &mut Block<'_>, word: &Spanned<String>) {
    let option = word.value.split('=').next().unwrap_or_default();
    let (message, help) = match option {
        "-k"
        | "-K"
        | "-J"
        | "--ask-pass"
        | "--ask-become-pass"
        | "--ask-vault-pass"
        | "--ask-vault-password" => (
            "asks on a terminal, and a provisioner has none",
            "stead logs in by key, sudo asks for no password; for vaults there is `vault-password-file`",
        ),
        "-C" | "--check" | "--syntax-check" | "--list-hosts" | "--list-tasks" | "--list-tags" => (
            "changes nothing, and stead would take the provisioner for done",
            "try it by hand: ansible-playbook -i with stead's inventory (docs/concepts/ansible.md)",
        ),
        _ => return,
    };
    block.error(
        MachinefileError::new(&word.place, format!("{option} {message}"), "here").help(help),
    );
}

/// The properties of a node, as variables with their types.
pub(super) fn vars(block: &mut Block<'_>) -> Vars {
    block.at_most(0);
    let mut vars = Vars::default();
    for (name, value) in block.free_values() {
        if !is_variable(&name.value) {
            block.error(
                MachinefileError::new(
                    &name.place,
                    format!("{:?} is no name of a variable", name.value),
                    "letters, digits and _",
                )
                .help("Ansible takes letters, digits and _, not starting with a digit, and no word of Python's"),
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
            None => block.error(
                MachinefileError::new(
                    &value.place,
                    format!("`{}` cannot have this value", name.value),
                    "no number that Ansible takes",
                )
                .help("text, whole numbers of 64 bits, fractions, #true, #false and #null are taken; all else goes into a `vars-file`"),
            ),
        }
    }
    vars
}

/// Words that Ansible refuses as names of variables: Python's keywords (`keyword.kwlist`).
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

/// A file that often lies outside of the project, and that not everybody has: whether it is there
/// is looked at when it is needed.
fn private_path(block: &mut Block<'_>, path: &Spanned<String>, file: &FileInfo) -> Option<PathBuf> {
    if path.value.is_empty() {
        block.error(MachinefileError::new(
            &path.place,
            "the path is empty",
            "a path goes here",
        ));
        return None;
    }
    match path.value.strip_prefix("~/") {
        None => Some(file.folder.join(&path.value)),
        Some(rest) => match dirs::home_dir() {
            Some(home) => Some(home.join(rest)),
            None => {
                block.error(MachinefileError::new(
                    &path.place,
                    "no home directory is known, so ~ means nothing",
                    "here",
                ));
                None
            }
        },
    }
}
