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

/// The path, absolute and without symlinks, inside of the project; relative ones start at the
/// folder of their file.
pub fn resolve(
    path: &Spanned<String>,
    file: &FileInfo,
    root: &Path,
    wants: Wants,
    errors: &mut Vec<MachinefileError>,
) -> Option<PathBuf> {
    let found = existing(path, file, errors)?;
    if !found.starts_with(root) {
        errors.push(leads_out(
            path,
            &found,
            root,
            "only what is inside may be used",
        ));
        return None;
    }
    fits(path, found, wants, errors)
}

/// A folder to share with a guest, absolute and without symlinks: in the project, or with `outside`
/// anywhere but what holds more than anybody means to share.
pub fn resolve_shared(
    path: &Spanned<String>,
    file: &FileInfo,
    root: &Path,
    outside: bool,
    errors: &mut Vec<MachinefileError>,
) -> Option<PathBuf> {
    let found = existing(path, file, errors)?;
    if found == Path::new("/") || is_home(&found) {
        errors.push(
            MachinefileError::new(
                &path.place,
                format!("{} is {}", path.value, described(&found)),
                "too much",
            )
            .help("choose a folder of its own: keys and everything else in there are not the guest's business"),
        );
        return None;
    }
    if !outside && !found.starts_with(root) {
        errors.push(leads_out(path, &found, root, "outside=#true allows it"));
        return None;
    }
    fits(path, found, Wants::Folder, errors)
}

fn leads_out(path: &Spanned<String>, found: &Path, root: &Path, remedy: &str) -> MachinefileError {
    MachinefileError::new(
        &path.place,
        format!("{} leads out of the project", path.value),
        "outside",
    )
    .help(format!(
        "it is {}, and the project is {}; {remedy}",
        described(found),
        root.display()
    ))
}

fn is_home(path: &Path) -> bool {
    dirs::home_dir().is_some_and(|home| home.canonicalize().unwrap_or(home) == path)
}

fn described(path: &Path) -> String {
    if path == Path::new("/") {
        "the whole file system".to_string()
    } else if is_home(path) {
        "your home directory".to_string()
    } else {
        path.display().to_string()
    }
}

fn existing(
    path: &Spanned<String>,
    file: &FileInfo,
    errors: &mut Vec<MachinefileError>,
) -> Option<PathBuf> {
    if path.value.is_empty() {
        errors.push(MachinefileError::new(
            &path.place,
            "the path is empty",
            "a path goes here",
        ));
        return None;
    }
    let joined = file.folder.join(&path.value);
    match joined.canonicalize() {
        Ok(found) => Some(found),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            errors.push(
                MachinefileError::new(
                    &path.place,
                    format!("there is no {}", path.value),
                    "not there",
                )
                .help(format!("it was looked for at {}", joined.display())),
            );
            None
        }
        Err(cause) => {
            errors.push(MachinefileError::new(
                &path.place,
                format!("{} cannot be read: {cause}", path.value),
                "here",
            ));
            None
        }
    }
}

fn fits(
    path: &Spanned<String>,
    found: PathBuf,
    wants: Wants,
    errors: &mut Vec<MachinefileError>,
) -> Option<PathBuf> {
    let fits = match wants {
        Wants::File => found.is_file(),
        Wants::Folder => found.is_dir(),
        Wants::Either => true,
    };
    if fits {
        return Some(found);
    }
    let is = if found.is_dir() { "a folder" } else { "a file" };
    let should = if wants == Wants::File {
        "a file"
    } else {
        "a folder"
    };
    errors.push(MachinefileError::new(
        &path.place,
        format!("{} is {is}", path.value),
        format!("should be {should}"),
    ));
    None
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
