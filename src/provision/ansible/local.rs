//! Runs ansible-playbook in a guest.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    guest::{Remote, SSH_FAILED},
    host::{open, shell::shell_quote},
    machinefile::{AnsibleInstall, Playbook},
    provision::digest_file,
    report::{bytes, clean::words},
};

use super::{
    command::{Paths, arguments},
    config::{INVENTORY_ENABLED, inventory_enabled},
    error::{AnsibleError, FailedRun},
    files,
    galaxy::SEARCHES,
    host::check_vault,
    output::Watch,
    prompts,
};

const SCRIPT: &str = include_str!("../../../provisioners/guest/ansible-local");
const ASKS: &str = include_str!("../../../provisioners/guest/ansible-asks");

/// The script's own exit codes.
const NO_ANSIBLE: i32 = 110;
const NOT_INSTALLED: i32 = 111;
const TOO_OLD: i32 = 112;
const NO_REQUIREMENTS: i32 = 113;
const ASKED: i32 = 114;

/// One run in one machine.
pub struct GuestRun<'a> {
    /// The provisioner's name.
    pub name: &'a str,
    pub playbook: &'a Playbook,
    pub install: AnsibleInstall,
    /// For Ansible's `yaml` plugin.
    pub inventory: serde_json::Value,
    pub color: bool,
    /// The command that runs it again.
    pub again: String,
}

/// Runs a playbook in a machine to its end; `each` gets its lines (whether on stderr, and the line). The
/// files that were sent are removed from the guest, however it ends.
///
/// # Errors
/// If the run fails or cannot be started.
pub async fn run_in_guest(
    run: &GuestRun<'_>,
    remote: &Remote,
    each: &mut (dyn FnMut(bool, &str) + Send),
) -> Result<(), AnsibleError> {
    check_vault(run.playbook)?;
    let archive = archive(run, &remote.machine)?;
    let mode = match run.install {
        AnsibleInstall::No => "no",
        AnsibleInstall::Package => "package",
        AnsibleInstall::Pip => "pip",
    };
    // The login user's own shell may be anything.
    let command = format!("exec sh -c {} ansible-local {mode}", shell_quote(SCRIPT));
    let mut watch = Watch::default();
    let mut last = (String::new(), String::new());
    let status = remote
        .stream(&command, Some(&archive), &mut |stderr, line| {
            watch.line(line);
            if !line.trim().is_empty() {
                let last = if stderr { &mut last.1 } else { &mut last.0 };
                *last = line.to_string();
            }
            each(stderr, line);
        })
        .await?;
    let machine = remote.machine.clone();
    let at = run.playbook.at.clone();
    let said = if last.1.is_empty() { last.0 } else { last.1 };
    Err(match status.code() {
        Some(0) => return Ok(()),
        Some(SSH_FAILED) | None => AnsibleError::CutOff {
            name: run.name.to_string(),
            machine,
        },
        Some(NO_ANSIBLE) => AnsibleError::NotInGuest { at, machine },
        Some(TOO_OLD) => AnsibleError::TooOldInGuest {
            at,
            machine,
            version: said,
        },
        Some(NOT_INSTALLED) => AnsibleError::NotInstalled {
            machine,
            said,
            again: format!("`{}`", run.again),
        },
        Some(NO_REQUIREMENTS) => AnsibleError::Requirements {
            file: run.playbook.requirements.clone().unwrap_or_default(),
            said: watch.error().map_or(said, ToString::to_string),
        },
        Some(ASKED) => {
            let playbook = run.playbook;
            AnsibleError::AsksInGuest {
                name: run.name.to_string(),
                playbook: files::below(playbook, &playbook.playbook),
                machine,
                hint: prompts::advice_in_guest(playbook, &said),
                words: words(said.trim()),
            }
        }
        code => AnsibleError::Failed(Box::new(FailedRun {
            name: run.name.to_string(),
            code,
            watch,
            again: run.again.clone(),
            inspect: Some(machine),
        })),
    })
}

