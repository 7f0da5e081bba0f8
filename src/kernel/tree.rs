//! Finds the files of a kernel on the host, and completes its module tree.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use crate::{
    host::{
        confine::{Access, Confined, ConfinedOutput, Limits, RunEnd},
        names::check_release,
        open,
    },
    packages::Unpacked,
    report::clean::Shown,
    unpack::decompress_xz,
};

use super::{
    error::KernelError,
    image::{HEAD, Image, identify},
};

/// The files of a kernel on this host. Their paths have no symlinks.
#[derive(Clone, Debug)]
pub struct KernelFiles {
    pub image_path: PathBuf,
    pub image: Image,
    pub release: String,
    pub config: Option<PathBuf>,
    pub system_map: Option<PathBuf>,
    pub modules: Option<Modules>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modules {
    /// `…/lib/modules/RELEASE`.
    Installed(PathBuf),
    /// The folder of a build, with modules where they were compiled.
    Build(PathBuf),
}

/// A file of a module tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TreeFile {
    /// Path below `lib/modules/RELEASE`.
    pub name: String,
    pub path: PathBuf,
    /// Links may lead only to files in this folder.
    root: PathBuf,
}

impl TreeFile {
    /// Opens the file.
    ///
    /// # Errors
    /// If it cannot be read, or if it is a link that leads out of the tree: a tree may be a project's, and its
    /// files go into a guest.
    pub(super) fn open(&self) -> io::Result<File> {
        open_within(&self.path, &self.root)
    }
}

/// Returns the folder that a tree's links may lead to: those of EL's weak-updates lead to the trees of other
/// releases.
fn root_of(tree: &Path) -> &Path {
    match tree.parent() {
        Some(above) if above.file_name() == Some(OsStr::new("modules")) => above,
        _ => tree,
    }
}

/// Stores of distributions whose trees consist of links; everybody may read the files there.
const STORES: [&str; 2] = ["/nix/store", "/gnu/store"];

fn open_within(path: &Path, root: &Path) -> io::Result<File> {
    let inside = open::file_within(path, root);
    inside.or_else(|error| {
        let mut stores = STORES.iter().map(Path::new);
        stores
            .find_map(|store| open::file_within(path, store).ok())
            .ok_or(error)
    })
}

/// Returns the path of a kernel's image in its source tree, by architecture as in `uname -m`.
fn image_in_build(arch: &str) -> &'static str {
    match arch {
        "aarch64" => "arch/arm64/boot/Image",
        "riscv64" => "arch/riscv/boot/Image",
        _ => "arch/x86/boot/bzImage",
    }
}

