//! Decodes `provision`: what sets a machine up.

use crate::machinefile::{
    diagnostics::{MachinefileError, Spanned},
    model::{ProvisionerKind, RunPolicy},
    node::Node,
    paths::{Wants, guest_target, resolve},
    syntax::{FileInfo, Files},
};

use super::{
    ansible::{AnsibleDraft, Over, ansible, ansible_local},
    draft::{ProjectProvisionDraft, ProvisionDraft},
    runs_meant::{meant, without_braces},
    shell::shell,
    values::{choice, owner},
};

/// The kinds of provisioners.
const KINDS: [&str; 4] = ["shell", "file", "ansible", "ansible-local"];

pub(super) fn provision(
    node: &mut Node<'_>,
    file: &FileInfo,
    files: &Files,
) -> Option<Spanned<ProvisionDraft>> {
    if without_braces(node, false) {
        return None;
    }
    node.properties(&["run"]);
    let here = node.here();
    let name = name_of(node);
    let run = run_policy(node)?;
    let mut kind = None;
    let mut is_unknown = false;
    for inner in node.children() {
        let what = inner.name().value();
        if !KINDS.contains(&what) {
            is_unknown = true;
            match meant(inner) {
                Some(help) => {
                    let place = node.child(inner).here();
                    let message = format!("`provision` has no `{what}`");
                    node.error(MachinefileError::new(&place, message, "unknown").help(help));
                }
                None => node.unknown_child(inner, &KINDS),
            }
            continue;
        }
        let mut child = node.child(inner);
        let child_here = child.here();
        if kind.is_some() {
            child.error(
                MachinefileError::new(
                    &child_here,
                    "a provisioner has one `shell`, `file`, `ansible` or `ansible-local`",
                    "the second one",
                )
                .help("move it into a `provision` of its own, with its own name"),
            );
            continue;
        }
        kind = Some(match what {
            "shell" => shell(&mut child, file, files).map(ProvisionerKind::Shell),
            "ansible" => ansible(&mut child, Over::Machine, file, files).map(|draft| {
                ProvisionerKind::Ansible {
                    playbook: Box::new(draft.playbook),
                }
            }),
            "ansible-local" => ansible_local(&mut child, file, files),
            _ => file_kind(&mut child, file, files),
        });
    }
    if kind.is_none() && !is_unknown {
        node.error(
            MachinefileError::new(&here, "`provision` has nothing to run", "empty")
                .help("put a `shell`, `file`, `ansible` or `ansible-local` in its braces"),
        );
    }
    let (name, kind) = name.zip(kind.flatten())?;
    let name = provisioner_name(node, name)?;
    Some(Spanned::new(
        ProvisionDraft {
            name: name.value,
            run,
            kind,
        },
        name.span,
    ))
}

/// Decodes `provision` at the top: over several machines at once, which only Ansible can.
pub(super) fn project(
    node: &mut Node<'_>,
    file: &FileInfo,
    files: &Files,
) -> Option<ProjectProvisionDraft> {
    if without_braces(node, true) {
        return None;
    }
    node.properties(&["run"]);
    let here = node.here();
    let name = name_of(node);
    let run = run_policy(node);
    let mut draft: Option<Option<AnsibleDraft>> = None;
    for inner in node.children() {
        let what = inner.name().value();
        let mut child = node.child(inner);
        let place = child.here();
        match what {
            "ansible" if draft.is_none() => {
                draft = Some(ansible(&mut child, Over::Project, file, files));
            }
            "ansible" => child.error(
                MachinefileError::new(
                    &place,
                    "a provisioner of the project has one `ansible`",
                    "the second one",
                )
                .help("move it into a `provision` of its own, with its own name"),
            ),
            what if KINDS.contains(&what) => {
                draft.get_or_insert(None);
                child.error(
                    MachinefileError::new(
                        &place,
                        format!("`{what}` runs in one machine, not in a whole project"),
                        "not at the top",
                    )
                    .help("move this `provision` into `machine \"…\" { }`, or into `defaults { }` for all machines; at the top it takes `ansible`"),
                );
            }
            _ => node.unknown_child(inner, &["ansible"]),
        }
    }
    if draft.is_none() {
        node.error(
            MachinefileError::new(&here, "`provision` has nothing to run", "empty")
                .help("put an `ansible` in its braces"),
        );
    }
    let name = provisioner_name(node, name?)?;
    let draft = draft??;
    Some(ProjectProvisionDraft {
        name,
        run: run?,
        playbook: draft.playbook,
        limit: draft.limit,
    })
}

/// The longest name of a provisioner, in bytes. It is in lines of progress.
const LONGEST_NAME: usize = 255;

/// Returns the name of a provisioner, which the author chooses.
fn name_of(node: &mut Node<'_>) -> Option<Spanned<String>> {
    if node.is_without_arguments() {
        let here = node.here();
        node.error(
            MachinefileError::new(&here, "`provision` needs a name", "nothing after it")
                .help("give it a name of your choice: `provision \"setup\" { … }`"),
        );
        return None;
    }
    let name = node.one_string("a name")?;
    let length = name.value.len();
    if length <= LONGEST_NAME {
        return Some(name);
    }
    let message = format!("the name of a provisioner has {length} bytes");
    let label = format!("at most {LONGEST_NAME}");
    node.error(MachinefileError::new(&name.span, message, label));
    None
}

fn run_policy(node: &mut Node<'_>) -> Option<RunPolicy> {
    match node.property_string("run") {
        None => Some(RunPolicy::Once),
        Some(word) => choice(
            node,
            &word,
            &[
                ("once", RunPolicy::Once),
                ("changed", RunPolicy::Changed),
                ("always", RunPolicy::Always),
                ("never", RunPolicy::Never),
            ],
        ),
    }
}

fn provisioner_name(node: &mut Node<'_>, name: Spanned<String>) -> Option<Spanned<String>> {
    let plain = |c: char| !c.is_control() && c != '/';
    if name.value.is_empty() || !name.value.chars().all(plain) {
        node.error(MachinefileError::new(
            &name.span,
            format!("{:?} is not a valid name of a provisioner", name.value),
            "here",
        ));
        return None;
    }
    Some(name)
}

fn file_kind(node: &mut Node<'_>, file: &FileInfo, files: &Files) -> Option<ProvisionerKind> {
    node.properties(&["to", "mode", "owner"]);
    node.no_children();
    let here = node.here();
    let from = node.one_string("a path");
    let to = node.property_string("to");
    if to.is_none() {
        node.error(
            MachinefileError::new(&here, "`file` needs to=\"…\"", "no target")
                .help("write file \"motd\" to=\"/etc/motd\""),
        );
    }
    let mode =
        node.property_string("mode")
            .and_then(|mode| match u32::from_str_radix(&mode.value, 8) {
                Ok(number) if number <= 0o7777 && mode.value.len() >= 3 => Some(number),
                _ => {
                    node.error(
                        MachinefileError::new(
                            &mode.span,
                            format!("{:?} is not a file mode", mode.value),
                            "expected octal digits",
                        )
                        .help("write it as chmod does: \"0644\""),
                    );
                    None
                }
            });
    let owner = owner(node).map(|owner| owner.value);
    let from = from.and_then(|from| resolve(&from, file, &files.root, Wants::Either, node.errors));
    let to = to.and_then(|to| guest_target(&to, node.errors));
    let (from, to) = from.zip(to)?;
    Some(ProvisionerKind::File {
        from,
        to,
        mode,
        owner,
    })
}
