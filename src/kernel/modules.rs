//! Finds the modules that a driver needs and their loading order, as modprobe(8) does, in the files that
//! depmod(8) writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use crate::host::open;

use super::config::Presence;

/// Largest file of depmod(8) that is read, in bytes. Packages may bring such files; a distribution's have
/// 2 MB.
pub(super) const LARGEST_TABLE: u64 = 64 << 20;

/// The index of a module tree.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Name → path in the tree (`kernel/fs/ext4/ext4.ko.xz`).
    paths: BTreeMap<String, String>,
    /// Name → modules that it needs, in loading order.
    needs: BTreeMap<String, Vec<String>>,
    /// Name → modules that should be loaded before it, by name or alias.
    wishes: BTreeMap<String, Vec<String>>,
    built_in: BTreeSet<String>,
    /// Aliases of crypto algorithms only (`crypto-crc32c`), by which file systems request them.
    aliases: BTreeMap<String, Vec<String>>,
}

/// What a set of drivers needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// Paths in the tree, in loading order.
    pub files: Vec<String>,
    /// Requested drivers that are neither a module nor built in.
    pub missing: Vec<String>,
}

impl Index {
    /// Reads the index of a tree (`…/lib/modules/RELEASE`).
    ///
    /// # Errors
    /// If `modules.dep` cannot be read; the other files may be missing.
    pub fn read(tree: &Path) -> io::Result<Self> {
        let read = |name: &str| open::text(&tree.join(name), LARGEST_TABLE);
        let optional = |name: &str| read(name).unwrap_or_default();
        Ok(Self::parse(
            &read("modules.dep")?,
            &optional("modules.builtin"),
            &optional("modules.softdep"),
            &optional("modules.alias"),
        ))
    }

    pub fn parse(dep: &str, builtin: &str, softdep: &str, alias: &str) -> Self {
        let mut index = Index::default();
        for line in dep.lines() {
            let Some((path, needs)) = line.split_once(':') else {
                continue;
            };
            let name = name_of(path);
            // The first module of the list must be loaded last.
            let needs = needs.split_whitespace().rev().map(name_of).collect();
            index.paths.insert(name.clone(), path.trim().to_string());
            index.needs.insert(name, needs);
        }
        index.built_in = builtin.lines().map(name_of).collect();
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(name) = words.next() else { continue };
            // "softdep ext4 pre: crc32c post: other"
            let mut before = false;
            for word in words {
                match word {
                    "pre:" => before = true,
                    "post:" => before = false,
                    wish if before => index
                        .wishes
                        .entry(plain(name))
                        .or_default()
                        .push(wish.to_string()),
                    _ => {}
                }
            }
        }
        for line in alias.lines() {
            let mut words = line.split_whitespace().skip(1);
            if let (Some(alias), Some(name)) = (words.next(), words.next())
                && alias.starts_with("crypto-")
            {
                let names = index.aliases.entry(alias.to_string()).or_default();
                names.push(plain(name));
            }
        }
        index
    }

    pub fn presence(&self, module: &str) -> Presence {
        let name = plain(module);
        if self.built_in.contains(&name) {
            Presence::BuiltIn
        } else if self.paths.contains_key(&name) {
            Presence::Loadable
        } else {
            Presence::Missing
        }
    }

    /// Returns the number of modules.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Returns all modules to load for these drivers, each after the modules that it needs.
    pub fn closure(&self, wanted: &[&str]) -> Closure {
        let mut closure = Closure::default();
        let mut seen = BTreeSet::new();
        for module in wanted {
            match self.presence(module) {
                Presence::BuiltIn => {}
                Presence::Loadable => self.add(&plain(module), &mut seen, &mut closure),
                _ => closure.missing.push((*module).to_string()),
            }
        }
        closure
    }

    fn add(&self, name: &str, seen: &mut BTreeSet<String>, closure: &mut Closure) {
        if !seen.insert(name.to_string()) {
            return;
        }
        for wish in self.wishes.get(name).into_iter().flatten() {
            for wished in self.meant(wish) {
                self.add(&wished, seen, closure);
            }
        }
        for needed in self.needs.get(name).into_iter().flatten() {
            self.add(needed, seen, closure);
        }
        if let Some(path) = self.paths.get(name) {
            closure.files.push(path.clone());
        }
    }

    /// Returns the modules that a soft dependency refers to: by name, or as a crypto algorithm.
    fn meant(&self, wish: &str) -> Vec<String> {
        let name = plain(wish);
        if self.paths.contains_key(&name) || self.built_in.contains(&name) {
            return vec![name];
        }
        [format!("crypto-{wish}"), wish.to_string()]
            .iter()
            .filter_map(|alias| self.aliases.get(alias))
            .flatten()
            .filter(|name| self.paths.contains_key(*name))
            .cloned()
            .collect()
    }
}

/// In names of modules, `-` and `_` are the same.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// Returns a module's name from its path: `kernel/fs/ext4/ext4.ko.xz` is ext4.
fn name_of(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    plain(file.split_once(".ko").map_or(file, |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        Index::parse(
            "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n\
             kernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko\n\
             kernel/lib/crc16.ko:\n\
             kernel/crypto/crc32c_generic.ko.xz:\n\
             kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio-ring.ko\n\
             kernel/drivers/virtio/virtio-ring.ko:\n",
            "kernel/drivers/virtio/virtio_pci.ko\n",
            "# soft\nsoftdep ext4 pre: crc32c\nsoftdep ext4 post: nothing\n",
            "alias crypto-crc32c crc32c_generic\nalias pci:v1 virtio_pci\n",
        )
    }

    #[test]
    fn what_is_needed_comes_first() {
        let closure = index().closure(&["ext4", "virtio_blk", "virtio-pci", "nvme"]);
        assert_eq!(
            closure.files,
            [
                "kernel/crypto/crc32c_generic.ko.xz",
                "kernel/lib/crc16.ko",
                "kernel/fs/jbd2/jbd2.ko",
                "kernel/fs/ext4/ext4.ko",
                "kernel/drivers/virtio/virtio-ring.ko",
                "kernel/drivers/block/virtio_blk.ko",
            ]
        );
        assert_eq!(closure.missing, ["nvme"]);
    }

    #[test]
    fn a_circle_ends() {
        let index = Index::parse("a.ko: b.ko\nb.ko: a.ko\n", "", "", "");
        assert_eq!(index.closure(&["a"]).files, ["b.ko", "a.ko"]);
    }
}