/// Finds a kernel's files from the path of an image, of a build's folder, or of
/// `…/lib/modules/RELEASE`. `modules` and `config` have priority over files beside the image.
///
/// # Errors
/// If there is no image, if it is not for `arch`, or if the modules are of another release.
pub fn locate(
    path: &Path,
    modules: Option<&Path>,
    config: Option<&Path>,
    arch: &str,
) -> Result<KernelFiles, KernelError> {
    let metadata = fs::metadata(path).map_err(KernelError::io("open", path))?;
    let in_build = image_in_build(arch);
    let (image_path, build) = if metadata.is_dir() {
        if path.join("vmlinuz").is_file() {
            (path.join("vmlinuz"), None)
        } else if path.join(in_build).is_file() {
            (path.join(in_build), Some(path.to_path_buf()))
        } else {
            return Err(KernelError::NoImage {
                folder: path.to_path_buf(),
                missing: in_build.to_string(),
            });
        }
    } else {
        let build = path
            .ends_with(in_build)
            .then(|| path.ancestors().nth(in_build.split('/').count()))
            .flatten()
            .filter(|root| root.join("Kconfig").is_file() || root.join(".config").is_file())
            .map(Path::to_path_buf);
        (path.to_path_buf(), build)
    };
    let image = read_image(&image_path, arch)?;
    let said = image.release.clone().or_else(|| {
        let file = build.as_ref()?.join("include/config/kernel.release");
        Some(open::text(&file, 4096).ok()?.trim().to_string())
    });
    let folder = image_path.parent().unwrap_or(Path::new("."));
    let by_name = image_path
        .file_name()
        .and_then(OsStr::to_str)
        .and_then(|name| name.split_once('-'))
        .map(|(_, release)| release.to_string())
        .filter(|release| check_release(release).is_ok());
    let release = said.or(by_name).or_else(|| {
        let tree = modules?;
        tree.file_name().and_then(OsStr::to_str).map(str::to_string)
    });
    let Some(release) = release.filter(|release| check_release(release).is_ok()) else {
        return Err(KernelError::NoRelease { path: image_path });
    };

    let first = |candidates: Vec<PathBuf>| candidates.into_iter().find(|path| path.exists());
    let beside = |name: &str| folder.join(format!("{name}-{release}"));
    let config = match (config, &build) {
        (Some(config), _) => Some(config.to_path_buf()),
        (None, Some(build)) => first(vec![build.join(".config")]),
        (None, None) => first(vec![beside("config"), folder.join("config")]),
    };
    let system_map = match &build {
        Some(build) => first(vec![build.join("System.map")]),
        None => first(vec![beside("System.map"), folder.join("System.map")]),
    };
    let modules = match (modules, build) {
        (Some(given), _) => {
            Some(
                installed(given, &release).ok_or_else(|| KernelError::NoModules {
                    tree: given.to_path_buf(),
                })?,
            )
        }
        (None, Some(build)) => Some(Modules::Build(build)),
        (None, None) => {
            let root = folder.parent().unwrap_or(folder);
            [folder, root, &root.join("usr")]
                .into_iter()
                .find_map(|place| installed(place, &release))
                // Only a folder of that release, not any folder with a `kernel` in it.
                .filter(|modules| match modules {
                    Modules::Installed(tree) => tree.ends_with(&release),
                    Modules::Build(_) => false,
                })
        }
    };
    if let Some(Modules::Installed(tree)) = &modules
        && let Some(found) = release_of_tree(tree, &release)?
    {
        return Err(KernelError::OtherModules {
            tree: tree.clone(),
            found,
            image: image_path,
            wanted: release,
        });
    }
    KernelFiles {
        image_path,
        image,
        release,
        config,
        system_map,
        modules,
    }
    .where_they_are()
}

impl KernelFiles {
    /// The kernel of an unpacked package, for `arch` (as in `uname -m`).
    ///
    /// # Errors
    /// If its image is not a kernel for `arch`, or a file cannot be found.
    pub fn of_package(unpacked: Unpacked, arch: &str) -> Result<Self, KernelError> {
        KernelFiles {
            image: read_image(&unpacked.image, arch)?,
            image_path: unpacked.image,
            release: unpacked.release,
            config: unpacked.config,
            system_map: unpacked.system_map,
            modules: unpacked.modules.map(Modules::Installed),
        }
        .where_they_are()
    }

    /// Resolves the symlinks of its paths: what a path leads to later is another file.
    fn where_they_are(self) -> Result<Self, KernelError> {
        let real = |path: PathBuf| path.canonicalize().map_err(KernelError::io("open", path));
        Ok(KernelFiles {
            image_path: real(self.image_path)?,
            config: self.config.map(real).transpose()?,
            system_map: self.system_map.map(real).transpose()?,
            modules: match self.modules {
                Some(Modules::Installed(tree)) => Some(Modules::Installed(real(tree)?)),
                Some(Modules::Build(build)) => Some(Modules::Build(real(build)?)),
                None => None,
            },
            ..self
        })
    }

    /// Fails where one of its files is in none of these folders: files beside an image are found by their
    /// names, which may be links to anything.
    ///
    /// # Errors
    /// `LeadsOut`.
    pub fn check_within(&self, places: &[PathBuf]) -> Result<(), KernelError> {
        let tree = (self.modules.as_ref()).map(|modules| match modules {
            Modules::Installed(tree) | Modules::Build(tree) => tree,
        });
        let files = [self.config.as_ref(), self.system_map.as_ref(), tree];
        for path in [Some(&self.image_path)].into_iter().chain(files).flatten() {
            if !places.iter().any(|place| path.starts_with(place)) {
                return Err(KernelError::LeadsOut { path: path.clone() });
            }
        }
        Ok(())
    }
}

