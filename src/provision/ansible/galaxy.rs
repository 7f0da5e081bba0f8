//! Installs the roles and collections that a playbook requires, in stead's own folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::host::{
    self,
    lock::{Lock, LockName, own_holder},
    paths::DataDir,
    process::{Answers, Asks},
};

use super::{config::setting, error::AnsibleError, output::Watch, process};

pub(super) const GALAXY: &str = "ansible-galaxy";

/// Installs what a requirements file lists, unless it is installed already. Returns the folder, which has
/// `roles` and `collections`. A changed requirements file gets another folder.
///
/// # Errors
/// If ansible-galaxy fails; then nothing is kept.
pub(super) async fn install(
    requirements: &Path,
    config: Option<&Path>,
    root: &Path,
    data: &DataDir,
    at: &str,
    each: &mut (dyn FnMut(bool, &str) + Send),
    answers: &dyn Answers,
) -> Result<PathBuf, AnsibleError> {
    let content = fs::read(requirements).map_err(file("read", requirements))?;
    let mut hash = Sha256::new();
    // The file may list paths relative to itself, so its own path matters too.
    hash.update(requirements.as_os_str().as_encoded_bytes());
    hash.update([0]);
    hash.update(&content);
    let name: String = (hash.finalize().iter())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let all = data.ansible_requirements();
    let folder = all.join(&name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let _held = Lock::acquire_async(
        &data.locks(),
        LockName::AnsibleRequirements(&name[..16]),
        &own_holder(),
    )
    .await
    .map_err(file("lock", &all))?;
    // Another run may have installed it meanwhile.
    if folder.is_dir() {
        return Ok(folder);
    }
    let partial = all.join(format!("{name}.partial"));
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file("remove", &partial)(error));
        }
        _ => {}
    }
    let (roles, collections) = (partial.join("roles"), partial.join("collections"));
    for part in [&roles, &collections] {
        fs::create_dir_all(part).map_err(file("create", part))?;
    }
    let mut command = process::command(GALAXY)
        // git asks for logins, and ssh for passphrases.
        .asks(Asks::OnTerminal)
        .args(["install", "-r"])
        .arg(requirements)
        .folder(root)
        .env("ANSIBLE_ROLES_PATH", &roles)
        .env("ANSIBLE_COLLECTIONS_PATH", &collections)
        .env("ANSIBLE_FORCE_COLOR", "0")
        .env("ANSIBLE_NOCOLOR", "1")
        .env("PYTHONUNBUFFERED", "1");
    if let Some(config) = config {
        command = command.env("ANSIBLE_CONFIG", config);
    }
    let mut watch = Watch::default();
    let mut last = String::new();
    let mut hear = |stderr, line: &str| {
        watch.line(line);
        if !line.trim().is_empty() {
            last = line.to_string();
        }
        each(stderr, line);
    };
    let status = process::run(GALAXY, command, at, &mut hear, answers).await?;
    if !status.success() {
        let _ = fs::remove_dir_all(&partial);
        return Err(AnsibleError::Requirements {
            file: requirements.to_path_buf(),
            said: watch.error().map_or(last, ToString::to_string),
        });
    }
    host::file::rename(&partial, &folder).map_err(file("rename", &partial))?;
    Ok(folder)
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AnsibleError {
    let path = path.to_path_buf();
    move |source| AnsibleError::File {
        doing,
        path,
        source,
    }
}

/// Where Ansible looks for roles or collections: the folders in its environment, else in its
/// configuration, else its default.
pub(super) struct Search {
    pub variable: &'static str,
    /// The settings in `[defaults]` of its configuration.
    keys: &'static [&'static str],
    default: &'static str,
    /// The folder for it in that of the installed requirements.
    pub part: &'static str,
}

/// From docs.ansible.com, "Ansible Configuration Settings".
pub(super) const SEARCHES: [Search; 2] = [
    Search {
        variable: "ANSIBLE_ROLES_PATH",
        keys: &["roles_path"],
        default: "~/.ansible/roles:/usr/share/ansible/roles:/etc/ansible/roles",
        part: "roles",
    },
    Search {
        variable: "ANSIBLE_COLLECTIONS_PATH",
        keys: &["collections_path", "collections_paths"],
        default: "~/.ansible/collections:/usr/share/ansible/collections",
        part: "collections",
    },
];

impl Search {
    /// Returns the variable's value that lists `first`, and then the folders where Ansible would look
    /// anyway. `place` translates a folder of the host to the run's.
    pub(super) fn with(
        &self,
        first: &str,
        config: Option<&Path>,
        place: impl Fn(&Path) -> PathBuf,
    ) -> String {
        let configured = config.and_then(|config| {
            let text = fs::read_to_string(config).ok()?;
            let value = (self.keys.iter()).find_map(|key| setting(&text, "defaults", key))?;
            let folder = config.parent().unwrap_or(config);
            let paths: Vec<String> = value
                .split(':')
                .map(str::trim)
                .filter(|path| !path.is_empty())
                .map(|path| {
                    // It is absolute, or only Ansible can expand it.
                    if path.starts_with(['/', '~', '$', '{']) {
                        path.to_string()
                    } else {
                        place(&folder.join(path)).to_string_lossy().into_owned()
                    }
                })
                .collect();
            Some(paths.join(":"))
        });
        let rest = configured.unwrap_or_else(|| self.default.to_string());
        format!("{first}:{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_says_stays_behind_what_is_installed() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("ansible.cfg");
        let roles = &SEARCHES[0];
        let here = |path: &Path| path.to_path_buf();
        assert_eq!(
            roles.with("/ours", None, here),
            format!("/ours:{}", roles.default)
        );
        fs::write(
            &config,
            "[other]\nroles_path = no\n[defaults]\n# roles_path = no\nroles_path= vendor : ~/mine ; why\n",
        )
        .unwrap();
        assert_eq!(
            roles.with("/ours", Some(&config), here),
            format!("/ours:{}/vendor:~/mine", folder.path().display())
        );
    }
}
