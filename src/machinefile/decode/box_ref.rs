//! `box`: which image a machine starts as.

use crate::{
    boxes::{Source, catalogue::Requirement},
    machinefile::{
        block::Block,
        diagnostics::{MachinefileError, Spanned},
        syntax::{FileInfo, Files},
    },
};

use super::BoxDraft;

/// One that is wrong is told of here, and not missed again later.
pub(super) fn box_ref(block: &mut Block<'_>, file: &FileInfo, files: &Files) -> Spanned<BoxDraft> {
    block.properties(&["sha256", "version"]);
    block.no_children();
    let here = block.here();
    let written = block.first_as_written();
    let sha256 = block.property_string("sha256");
    let version = block.property_string("version");
    let Some(name) = block.one_string("the name of a box") else {
        return Spanned::new(
            BoxDraft {
                reference: "?".into(),
                key: "?".into(),
                file: None,
                sha256: None,
            },
            here,
        );
    };
    let mut reference = name.value.clone();
    let is_written_out = written.as_ref() == Some(&name.value);
    if name.value.trim().is_empty() {
        block.error(MachinefileError::new(
            &name.place,
            "`box` is empty",
            "the name of a box goes here",
        ));
    }
    let source = Source::parse(&name.value, &file.folder);
    match &source {
        Err(message) => block.error(MachinefileError::new(&name.place, message.clone(), "here").help(
            "a box is a name in the store, an https: URL, oci://HOST/REPOSITORY:TAG, or a path that starts with ./ or /",
        )),
        Ok(Source::Web(url)) if is_written_out && url.password().is_some() => block.error(
            MachinefileError::new(
                &name.place,
                "a password in the Machinefile goes wherever that goes",
                "this URL has one",
            )
            .help("write ${env.NAME} in its place: it is kept out of Machinefile.lock, files and messages"),
        ),
        Ok(Source::Web(url)) if url.scheme() == "http" && sha256.is_none() => block.error(
            MachinefileError::new(
                &name.place,
                "what comes over http: may have been altered on its way",
                "unprotected",
            )
            .help("use https:, or say what it has to be: box \"http://…\" sha256=\"…\""),
        ),
        // From the project's root, so that it means the same to whoever reads it.
        Ok(Source::File(_)) if name.value.starts_with('.') => {
            if let Ok(folder) = file.folder.strip_prefix(&files.root)
                && !folder.as_os_str().is_empty()
            {
                reference = format!("./{}/{}", folder.to_string_lossy(), name.value);
            }
        }
        Ok(Source::Name) => {
            if let Some(sha256) = &sha256 {
                block.error(
                    MachinefileError::new(
                        &sha256.place,
                        "`sha256` goes with a URL or a path",
                        "not with a name",
                    )
                    .help("a box in the store can be named by its digest: box \"sha256:…\""),
                );
            }
        }
        Ok(_) => {}
    }
    if let Some(version) = version {
        if let Err(message) = Requirement::parse(&version.value) {
            block.error(
                MachinefileError::new(&version.place, message, "here").help(
                    "a version is like 12 or 24.04, a range as in Cargo.toml: \">=22.04, <26\"",
                ),
            );
        }
        match &source {
            Ok(Source::Name) if !name.value.contains(['/', ':']) => {
                reference = format!("{reference} {}", version.value.trim());
            }
            // Of those that a Vagrant server lists there.
            Ok(Source::Web(_)) => reference = format!("{reference} {}", version.value.trim()),
            _ => block.error(
                MachinefileError::new(
                    &version.place,
                    "`version` goes with a name of the catalogue",
                    "not with this",
                )
                .help("box \"debian\" version=\"12\" is the same as box \"debian/12\""),
            ),
        }
    }
    let sha256 = sha256.and_then(|sha256| {
        let digits = sha256
            .value
            .strip_prefix("sha256:")
            .unwrap_or(&sha256.value);
        let digits = digits.to_ascii_lowercase();
        if digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return Some(digits);
        }
        block.error(MachinefileError::new(
            &sha256.place,
            format!("{:?} is no sha256", sha256.value),
            "64 hex digits go here",
        ));
        None
    });
    // What stands in a variable of the environment may be a password. A name or a path that comes
    // from one means another box where it changes.
    let key = match (&source, written) {
        (Ok(Source::Web(_)), Some(written)) => reference.replacen(&name.value, &written, 1),
        _ => reference.clone(),
    };
    let found = match source {
        // One that is not there yet is looked for when it is needed.
        Ok(Source::File(path)) => Some(path.canonicalize().unwrap_or(path)),
        _ => None,
    };
    Spanned::new(
        BoxDraft {
            reference,
            key,
            file: found,
            sha256,
        },
        name.place,
    )
}