/// Recognises an image, and checks that it is for `arch`.
pub fn read_image(path: &Path, arch: &str) -> Result<Image, KernelError> {
    let mut head = Vec::new();
    open::file(path)
        .and_then(|file| file.take(HEAD as u64).read_to_end(&mut head))
        .map_err(KernelError::io("read", path))?;
    let image = identify(&head).map_err(|why| KernelError::NotAnImage {
        path: path.to_path_buf(),
        remedy: why.remedy(path),
        why,
    })?;
    if image.arch != arch {
        return Err(KernelError::WrongArch {
            path: path.to_path_buf(),
            found: image.arch.to_string(),
            wanted: arch.to_string(),
        });
    }
    Ok(image)
}

/// Returns the module tree that a folder is or contains, without symlinks.
fn installed(folder: &Path, release: &str) -> Option<Modules> {
    let is_tree = |tree: &PathBuf| {
        tree.join("modules.dep").is_file()
            || tree.join("modules.order").is_file()
            || tree.join("kernel").is_dir()
    };
    [
        folder.to_path_buf(),
        folder.join("lib/modules").join(release),
        folder.join("usr/lib/modules").join(release),
    ]
    .into_iter()
    .find(is_tree)
    .and_then(|tree| tree.canonicalize().ok())
    .map(Modules::Installed)
}

/// Returns the release of a tree's modules if it is not `wanted`.
fn release_of_tree(tree: &Path, wanted: &str) -> Result<Option<String>, KernelError> {
    let mut files = Vec::new();
    walk(tree, Path::new(""), &mut files)?;
    let Some(module) = files.iter().find(|file| is_module(&file.name)) else {
        return Ok(None);
    };
    let magic = vermagic(&module_of(&module.path, module.open())?);
    Ok(magic.filter(|release| release != wanted))
}

