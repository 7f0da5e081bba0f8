//! Builds a box from a distribution's packages as an ordinary user: mmdebstrap installs them, mke2fs and
//! qemu-img make the disk. This needs no root, no loop device and no mount.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    host::{
        address,
        digest::sha256_of_stream,
        file,
        process::{SYSTEM_FOLDERS, Start, find_system},
    },
    report::clean::Shown,
    store::FileEntry,
};

use super::{
    error::BoxError,
    manifest::{Boot, Disk, FORMAT_VERSION, MANIFEST, Manifest},
    qcow2,
    recipe::{self, Recipe},
};

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

/// A box folder, removed when dropped.
pub struct Built {
    folder: tempfile::TempDir,
}

impl Built {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Programs that building needs, with the Debian package of each.
const TOOLS: [(&str, &str); 6] = [
    ("mmdebstrap", "mmdebstrap"),
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
/// output of all tools goes to `log`.
#[expect(
    clippy::disallowed_methods,
    reason = "a log: a part of it is worth keeping"
)]
pub fn build(recipe: &str, log: &Path, phase: &mut dyn FnMut(Phase)) -> Result<Built, BoxError> {
    // Not in the home folder: other users of the user namespace could not enter it.
    let base = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let work = tempfile::Builder::new()
        .prefix("stead-build-")
        .tempdir_in(&base)
        .map_err(BoxError::io("create a folder in", &base))?;
    let writing = |error: io::Error| BoxError::io("write in", work.path())(error);
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755)).map_err(writing)?;
    let recipe = open_recipe(recipe, &work.path().join("recipe"))?;
    for (program, package) in TOOLS {
        if find_system(program).is_none() {
            return Err(BoxError::MissingTool {
                name: recipe.name.clone(),
                program: program.to_string(),
                package,
            });
        }
    }
    let builder = Builder {
        recipe: &recipe,
        work: work.path(),
        log,
        date: std::env::var("SOURCE_DATE_EPOCH").unwrap_or_else(|_| DATE.into()),
    };
    File::create(log).map_err(BoxError::io("write", log))?;
    phase(Phase::Packages);
    builder.packages()?;
    phase(Phase::Image);
    builder.image()?;
    phase(Phase::Convert);
    let out = tempfile::Builder::new()
        .prefix("stead-box-")
        .tempdir_in(&base)
        .map_err(BoxError::io("create a folder in", &base))?;
    builder.convert(out.path())?;
    phase(Phase::Hash);
    builder.manifest(out.path())?;
    Ok(Built { folder: out })
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

struct Builder<'a> {
    recipe: &'a Recipe,
    work: &'a Path,
    log: &'a Path,
    date: String,
}

impl Builder<'_> {
    #[expect(
        clippy::disallowed_methods,
        reason = "its output goes to a log, which people follow"
    )]
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("SOURCE_DATE_EPOCH", &self.date)
            .env("PATH", search_path())
            .env("LC_ALL", "C.UTF-8")
            .env("TMPDIR", self.work)
            .current_dir(self.work)
            .stdin(Stdio::null());
        command
    }

    /// Runs a tool and appends its output to the log.
    fn run(&self, phase: Phase, mut command: Command) -> Result<(), BoxError> {
        let open = || {
            let mut log = File::options().append(true).open(self.log)?;
            writeln!(log, "$ {command:?}")?;
            Ok((log.try_clone()?, log))
        };
        let (out, err) = open().map_err(BoxError::io("write", self.log))?;
        let status = command
            .stdout(out)
            .stderr(err)
            .start()
            .and_then(|mut child| child.wait())
            .map_err(BoxError::io("run", command.get_program()))?;
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

    fn packages(&self) -> Result<(), BoxError> {
        let overlay = self.work.join("overlay");
        let customize = self.work.join("customize.sh");
        let prepare = || -> io::Result<()> {
            fs::create_dir_all(&overlay)?;
            let files = self.recipe.folder.join("files");
            if files.is_dir() {
                copy_tree(&files, &overlay)?;
            }
            recipe::write_guest_files(self.recipe, &overlay)?;
            let script = self.recipe.folder.join("customize.sh");
            let script = if script.is_file() {
                fs::read_to_string(script)?
            } else {
                "#!/bin/sh\n".into()
            };
            recipe::write(&customize, &script, true)
        };
        prepare().map_err(BoxError::io("prepare", self.work))?;
        let shell = |path: &Path| crate::host::shell::shell_quote(&path.to_string_lossy());
        let mut command = self.command("mmdebstrap");
        command
            .args(["--variant=apt", "--format=tar"])
            .arg(format!("--include={}", self.recipe.packages.join(",")))
            .args([
                "--aptopt=APT::Install-Recommends \"false\"",
                "--aptopt=Acquire::Languages \"none\"",
                "--dpkgopt=path-exclude=/usr/share/man/*",
                "--dpkgopt=path-exclude=/usr/share/locale/*",
                "--dpkgopt=path-exclude=/usr/share/doc/*",
                "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            ])
            // This hook runs before the recipe's packages are installed, so that their scripts find the overlay's
            // settings.
            .arg(format!(
                "--essential-hook=tar -C {} --owner=0 --group=0 --mtime=@{} --sort=name -c . | tar -C \"$1\" --no-overwrite-dir --keep-directory-symlink -x",
                shell(&overlay),
                self.date
            ))
            .arg(format!("--customize-hook=upload {} /customize.sh", shell(&customize)))
            .arg("--customize-hook=chroot \"$1\" sh /customize.sh")
            .arg("--customize-hook=rm \"$1/customize.sh\"")
            .arg("--")
            .arg(&self.recipe.suite)
            .arg(self.work.join("root.tar"));
        self.run(Phase::Packages, command)
    }

    fn image(&self) -> Result<(), BoxError> {
        let script = self.work.join("assemble.sh");
        recipe::write(&script, recipe::ASSEMBLE, true).map_err(BoxError::io("write", &script))?;
        // Files must get the owners that the tar lists. Root can set them, another user only inside a user
        // namespace.
        let mut command = if nix::unistd::geteuid().is_root() {
            self.command("bash")
        } else {
            let mut command = self.command("unshare");
            command.args(["--map-auto", "--map-root-user", "bash"]);
            command
        };
        let boot = if self.recipe.cmdline.is_some() {
            "direct"
        } else {
            "bootloader"
        };
        command
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
    fn convert(&self, out: &Path) -> Result<(), BoxError> {
        let mut command = self.command("qemu-img");
        command
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

    fn manifest(&self, out: &Path) -> Result<(), BoxError> {
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
                None => Boot::Bootloader {},
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
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir_all(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            // Do not depend on the umask with which the recipe was checked out.
            let program = entry.metadata()?.permissions().mode() & 0o100 != 0;
            fs::set_permissions(
                &target,
                fs::Permissions::from_mode(if program { 0o755 } else { 0o644 }),
            )?;
        }
    }
    Ok(())
}
