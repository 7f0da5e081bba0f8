//! `sync`: folders that are copied into machines.

use crate::machinefile::{
    block::Block,
    diagnostics::{MachinefileError, Spanned},
    paths::{Wants, guest_target, resolve},
    syntax::{FileInfo, Files},
};

use super::SyncDraft;

pub(super) fn sync(
    block: &mut Block<'_>,
    file: &FileInfo,
    files: &Files,
) -> Option<Spanned<SyncDraft>> {
    block.properties(&["to", "delete"]);
    let here = block.here();
    let from = block.one_string("the folder to sync");
    let to = block.property_string("to");
    let delete = block
        .property_bool("delete")
        .is_none_or(|delete| delete.value);
    let mut exclude = Vec::new();
    for node in block.children() {
        match node.name().value() {
            "exclude" => {
                let mut child = block.child(node);
                child.properties(&[]);
                child.no_children();
                exclude.extend(
                    child
                        .strings("a pattern")
                        .into_iter()
                        .map(|word| word.value),
                );
            }
            _ => block.unknown_child(node, &["exclude"]),
        }
    }
    if to.is_none() {
        block.error(
            MachinefileError::new(&here, "`sync` needs to=\"…\"", "where does it go?")
                .help("write sync \".\" to=\"/srv/app\""),
        );
    }
    let from = from.and_then(|from| resolve(&from, file, &files.root, Wants::Folder, block.errors));
    let to =
        to.and_then(|to| guest_target(&to, block.errors).map(|path| Spanned::new(path, to.place)));
    let (from, to) = from.zip(to)?;
    Some(Spanned::new(
        SyncDraft {
            from,
            to: to.value,
            exclude,
            delete,
        },
        to.place,
    ))
}