/// Returns the release in a module's `vermagic=` (MODULE_INFO, include/linux/vermagic.h).
fn vermagic(module: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"vermagic=";
    let at = module.windows(KEY.len()).position(|window| window == KEY)?;
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|byte| *byte == b' ' || *byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

pub(super) fn is_module(name: &str) -> bool {
    [".ko", ".ko.xz", ".ko.gz", ".ko.zst"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

/// Largest module that is read, in bytes: drivers of GPUs have some 100 MB with debugging information.
const LARGEST_MODULE: u64 = 256 << 20;

/// Reads a module of a tree; returns its uncompressed bytes.
pub(super) fn read_module(tree: &Path, name: &str) -> Result<Vec<u8>, KernelError> {
    let path = tree.join(name);
    module_of(&path, open_within(&path, root_of(tree)))
}

fn module_of(path: &Path, file: io::Result<File>) -> Result<Vec<u8>, KernelError> {
    let file = file.map_err(KernelError::io("read", path))?;
    let mut bytes = Vec::new();
    let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    let mut reader: Box<dyn Read> = match ending {
        "xz" => Box::new(decompress_xz(file).map_err(KernelError::io("read", path))?),
        "gz" => Box::new(flate2::read::GzDecoder::new(file)),
        "zst" => {
            Box::new(zstd::stream::read::Decoder::new(file).map_err(KernelError::io("read", path))?)
        }
        _ => Box::new(file),
    };
    let bad = |message: String| KernelError::BadModule {
        path: path.to_path_buf(),
        message,
    };
    (&mut reader)
        .take(LARGEST_MODULE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| bad(error.to_string()))?;
    if bytes.len() as u64 > LARGEST_MODULE {
        return Err(bad(format!("it has more than {LARGEST_MODULE} bytes")));
    }
    if !bytes.starts_with(b"\x7fELF") {
        return Err(bad("it is not a kernel module".into()));
    }
    Ok(bytes)
}

/// Returns every file of a module tree, sorted. Links to files (EL's weak-updates) count as these files;
/// dangling links are skipped, and so are `build` and `source`, which a guest does not need.
pub(super) fn files_of(tree: &Path) -> Result<Vec<TreeFile>, KernelError> {
    let mut files = Vec::new();
    walk(tree, Path::new(""), &mut files)?;
    files.sort();
    Ok(files)
}

fn walk(tree: &Path, below: &Path, files: &mut Vec<TreeFile>) -> Result<(), KernelError> {
    let folder = tree.join(below);
    for entry in fs::read_dir(&folder).map_err(KernelError::io("read", &folder))? {
        let entry = entry.map_err(KernelError::io("read", &folder))?;
        let name = below.join(entry.file_name());
        let path = entry.path();
        let kind = entry.file_type().map_err(KernelError::io("read", &path))?;
        if below == Path::new("") && matches!(name.to_str(), Some("build" | "source" | "vmlinuz")) {
            continue;
        }
        if kind.is_dir() {
            walk(tree, &name, files)?;
        } else if kind.is_file() || (kind.is_symlink() && path.is_file()) {
            let Some(name) = name.to_str() else {
                return Err(KernelError::BadModule {
                    path,
                    message: "its name is not UTF-8".into(),
                });
            };
            files.push(TreeFile {
                name: name.to_string(),
                path,
                root: root_of(tree).to_path_buf(),
            });
        }
    }
    Ok(())
}

/// Returns a tree with depmod(8)'s files: the tree itself if it has them, otherwise a copy in `work`. `None`
/// for a build without modules.
#[expect(
    clippy::disallowed_methods,
    reason = "in a temporary folder, whose files are moved into place later"
)]
pub(super) fn complete(
    modules: &Modules,
    release: &str,
    work: &Path,
) -> Result<Option<PathBuf>, KernelError> {
    let copied = match modules {
        Modules::Installed(tree) => {
            if tree.join("modules.dep.bin").is_file() && tree.join("modules.dep").is_file() {
                return Ok(Some(tree.clone()));
            }
            files_of(tree)?
        }
        Modules::Build(build) => built(build)?,
    };
    if !copied.iter().any(|file| is_module(&file.name)) && matches!(modules, Modules::Build(_)) {
        // A kernel with everything built in.
        return Ok(None);
    }
    let tree = work.join("lib/modules").join(release);
    for file in &copied {
        let place = tree.join(&file.name);
        let parent = place.parent().unwrap_or(&tree);
        fs::create_dir_all(parent).map_err(KernelError::io("create", parent))?;
        let read = KernelError::io("read", &file.path);
        let mut content = file.open().map_err(read)?;
        // A link is enough: nothing writes to it.
        if open::link(&content, &place).is_err() {
            File::create_new(&place)
                .and_then(|mut copy| io::copy(&mut content, &mut copy))
                .map_err(KernelError::io("write", &place))?;
        }
    }
    depmod(work, release, &tree)?;
    Ok(Some(tree))
}

/// Returns what `make modules_install` would install: the modules of `modules.order`, where they were
/// compiled, and the lists of built-in modules.
pub(super) fn built(build: &Path) -> Result<Vec<TreeFile>, KernelError> {
    let optional = |name: &str| match fs::read_to_string(build.join(name)) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(KernelError::io("read", build.join(name))(error)),
    };
    let mut files = Vec::new();
    for line in optional("modules.order")?.lines() {
        // Objects (`.o`) since Linux 6.2, modules (`.ko`) before that.
        let name = match line.trim() {
            "" => continue,
            name => name
                .strip_suffix(".o")
                .map_or_else(|| name.to_string(), |name| format!("{name}.ko")),
        };
        let name = name.strip_prefix("kernel/").unwrap_or(&name).to_string();
        let path = build.join(&name);
        // The name becomes a path in the build and in the guest's tree.
        if !(Path::new(&name).components()).all(|part| matches!(part, Component::Normal(_))) {
            return Err(KernelError::BadModule {
                path: build.join("modules.order"),
                message: format!("{name:?} is not the path of a module in this folder"),
            });
        }
        if path.is_file() {
            files.push(TreeFile {
                name: format!("kernel/{name}"),
                path,
                root: build.to_path_buf(),
            });
        }
    }
    for name in [
        "modules.order",
        "modules.builtin",
        "modules.builtin.modinfo",
    ] {
        let path = build.join(name);
        if path.is_file() {
            files.push(TreeFile {
                name: name.to_string(),
                path,
                root: build.to_path_buf(),
            });
        }
    }
    Ok(files)
}

