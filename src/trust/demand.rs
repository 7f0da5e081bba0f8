//! Finds what a project would do beyond its machines.
//!
//! A demand is identified by commands, paths and names, not by the rest of the Machinefile: other edits change
//! nothing here. Files that would run on the host are bound to it by their content.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    host::{digest::sha256_of, process},
    machinefile::{
        Hook, HookRuns, HostCommand, HostSource, KernelSource, LOCAL, Moment, Playbook, Project,
        ProvisionerKind, ScriptSource, Text, Variable,
    },
    provision::{ansible, digest_file},
    report::{bytes, clean::is_unseen},
};

use super::{
    TrustError,
    owner::{Caller, stranger},
    plays::{self, RunSettings},
    scripts::{self, RunFiles},
};

/// The kind of a demand, which decides the commands of stead that it matters to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A hook that runs on the host.
    Hook(Moment),
    /// A playbook that the host's Ansible runs.
    Playbook,
    /// A file with a password, or that prints one.
    Password,
    /// A folder outside the project.
    Folder,
    /// An image or a kernel outside the project.
    Image,
    Variable,
    Catalogue,
    /// A guest can write files that the host runs.
    Writes,
    /// Another user can write files that the host runs.
    Owner,
}

impl Kind {
    /// The heading of a list of demands.
    pub fn heading(self) -> &'static str {
        match self {
            Kind::Hook(_) | Kind::Playbook => "runs on this computer, as you",
            Kind::Password | Kind::Folder | Kind::Image => "uses files outside the project",
            Kind::Variable => "uses environment variables",
            Kind::Catalogue => "fetches",
            Kind::Writes => "lets machines write files that this computer runs",
            Kind::Owner => "can be changed by others",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Demand {
    pub kind: Kind,
    /// One line, cleaned of control characters, with long words cut.
    pub what: String,
    /// The same, uncut.
    pub whole: String,
    /// Its place in the Machinefile.
    pub at: Vec<String>,
    /// Lines of an inline script, all of them.
    pub lines: Vec<String>,
    /// Remarks about what the files below do not cover.
    pub note: Option<String>,
    /// Its identity: commands, paths and names.
    pub id: String,
    /// Files that run with it, by their paths below the root, with their digests.
    pub files: BTreeMap<String, String>,
    /// The paths of these files.
    paths: Vec<PathBuf>,
    /// Folders in which a new file would count, and named files that do not exist.
    places: Vec<PathBuf>,
    /// More files may run with it than are bound to it, so an agreement to exactly these would cover unchecked
    /// files.
    pub cut: bool,
    /// Another user can edit these files, so an agreement to edits would let that user decide.
    pub exact: bool,
}

impl Demand {
    fn new(kind: Kind, names: &Value, what: String) -> Self {
        Demand {
            kind,
            whole: what.clone(),
            what,
            at: Vec::new(),
            lines: Vec::new(),
            note: None,
            id: sha256_of(names.to_string().as_bytes()),
            files: BTreeMap::new(),
            paths: Vec::new(),
            places: Vec::new(),
            cut: false,
            exact: false,
        }
    }

    fn at(mut self, at: &str) -> Self {
        self.at.push(plain(at));
        self
    }

    fn whole(mut self, whole: String) -> Self {
        self.whole = whole;
        self
    }

    /// Returns the digest of its files, as they were when the demand was made.
    pub fn content(&self) -> String {
        sha256_of(json!(self.files).to_string().as_bytes())
    }

    fn bind(
        &mut self,
        files: BTreeMap<PathBuf, PathBuf>,
        root: &Path,
    ) -> Result<(), (PathBuf, io::Error)> {
        for (path, real) in files {
            let digest = digest_file(&real)?;
            // Another target is another file, even one with the same content.
            let digest = if real == path {
                digest
            } else {
                format!("{digest} {}", below(&real, root))
            };
            self.files.insert(below(&path, root), digest);
            self.paths.push(real);
            self.paths.push(path);
        }
        Ok(())
    }
}

/// Returns all demands of a project. Equal ones of several machines are merged.
///
/// # Errors
/// If a file that would run cannot be read.
pub fn of_project(project: &Project) -> Result<Vec<Demand>, TrustError> {
    let mut all: Vec<Demand> = Vec::new();
    let mut add = |demand: Demand| match all.iter_mut().find(|other| other.id == demand.id) {
        Some(other) => {
            for at in demand.at {
                if !other.at.contains(&at) {
                    other.at.push(at);
                }
            }
        }
        None => all.push(demand),
    };
    for machine in &project.machines {
        for hook in &machine.hooks {
            of_hook(project, hook)?.into_iter().for_each(&mut add);
        }
    }
    let of_machines = project.machines.iter().flat_map(|it| &it.provisioners);
    let of_all = project.provisioners.iter().map(|it| &it.provisioner);
    for provisioner in of_machines.chain(of_all) {
        let Some(playbook) = provisioner.kind.playbook() else {
            continue;
        };
        let here = matches!(provisioner.kind, ProvisionerKind::Ansible { .. });
        of_playbook(project, playbook, here)?
            .into_iter()
            .for_each(&mut add);
    }
    for machine in &project.machines {
        outside_folders(project, machine).for_each(&mut add);
        images(project, machine).for_each(&mut add);
    }
    project
        .variables
        .iter()
        .filter_map(variable)
        .for_each(&mut add);
    catalogue(project).into_iter().for_each(&mut add);
    writes(project, &all)
        .into_iter()
        .for_each(|demand| all.push(demand));
    owners(project, &mut all);
    all.sort_by_key(|demand| demand.kind);
    mark_exact(project, &mut all);
    Ok(all)
}

/// Returns the project's files and folders that decide what the host runs, without those that a playbook only sends.
///
/// # Errors
/// If one of them cannot be read.
pub fn host_runs(project: &Project) -> Result<Vec<PathBuf>, TrustError> {
    let mut all = Vec::new();
    for demand in of_project(project)? {
        if !matches!(demand.kind, Kind::Hook(_) | Kind::Playbook) {
            continue;
        }
        all.extend(demand.paths.into_iter().filter(|path| plays::obeys(path)));
        all.extend(demand.places.into_iter().filter(|it| *it != project.root));
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Returns the demand of a hook. Hooks that run in the guest have none.
///
/// # Errors
/// If a file that would run cannot be read.
pub fn of_hook(project: &Project, hook: &Hook) -> Result<Option<Demand>, TrustError> {
    let HookRuns::Host(command) = &hook.runs else {
        return Ok(None);
    };
    let root = &project.root;
    let masked = |text: &str| masked(text, &project.variables);
    let args: Vec<String> = command.run.args.iter().map(|it| masked(it)).collect();
    let env: BTreeMap<&str, String> = (command.run.env.iter())
        .map(|(name, value)| (name.as_str(), masked(value)))
        .collect();
    let (runs, words) = match &command.what {
        HostSource::Script(ScriptSource::Inline(Text(text))) => {
            let text = masked(text);
            (json!({ "inline": text }), None)
        }
        HostSource::Script(ScriptSource::Path(path)) => {
            let name = below(path, root);
            (json!({ "script": name }), Some(name))
        }
        HostSource::Program(path) if path.is_absolute() => {
            let name = below(path, root);
            (json!({ "file": name }), Some(name))
        }
        HostSource::Program(name) => {
            let name = name.to_string_lossy().into_owned();
            (json!({ "program": name }), Some(name))
        }
    };
    let names = json!([
        "hook",
        hook.moment.id(),
        runs,
        args,
        env,
        command.run.interpreter
    ]);
    let said = |quoted: fn(&str) -> String| {
        let mut said: Vec<String> = Vec::new();
        if !command.run.sensitive {
            said.extend(
                env.iter()
                    .map(|(name, value)| format!("{}={}", plain(name), quoted(value))),
            );
        }
        said.extend((command.run.interpreter.iter().flatten()).map(|it| quoted(it)));
        said.push((words.as_ref()).map_or("an inline script".into(), |words| quoted(words)));
        said.extend(args.iter().map(|it| quoted(it)));
        format!("{}   ({})", said.join(" "), hook.moment)
    };
    let mut demand = Demand::new(Kind::Hook(hook.moment), &names, said(quoted))
        .whole(said(shown))
        .at(&hook.at);
    if let HostSource::Script(ScriptSource::Inline(Text(text))) = &command.what {
        demand.lines = if command.run.sensitive {
            vec![
                "(not shown, because it is marked as sensitive; read it in the Machinefile)".into(),
            ]
        } else {
            let text = masked(text);
            text.trim_matches('\n').lines().map(plain).collect()
        };
    }
    let bound = files_of(command, root).and_then(|found| {
        demand.note = note(&found);
        demand.cut = found.cut;
        demand.places.extend(found.whole.iter().cloned());
        demand.bind(found.files, root)
    });
    bound.map_err(|(path, source)| TrustError::Read { path, source })?;
    Ok(Some(demand))
}

/// Returns the remark for a command whose files are not all known.
fn note(found: &RunFiles) -> Option<String> {
    let folders: Vec<String> = (found.whole.iter())
        .map(|folder| match below(folder, found.root) {
            name if name.is_empty() => "scripts in the project's folder".into(),
            name => format!("files of {}", shown(&name)),
        })
        .collect();
    let mut said = Vec::new();
    if !folders.is_empty() {
        said.push(format!(
            "stead cannot tell everything that it runs, so {} count as well",
            folders.join(", ")
        ));
    }
    if folders.is_empty() && found.made_up {
        said.push(
            "it computes names of files that it reads, so stead cannot find all of them".into(),
        );
    }
    if found.cut {
        said.push(format!(
            "it may run more files than stead checks ({} files, {}), so a yes holds only once",
            scripts::FILES,
            bytes(scripts::BYTES)
        ));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

/// Returns the project's files that a command runs, and the files that those name.
fn files_of<'a>(
    command: &HostCommand,
    root: &'a Path,
) -> Result<RunFiles<'a>, (PathBuf, io::Error)> {
    let mut found = RunFiles::new(root);
    let interpreter = command.run.interpreter.as_deref().unwrap_or_default();
    match &command.what {
        HostSource::Script(ScriptSource::Inline(Text(text))) => found.text(text, interpreter)?,
        HostSource::Script(ScriptSource::Path(path)) => found.file(path)?,
        HostSource::Program(path) if path.is_absolute() => found.file(path)?,
        HostSource::Program(name) => {
            // PATH may lead into the project.
            let path = name.to_str().and_then(process::find);
            if let Some(path) = path.filter(|path| path.starts_with(root)) {
                found.file(&path)?;
            }
        }
    }
    let program = match &command.what {
        HostSource::Program(name) => name.to_string_lossy(),
        HostSource::Script(_) => "".into(),
    };
    found.arguments(&program, &command.run.args)?;
    for (name, value) in &command.run.env {
        found.variable(name, value)?;
    }
    for word in interpreter {
        found.variable("", word)?;
    }
    Ok(found)
}

/// Returns the demands of a playbook: to run, if it runs `here`, and its passwords.
///
/// # Errors
/// If one of its files cannot be read.
pub fn of_playbook(
    project: &Project,
    playbook: &Playbook,
    here: bool,
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
        let (note, cut) = (note(&read), read.cut);
        places.extend(read.whole);
        places.extend(read.awaited);
        let mut files = read.files;
        // What a symlink out of the project leads to runs as well.
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
        demand.cut = cut;
        // Ansible takes templates in variables, which can run programs.
        demand.files.insert(
            "variables of the Machinefile".into(),
            sha256_of(variables.as_bytes()),
        );
        demands.push(demand);
    }
    for vault in &playbook.vault {
        let real = vault.file.canonicalize().unwrap_or(vault.file.clone());
        // As Ansible does it.
        let runs = here
            && fs::metadata(&real)
                .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
        let name = below(&real, root);
        let inside = real.starts_with(root);
        let what = match (here, runs) {
            (true, true) => format!("{}   (run for a password of Ansible's)", shown(&name)),
            (true, false) => format!("{}   (read for a password of Ansible's)", shown(&name)),
            (false, _) => format!(
                "{}   (copied into a machine, with the password in it)",
                shown(&name)
            ),
        };
        if inside && !runs {
            continue;
        }
        let mut demand = Demand::new(
            if runs { Kind::Playbook } else { Kind::Password },
            &json!(["password", name, here, runs]),
            what,
        )
        .at(&playbook.at);
        if runs && inside {
            let mut found = RunFiles::new(root);
            found.file(&real).map_err(failed)?;
            demand.note = note(&found);
            demand.cut = found.cut;
            demand.bind(found.files, root).map_err(failed)?;
        }
        demands.push(demand);
    }
    Ok(demands)
}

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

fn outside_folders<'a>(
    project: &'a Project,
    machine: &'a crate::machinefile::Machine,
) -> impl Iterator<Item = Demand> + 'a {
    let root = &project.root;
    (machine.syncs.iter())
        .filter(move |sync| !sync.from.starts_with(root))
        .map(|sync| {
            let writes = sync.kind.guest_writes(sync.readonly);
            let from = sync.from.to_string_lossy().into_owned();
            let may = if writes { ", which may write it" } else { "" };
            Demand::new(
                Kind::Folder,
                &json!(["folder", from, writes]),
                format!("the folder {}, for a machine{may}", shown(&from)),
            )
            .at(&sync.at)
        })
}

/// Returns demands for images of disks and kernels outside the project.
fn images<'a>(
    project: &'a Project,
    machine: &'a crate::machinefile::Machine,
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

/// Nodes whose text everybody may see, so it is not secret.
const PLAIN: [&str; 6] = ["HOME", "LANG", "LC_ALL", "LOGNAME", "TZ", "USER"];

fn variable(variable: &Variable) -> Option<Demand> {
    let Variable { name, node, at, .. } = variable;
    // The server of a URL learns the URL.
    let goes_out = ["box", "catalogue", "package"].contains(&node.as_str());
    if PLAIN.contains(&name.as_str()) && !goes_out {
        return None;
    }
    let what = format!("{}   (in `{}`)", shown(name), plain(node));
    Some(Demand::new(Kind::Variable, &json!(["variable", name, node]), what).at(at))
}

fn catalogue(project: &Project) -> Option<Demand> {
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

/// Returns demands for folders that guests write and that contain files that the host runs.
fn writes(project: &Project, demands: &[Demand]) -> Vec<Demand> {
    let root = &project.root;
    let mut found: BTreeMap<&Path, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for machine in &project.machines {
        for sync in &machine.syncs {
            if sync.kind.guest_writes(sync.readonly) {
                let (machines, at) = found.entry(&sync.from).or_default();
                machines.push(&machine.name);
                at.push(&sync.at);
            }
        }
    }
    let runs: BTreeSet<PathBuf> = (project.read.iter().cloned())
        .chain(demands.iter().flat_map(|it| it.paths.iter().cloned()))
        .collect();
    let mut writes = Vec::new();
    for (folder, (machines, at)) in found {
        let mut holds: Vec<String> = (runs.iter())
            .filter(|path| path.starts_with(folder))
            .map(|path| below(path, root))
            .collect();
        if root.starts_with(folder) && !project.read.contains(&root.join(LOCAL)) {
            holds.insert(0, LOCAL.into());
        }
        for git in [folder.join(".git"), root.join(".git")] {
            if git.starts_with(folder) && git.exists() {
                holds.push(format!("{} (git runs its hooks)", below(&git, root)));
                break;
            }
        }
        if holds.is_empty() {
            // A new file there would count.
            let comes: BTreeSet<String> = (demands.iter().flat_map(|it| &it.places))
                .filter(|place| place.starts_with(folder) || folder.starts_with(place))
                .map(|place| below(place, root))
                .collect();
            holds.extend(comes);
        }
        if holds.is_empty() {
            continue;
        }
        let name = shown_folder(folder, root);
        let holds: Vec<String> = holds.iter().map(|it| shown(it)).collect();
        let said =
            |holds: String| format!("{} writes {name}, which holds {holds}", machines.join(", "));
        let mut demand = Demand::new(Kind::Writes, &json!(["writes", name]), said(some(&holds)))
            .whole(said(holds.join(", ")));
        demand.at = at.into_iter().map(plain).collect();
        demand.paths.push(folder.to_path_buf());
        writes.push(demand);
    }
    writes
}

/// Returns demands for files that other users can write, if these could change what runs.
fn owners(project: &Project, demands: &mut Vec<Demand>) {
    if demands.is_empty() {
        return;
    }
    let me = Caller::find();
    let root = &project.root;
    let mut looked: BTreeSet<PathBuf> = BTreeSet::from([root.clone()]);
    let bound = demands
        .iter()
        .filter(|it| it.kind != Kind::Writes)
        .flat_map(|it| &it.paths);
    for path in project.read.iter().chain(bound) {
        looked.extend(
            path.ancestors()
                .take_while(|it| it.starts_with(root))
                .map(Path::to_path_buf),
        );
    }
    let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for path in looked {
        if let Ok(Some(stranger)) = stranger(&path, me) {
            found
                .entry(stranger)
                .or_default()
                .push(shown_folder(&path, root));
        }
    }
    for (stranger, names) in found {
        let words = stranger.words();
        let id = json!(["owner", words]);
        let words = match (names.len(), words.strip_prefix("belongs ")) {
            (2.., Some(rest)) => format!("belong {rest}"),
            _ => words,
        };
        let said = |names: String| format!("{names} {}", plain(&words));
        let demand =
            Demand::new(Kind::Owner, &id, said(some(&names))).whole(said(names.join(", ")));
        demands.push(demand);
    }
}

/// Marks demands whose files others can edit: the user cannot agree to such edits.
fn mark_exact(project: &Project, demands: &mut [Demand]) {
    let strangers = demands.iter().any(|it| it.kind == Kind::Owner);
    let written: Vec<PathBuf> = (project.machines.iter())
        .flat_map(|machine| &machine.syncs)
        .filter(|sync| sync.kind.guest_writes(sync.readonly))
        .map(|sync| sync.from.clone())
        .collect();
    for demand in demands {
        let places = |it: &PathBuf| {
            (demand.places.iter()).any(|place| it.starts_with(place) || place.starts_with(it))
        };
        demand.exact = strangers
            || (demand.paths.iter()).any(|path| written.iter().any(|it| path.starts_with(it)))
            || written.iter().any(places);
    }
}

/// Returns the path below the root, or the whole path if it is elsewhere.
fn below(path: &Path, root: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    // Two names that are not text stay different.
    path.to_str()
        .map_or_else(|| format!("{path:?}"), str::to_string)
}

fn shown_folder(path: &Path, root: &Path) -> String {
    match below(path, root) {
        name if name.is_empty() => "the project's folder".into(),
        name => shown(&name),
    }
}

/// Returns the text with names in place of the values of variables, which are secrets and change.
fn masked(text: &str, variables: &[Variable]) -> String {
    /// Shorter values may occur anywhere by chance.
    const SHORTEST: usize = 4;
    let mut text = text.to_string();
    for variable in variables {
        if let Some(Text(value)) = &variable.value
            && value.len() >= SHORTEST
        {
            text = text.replace(value.as_str(), &format!("${{env.{}}}", variable.name));
        }
    }
    text
}

/// The question has at most this much of one word.
const LONGEST: usize = 500;

/// The question has at most this many names.
const NAMES: usize = 4;

/// Returns the text without control characters, invisible characters, and those that change the direction of a line.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| {
            let unseen = is_unseen(c)
                || matches!(
                    c,
                    '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
                        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}'
                        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
                        | '\u{e0000}'..='\u{e0fff}'
                );
            if unseen { '\u{fffd}' } else { c }
        })
        .collect()
}

/// Returns a word as one would type it in a shell, so that two words cannot look like one.
pub fn shown(word: &str) -> String {
    crate::host::shell::shell_quote(&plain(word))
}

/// Like [`shown`], but cuts long words.
fn quoted(word: &str) -> String {
    let more = word.chars().count().saturating_sub(LONGEST);
    if more == 0 {
        return shown(word);
    }
    let start: String = word.chars().take(LONGEST).collect();
    shown(&format!("{start}… ({more} more characters)"))
}

fn some(names: &[String]) -> String {
    let some = names[..names.len().min(NAMES)].join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}
