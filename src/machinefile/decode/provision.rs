//! Decodes `provision`: what sets a machine up.

use crate::machinefile::{
    block::Block,
    diagnostics::{MachinefileError, Spanned},
    model::{ProvisionerKind, RunPolicy},
    paths::{Wants, guest_target, resolve},
    syntax::{FileInfo, Files},
};

use super::{
    ansible::{AnsibleDraft, Over, ansible, ansible_local},
    draft::{ProjectProvisionDraft, ProvisionDraft},
    shell::shell,
    values::{choice, owner},
};

/// The kinds of provisioners.
const KINDS: [&str; 4] = ["shell", "file", "ansible", "ansible-local"];

pub(super) fn provision(
    block: &mut Block<'_>,
    file: &FileInfo,
    files: &Files,
) -> Option<Spanned<ProvisionDraft>> {
    block.properties(&["run"]);
    let here = block.here();
    let name = block.one_string("a name");
    let run = run_policy(block)?;
    let mut kind = None;
    for node in block.children() {
        let what = node.name().value();
        if !KINDS.contains(&what) {
            block.unknown_child(node, &KINDS);
            continue;
        }
        let mut child = block.child(node);
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
    if kind.is_none() {
        block.error(
            MachinefileError::new(&here, "`provision` has nothing to run", "empty")
                .help("put a `shell`, `file`, `ansible` or `ansible-local` in its braces"),
        );
    }
    let (name, kind) = name.zip(kind.flatten())?;
    let name = provisioner_name(block, name)?;
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
    block: &mut Block<'_>,
    file: &FileInfo,
    files: &Files,
) -> Option<ProjectProvisionDraft> {
    block.properties(&["run"]);
    let here = block.here();
    let name = block.one_string("a name");
    let run = run_policy(block);
    let mut draft: Option<Option<AnsibleDraft>> = None;
    for node in block.children() {
        let what = node.name().value();
        let mut child = block.child(node);
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
            _ => block.unknown_child(node, &["ansible"]),
        }
    }
    if draft.is_none() {
        block.error(
            MachinefileError::new(&here, "`provision` has nothing to run", "empty")
                .help("put an `ansible` in its braces"),
        );
    }
    let name = provisioner_name(block, name?)?;
    let draft = draft??;
    Some(ProjectProvisionDraft {
        name,
        run: run?,
        playbook: draft.playbook,
        limit: draft.limit,
    })
}

fn run_policy(block: &mut Block<'_>) -> Option<RunPolicy> {
    match block.property_string("run") {
        None => Some(RunPolicy::Once),
        Some(word) => choice(
            block,
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

fn provisioner_name(block: &mut Block<'_>, name: Spanned<String>) -> Option<Spanned<String>> {
    let plain = |c: char| !c.is_control() && c != '/';
    if name.value.is_empty() || !name.value.chars().all(plain) {
        block.error(MachinefileError::new(
            &name.span,
            format!("{:?} is not a valid name of a provisioner", name.value),
            "here",
        ));
        return None;
    }
    Some(name)
}

fn file_kind(block: &mut Block<'_>, file: &FileInfo, files: &Files) -> Option<ProvisionerKind> {
    block.properties(&["to", "mode", "owner"]);
    block.no_children();
    let here = block.here();
    let from = block.one_string("a path");
    let to = block.property_string("to");
    if to.is_none() {
        block.error(
            MachinefileError::new(&here, "`file` needs to=\"…\"", "no target")
                .help("write file \"motd\" to=\"/etc/motd\""),
        );
    }
    let mode =
        block
            .property_string("mode")
            .and_then(|mode| match u32::from_str_radix(&mode.value, 8) {
                Ok(number) if number <= 0o7777 && mode.value.len() >= 3 => Some(number),
                _ => {
                    block.error(
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
    let owner = owner(block).map(|owner| owner.value);
    let from = from.and_then(|from| resolve(&from, file, &files.root, Wants::Either, block.errors));
    let to = to.and_then(|to| guest_target(&to, block.errors));
    let (from, to) = from.zip(to)?;
    Some(ProvisionerKind::File {
        from,
        to,
        mode,
        owner,
    })
}