/// Writes the files that modprobe(8) reads.
fn depmod(base: &Path, release: &str, tree: &Path) -> Result<(), KernelError> {
    const PROGRAM: &str = "depmod";
    let folder = File::open(base).map_err(KernelError::io("open", base))?;
    // depmod parses foreign modules, so it is confined.
    let run = || -> io::Result<(ConfinedOutput, String)> {
        let mut depmod = Confined::new(PROGRAM, DEPMOD_LIMITS)?;
        let given = depmod.give(&folder, Access::Folder)?;
        depmod.arg("-b").arg(&given).arg(release);
        Ok((depmod.run(Some(&folder))?, given))
    };
    match run() {
        Ok((ran, _)) if ran.ended == RunEnd::Exit(0) => Ok(()),
        Ok((ran, given)) => Err(KernelError::Depmod {
            tree: tree.to_path_buf(),
            said: ran.why(PROGRAM, &[(given, base.shown())]),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KernelError::NoDepmod {
            tree: tree.to_path_buf(),
        }),
        Err(error) => Err(KernelError::io("run", PROGRAM)(error)),
    }
}

/// The largest trees take it some 10 s and 200 MB.
const DEPMOD_LIMITS: Limits = Limits {
    memory: 2 << 30,
    cpu: 300,
    file: 1 << 30,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::image::tests::bz_image;

    fn write(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn module(release: &str) -> Vec<u8> {
        format!("\x7fELF....vermagic={release} SMP mod_unload \0").into_bytes()
    }

    #[test]
    fn what_lies_beside_an_image_is_found() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        write(&at("boot/vmlinuz-6.1.0-1"), &bz_image("6.1.0-1 (a@b) #1"));
        write(&at("boot/config-6.1.0-1"), b"CONFIG_A=y\n");
        write(&at("lib/modules/6.1.0-1/kernel/a.ko"), &module("6.1.0-1"));
        let found = locate(&at("boot/vmlinuz-6.1.0-1"), None, None, "x86_64").unwrap();
        assert_eq!(found.release, "6.1.0-1");
        assert_eq!(found.config, Some(at("boot/config-6.1.0-1")));
        assert_eq!(
            found.modules,
            Some(Modules::Installed(at("lib/modules/6.1.0-1")))
        );
    }

    #[test]
    fn a_package_in_a_folder_behind_a_symlink_is_imported() {
        use crate::{
            host::paths::DataDir,
            kernel::{KernelStore, Provenance, Title},
        };
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        fs::create_dir(at("disk")).unwrap();
        std::os::unix::fs::symlink("disk", at("home")).unwrap();
        write(&at("disk/vmlinuz"), &bz_image("6.1.0-1 (a@b) #1"));
        write(&at("disk/config"), b"CONFIG_A=y\n");
        let files = KernelFiles::of_package(
            Unpacked {
                release: "6.1.0-1".into(),
                image: at("home/vmlinuz"),
                config: Some(at("home/config")),
                system_map: None,
                modules: None,
            },
            "x86_64",
        )
        .unwrap();
        let store = KernelStore::open(&DataDir::at(at("home/stead")));
        let title = Title {
            name: "a",
            from: Provenance::Host {},
            facts: None,
        };
        assert!(store.add(&files, &title).unwrap().manifest.config.is_some());
    }

    #[test]
    fn modules_of_another_release_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        write(&at("vmlinuz"), &bz_image("6.1.0-1 (a@b) #1"));
        write(&at("m/kernel/a.ko"), &module("6.1.0-2"));
        let error = locate(&at("vmlinuz"), Some(&at("m")), None, "x86_64").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("are for 6.1.0-2, but the kernel"),
            "{error}"
        );
        let error = locate(&at("vmlinuz"), Some(&at("none")), None, "x86_64").unwrap_err();
        assert!(error.to_string().contains("contains no kernel modules"));
    }

    /// A project's tree is not trusted, and its files go into a guest.
    #[test]
    fn nothing_outside_of_a_tree_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        write(&at("secret"), b"a key\n");
        write(&at("p/vmlinuz-6.1.0-1"), &bz_image("6.1.0-1 (a@b) #1"));
        write(&at("p/m/kernel/a.ko"), &module("6.1.0-1"));
        write(&at("p/m/kernel/b.ko"), &module("6.1.0-1"));
        std::os::unix::fs::symlink("b.ko", at("p/m/kernel/within.ko")).unwrap();
        std::os::unix::fs::symlink("../../secret", at("p/m/out")).unwrap();
        let files = files_of(&at("p/m")).unwrap();
        for file in &files {
            let opened = file.open();
            assert_eq!(opened.is_ok(), file.name != "out", "{file:?} {opened:?}");
        }
        assert!(read_module(&at("p/m"), "../../secret").is_err());
        let work = at("work");
        let tree = Modules::Installed(at("p/m"));
        let error = complete(&tree, "6.1.0-1", &work).unwrap_err();
        assert!(error.to_string().contains("out"), "{error}");
        let out = at("out.squashfs");
        assert!(crate::kernel::squash::write(&files, &out).is_err());

        // Beside an image, by links.
        fs::remove_file(at("p/m/out")).unwrap();
        fs::rename(at("p/m"), at("m")).unwrap();
        std::os::unix::fs::symlink("../m", at("p/m")).unwrap();
        let found = locate(&at("p/vmlinuz-6.1.0-1"), Some(&at("p/m")), None, "x86_64").unwrap();
        let error = found.check_within(&[at("p")]).unwrap_err();
        assert!(matches!(error, KernelError::LeadsOut { .. }), "{error}");
        found.check_within(&[at("p"), at("m")]).unwrap();
    }

    #[test]
    fn a_build_names_its_own_modules() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        write(&at("secret"), b"a key\n");
        fs::create_dir(at("build")).unwrap();
        for line in ["../secret", "/etc/passwd", "kernel/../../secret"] {
            write(&at("build/modules.order"), line.as_bytes());
            let error = built(&at("build")).unwrap_err();
            assert!(error.to_string().contains("modules.order"), "{error}");
        }
    }

    #[test]
    fn a_build_is_taken_as_it_stands() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        write(
            &at("arch/x86/boot/bzImage"),
            &bz_image("6.9.0-me+ (a@b) #2"),
        );
        write(&at(".config"), b"CONFIG_A=y\n");
        write(&at("modules.order"), b"drivers/a/a.o\nfs/b.ko\n");
        write(&at("modules.builtin"), b"kernel/fs/ext4/ext4.ko\n");
        write(&at("drivers/a/a.ko"), &module("6.9.0-me+"));
        write(&at("fs/b.ko"), &module("6.9.0-me+"));
        for path in [root.path().to_path_buf(), at("arch/x86/boot/bzImage")] {
            let found = locate(&path, None, None, "x86_64").unwrap();
            assert_eq!(found.modules, Some(Modules::Build(root.path().into())));
            assert_eq!(found.config, Some(at(".config")));
        }
        let names: Vec<String> = built(root.path())
            .unwrap()
            .into_iter()
            .map(|file| file.name)
            .collect();
        assert_eq!(
            names,
            [
                "kernel/drivers/a/a.ko",
                "kernel/fs/b.ko",
                "modules.order",
                "modules.builtin"
            ]
        );
        let error = locate(&at("fs"), None, None, "x86_64").unwrap_err();
        assert!(error.to_string().contains("arch/x86/boot/bzImage"));
    }
}
