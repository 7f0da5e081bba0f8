//! Builds a box from a distribution's packages as an ordinary user: the distribution's own tool installs them, mke2fs
//! and qemu-img make the disk. This needs no root and no loop device.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    host::{
        address,
        digest::sha256_of_stream,
        file, open,
        process::{Command, Environment, Limits, SYSTEM_FOLDERS, find_system},
        scratch::{self, Scratch},
    },
    report::clean::Shown,
    store::FileEntry,
};

use super::{
    bootstrap::{self, AcceptedKeys, Prepared},
    error::BoxError,
    manifest::{Boot, Disk, FORMAT_VERSION, MANIFEST, Manifest},
    qcow2,
    recipe::{self, Recipe, Tool},
};

/// The largest customize.sh, in bytes.
const SCRIPT: u64 = 1 << 20;

/// A phase of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Packages,
    Image,
    Convert,
    Hash,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Packages => "installing packages",
            Phase::Image => "making the disk image",
            Phase::Convert => "converting it to qcow2",
            Phase::Hash => "hashing",
        })
    }
}

/// What a build does now.
pub enum Progress<'a> {
    Phase(Phase),
    /// A line of a tool's output.
    Line(&'a str),
}

/// A box folder, removed when dropped.
pub struct Built {
    scratch: Scratch,
}

impl Built {
    pub fn folder(&self) -> PathBuf {
        self.scratch.path().join(BOX)
    }
}

/// The start of the names of the folders that boxes are built in.
const SCRATCH: &str = "stead-build-";
/// In such a folder: where the tools work, and the box.
const WORK: &str = "work";
const BOX: &str = "box";

/// Returns the folder in which builds make their own. It is not in the home folder: other users of the user namespace
/// could not enter it.
fn base() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// Returns the folders that killed builds left.
pub(super) fn leftovers() -> Vec<PathBuf> {
    scratch::abandoned(&base(), SCRATCH)
}

/// Programs that building needs beside those of the recipe's tool, with the Debian package of each.
const PROGRAMS: [(&str, &str); 6] = [
    ("bash", "bash"),
    ("mke2fs", "e2fsprogs"),
    ("qemu-img", "qemu-utils"),
    ("tar", "tar"),
    ("unshare", "util-linux"),
    ("sfdisk", "fdisk"),
];

/// Time of all files in the box, in seconds since 1970, unless SOURCE_DATE_EPOCH is set
/// (reproducible-builds.org/specs/source-date-epoch): 2025-01-01.
const DATE: &str = "1735689600";

/// Builds the box of a recipe in a new folder. `recipe` is a folder, or the name of a built-in recipe. The
/// output of all tools goes to `log`. Folders that killed builds left are removed before.
#[expect(
    clippy::disallowed_methods,
    reason = "a log: a part of it is worth keeping"
)]
pub fn build(
    recipe: &str,
    log: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Built, BoxError> {
    for folder in leftovers() {
        // It takes space, but this build does not need it gone.
        let _ = scratch::remove_abandoned(&folder);
    }
    let base = base();
    let scratch =
        Scratch::new(&base, SCRATCH).map_err(BoxError::io("create a folder in", &base))?;
    let (work, out) = (scratch.path().join(WORK), scratch.path().join(BOX));
    for folder in [&work, &out] {
        fs::create_dir(folder).map_err(BoxError::io("create", folder))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
            .map_err(BoxError::io("write in", folder))?;
    }
    let recipe = open_recipe(recipe, &work.join("recipe"))?;
    for (program, package) in programs(&recipe) {
        if find_system(program).is_none() {
            return Err(BoxError::MissingTool {
                name: recipe.name.clone(),
                program: program.to_string(),
                package,
            });
        }
    }
    let keys = bootstrap::read_keys(&recipe)?;
    File::create(log).map_err(BoxError::io("write", log))?;
    let mut builder = Builder {
        recipe: &recipe,
        work: &work,
        log,
        date: std::env::var("SOURCE_DATE_EPOCH").unwrap_or_else(|_| DATE.into()),
        progress,
    };
    builder.packages(&keys)?;
    builder.image()?;
    builder.convert(&out)?;
    builder.manifest(&out)?;
    // It is as large as the box. What cannot be removed now is removed with the rest.
    let _ = fs::remove_dir_all(&work);
    Ok(Built { scratch })
}

fn open_recipe(reference: &str, unpacked: &Path) -> Result<Recipe, BoxError> {
    let folder = Path::new(reference);
    if Recipe::is_recipe(folder) {
        return Recipe::read(folder);
    }
    match recipe::unpack(reference, unpacked) {
        Some(result) => {
            result.map_err(BoxError::io("write in", unpacked))?;
            Recipe::read(unpacked)
        }
        None => Err(BoxError::Recipe {
            recipe: address::shown(reference).into_owned(),
            message: format!(
                "it is neither a folder with a recipe.kdl nor a built-in recipe ({})",
                recipe::embedded_names().join(", ")
            ),
        }),
    }
}

fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:{}", SYSTEM_FOLDERS.join(":"))
}