/// Returns a tar archive of everything that the script needs.
fn archive(run: &GuestRun<'_>, machine: &str) -> Result<Vec<u8>, AnsibleError> {
    let playbook = run.playbook;
    let read = |(path, source): (PathBuf, io::Error)| AnsibleError::File {
        doing: "read",
        path,
        source,
    };
    let mut tar = tar::Builder::new(Vec::new());
    let mut room = LARGEST;
    for (name, path) in files::files_for_a_guest(playbook).map_err(read)? {
        open::file_within(&path, &playbook.root)
            .and_then(|file| add_file(&mut tar, &Path::new("project").join(name), file, &mut room))
            .map_err(|source| read((path, source)))?;
    }
    let mut vault = Vec::new();
    for (n, password) in playbook.vault.iter().enumerate() {
        let name = format!("vault/{n}");
        open::file(&password.file)
            .and_then(|file| add_file(&mut tar, Path::new(&name), file, &mut room))
            .map_err(|source| read((password.file.clone(), source)))?;
        vault.push(PathBuf::from(format!("../{name}")));
    }
    let below = |path: &PathBuf| {
        path.strip_prefix(&playbook.root)
            .unwrap_or(path)
            .to_path_buf()
    };
    let paths = Paths {
        playbook: below(&playbook.playbook),
        inventory: "../inventory.json".into(),
        vars: (!playbook.vars.is_empty()).then(|| "../vars.json".into()),
        vars_files: playbook.vars_files.iter().map(below).collect(),
        vault,
    };
    let vars = serde_json::Value::Object(playbook.vars.to_json());
    let settings = settings(run, &paths, machine).map_err(read)?;
    for (name, content) in [
        ("asks", ASKS.to_string()),
        ("inventory.json", run.inventory.to_string()),
        ("vars.json", vars.to_string()),
        ("settings", settings),
    ] {
        add(&mut tar, Path::new(name), content.as_bytes(), 0o600)
            .map_err(|source| read((PathBuf::from(name), source)))?;
    }
    tar.into_inner()
        .map_err(|source| read((playbook.playbook.clone(), source)))
}

/// The largest size of all files together, in bytes: they are kept in memory while they are sent.
const LARGEST: u64 = 256 << 20;

fn add_file(
    tar: &mut tar::Builder<Vec<u8>>,
    name: &Path,
    file: fs::File,
    room: &mut u64,
) -> io::Result<()> {
    let metadata = file.metadata()?;
    let mut content = Vec::new();
    file.take(*room + 1).read_to_end(&mut content)?;
    *room = room.checked_sub(content.len() as u64).ok_or_else(|| {
        io::Error::other(format!(
            "with it, the files of the playbook are larger than {}; `sync` the folder of large ones into the machine",
            bytes(LARGEST)
        ))
    })?;
    add(tar, name, &content, metadata.permissions().mode() & 0o777)
}

fn add(tar: &mut tar::Builder<Vec<u8>>, name: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content)
}

