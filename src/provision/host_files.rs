//! What of a project the host runs, as files.

use std::path::PathBuf;

use crate::machinefile::{HookRuns, HostSource, Project, ProvisionerKind, ScriptSource};

use super::ansible;

/// Files and folders, absolute: scripts and programs of hooks, playbooks of the host's Ansible with all
/// that belongs to them, and files with passwords, which may be programs.
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
            if matches!(provisioner.kind, ProvisionerKind::Ansible { .. }) {
                found.extend(ansible::places(playbook));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}
