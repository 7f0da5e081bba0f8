//! Finds the files that belong to a playbook: they make up its digest, and are sent to a guest.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{host::open, machinefile::Playbook};

/// Folders that Ansible looks for beside a playbook
/// (docs.ansible.com, "Sample Ansible setup", and the configuration's `DEFAULT_*_PATH`s).
pub const STANDARD: [&str; 31] = [
    "action_plugins",
    "become_plugins",
    "cache_plugins",
    "callback_plugins",
    "cliconf_plugins",
    "collections",
    "connection_plugins",
    "defaults",
    "doc_fragments",
    "files",
    "filter_plugins",
    "group_vars",
    "handlers",
    "host_vars",
    "httpapi_plugins",
    "inventory_plugins",
    "library",
    "lookup_plugins",
    "meta",
    "module_utils",
    "netconf_plugins",
    "playbooks",
    "roles",
    "shell_plugins",
    "strategy_plugins",
    "tasks",
    "templates",
    "terminal_plugins",
    "test_plugins",
    "vars",
    "vars_plugins",
];

/// The file name of Ansible's configuration.
const CONFIG: &str = "ansible.cfg";

/// Returns a path of the project as people know it: from the project's folder.
pub(crate) fn below(playbook: &Playbook, path: &Path) -> String {
    let below = path.strip_prefix(&playbook.root).unwrap_or(path);
    below.to_string_lossy().into_owned()
}

/// A path that cannot be read, and why.
pub(crate) type FileError = (PathBuf, io::Error);

/// Returns the `ansible.cfg` of a run: the one that the Machinefile names, or the nearest from the
/// playbook's folder up to the project's root. `None`: Ansible looks elsewhere.
pub(crate) fn config(playbook: &Playbook) -> Option<PathBuf> {
    if let Some(config) = &playbook.config {
        return Some(config.clone());
    }
    let folder = playbook.playbook.parent()?;
    (folder.ancestors())
        .take_while(|folder| folder.starts_with(&playbook.root))
        .map(|folder| folder.join(CONFIG))
        .find(|config| config.is_file())
}

/// The files that belong to a playbook. The keys are relative to the project's root.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The path of each file. Symlinks within the project are followed.
    pub inside: BTreeMap<PathBuf, PathBuf>,
    /// Symlinks that lead out of the project, with their targets.
    pub outside: BTreeMap<PathBuf, PathBuf>,
}

/// Finds the files of a playbook.
///
/// If the playbook is in a folder below the project's root, these are all files of that folder, or of a
/// folder above it with the `ansible.cfg`. If it is in the project's root, they are the YAML files there,
/// and the folders whose names Ansible knows.
///
/// # Errors
/// The path that cannot be read, and why.
pub fn files(playbook: &Playbook) -> Result<Files, FileError> {
    let mut found = Files::default();
    let root = &playbook.root;
    for path in roots(playbook)? {
        let name = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
        walk(&path, &name, root, &mut found)?;
    }
    // The files that the Machinefile names, wherever they are.
    let config = config(playbook);
    let named = (playbook.vars_files.iter())
        .chain(&playbook.requirements)
        .chain(&config)
        .chain([&playbook.playbook]);
    for path in named {
        let name = path.strip_prefix(root).unwrap_or(path);
        found.inside.insert(name.to_path_buf(), path.clone());
    }
    Ok(found)
}

/// Returns the files and folders that a playbook's run reads and obeys.
pub fn places(playbook: &Playbook) -> Vec<PathBuf> {
    let mut found = vec![playbook.playbook.clone()];
    found.extend(playbook.vars_files.iter().cloned());
    found.extend(playbook.requirements.clone());
    found.extend(config(playbook));
    let base = base(playbook);
    if base == playbook.root {
        found.extend(STANDARD.iter().map(|name| base.join(name)));
        // It may not exist yet, but would be obeyed.
        found.push(base.join(CONFIG));
    } else {
        found.push(base);
    }
    found
}

/// The folder whose content belongs to a playbook.
fn base(playbook: &Playbook) -> PathBuf {
    let root = &playbook.root;
    let own = (playbook.playbook.parent()).unwrap_or(root);
    (config(playbook).as_deref().and_then(Path::parent))
        .filter(|folder| *folder != root && own.starts_with(folder))
        .unwrap_or(own)
        .to_path_buf()
}