/// Returns shell text that the script sources. Paths are relative to the project's folder in the guest.
fn settings(run: &GuestRun<'_>, paths: &Paths, machine: &str) -> Result<String, files::FileError> {
    let playbook = run.playbook;
    let words: Vec<String> = arguments(playbook, paths, &[machine])
        .iter()
        .map(|word| shell_quote(word))
        .collect();
    let mut text = format!("arguments={}\n", shell_quote(&words.join(" ")));
    let defaults = prompts::with_default(playbook).join("\n");
    text.push_str(&format!("defaults={}\n", shell_quote(&defaults)));
    let mut export = |name: &str, value: &str| {
        text.push_str(&format!("export {name}={}\n", shell_quote(value)));
    };
    export("ANSIBLE_FORCE_COLOR", if run.color { "1" } else { "0" });
    if !run.color {
        export("ANSIBLE_NOCOLOR", "1");
    }
    let config = files::config(playbook);
    let place = |path: &Path| match path.strip_prefix(&playbook.root) {
        Ok(below) => Path::new(".").join(below),
        Err(_) => path.to_path_buf(),
    };
    if let Some(config) = &config {
        export("ANSIBLE_CONFIG", &place(config).to_string_lossy());
    }
    if let Some(enabled) = inventory_enabled(None, config.as_deref()) {
        export(INVENTORY_ENABLED, &enabled);
    }
    if let Some(requirements) = &playbook.requirements {
        let mut set = |name: &str, value: &str| {
            text.push_str(&format!("{name}={}\n", shell_quote(value)));
        };
        set("requirements", &place(requirements).to_string_lossy());
        set("requirements_id", &digest_file(requirements)?);
        for search in &SEARCHES {
            // Only the script knows the folder that comes first.
            let value = search.with("", config.as_deref(), place);
            set(
                &format!("{}_rest", search.part),
                value.trim_start_matches(':'),
            );
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        machinefile::VaultPassword,
        provision::ansible::files::tests::{playbook, tree},
    };

    /// Runs the script here, with a program in place of ansible-playbook.
    fn run_here(run: &GuestRun<'_>, program: &str) -> (String, Option<i32>) {
        use std::{
            io::Write,
            process::{Command, Stdio},
        };
        let bin = tempfile::tempdir().unwrap();
        let path = bin.path().join("ansible-playbook");
        fs::write(&path, program).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT, "ansible-local", "no"])
            .env("PATH", format!("{}:/usr/bin:/bin", bin.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let archive = archive(run, "web").unwrap();
        child.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = child.wait_with_output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        (out, output.status.code())
    }

    #[test]
    fn a_guest_gets_everything_privately_and_it_goes() {
        let folder = tree(&[
            "ansible/site.yml",
            "ansible/roles/a b/tasks/main.yml",
            "pass",
        ]);
        let mut playbook = playbook(folder.path(), "ansible/site.yml");
        playbook.vars.0 = BTreeMap::from([("token".into(), "s3cret".into())]);
        playbook.vault.push(VaultPassword {
            id: Some("dev".into()),
            file: folder.path().join("pass"),
        });
        playbook.arguments = vec!["--extra".into(), "it's $HOME".into()];
        let run = GuestRun {
            name: "app",
            playbook: &playbook,
            install: AnsibleInstall::No,
            inventory: serde_json::json!({ "all": {} }),
            color: false,
            again: "stead provision web".into(),
        };
        let program = "#!/bin/sh
            [ \"$1\" != --version ] || { echo 'ansible-playbook [core 2.19.1]'; exit; }
            printf '%s|' \"$@\"; echo
            stat -c '%a' .. ../vars.json; cat ../vars.json ../inventory.json ../vault/0; echo
            find . -type f; echo \"$PWD\"; exit 2
        ";
        let (out, code) = run_here(&run, program);
        assert_eq!(code, Some(2), "{out}");
        let here = out.lines().last().unwrap();
        assert!(!Path::new(here).exists(), "{here} is left");
        assert!(
            out.starts_with(
                "--inventory|../inventory.json|--limit|web|--extra-vars|@../vars.json|--vault-id|dev@../vault/0|\
                 --extra|it's $HOME|ansible/site.yml|\n700\n600\n{\"token\":\"s3cret\"}{\"all\":{}}pass\n"
            ),
            "{out}"
        );
        assert!(
            out.contains("./ansible/roles/a b/tasks/main.yml\n"),
            "{out}"
        );
    }

    /// A run that installs nothing and has no inventory.
    fn plain(playbook: &Playbook) -> GuestRun<'_> {
        GuestRun {
            name: "app",
            playbook,
            install: AnsibleInstall::No,
            inventory: serde_json::Value::Null,
            color: false,
            again: String::new(),
        }
    }

    #[test]
    fn one_that_asks_ends() {
        let folder = tree(&["site.yml"]);
        let playbook = playbook(folder.path(), "site.yml");
        let run = plain(&playbook);
        let version = "[ \"$1\" != --version ] || { echo 'ansible-playbook [core 2.19.1]'; exit; }";
        let asks = format!("#!/bin/sh\n{version}\nprintf 'Sure? '; read -r it; echo \"on: $it\"\n");
        let (out, code) = run_here(&run, &asks);
        assert_eq!((out.as_str(), code), ("Sure? ", Some(ASKED)));
        fs::write(
            folder.path().join("site.yml"),
            "- vars_prompt:\n    - name: sure\n      prompt: Sure?\n      default: yes\n",
        )
        .unwrap();
        let defaults =
            format!("#!/bin/sh\n{version}\nprintf 'Sure? [yes]: '; read -r it; echo \"on: $it\"\n");
        let (out, code) = run_here(&run, &defaults);
        assert_eq!((out.as_str(), code), ("Sure? [yes]: on: \n", Some(0)));
        let waits = format!(
            "#!/bin/sh\n{version}\nstty raw -echo; printf \"(ctrl+C then 'C' = continue early, ctrl+C then 'A' = abort)\\n\"; sleep 1; stty sane; exit 5\n"
        );
        assert_eq!(run_here(&run, &waits).1, Some(5));
    }

    #[test]
    fn old_and_missing_ones_are_told() {
        let folder = tree(&["site.yml"]);
        let playbook = playbook(folder.path(), "site.yml");
        let run = plain(&playbook);
        let (_, code) = run_here(&run, "#!/bin/sh\necho 'ansible-playbook 2.9.27'\n");
        assert_eq!(code, Some(TOO_OLD));
        let (_, code) = run_here(&run, "#!/bin/sh\necho 'ansible-playbook [core 2.14.0]'\n");
        assert_eq!(code, Some(0));
    }

    #[test]
    fn files_that_are_too_large_are_named() {
        let folder = tree(&["a/site.yml", "a/files/image"]);
        let root = folder.path().canonicalize().unwrap();
        let playbook = playbook(&root, "a/site.yml");
        let run = plain(&playbook);
        assert!(archive(&run, "web").is_ok());
        // A sparse file.
        let image = fs::File::options()
            .write(true)
            .open(root.join("a/files/image"))
            .unwrap();
        image.set_len(50 << 30).unwrap();
        let error = archive(&run, "web").unwrap_err().to_string();
        assert!(
            error.contains("a/files/image") && error.contains("larger than 256"),
            "{error}"
        );
    }
}
