//! Checks paths that a Machinefile names: those of the host exist, and are inside the project.

use std::path::{Path, PathBuf};

use crate::{host::open::in_place_of_file, report::clean::Shown};

use super::{
    diagnostics::{Errors, MachinefileError, Spanned},
    syntax::FileInfo,
};

/// The expected kind of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    File,
    Folder,
    Either,
}

/// Resolves a path inside the project, from the folder of its file. The result is absolute and without symlinks.
pub(super) fn resolve(
    path: &Spanned<String>,
    file: &FileInfo,
    root: &Path,
    wants: Wants,
    errors: &mut Errors,
) -> Option<PathBuf> {
    let found = existing(path, file, errors)?;
    if !found.starts_with(root) {
        errors.push(leads_out(
            path,
            &found,
            root,
            "only files inside the project can be used",
        ));
        return None;
    }
    fits(path, found, wants, errors)
}

/// Resolves a folder to share with a guest. It must be in the project, or with `outside` anywhere, except folders
/// with more than anybody means to share.
pub(super) fn resolve_shared(
    path: &Spanned<String>,
    file: &FileInfo,
    root: &Path,
    outside: bool,
    errors: &mut Errors,
) -> Option<PathBuf> {
    let found = existing(path, file, errors)?;
    if found == Path::new("/") || is_home(&found) {
        errors.push(
            MachinefileError::new(
                &path.span,
                format!("{} is {}", path.value, described(&found)),
                "too much to share",
            )
            .help("share a folder of its own: the guest could read keys and everything else in this one"),
        );
        return None;
    }
    if !outside && !found.starts_with(root) {
        errors.push(leads_out(
            path,
            &found,
            root,
            "add outside=#true to allow it",
        ));
        return None;
    }
    fits(path, found, Wants::Folder, errors)
}

fn leads_out(path: &Spanned<String>, found: &Path, root: &Path, remedy: &str) -> MachinefileError {
    MachinefileError::new(
        &path.span,
        format!("{} leads out of the project", path.value),
        "outside",
    )
    .help(format!(
        "it is {}, and the project is {}; {remedy}",
        described(found),
        root.shown()
    ))
}

fn is_home(path: &Path) -> bool {
    dirs::home_dir().is_some_and(|home| home.canonicalize().unwrap_or(home) == path)
}

fn described(path: &Path) -> String {
    if path == Path::new("/") {
        "the whole file system".to_string()
    } else if is_home(path) {
        "your home folder".to_string()
    } else {
        path.shown()
    }
}

