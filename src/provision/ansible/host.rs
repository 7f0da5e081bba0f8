//! Runs ansible-playbook on the host.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use crate::{
    host::{
        paths::DataDir,
        process::{Answers, Asks},
    },
    machinefile::{Playbook, ProvisionerKind},
    report::clean::words,
};

use super::{
    command::{Paths, arguments, is_new_enough, version_in},
    config::{INVENTORY_ENABLED, inventory_enabled},
    error::{AnsibleError, FailedRun},
    files,
    folder::RunFolder,
    galaxy::{self, GALAXY, SEARCHES},
    output::Watch,
    process,
    prompts::{self, PlaybookAnswers},
};

const PROGRAM: &str = "ansible-playbook";

/// One run, over one machine or several.
pub struct HostRun<'a> {
    /// The provisioner's name.
    pub name: &'a str,
    pub playbook: &'a Playbook,
    /// For Ansible's `yaml` plugin.
    pub inventory: serde_json::Value,
    /// The machines to run over; none: all.
    pub limit: Vec<&'a str>,
    pub data: &'a DataDir,
    /// Answers what Ansible asks.
    pub answers: &'a dyn Answers,
    /// Whether its output may be coloured.
    pub color: bool,
    /// The command that runs it again.
    pub again: String,
    /// The machine to inspect after a failure, if the run is over one machine alone.
    pub inspect: Option<String>,
}

/// Checks that this host has what a provisioner needs, before anything is started. Provisioners without
/// a playbook need nothing.
///
/// # Errors
/// If Ansible is missing or too old, or a vault password file cannot be read.
pub fn check(kind: &ProvisionerKind) -> Result<(), AnsibleError> {
    let Some(playbook) = kind.playbook() else {
        return Ok(());
    };
    check_vault(playbook)?;
    if !kind.runs_on_host() {
        return Ok(());
    }
    let missing = |program| AnsibleError::Missing {
        at: playbook.at.clone(),
        program,
    };
    let program = process::find(PROGRAM).ok_or_else(|| missing(PROGRAM))?;
    if playbook.requirements.is_some() && process::find(GALAXY).is_none() {
        return Err(missing(GALAXY));
    }
    // If the version is not known, Ansible is tried all the same.
    if let Some(version) = version(&program)
        && is_new_enough(&version) == Some(false)
    {
        return Err(AnsibleError::TooOld {
            at: playbook.at.clone(),
            version,
        });
    }
    Ok(())
}