fn programs(recipe: &Recipe) -> impl Iterator<Item = (&'static str, &'static str)> {
    (bootstrap::programs(recipe.tool).iter())
        .chain(&PROGRAMS)
        .copied()
}

/// The variables by which tools find the user's proxies.
const PROXIES: [&str; 7] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

struct Builder<'a> {
    recipe: &'a Recipe,
    work: &'a Path,
    log: &'a Path,
    date: String,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Builder<'_> {
    /// Returns one of [`programs`], to which the caller adds the arguments.
    fn command(&self, program: &'static str) -> Command {
        let package = programs(self.recipe)
            .find(|(name, _)| *name == program)
            .map_or(program, |(_, package)| package);
        Command::new(program, package)
            // It has the user's proxies.
            .environment(Environment::Whole)
            .env("SOURCE_DATE_EPOCH", &self.date)
            .env("PATH", search_path())
            .env("LC_ALL", "C.UTF-8")
            .env("TMPDIR", self.work)
            .folder(self.work)
            .limits(Limits::WORK)
    }

    /// Runs a tool and appends its output to the log.
    fn run(&mut self, phase: Phase, command: Command) -> Result<(), BoxError> {
        (self.progress)(Progress::Phase(phase));
        let writing = |error: io::Error| BoxError::io("write", self.log)(error);
        let mut log = File::options()
            .append(true)
            .open(self.log)
            .map_err(writing)?;
        writeln!(log, "$ {command}").map_err(writing)?;
        let mut written = Ok(());
        let status = command.run_lines(&mut |_, line| {
            if written.is_ok() {
                written = writeln!(log, "{line}");
            }
            (self.progress)(Progress::Line(line));
        })?;
        written.map_err(writing)?;
        if status.success() {
            return Ok(());
        }
        let text = fs::read(self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        Err(BoxError::Build {
            name: self.recipe.name.clone(),
            phase: phase.to_string(),
            end: lines[lines.len().saturating_sub(12)..].join("\n"),
            log: self.log.shown(),
        })
    }

    fn packages(&mut self, keys: &[AcceptedKeys]) -> Result<(), BoxError> {
        let overlay = self.work.join("overlay");
        let customize = self.work.join("customize.sh");
        let prepare = || -> io::Result<()> {
            fs::create_dir_all(&overlay)?;
            // A recipe may be a stranger's, and a symlink lead to files that are none of its business.
            let folder = self.recipe.folder.canonicalize()?;
            let files = folder.join("files");
            if files.is_dir() {
                let found = files.canonicalize()?;
                if !found.starts_with(&folder) {
                    return Err(at(&files)(open::leads_out(&found, &folder)));
                }
                copy_tree(&files, &overlay, &folder)?;
            }
            recipe::write_guest_files(self.recipe, &overlay)?;
            let script = folder.join("customize.sh");
            let script = if script.symlink_metadata().is_ok() {
                open::text_within(&script, SCRIPT, &folder).map_err(at(&script))?
            } else {
                "#!/bin/sh\n".into()
            };
            recipe::write(&customize, script.as_bytes(), true)
        };
        prepare().map_err(BoxError::io("prepare", self.work))?;
        let command = match self.recipe.tool {
            Tool::Mmdebstrap => self.mmdebstrap(&overlay, &customize),
            tool => self.bootstrap(tool, keys)?,
        };
        self.run(Phase::Packages, command)
    }

    fn mmdebstrap(&self, overlay: &Path, customize: &Path) -> Command {
        let arguments = bootstrap::mmdebstrap_arguments(
            self.recipe,
            &Prepared {
                overlay,
                customize,
                date: &self.date,
                out: &self.work.join("root.tar"),
            },
        );
        self.command("mmdebstrap").args(arguments)
    }

    /// Returns the command of the script that prepares what mmdebstrap prepares by itself.
    fn bootstrap(&self, tool: Tool, keys: &[AcceptedKeys]) -> Result<Command, BoxError> {
        for setting in bootstrap::settings(self.recipe, keys)? {
            let path = self.work.join("etc").join(&setting.path);
            recipe::write(&path, &setting.content, false).map_err(BoxError::io("write", &path))?;
        }
        let lines = self.recipe.packages.join("\n");
        let script = self.work.join("bootstrap.sh");
        for (path, content) in [
            (&script, recipe::BOOTSTRAP),
            (&self.work.join("packages"), &format!("{lines}\n")),
            (
                &self.work.join("releasever"),
                &format!("{}\n", self.recipe.release),
            ),
        ] {
            recipe::write(path, content.as_bytes(), false).map_err(BoxError::io("write", path))?;
        }
        let mut command = (self.command("unshare"))
            // The tool and what it runs get nothing of the user's, except for the way to servers.
            .environment(Environment::Plain)
            .without("XDG_")
            .env("HOME", "/root")
            .env("TMPDIR", "/tmp");
        for name in PROXIES {
            if let Some(value) = std::env::var_os(name) {
                command = command.env(name, value);
            }
        }
        if !nix::unistd::geteuid().is_root() {
            command = command.args(["--user", "--map-auto", "--map-root-user"]);
        }
        Ok(command
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--ipc",
                "--uts",
                "bash",
            ])
            .arg(script)
            .arg(tool.to_string())
            .arg(self.work))
    }

    fn image(&mut self) -> Result<(), BoxError> {
        let script = self.work.join("assemble.sh");
        recipe::write(&script, recipe::ASSEMBLE.as_bytes(), true)
            .map_err(BoxError::io("write", &script))?;
        // Files must get the owners that the tar lists. Root can set them, another user only inside a user
        // namespace.
        let command = if nix::unistd::geteuid().is_root() {
            self.command("bash")
        } else {
            (self.command("unshare")).args(["--map-auto", "--map-root-user", "bash"])
        };
        let boot = if self.recipe.cmdline.is_some() {
            "direct"
        } else {
            "bootloader"
        };
        let command = command
            .arg(&script)
            .arg(self.work)
            .arg(boot)
            .arg(self.recipe.disk.to_string())
            .arg(self.file_system_uuid().to_string());
        self.run(Phase::Image, command)
    }

    /// Derived from the recipe's name, so that two builds can be compared.
    fn file_system_uuid(&self) -> uuid::Uuid {
        uuid::Uuid::new_v5(
            &uuid::Uuid::NAMESPACE_URL,
            format!("stead box {}", self.recipe.name).as_bytes(),
        )
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "in a temporary folder, whose files are moved into place later"
    )]
    fn convert(&mut self, out: &Path) -> Result<(), BoxError> {
        let command = (self.command("qemu-img"))
            .args(["convert", "-f", "raw", "-O", "qcow2", "-o", "compat=1.1"])
            .arg(self.work.join("disk.raw"))
            .arg(out.join("disk.qcow2"));
        self.run(Phase::Convert, command)?;
        if self.recipe.cmdline.is_some() {
            for name in ["vmlinuz", "initrd.img"] {
                fs::copy(self.work.join(name), out.join(name))
                    .map_err(BoxError::io("copy", self.work.join(name)))?;
            }
        }
        Ok(())
    }

    fn manifest(&mut self, out: &Path) -> Result<(), BoxError> {
        (self.progress)(Progress::Phase(Phase::Hash));
        let word = |name: &str| -> Result<String, BoxError> {
            let path = self.work.join(name);
            let text = fs::read_to_string(&path).map_err(BoxError::io("read", &path))?;
            Ok(text.lines().last().unwrap_or_default().trim().to_string())
        };
        let disk = out.join("disk.qcow2");
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            name: self.recipe.name.clone(),
            version: word("version")?,
            arch: std::env::consts::ARCH.to_string(),
            disk: Disk {
                virtual_size: File::open(&disk)
                    .and_then(|file| qcow2::virtual_size(&file))
                    .map_err(BoxError::io("read", &disk))?,
                file: entry(out, "disk.qcow2")?,
                format: Recipe::DISK_FORMAT,
            },
            more_disks: Vec::new(),
            boot: match &self.recipe.cmdline {
                Some(cmdline) => Boot::Direct {
                    kernel: entry(out, "vmlinuz")?,
                    kernel_release: word("release")?,
                    initrd: Some(entry(out, "initrd.img")?),
                    cmdline: cmdline.clone(),
                },
                None => Boot::Bootloader { firmware: None },
            },
            seed: self.recipe.seed,
            login_user: self.recipe.login_user.clone(),
            labels: Default::default(),
            parent: None,
        };
        let path = out.join(MANIFEST);
        file::replace(&path, &manifest.to_bytes()?, file::PRIVATE)
            .map_err(BoxError::io("write", &path))
    }
}