fn existing(path: &Spanned<String>, file: &FileInfo, errors: &mut Errors) -> Option<PathBuf> {
    if path.value.is_empty() {
        errors.push(MachinefileError::new(
            &path.span,
            "the path is empty",
            "expected a path",
        ));
        return None;
    }
    let joined = file.folder.join(&path.value);
    match joined.canonicalize() {
        Ok(found) => Some(found),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            errors.push(
                MachinefileError::new(
                    &path.span,
                    format!("there is no {}", path.value),
                    "does not exist",
                )
                .help(format!("stead searched for {}", joined.shown())),
            );
            None
        }
        Err(cause) => {
            errors.push(MachinefileError::new(
                &path.span,
                format!("cannot read {}: {cause}", path.value),
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
    errors: &mut Errors,
) -> Option<PathBuf> {
    let fits = match wants {
        Wants::File => found.is_file(),
        Wants::Folder => found.is_dir(),
        Wants::Either => true,
    };
    if fits {
        return Some(found);
    }
    let is = in_place_of_file(&found).unwrap_or_else(|| "a file".into());
    let should = if wants == Wants::File {
        "a file"
    } else {
        "a folder"
    };
    errors.push(MachinefileError::new(
        &path.span,
        format!("{} is {is}", path.value),
        format!("expected {should}"),
    ));
    None
}

/// Folders of a guest's system, which a project must not replace. Folders below them may be a project's.
const SYSTEM: [&str; 62] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/snap",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/etc/apt",
    "/etc/cloud",
    "/etc/default",
    "/etc/init.d",
    "/etc/netplan",
    "/etc/network",
    "/etc/pam.d",
    "/etc/profile.d",
    "/etc/security",
    "/etc/ssh",
    "/etc/ssl",
    "/etc/sudoers.d",
    "/etc/systemd",
    "/etc/systemd/system",
    "/usr/bin",
    "/usr/include",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/local/share",
    "/usr/sbin",
    "/usr/share",
    "/usr/src",
    "/var/backups",
    "/var/cache",
    "/var/lib",
    "/var/lock",
    "/var/log",
    "/var/mail",
    "/var/opt",
    "/var/run",
    "/var/spool",
    "/var/tmp",
    "/var/lib/stead",
];

/// No folder of a project may be here or below: file systems of the kernel, and stead's own folders.
const NEVER: [&str; 5] = ["/dev", "/proc", "/sys", "/var/lib/stead", "/usr/lib/stead"];

/// Returns a path of the guest without `.` and double slashes.
fn plain(path: &str) -> Result<String, (&'static str, &'static str)> {
    if !path.starts_with('/') {
        return Err((
            "is not an absolute path",
            "begin it with /, as in \"/srv/app\"",
        ));
    }
    let parts: Vec<&str> = (path.split('/'))
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if path.contains(['\n', '\r', '\0']) || parts.contains(&"..") {
        return Err(("is not a plain path", "remove `..` and line breaks"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Checks the target of a copy.
fn file_place(path: &str) -> Result<String, (&'static str, &'static str)> {
    let path = plain(path)?;
    let never = NEVER.iter().any(|it| Path::new(&path).starts_with(it));
    if never || SYSTEM.contains(&&*path) {
        return Err(SYSTEMS_OWN);
    }
    Ok(path)
}

const SYSTEMS_OWN: (&str, &str) = (
    "belongs to the guest's system",
    "use a folder of its own, such as \"/srv/app\"",
);

/// Checks the target of a synced folder. One that `owns` its target deletes or hides other files in it.
fn folder_place(path: &str, owns: bool) -> Result<String, (&'static str, &'static str)> {
    let path = file_place(path)?;
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if parts.contains(&".ssh") {
        return Err((
            "has the keys of users who may log in",
            "use a folder of its own, such as \"/srv/app\"",
        ));
    }
    if owns && matches!(parts[..], ["home", _]) {
        return Err((
            "is a user's home folder, which has the keys that may log in",
            "use a folder in it, such as \"/home/USER/app\"; or delete=#false, which only adds files",
        ));
    }
    Ok(path)
}

fn placed(
    path: &Spanned<String>,
    judged: Result<String, (&'static str, &'static str)>,
    errors: &mut Errors,
) -> Option<String> {
    match judged {
        Ok(path) => Some(path),
        Err((why, help)) => {
            errors.push(
                MachinefileError::new(
                    &path.span,
                    format!("{:?} {why}", path.value),
                    "in the guest",
                )
                .help(help),
            );
            None
        }
    }
}

/// Whether a path of the guest can be written to without breaking the guest.
pub(super) fn guest_target(path: &Spanned<String>, errors: &mut Errors) -> Option<String> {
    placed(path, file_place(&path.value), errors)
}

/// Whether a folder of the host can be there. One that `owns` its target deletes or hides other files in it.
pub(super) fn guest_folder(
    path: &Spanned<String>,
    owns: bool,
    errors: &mut Errors,
) -> Option<String> {
    placed(path, folder_place(&path.value, owns), errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_never_takes_the_guest_apart() {
        for (path, wanted) in [
            ("/srv/app", "/srv/app"),
            ("//srv/./app//", "/srv/app"),
            ("/home/dev/app", "/home/dev/app"),
            ("/etc/nginx/conf.d", "/etc/nginx/conf.d"),
            ("/var/www", "/var/www"),
            ("/opt/app", "/opt/app"),
            ("/usr/local/app", "/usr/local/app"),
            ("/vagrant", "/vagrant"),
            ("/.", ""),
            ("//etc", ""),
            ("/etc/.", ""),
            ("/etc/", ""),
            ("/./var//lib/", ""),
            ("/usr/local", ""),
            ("/opt", ""),
            ("/root", ""),
            ("/home/stead", ""),
            ("/home//stead/.", ""),
            ("/home/stead/.ssh", ""),
            ("/root/.ssh/keys", ""),
            ("/proc/sys/kernel", ""),
            ("/dev/shm", ""),
            ("/var/lib/stead/x", ""),
            ("/srv/../etc", ""),
            ("/a\nb", ""),
            ("srv", ""),
        ] {
            let found = folder_place(path, true);
            assert_eq!(found.unwrap_or_default(), wanted, "{path:?}");
        }
        // A copy that deletes nothing may go into a home, but never to its keys.
        assert!(folder_place("/home/dev", false).is_ok());
        assert!(folder_place("/home/dev/.ssh", false).is_err());
        assert_eq!(file_place("/etc//motd").unwrap(), "/etc/motd");
    }
}
