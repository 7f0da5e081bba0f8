//! Decodes `sync`: folders of the host that machines have too.

use crate::machinefile::{
    diagnostics::{MachinefileError, Spanned},
    model::{SyncFolder, SyncKind},
    node::{Node, values::list_of},
    paths::{guest_folder, resolve_shared},
    syntax::{FileInfo, Files},
};

use super::values::{choice, owner};

const PROPERTIES: [&str; 9] = [
    "to",
    "type",
    "mode",
    "delete",
    "gitignore",
    "owner",
    "readonly",
    "watch",
    "outside",
];

pub(super) fn sync(
    node: &mut Node<'_>,
    file: &FileInfo,
    files: &Files,
) -> Option<Spanned<SyncFolder>> {
    node.properties(&PROPERTIES);
    let here = node.here();
    if !node.has_property("to") && node.written().len() == 2 {
        // As `cp` and Docker have it.
        node.at_most_or(1, |written| match written {
            [from, to] => Some(format!("write `sync {from} to={to}`")),
            _ => None,
        });
        return None;
    }
    let from = node.one_string("the folder to sync");
    let to = node.property_string("to");
    let kind = kind(node);
    let delete = node.property_bool("delete");
    let gitignore = node.property_bool("gitignore");
    let readonly = node.property_bool("readonly");
    let owner = owner(node);
    let watch = flag(node, "watch");
    let outside = flag(node, "outside");
    let mut exclude = Vec::new();
    for inner in node.children() {
        match inner.name().value() {
            "exclude" => {
                let mut child = node.child(inner);
                child.properties(&[]);
                child.no_children();
                exclude.extend(child.strings("a pattern"));
            }
            _ => match list_of(inner) {
                Some(list) if !PROPERTIES.contains(&inner.name().value()) => {
                    let place = node.child(inner).here();
                    let error = MachinefileError::new(
                        &place,
                        "`sync` names what it skips after `exclude`",
                        "no `exclude`",
                    );
                    node.error(error.help(format!("write `exclude {list}`")));
                }
                _ => node.misplaced_child(inner, &PROPERTIES, &["exclude"]),
            },
        }
    }
    if let Some(kind) = kind {
        let said = [
            ("delete", delete.as_ref().map(|it| &it.span)),
            ("gitignore", gitignore.as_ref().map(|it| &it.span)),
            ("owner", owner.as_ref().map(|it| &it.span)),
            ("readonly", readonly.as_ref().map(|it| &it.span)),
            ("exclude", exclude.first().map(|it| &it.span)),
        ];
        for (option, place) in said {
            if let Some((place, why)) = place.zip(against(kind, option)) {
                node.error(
                    MachinefileError::new(
                        place,
                        format!("`{option}` does not work with {}", kind.word()),
                        "here",
                    )
                    .help(why),
                );
            }
        }
    }
    if to.is_none() {
        node.error(
            MachinefileError::new(&here, "`sync` needs to=\"…\"", "no target")
                .help("write sync \".\" to=\"/srv/app\""),
        );
    }
    let from = from.and_then(|from| resolve_shared(&from, file, &files.root, outside, node.errors));
    let deletes = delete.is_none_or(|delete| delete.value);
    let owns = deletes || !kind.is_some_and(SyncKind::is_one_way);
    let to = to.and_then(|to| {
        guest_folder(&to, owns, node.errors).map(|path| Spanned::new(path, to.span))
    });
    let (from, to) = from.zip(to)?;
    Some(Spanned::new(
        SyncFolder {
            from,
            to: to.value,
            kind: kind?,
            exclude: exclude.into_iter().map(|word| word.value).collect(),
            delete: deletes,
            gitignore: gitignore.is_some_and(|gitignore| gitignore.value),
            owner: owner.map(|owner| owner.value),
            readonly: readonly.is_some_and(|readonly| readonly.value),
            watch,
            at: here.text(),
        },
        to.span,
    ))
}

fn flag(node: &mut Node<'_>, name: &str) -> bool {
    node.property_bool(name).is_some_and(|flag| flag.value)
}

/// `None` if it is not valid.
fn kind(node: &mut Node<'_>) -> Option<SyncKind> {
    let word = node.property_string("type");
    let kind = match &word {
        None => SyncKind::Rsync,
        Some(word) => choice(
            node,
            word,
            &[
                ("rsync", SyncKind::Rsync),
                ("virtiofs", SyncKind::Virtiofs),
                ("9p", SyncKind::NineP),
                ("auto", SyncKind::Auto),
            ],
        )?,
    };
    let Some(mode) = node.property_string("mode") else {
        return Some(kind);
    };
    if !choice(node, &mode, &[("one-way", false), ("two-way", true)])? {
        return Some(kind);
    }
    if let (Some(word), false) = (&word, kind.is_one_way()) {
        node.error(
            MachinefileError::new(
                &word.span,
                format!("type={:?} cannot be combined with mode=\"two-way\"", word.value),
                "with mode=\"two-way\"",
            )
            .help("remove `mode`, because a shared folder is the same on both sides; or remove `type`"),
        );
        return None;
    }
    Some(SyncKind::TwoWay)
}

/// Why an option has no effect.
fn against(kind: SyncKind, option: &str) -> Option<&'static str> {
    match kind {
        SyncKind::Virtiofs | SyncKind::NineP => match option {
            "delete" | "gitignore" | "exclude" => {
                Some("the guest sees the whole folder; use type=\"rsync\" to exclude files")
            }
            "owner" => Some(
                "in the guest, all files belong to the login user; use type=\"rsync\" to set another owner",
            ),
            _ => None,
        },
        SyncKind::Rsync => (option == "readonly").then_some(
            "the guest can write to its copy; use type=\"virtiofs\" or type=\"9p\" for a read-only folder",
        ),
        SyncKind::Auto => (option == "readonly").then_some(
            "the folder may be copied, and the guest can write to its copy; use type=\"virtiofs\" or type=\"9p\"",
        ),
        SyncKind::TwoWay => matches!(option, "readonly" | "delete")
            .then_some("files that one side deletes are deleted on the other side too"),
    }
}