fn roots(playbook: &Playbook) -> Result<Vec<PathBuf>, FileError> {
    let base = base(playbook);
    if base != playbook.root {
        return Ok(vec![base]);
    }
    let mut found = Vec::new();
    for entry in entries(&base)? {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        let yaml = name.ends_with(".yml") || name.ends_with(".yaml");
        if (yaml && path.is_file()) || (STANDARD.contains(&&*name) && path.is_dir()) {
            found.push(path);
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, FileError> {
    fs::read_dir(folder)
        .and_then(Iterator::collect)
        .map_err(|error| (folder.to_path_buf(), error))
}

fn walk(path: &Path, name: &Path, root: &Path, found: &mut Files) -> Result<(), FileError> {
    let failed = |error| (path.to_path_buf(), error);
    let is_link = fs::symlink_metadata(path).map_err(failed)?.is_symlink();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        // A dangling symlink; Ansible reports it if it needs the file.
        Err(error) if is_link && error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if is_link {
        let target = path.canonicalize().map_err(failed)?;
        if !target.starts_with(root) {
            found.outside.insert(name.to_path_buf(), target);
            return Ok(());
        }
        let here = path
            .parent()
            .unwrap_or(path)
            .canonicalize()
            .map_err(failed)?;
        if metadata.is_dir() && here.starts_with(&target) {
            return Err(failed(io::Error::other(
                "it is a symlink to a folder that contains it, which makes an endless loop",
            )));
        }
    }
    if metadata.is_file() {
        found.inside.insert(name.to_path_buf(), path.to_path_buf());
    } else if metadata.is_dir() {
        for entry in entries(path)? {
            let part = entry.file_name();
            if !is_left_out(&part.to_string_lossy()) {
                walk(&entry.path(), &name.join(&part), root, found)?;
            }
        }
    }
    // A playbook has no use for sockets and pipes.
    Ok(())
}

/// Finds the files of a playbook that are sent to a guest.
///
/// # Errors
/// The first symlink that leads out of the project, or a path that cannot be read.
pub(crate) fn files_for_a_guest(
    playbook: &Playbook,
) -> Result<BTreeMap<PathBuf, PathBuf>, FileError> {
    let found = files(playbook)?;
    match found.outside.into_iter().next() {
        None => Ok(found.inside),
        Some((name, target)) => Err((
            playbook.root.join(name),
            open::leads_out(&target, &playbook.root),
        )),
    }
}

fn is_left_out(name: &str) -> bool {
    matches!(name, ".git" | "__pycache__") || name.ends_with(".retry") || name.ends_with(".pyc")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::machinefile::Vars;

    pub(crate) fn playbook(root: &Path, path: &str) -> Playbook {
        Playbook {
            playbook: root.join(path),
            root: root.to_path_buf(),
            vars: Vars::default(),
            vars_files: Vec::new(),
            tags: Vec::new(),
            skip_tags: Vec::new(),
            r#become: false,
            become_user: None,
            vault: Vec::new(),
            verbosity: 0,
            arguments: Vec::new(),
            requirements: None,
            config: None,
            groups: Vec::new(),
            at: "Machinefile:3:5".into(),
        }
    }

    pub(crate) fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        folder
    }

    fn names(playbook: &Playbook) -> Vec<String> {
        (files(playbook).unwrap().inside.keys())
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn a_playbook_in_the_root_brings_what_ansible_knows() {
        let folder = tree(&[
            "site.yml",
            "more.yaml",
            "Machinefile",
            "ansible.cfg",
            "src/main.c",
            "README.md",
            "roles/web/tasks/main.yml",
            "roles/web/tasks/main.retry",
            "group_vars/all.yml",
            "filter_plugins/__pycache__/x.pyc",
            "filter_plugins/x.py",
            ".git/config",
        ]);
        assert_eq!(
            names(&playbook(folder.path(), "site.yml")),
            [
                "ansible.cfg",
                "filter_plugins/x.py",
                "group_vars/all.yml",
                "more.yaml",
                "roles/web/tasks/main.yml",
                "site.yml",
            ]
        );
    }

    #[test]
    fn a_playbook_in_a_folder_brings_all_of_it() {
        let folder = tree(&[
            "ansible/site.yml",
            "ansible/notes.txt",
            "ansible/.git/x",
            "site.yml",
            "secrets.yml",
        ]);
        let mut run = playbook(folder.path(), "ansible/site.yml");
        run.vars_files.push(folder.path().join("secrets.yml"));
        assert_eq!(
            names(&run),
            ["ansible/notes.txt", "ansible/site.yml", "secrets.yml"]
        );
    }

    #[test]
    fn a_configuration_above_the_playbook_widens_it() {
        let folder = tree(&[
            "ops/ansible.cfg",
            "ops/playbooks/site.yml",
            "ops/roles/a/tasks/main.yml",
            "x.yml",
        ]);
        let run = playbook(folder.path(), "ops/playbooks/site.yml");
        assert_eq!(config(&run), Some(folder.path().join("ops/ansible.cfg")));
        assert_eq!(
            names(&run),
            [
                "ops/ansible.cfg",
                "ops/playbooks/site.yml",
                "ops/roles/a/tasks/main.yml"
            ]
        );
    }

    #[test]
    fn symlinks_are_followed_and_circles_end() {
        let folder = tree(&["shared/tasks/main.yml", "a/site.yml"]);
        std::os::unix::fs::symlink("../shared", folder.path().join("a/role")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("a/gone")).unwrap();
        let run = playbook(folder.path(), "a/site.yml");
        assert_eq!(names(&run), ["a/role/tasks/main.yml", "a/site.yml"]);
        std::os::unix::fs::symlink(".", folder.path().join("a/loop")).unwrap();
        assert!(files(&run).unwrap_err().1.to_string().contains("symlink"));
    }

    #[test]
    fn nothing_of_the_host_goes_to_a_guest() {
        let outside = tree(&["secret"]);
        let root = tree(&["a/site.yml", "a/roles/x/tasks/main.yml"]);
        let root = root.path().canonicalize().unwrap();
        let run = playbook(&root, "a/site.yml");
        let inside = files_for_a_guest(&run).unwrap();
        let link = root.join("a/roles/x/key");
        for target in [outside.path().join("secret"), outside.path().to_path_buf()] {
            std::os::unix::fs::symlink(&target, &link).unwrap();
            let found = files(&run).unwrap();
            assert_eq!(found.inside, inside);
            let target = target.canonicalize().unwrap();
            assert_eq!(found.outside[Path::new("a/roles/x/key")], target);
            let (path, error) = files_for_a_guest(&run).unwrap_err();
            assert_eq!(path, link);
            assert!(error.to_string().contains("is a symlink to"), "{error}");
            fs::remove_file(&link).unwrap();
        }
        nix::unistd::mkfifo(&link, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(files_for_a_guest(&run).unwrap(), inside);
    }
}