/// Checks that the password files can be read.
pub(super) fn check_vault(playbook: &Playbook) -> Result<(), AnsibleError> {
    for vault in &playbook.vault {
        File::open(&vault.file).map_err(|source| AnsibleError::VaultFile {
            at: playbook.at.clone(),
            path: vault.file.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Asks the Python that runs Ansible for the version, which takes a twentieth of the time of `--version`.
fn version(program: &Path) -> Option<String> {
    let words = process::interpreter(program)?;
    if words.iter().any(|word| word.contains("python")) {
        let (python, rest) = words.split_first()?;
        let output = process::command(python)
            .args(rest)
            .args([
                "-c",
                "from ansible.release import __version__; print(__version__)",
            ])
            .run()
            .ok()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if output.status.success() && !said.trim().is_empty() {
            return Some(said.trim().to_string());
        }
    }
    let output = process::command(program).arg("--version").run().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    version_in(said.lines().next()?)
}

/// Runs a playbook to its end; `each` gets its lines (whether on stderr, and the line). Its variables are
/// removed from the host, however it ends.
///
/// # Errors
/// If the run fails or cannot be started.
pub async fn run_on_host(
    run: &HostRun<'_>,
    each: &mut (dyn FnMut(bool, &str) + Send),
) -> Result<(), AnsibleError> {
    let playbook = run.playbook;
    check_vault(playbook)?;
    let config = used_config(playbook);
    let answers = PlaybookAnswers {
        playbook,
        user: run.answers,
    };
    let installed = match &playbook.requirements {
        None => None,
        Some(requirements) => Some(
            galaxy::install(
                requirements,
                config.as_deref(),
                &playbook.root,
                run.data,
                &playbook.at,
                each,
                &answers,
            )
            .await
            .map_err(|error| explained(run, GALAXY, error))?,
        ),
    };
    let folder = RunFolder::new(run.data)?;
    let paths = write_files(run, &folder)?;
    let mut command = process::command(PROGRAM)
        .asks(Asks::OnInput)
        .args(arguments(playbook, &paths, &run.limit))
        .folder(&playbook.root)
        // Files that Ansible decrypts are removed with the folder.
        .env("ANSIBLE_LOCAL_TEMP", folder.path())
        // Python trusts compiled files beside a plugin, which nobody reviews. So it must not use the
        // project's.
        .env("PYTHONPYCACHEPREFIX", run.data.ansible_compiled())
        .env("PYTHONUNBUFFERED", "1");
    if run.color {
        command = command
            .env("ANSIBLE_FORCE_COLOR", "1")
            .without("ANSIBLE_NOCOLOR")
            .without("NO_COLOR");
    } else {
        command = command
            .env("ANSIBLE_FORCE_COLOR", "0")
            .env("ANSIBLE_NOCOLOR", "1");
    }
    if let Some(config) = &config {
        command = command.env("ANSIBLE_CONFIG", config);
    }
    let set = std::env::var(INVENTORY_ENABLED).ok();
    if let Some(enabled) = inventory_enabled(set.as_deref(), config.as_deref()) {
        command = command.env(INVENTORY_ENABLED, enabled);
    }
    if let Some(installed) = installed {
        for search in &SEARCHES {
            let first = installed.join(search.part);
            let first = first.to_string_lossy();
            let value = match std::env::var(search.variable) {
                Ok(set) if !set.is_empty() => format!("{first}:{set}"),
                _ => search.with(&first, config.as_deref(), Path::to_path_buf),
            };
            command = command.env(search.variable, value);
        }
    }
    let mut watch = Watch::default();
    let mut hear = |stderr, line: &str| {
        watch.line(line);
        each(stderr, line);
    };
    let status = process::run(PROGRAM, command, &playbook.at, &mut hear, &answers)
        .await
        .map_err(|error| explained(run, PROGRAM, error))?;
    if status.success() {
        return Ok(());
    }
    Err(AnsibleError::Failed(Box::new(FailedRun {
        name: run.name.to_string(),
        code: status.code(),
        watch,
        again: run.again.clone(),
        inspect: run.inspect.clone(),
    })))
}

/// Returns the error with what was asked, where nobody answered, and what to do about it.
fn explained(run: &HostRun<'_>, program: &'static str, error: AnsibleError) -> AnsibleError {
    let AnsibleError::Unanswered(asked) = error else {
        return error;
    };
    let playbook = run.playbook;
    AnsibleError::Asks {
        name: run.name.to_string(),
        program,
        playbook: files::below(playbook, &playbook.playbook),
        words: words(asked.words.trim()),
        hint: prompts::advice(playbook, &asked, &run.again),
    }
}

fn write_files(run: &HostRun<'_>, folder: &RunFolder) -> Result<Paths, AnsibleError> {
    let playbook = run.playbook;
    let inventory = run.inventory.to_string();
    let vars = if playbook.vars.is_empty() {
        None
    } else {
        let vars = serde_json::Value::Object(playbook.vars.to_json()).to_string();
        Some(folder.write("vars.json", vars.as_bytes())?)
    };
    Ok(Paths {
        playbook: playbook.playbook.clone(),
        inventory: folder.write("inventory.json", inventory.as_bytes())?,
        vars,
        vars_files: playbook.vars_files.clone(),
        vault: playbook.vault.iter().map(|it| it.file.clone()).collect(),
    })
}

/// Returns the configuration that Ansible reads: the one that the Machinefile names; else, in Ansible's
/// own order, that of the environment, one beside the playbook or above it, the user's, the host's.
fn used_config(playbook: &Playbook) -> Option<PathBuf> {
    let set = std::env::var_os("ANSIBLE_CONFIG").filter(|set| !set.is_empty());
    match set {
        Some(set) if playbook.config.is_none() => Some(PathBuf::from(set)),
        _ => files::config(playbook)
            .or_else(|| Some(dirs::home_dir()?.join(".ansible.cfg")).filter(|it| it.is_file()))
            .or_else(|| Some(PathBuf::from("/etc/ansible/ansible.cfg")).filter(|it| it.is_file())),
    }
}
