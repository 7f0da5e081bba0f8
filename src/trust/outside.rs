//! What a project uses of the host: folders, images, variables, a catalogue.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::machinefile::{KernelSource, Machine, Project, Variable};

use super::{
    demand::{Demand, Kind},
    shown::{masked, plain, shown},
};

/// Returns demands for synced folders outside the project.
pub(super) fn outside_folders<'a>(
    project: &'a Project,
    machine: &'a Machine,
) -> impl Iterator<Item = Demand> + 'a {
    let root = &project.root;
    (machine.syncs.iter())
        .filter(move |sync| !sync.from.starts_with(root))
        .map(|sync| {
            let writes = sync.kind.guest_writes(sync.readonly);
            let from = sync.from.to_string_lossy().into_owned();
            let may = if writes {
                ", which may write to it"
            } else {
                ""
            };
            Demand::new(
                Kind::Folder,
                &json!(["folder", from, writes]),
                format!("the folder {}, for a machine{may}", shown(&from)),
            )
            .at(&sync.at)
        })
}

/// Returns demands for images of disks and kernels outside the project.
pub(super) fn images<'a>(
    project: &'a Project,
    machine: &'a Machine,
) -> impl Iterator<Item = Demand> + 'a {
    let root = &project.root;
    let outside = move |path: &Path| {
        let real = path.canonicalize().unwrap_or(path.to_path_buf());
        (!real.starts_with(root)).then_some(real)
    };
    let image = |what: &str, path: PathBuf| {
        let path = path.to_string_lossy().into_owned();
        Demand::new(
            Kind::Image,
            &json!([what, path]),
            format!("{}, as {what} of a machine", shown(&path)),
        )
    };
    let disk = (machine.box_file.as_deref())
        .and_then(outside)
        .map(|path| image("the disk", path));
    let kernel = machine.kernel.iter().flat_map(move |kernel| {
        let paths: Vec<PathBuf> = match &kernel.source {
            KernelSource::Path {
                image,
                modules,
                config,
            } => [Some(image), modules.as_ref(), config.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            _ => Vec::new(),
        };
        (paths.into_iter())
            .filter_map(move |path| outside(&path))
            .map(move |path| image("the kernel", path).at(&kernel.at))
    });
    disk.into_iter().chain(kernel)
}

/// Variables whose values are not secret.
const PLAIN: [&str; 6] = ["HOME", "LANG", "LC_ALL", "LOGNAME", "TZ", "USER"];

/// Returns the demand of a variable, unless its value is not secret and stays here.
pub(super) fn variable(variable: &Variable) -> Option<Demand> {
    let Variable { name, node, at, .. } = variable;
    // A server learns the URLs that it is asked for.
    let goes_out = ["box", "catalogue", "package"].contains(&node.as_str());
    if PLAIN.contains(&name.as_str()) && !goes_out {
        return None;
    }
    let what = format!("{}   (in `{}`)", shown(name), plain(node));
    Some(Demand::new(Kind::Variable, &json!(["variable", name, node]), what).at(at))
}

/// Returns the demand of a catalogue that is not a file of the project.
pub(super) fn catalogue(project: &Project) -> Option<Demand> {
    let place = project.catalogue.as_ref()?;
    if place.contains("://") {
        let place = masked(place, &project.variables);
        let what = format!("the catalogue {}", shown(&place));
        return Some(Demand::new(
            Kind::Catalogue,
            &json!(["catalogue", place]),
            what,
        ));
    }
    let path = Path::new(place);
    let real = path.canonicalize().unwrap_or(path.to_path_buf());
    if real.starts_with(&project.root) {
        return None;
    }
    let place = real.to_string_lossy().into_owned();
    let what = format!("{}, as a catalogue", shown(&place));
    Some(Demand::new(Kind::Image, &json!(["catalogue", place]), what))
}