pub(super) fn entry(folder: &Path, name: &str) -> Result<FileEntry, BoxError> {
    let path = folder.join(name);
    let hash = || -> io::Result<FileEntry> {
        let mut file = File::open(&path)?;
        let (sha256, size) = sha256_of_stream(&mut file)?;
        Ok(FileEntry {
            name: name.to_string(),
            size,
            sha256,
        })
    };
    hash().map_err(BoxError::io("read", &path))
}

#[expect(
    clippy::disallowed_methods,
    reason = "in a temporary folder, whose files are moved into place later"
)]
/// Copies a folder's content. Symlinks in it are copied as they are.
///
/// # Errors
/// Also if a file was replaced by a symlink that leads out of `root`, or is no regular file.
fn copy_tree(from: &Path, to: &Path, root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir_all(&target)?;
            copy_tree(&entry.path(), &target, root)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            let path = entry.path();
            let mut source = open::file_within(&path, root).map_err(at(&path))?;
            io::copy(&mut source, &mut File::create(&target)?).map_err(at(&path))?;
            // Do not depend on the umask with which the recipe was checked out.
            let program = source.metadata()?.permissions().mode() & 0o100 != 0;
            fs::set_permissions(
                &target,
                fs::Permissions::from_mode(if program { 0o755 } else { 0o644 }),
            )?;
        }
    }
    Ok(())
}

/// Names the file of an error.
fn at(path: &Path) -> impl Fn(io::Error) -> io::Error {
    let path = path.shown().to_string();
    move |error| io::Error::new(error.kind(), format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_nothing_of_other_folders() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        for folder in ["recipe/files/etc", "out"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let recipe = root.join("recipe");
        fs::write(recipe.join("files/etc/it"), "it").unwrap();
        let out = root.join("out");
        copy_tree(&recipe.join("files"), &out, &recipe).unwrap();
        assert_eq!(fs::read(out.join("etc/it")).unwrap(), b"it");
        // Reached by a symlink above it.
        let error = copy_tree(&recipe.join("files"), &out, &root.join("other")).unwrap_err();
        assert!(error.to_string().contains("which is not in"), "{error}");
        nix::unistd::mkfifo(&recipe.join("files/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = copy_tree(&recipe.join("files"), &out, &recipe).unwrap_err();
        assert!(error.to_string().contains("it is a pipe"), "{error}");
    }
}
