//! Paths of the host that a Machinefile names: there, and inside the project.

use std::path::{Path, PathBuf};

use super::{
    diagnostics::{MachinefileError, Spanned},
    syntax::FileInfo,
};

/// What a path should be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    File,
    Folder,
    Either,
}

/// The path, absolute and without symlinks; relative ones start at the folder of their file.
pub fn resolve(
    path: &Spanned<String>,
    file: &FileInfo,
    root: &Path,
    wants: Wants,
    errors: &mut Vec<MachinefileError>,
) -> Option<PathBuf> {
    let mut error = |message: String, label: &str, help: Option<String>| {
        let error = MachinefileError::new(&path.place, message, label);
        errors.push(match help {
            Some(help) => error.help(help),
            None => error,
        });
    };
    if path.value.is_empty() {
        error("the path is empty".into(), "a path goes here", None);
        return None;
    }
    let joined = file.folder.join(&path.value);
    let found = match joined.canonicalize() {
        Ok(found) => found,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            error(
                format!("there is no {}", path.value),
                "not there",
                Some(format!("it was looked for at {}", joined.display())),
            );
            return None;
        }
        Err(cause) => {
            error(
                format!("{} cannot be read: {cause}", path.value),
                "here",
                None,
            );
            return None;
        }
    };
    if !found.starts_with(root) {
        let what = if found == Path::new("/") {
            "the whole file system".to_string()
        } else if std::env::var_os("HOME").is_some_and(|home| found == Path::new(&home)) {
            "your home directory".to_string()
        } else {
            found.display().to_string()
        };
        error(
            format!("{} leads out of the project", path.value),
            "outside",
            Some(format!(
                "it is {what}, and the project is {}; only what is inside may be used",
                root.display()
            )),
        );
        return None;
    }
    let fits = match wants {
        Wants::File => found.is_file(),
        Wants::Folder => found.is_dir(),
        Wants::Either => true,
    };
    if !fits {
        let is = if found.is_dir() { "a folder" } else { "a file" };
        let should = if wants == Wants::File {
            "a file"
        } else {
            "a folder"
        };
        error(
            format!("{} is {is}", path.value),
            &format!("should be {should}"),
            None,
        );
        return None;
    }
    Some(found)
}

/// Whether a path of the guest can be written to without taking the guest apart.
pub fn guest_target(path: &Spanned<String>, errors: &mut Vec<MachinefileError>) -> Option<String> {
    let text = path.value.trim_end_matches('/');
    let bad = |message: &str, help: &str| {
        MachinefileError::new(&path.place, message.to_string(), "in the guest").help(help)
    };
    if !path.value.starts_with('/') {
        errors.push(bad(
            &format!("{:?} is no absolute path", path.value),
            "start it with /, as in \"/srv/app\"",
        ));
        return None;
    }
    if path.value.contains(['\n', '\0']) || text.split('/').any(|part| part == "..") {
        errors.push(bad(
            &format!("{:?} is no plain path", path.value),
            "write the path without `..` or line ends",
        ));
        return None;
    }
    const SYSTEM: [&str; 16] = [
        "", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run",
        "/sbin", "/sys", "/tmp", "/usr", "/var",
    ];
    if SYSTEM.contains(&text) {
        errors.push(bad(
            &format!(
                "{} belongs to the guest's system",
                if text.is_empty() { "/" } else { text }
            ),
            "choose a folder of its own, such as \"/srv/app\"",
        ));
        return None;
    }
    Some(text.to_string())
}
