//! Adds a kernel to the store.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    path::Path,
};

use crate::{host::open, report::bytes};

use super::{
    check::look,
    config::{Config, LARGEST_CONFIG},
    error::KernelError,
    initramfs::{GROUPS, MODULES_FS, TREE_LIMIT, group_archive, tree_archive},
    manifest::{Drivers, FORMAT_VERSION, KernelFileRole, KernelManifest, ModuleTree, Provenance},
    modules::{Index, LARGEST_TABLE},
    squash,
    store::{KernelStore, StoredKernel},
    tree::{KernelFiles, Modules, complete, files_of, read_module},
};

/// Largest group of drivers in an initramfs, in bytes; groups have some 20 MB.
const MOST_DRIVERS: u64 = 512 << 20;

/// The name and source of a kernel, and the facts of the host that it was captured from.
pub struct Title<'a> {
    pub name: &'a str,
    pub from: Provenance,
    /// The facts of the captured host, as JSON.
    pub facts: Option<&'a [u8]>,
}

impl KernelStore {
    /// Adds a kernel: its image and configuration, its modules as one file, and the drivers that its
    /// initramfs needs. A kernel that is in the store already is returned as it is.
    #[expect(
        clippy::disallowed_methods,
        reason = "in a temporary folder, whose files are moved into place later"
    )]
    pub fn add(&self, found: &KernelFiles, title: &Title<'_>) -> Result<StoredKernel, KernelError> {
        let work = self.work_folder()?;
        let tree = match &found.modules {
            Some(modules) => complete(modules, &found.release, work.path())?,
            None => None,
        };
        let index = match &found.modules {
            Some(modules) => index_of(modules, tree.as_deref())?,
            None => Index::default(),
        };
        let config = match &found.config {
            Some(path) => Config::read(
                &open::bytes_in_place(path, LARGEST_CONFIG)
                    .map_err(KernelError::io("read", path))?,
            ),
            None => None,
        };
        let known = found.modules.is_some().then_some(&index);
        let mut archives = BTreeMap::new();
        for (group, wanted) in GROUPS {
            let closure = index.closure(wanted);
            let mut drivers = Vec::new();
            let mut taken = 0;
            for file in &closure.files {
                let tree = tree.as_deref().unwrap_or(Path::new("."));
                let driver = read_module(tree, file)?;
                taken += driver.len() as u64;
                if taken > MOST_DRIVERS {
                    return Err(KernelError::BadModule {
                        path: tree.join(file),
                        message: format!(
                            "with this module, the drivers that a machine needs to boot have more than {}",
                            bytes(MOST_DRIVERS)
                        ),
                    });
                }
                drivers.push((driver_name(file), driver));
            }
            let archive = (!drivers.is_empty()).then(|| group_archive(group, &drivers));
            archives.insert(group, (archive, closure.missing));
        }
        // Built without the lock, because this takes long.
        let modules = match &tree {
            None => None,
            Some(tree) => {
                let files = files_of(tree)?;
                if archives[MODULES_FS].1.is_empty() {
                    let file = work.path().join("modules.squashfs");
                    squash::write(&files, &file)?;
                    Some((KernelFileRole::ModulesDisk, file))
                } else {
                    let size: u64 = (files.iter())
                        .filter_map(|file| fs::metadata(&file.path).ok())
                        .map(|metadata| metadata.len())
                        .sum();
                    if size > TREE_LIMIT {
                        return Err(KernelError::TooLargeForMemory {
                            name: title.name.to_string(),
                            release: found.release.clone(),
                            size: bytes(size),
                        });
                    }
                    let file = work.path().join("modules.cpio");
                    let mut contents = Vec::new();
                    for file in &files {
                        let mut content = Vec::new();
                        file.open()
                            .and_then(|mut file| file.read_to_end(&mut content))
                            .map_err(KernelError::io("read", &file.path))?;
                        contents.push((file.name.clone(), content));
                    }
                    File::create(&file)
                        .and_then(|mut out| out.write_all(&tree_archive(&contents)))
                        .map_err(KernelError::io("write", &file))?;
                    Some((KernelFileRole::Other, file))
                }
            }
        };

        let _held = self.begin(Some(work.path()))?;
        let optional = |name: &str, path: &Option<std::path::PathBuf>| match path {
            Some(path) => self
                .keep_file(name, path, open::file_in_place, KernelFileRole::Other)
                .map(Some),
            None => Ok(None),
        };
        let mut drivers = BTreeMap::new();
        for (group, (archive, missing)) in archives {
            let archive = match archive {
                Some(archive) => Some(self.keep_bytes(
                    &format!("{group}.cpio"),
                    &archive,
                    KernelFileRole::Other,
                )?),
                None => None,
            };
            drivers.insert(group.to_string(), Drivers { archive, missing });
        }
        let modules = match modules {
            None => None,
            Some((KernelFileRole::ModulesDisk, file)) => Some(ModuleTree::Disk(self.keep_file(
                "modules.squashfs",
                &file,
                open::file,
                KernelFileRole::ModulesDisk,
            )?)),
            Some((part, file)) => Some(ModuleTree::Memory(self.keep_file(
                "modules.cpio",
                &file,
                open::file,
                part,
            )?)),
        };
        let manifest = KernelManifest {
            format_version: FORMAT_VERSION,
            name: title.name.to_string(),
            release: found.release.clone(),
            banner: found.image.banner.clone(),
            arch: found.image.arch.to_string(),
            from: title.from.clone(),
            image: self.keep_file(
                "vmlinuz",
                &found.image_path,
                open::file_in_place,
                KernelFileRole::Image,
            )?,
            config: optional("config", &found.config)?,
            system_map: optional("System.map", &found.system_map)?,
            modules,
            options: look(config.as_ref(), known),
            drivers,
            facts: match title.facts {
                Some(facts) => Some(self.keep_bytes("facts.json", facts, KernelFileRole::Other)?),
                None => None,
            },
        };
        self.keep_manifest(&manifest.to_bytes()?)
    }
}

/// Returns the index of a kernel's modules. If the modules have none yet, it is made in `work`.
pub fn index(modules: &Modules, release: &str, work: &Path) -> Result<Index, KernelError> {
    index_of(modules, complete(modules, release, work)?.as_deref())
}

fn index_of(modules: &Modules, tree: Option<&Path>) -> Result<Index, KernelError> {
    match (tree, modules) {
        (Some(tree), _) => Index::read(tree).map_err(KernelError::io("read", tree)),
        // A build without modules still lists what is built in.
        (None, Modules::Build(build)) => {
            let path = build.join("modules.builtin");
            let text = open::bytes_in_place(&path, LARGEST_TABLE)
                .map_err(KernelError::io("read", path))?;
            Ok(Index::parse("", &String::from_utf8_lossy(&text), "", ""))
        }
        (None, Modules::Installed(_)) => Ok(Index::default()),
    }
}

/// `kernel/fs/ext4/ext4.ko.xz` → `ext4.ko`: the initramfs has uncompressed drivers.
fn driver_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    match file.split_once(".ko") {
        Some((name, _)) => format!("{name}.ko"),
        None => file.to_string(),
    }
}
