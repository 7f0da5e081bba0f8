//! Finds the Machinefile, the data folder and the libvirt connection of a command.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{
    failure::{Failure, own_folder},
    host::{
        open::in_place_of_file,
        paths::{DATA_DIR_VARIABLE, DataDir},
        remedy,
    },
    hypervisor::{Connection, Uri, choose_uri},
    machinefile::{self, LOCAL, Project},
    report::{clean::Shown, warn},
    session::invocation::Invocation,
    trust::{Caller, stranger},
};

/// Finds and reads the project's Machinefile, and warns of what would surprise in it.
pub fn load_with_warnings(invocation: &Invocation) -> Result<Project, Failure> {
    let project = load_project(invocation)?;
    for warning in &project.warnings {
        warn(warning);
    }
    Ok(project)
}

/// Finds and reads the project's Machinefile.
pub fn load_project(invocation: &Invocation) -> Result<Project, Failure> {
    let file = find_machinefile(invocation)?;
    let project = machinefile::load(&file, &|name| std::env::var(name).ok())
        .map_err(|errors| Failure::Machinefile(Box::new(errors)))?;
    machinefile::hide(&project.variables);
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
                "give the path of a Machinefile to -f",
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
            "create one with `stead init`, or choose another place with -C DIR or -f FILE",
        )
    })?;
    is_machinefile(&file)?;
    if file.parent() != Some(&start) {
        only_own(&file)?;
    }
    Ok(file)
}

/// Fails unless the path is a file.
fn is_machinefile(file: &Path) -> Result<(), Failure> {
    match in_place_of_file(file) {
        None => Ok(()),
        Some(what) => Err(Failure::usage(
            format!(
                "{} is {what}, but a Machinefile must be a file",
                file.shown()
            ),
            "move it away, or choose another place with -f FILE or -C DIR",
        )),
    }
}

/// Fails if another user can write the Machinefile that was found in a folder above, as in /tmp.
fn only_own(file: &Path) -> Result<(), Failure> {
    let me = Caller::find();
    let local = file.with_file_name(LOCAL);
    let checked = [file.parent(), Some(file), Some(&local)];
    for path in checked.into_iter().flatten() {
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
                        "only you may be able to write a Machinefile in a folder above; use it anyway with -f {}",
                        file.shown()
                    ),
                ));
            }
            Err(error) => {
                return Err(Failure::io(
                    format!("read the owner of {}", path.shown()),
                    &error,
                ));
            }
        }
    }
    Ok(())
}

/// Returns the folder that the command runs in.
pub fn start_folder(invocation: &Invocation) -> Result<PathBuf, Failure> {
    let here = std::env::current_dir().map_err(|error| {
        Failure::error(
            format!("cannot find the current folder: {error}"),
            "it was removed, or you may not enter a folder above it: `cd` into another one, or give one to -C",
        )
    })?;
    Ok(match &invocation.directory {
        None => here,
        Some(directory) => {
            let directory = here.join(directory);
            if !directory.is_dir() {
                return Err(Failure::usage(
                    format!("there is no folder {}", directory.shown()),
                    "give an existing folder to -C",
                ));
            }
            directory
        }
    })
}

/// Returns a path of the arguments, as seen from the folder of `-C`. stead stays in its working folder: PATH may have
/// relative folders, and a project must not decide which programs they contain.
pub fn from_start(invocation: &Invocation, path: OsString) -> Result<OsString, Failure> {
    match invocation.directory {
        None => Ok(path),
        Some(_) => Ok(start_folder(invocation)?.join(path).into_os_string()),
    }
}

/// The same, for what must be text.
pub fn text_from_start(invocation: &Invocation, path: String) -> Result<String, Failure> {
    (from_start(invocation, path.into())?.into_string()).map_err(|path| {
        Failure::usage(
            format!("{} is not valid UTF-8", Path::new(&path).shown()),
            "run the command in that folder, without -C",
        )
    })
}

pub fn data_dir() -> Result<DataDir, Failure> {
    let data = DataDir::find().ok_or_else(|| {
        Failure::error(
            "cannot find a home folder to keep images in",
            format!("set HOME, or {DATA_DIR_VARIABLE} to a folder of your own"),
        )
    })?;
    if let Err(error) = data.check() {
        // What stead itself says of the folder says what to do, too.
        let hint = (error.get_ref().is_none())
            .then(|| remedy::of(&error).map_or_else(own_folder, str::to_string));
        return Err(Failure::Error {
            message: format!(
                "cannot use stead's data folder {}: {error}",
                data.root().shown()
            ),
            hint,
        });
    }
    match data.prepare() {
        // Commands that only read need no folder. The others report what they cannot write.
        Err(_) if !data.root().exists() => Ok(data),
        Err(error) => Err(Failure::in_data(
            format!("prepare stead's data folder {}", data.root().shown()),
            &error,
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

/// Opens the connection of the option, the project, or the default. Commands about the host give no
/// project, because what they show must not depend on the folder that they run in.
pub fn connect(invocation: &Invocation, project: Option<&Project>) -> Result<Connection, Failure> {
    let uri = uri(invocation, project);
    if !uri.is_local() && uri.is_uri() {
        return Err(Failure::error(
            format!(
                "{} is on another host, which stead does not support yet",
                uri.shown()
            ),
            "run stead on that host, or use qemu:///session here",
        ));
    }
    if uri.is_system() && !nix::unistd::geteuid().is_root() {
        return Err(Failure::error(
            format!(
                "{} ({}) runs QEMU as a user of its own, who cannot read images in your home",
                uri.shown(),
                uri.source
            ),
            "use qemu:///session, which needs no rights, or run stead as root",
        ));
    }
    Ok(Connection::open(&uri)?)
}
