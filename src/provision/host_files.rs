//! Finds the files of a project that the host runs.

use std::path::PathBuf;

use crate::machinefile::{HookRuns, HostSource, Project, ScriptSource};

use super::ansible;

/// Returns absolute paths of files and folders: the Machinefile, scripts and programs of hooks, playbooks
/// for the host's Ansible with their files, and password files, which may be programs.
pub fn host_files(project: &Project) -> Vec<PathBuf> {
    let mut found = vec![project.file.clone()];
    for hook in project.machines.iter().flat_map(|it| &it.hooks) {
        let HookRuns::Host(command) = &hook.runs else {
            continue;
        };
        match &command.what {
            HostSource::Script(ScriptSource::Path(path)) | HostSource::Program(path) => {
                found.extend(path.is_absolute().then(|| path.clone()));
            }
            HostSource::Script(ScriptSource::Inline(_)) => {}
        }
    }
    let provisioners = (project.machines.iter().flat_map(|it| &it.provisioners))
        .chain(project.provisioners.iter().map(|it| &it.provisioner));
    for provisioner in provisioners {
        if let Some(playbook) = provisioner.kind.playbook() {
            found.extend(playbook.vault.iter().map(|it| it.file.clone()));
            if provisioner.kind.runs_on_host() {
                found.extend(ansible::places(playbook));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}
