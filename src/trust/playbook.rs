//! What a playbook would do to the host.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    host::digest::sha256_of,
    machinefile::{Playbook, Project},
    provision::ansible,
};

use super::{
    demand::{Demand, Kind},
    error::TrustError,
    plays::RunSettings,
    run_files::RunFiles,
    shown::{below, masked, quoted, shown},
};

/// Returns the demands of a playbook. `here`: it runs on the host, not in a machine, so the run is a demand, too.
/// `machines`: those that it runs over, if they are known.
///
/// # Errors
/// If one of its files cannot be read.
pub fn of_playbook(
    project: &Project,
    playbook: &Playbook,
    here: bool,
    machines: &[String],
) -> Result<Vec<Demand>, TrustError> {
    let root = &project.root;
    let mut demands = Vec::new();
    let failed = |(path, source)| TrustError::Read { path, source };
    if here {
        let arguments: Vec<String> = (playbook.arguments.iter())
            .map(|it| masked(it, &project.variables))
            .collect();
        let config = playbook.config.as_ref().map(|it| below(it, root));
        let requirements = playbook.requirements.as_ref().map(|it| below(it, root));
        let vars_files: Vec<String> = (playbook.vars_files.iter())
            .map(|it| below(it, root))
            .collect();
        let name = below(&playbook.playbook, root);
        let names = json!(["ansible", name, arguments, config, requirements, vars_files]);
        let found = ansible::files(playbook).map_err(failed)?;
        let real = |path: PathBuf| match path.canonicalize() {
            Ok(real) => Ok((path, real)),
            Err(error) => Err(failed((path, error))),
        };
        let files: BTreeMap<PathBuf, PathBuf> =
            (found.inside.into_values().map(real)).collect::<Result<_, _>>()?;
        let mut places = ansible::places(playbook);
        let folders = places.iter().filter(|it| it.is_dir()).cloned().collect();
        let mut read = RunFiles::new(root);
        let variables = variables(project, playbook);
        let told = RunSettings {
            machinefiles: &project.read,
            arguments: &playbook.arguments,
            variables: &variables,
        };
        read.playbook(&playbook.playbook, files, folders, &told)
            .map_err(failed)?;
        let (note, incomplete) = (read.note(), read.incomplete);
        places.extend(read.whole);
        places.extend(read.awaited);
        let mut files = read.files;
        // Files outside the project that a symlink leads to run, too.
        for (name, target) in found.outside {
            for entry in ignore::WalkBuilder::new(&target)
                .standard_filters(false)
                .build()
            {
                let entry =
                    entry.map_err(|error| failed((target.clone(), io::Error::other(error))))?;
                if entry.file_type().is_some_and(|kind| kind.is_file()) {
                    let named = match entry.path().strip_prefix(&target) {
                        Ok(below) if below != Path::new("") => root.join(&name).join(below),
                        _ => root.join(&name),
                    };
                    files.insert(named, entry.into_path());
                }
            }
        }
        let count = files.len();
        let said = |quoted: fn(&str) -> String| {
            let mut said = vec!["ansible-playbook".to_string()];
            said.extend(arguments.iter().map(|it| quoted(it)));
            said.push(quoted(&name));
            said.join(" ")
        };
        let more = if count > 1 {
            let files = if count == 2 { "file" } else { "files" };
            format!(", with {} more {files}", count - 1)
        } else {
            String::new()
        };
        let installs = if requirements.is_some() {
            ", and installs its requirements from the network"
        } else {
            ""
        };
        let mut demand = Demand::new(
            Kind::Playbook,
            &names,
            format!("{}{more}{installs}", said(quoted)),
        )
        .whole(format!("{}{more}{installs}", said(shown)))
        .at(&playbook.at);
        demand.bind(files, root).map_err(failed)?;
        demand.places = places;
        demand.note = note;
        demand.incomplete = incomplete;
        // Ansible evaluates templates in variables, and templates can run programs.
        demand.files.insert(
            "variables of the Machinefile".into(),
            sha256_of(variables.as_bytes()),
        );
        demands.push(demand);
    }
    for vault in &playbook.vault {
        let real = vault.file.canonicalize().unwrap_or(vault.file.clone());
        // Ansible runs a file that is executable.
        let runs = here
            && fs::metadata(&real)
                .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
        let name = below(&real, root);
        let inside = real.starts_with(root);
        let what = match runs {
            true => "Ansible runs it to get a password",
            false => "Ansible reads a password from it",
        };
        if inside && !runs {
            continue;
        }
        let kind = if runs { Kind::Playbook } else { Kind::Password };
        let names = json!(["password", name, here, runs]);
        let demand = match here {
            true => Demand::new(kind, &names, format!("{}   ({what})", shown(&name))),
            false => {
                let machines: Vec<&str> = machines.iter().map(String::as_str).collect();
                let before = format!("{}   (copied into ", shown(&name));
                let after = ", with the password in it)".to_string();
                Demand::of_machines(kind, &names, before, &machines, [after.clone(), after])
            }
        };
        let mut demand = demand.at(&playbook.at);
        if runs && inside {
            let mut found = RunFiles::new(root);
            found.file(&real).map_err(failed)?;
            demand.note = found.note();
            demand.incomplete = found.incomplete;
            demand.bind(found.files, root).map_err(failed)?;
        }
        demands.push(demand);
    }
    Ok(demands)
}

/// Returns all variables that Ansible gets, without secret values.
fn variables(project: &Project, playbook: &Playbook) -> String {
    let all = json!([
        playbook.vars.to_json(),
        (project.machines.iter())
            .map(|it| it.vars.to_json())
            .collect::<Vec<_>>(),
        (project.groups.iter())
            .map(|it| it.vars.to_json())
            .collect::<Vec<_>>(),
    ]);
    masked(&all.to_string(), &project.variables)
}
