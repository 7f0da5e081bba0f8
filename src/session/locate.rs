//! Finds the Machinefile, the folder of data and the libvirt that a command works with.

use std::path::{Path, PathBuf};

use crate::{
    failure::Failure,
    host::{
        open::in_place_of_file,
        paths::{DATA_DIR_VARIABLE, DataDir},
    },
    hypervisor::{Connection, Uri, choose_uri},
    log,
    machinefile::{self, LOCAL, Project},
    report::clean::Shown,
    session::invocation::Invocation,
    trust::{Caller, stranger},
};

/// Variables of the environment that are no secrets, and whose values are in many paths.
const PLAIN_VARIABLES: [&str; 6] = ["HOME", "USER", "LOGNAME", "PWD", "SHELL", "LANG"];

/// Finds and reads the project's Machinefile.
pub fn load_project(invocation: &Invocation) -> Result<Project, Failure> {
    let file = find_machinefile(invocation)?;
    let project = machinefile::load(&file, &|name| std::env::var(name).ok())
        .map_err(|errors| Failure::Machinefile(Box::new(errors)))?;
    for variable in &project.variables {
        if let Some(value) = &variable.value
            && !PLAIN_VARIABLES.contains(&variable.name.as_str())
        {
            log::hide(&value.0);
        }
    }
    Ok(project)
}

pub fn find_machinefile(invocation: &Invocation) -> Result<PathBuf, Failure> {
    let start = start_folder(invocation)?;
    if let Some(file) = &invocation.file {
        let file = start.join(file);
        is_machinefile(&file)?;
        if !file.exists() {
            return Err(Failure::usage(
                format!("there is no file {}", file.shown()),
                "-f takes the path of a Machinefile",
            ));
        }
        return Ok(file);
    }
    let file = machinefile::find(&start).ok_or_else(|| {
        Failure::usage(
            format!(
                "there is no Machinefile in {} or any folder above it",
                start.shown()
            ),
            "`stead init` writes one; -C DIR or -f FILE looks elsewhere",
        )
    })?;
    is_machinefile(&file)?;
    if file.parent() != Some(&start) {
        only_own(&file)?;
    }
    Ok(file)
}

/// Fails where something else than a file lies there.
fn is_machinefile(file: &Path) -> Result<(), Failure> {
    match in_place_of_file(file) {
        None => Ok(()),
        Some(what) => Err(Failure::usage(
            format!("{} is {what}, and a Machinefile is a file", file.shown()),
            "move it away, or -f FILE or -C DIR name another one",
        )),
    }
}

/// Nobody else may put a Machinefile above the folder that one works in, as into /tmp.
fn only_own(file: &Path) -> Result<(), Failure> {
    let me = Caller::find();
    let local = file.with_file_name(LOCAL);
    let looked = [file.parent(), Some(file), Some(&local)];
    for path in looked.into_iter().flatten() {
        match stranger(path, me) {
            Ok(None) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(Some(stranger)) => {
                return Err(Failure::usage(
                    format!(
                        "{} was found above this folder, and {} {}",
                        file.shown(),
                        path.shown(),
                        stranger.words()
                    ),
                    format!(
                        "a Machinefile of a folder above has to be yours alone; -f {} takes this one all the same",
                        file.shown()
                    ),
                ));
            }
            Err(error) => {
                return Err(Failure::io(format!("look at {}", path.shown()), &error));
            }
        }
    }
    Ok(())
}

/// Where the command is to work.
pub fn start_folder(invocation: &Invocation) -> Result<PathBuf, Failure> {
    let here =
        std::env::current_dir().map_err(|error| Failure::io("find the current folder", &error))?;
    Ok(match &invocation.directory {
        None => here,
        Some(directory) => {
            let directory = here.join(directory);
            if !directory.is_dir() {
                return Err(Failure::usage(
                    format!("there is no folder {}", directory.shown()),
                    "-C takes a folder to work in",
                ));
            }
            directory
        }
    })
}

/// Returns a path of the arguments, as seen from the folder of `-C`. stead stays in its working folder: PATH may have
/// relative folders, and a project must not decide which programs they contain.
pub fn from_start(invocation: &Invocation, path: String) -> Result<String, Failure> {
    if invocation.directory.is_none() {
        return Ok(path);
    }
    (start_folder(invocation)?.join(path).into_os_string())
        .into_string()
        .map_err(|path| {
            Failure::usage(
                format!("{} is not valid UTF-8", Path::new(&path).shown()),
                "run the command in that folder, without -C",
            )
        })
}

pub fn data_dir() -> Result<DataDir, Failure> {
    let data = DataDir::find().ok_or_else(|| {
        Failure::error(
            "no home directory is known, so there is no place for images",
            format!("set HOME, or {DATA_DIR_VARIABLE} to a folder of your own"),
        )
    })?;
    // It goes into libvirt's XML and OpenSSH's configuration, which take nothing else.
    if data.root().to_str().is_none() {
        return Err(Failure::error(
            format!(
                "the path of stead's data is not valid UTF-8: {}",
                data.root().shown()
            ),
            format!("set {DATA_DIR_VARIABLE} to a folder with a plain name"),
        ));
    }
    match data.prepare() {
        // Commands that only look need none; the others say what they could not write.
        Err(_) if !data.root().exists() => Ok(data),
        Err(error) => Err(Failure::error(
            format!(
                "cannot prepare stead's data folder {}: {error}",
                data.root().shown()
            ),
            format!("it must be a folder of your own; {DATA_DIR_VARIABLE} names another one"),
        )),
        Ok(()) => Ok(data),
    }
}

pub fn uri(invocation: &Invocation, project: Option<&Project>) -> Uri {
    choose_uri(
        invocation.connect.as_deref(),
        project
            .and_then(|project| project.connect)
            .map(machinefile::Libvirt::uri),
        nix::unistd::geteuid().is_root(),
    )
}

/// Opens the connection of the flag, the project, or the default. Commands about the host give no
/// project: which machines they see is not for the folder to say in which they are started.
pub fn connect(invocation: &Invocation, project: Option<&Project>) -> Result<Connection, Failure> {
    let uri = uri(invocation, project);
    if !uri.is_local() {
        return Err(Failure::error(
            format!(
                "{} is on another host, which stead does not reach yet",
                uri.uri
            ),
            "run stead on that host, or use qemu:///session here",
        ));
    }
    if uri.uri.starts_with("qemu:///system") && !nix::unistd::geteuid().is_root() {
        return Err(Failure::error(
            format!(
                "{} ({}) runs QEMU as a user of its own, who cannot read images in your home",
                uri.uri, uri.source
            ),
            "use qemu:///session, which needs no rights, or run stead as root",
        ));
    }
    Ok(Connection::open(&uri)?)
}
