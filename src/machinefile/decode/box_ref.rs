//! Decodes `box`: the image that a machine is made from.

use crate::{
    boxes::{Source, catalogue::Requirement},
    machinefile::{
        diagnostics::{MachinefileError, Spanned},
        node::Node,
        syntax::{FileInfo, Files},
    },
};

use super::draft::BoxDraft;

/// An invalid box is reported here, and not reported as missing later.
pub(super) fn box_ref(node: &mut Node<'_>, file: &FileInfo, files: &Files) -> Spanned<BoxDraft> {
    node.properties(&["sha256", "version"]);
    node.no_children();
    let here = node.here();
    let written = node.first_as_written();
    let sha256 = node.property_string("sha256");
    let version = node.property_string("version");
    let Some(name) = node.one_string("the name of a box") else {
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
        node.error(MachinefileError::new(
            &name.span,
            "`box` is empty",
            "expected the name of a box",
        ));
    }
    let source = Source::parse(&name.value, &file.folder);
    match &source {
        Err(message) => node.error(MachinefileError::new(&name.span, message.clone(), "here").help(
            "write a name from the store, an https: URL, oci://HOST/REPOSITORY:TAG, or a path that starts with ./ or /",
        )),
        Ok(Source::Web(url)) if is_written_out && url.password().is_some() => node.error(
            MachinefileError::new(
                &name.span,
                "everybody with the Machinefile could read this password",
                "this URL has a password",
            )
            .help("write ${env.NAME} in its place: stead keeps its value out of Machinefile.lock, other files and messages"),
        ),
        Ok(Source::Web(url)) if url.scheme() == "http" && sha256.is_none() => node.error(
            MachinefileError::new(
                &name.span,
                "a download over http: may be altered on its way",
                "unprotected",
            )
            .help("use https:, or add its digest: box \"http://…\" sha256=\"…\""),
        ),
        // Relative to the project's root, so that it means the same for every reader.
        Ok(Source::File(_)) if name.value.starts_with('.') => {
            if let Ok(folder) = file.folder.strip_prefix(&files.root)
                && !folder.as_os_str().is_empty()
            {
                reference = format!("./{}/{}", folder.to_string_lossy(), name.value);
            }
        }
        Ok(Source::Name) => {
            if let Some(sha256) = &sha256 {
                node.error(
                    MachinefileError::new(
                        &sha256.span,
                        "`sha256` needs a URL or a path",
                        "this is a name",
                    )
                    .help("for a box in the store, write its digest in place of the name: box \"sha256:…\""),
                );
            }
        }
        Ok(_) => {}
    }
    if let Some(version) = version {
        if let Err(message) = Requirement::parse(&version.value) {
            node.error(
                MachinefileError::new(&version.span, message, "here").help(
                    "write a version such as 12 or 24.04, or a range as in Cargo.toml: \">=22.04, <26\"",
                ),
            );
        }
        match &source {
            Ok(Source::Name) if !name.value.contains(['/', ':']) => {
                reference = format!("{reference} {}", version.value.trim());
            }
            // One of the versions that a Vagrant server lists.
            Ok(Source::Web(_)) => reference = format!("{reference} {}", version.value.trim()),
            _ => node.error(
                MachinefileError::new(
                    &version.span,
                    "`version` needs a name from a catalogue",
                    "this is not a name",
                )
                .help("remove it, or write a name: box \"debian\" version=\"12\", which is the same as box \"debian/12\""),
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
        node.error(MachinefileError::new(
            &sha256.span,
            format!("{:?} is not a sha256 digest", sha256.value),
            "expected 64 hex digits",
        ));
        None
    });
    // The value of a variable may be a password. A name or a path from a variable means another box if the variable
    // changes.
    let key = match (&source, written) {
        (Ok(Source::Web(_)), Some(written)) => reference.replacen(&name.value, &written, 1),
        _ => reference.clone(),
    };
    let found = match source {
        // Whether it exists is checked when it is needed.
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
        name.span,
    )
}
