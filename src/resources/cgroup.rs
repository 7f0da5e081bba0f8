//! Control groups, of both versions (kernel, Documentation/admin-guide/cgroup-v1 and cgroup-v2).

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::hypervisor::WeightScale;

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub folder: PathBuf,
    /// Of version 1; empty for version 2, whose controllers are in a file.
    pub controllers: Vec<String>,
    pub version: u8,
}

impl Hierarchy {
    /// The scale of its weights, if it has the cpu controller.
    pub(super) fn weight_scale(&self) -> WeightScale {
        match self.version {
            1 => WeightScale::Shares,
            _ => WeightScale::Weight,
        }
    }

    pub(super) fn has(&self, controller: &str) -> bool {
        match self.version {
            1 => self.controllers.iter().any(|known| known == controller),
            _ => fs::read_to_string(self.folder.join("cgroup.controllers"))
                .is_ok_and(|text| text.split_whitespace().any(|known| known == controller)),
        }
    }
}

/// Returns the hierarchies in the text of a /proc/mounts.
pub(super) fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let folder = PathBuf::from(fields.next()?);
            let kind = fields.next()?;
            let options = fields.next()?;
            match kind {
                "cgroup" => Some(Hierarchy {
                    folder,
                    controllers: options.split(',').map(str::to_string).collect(),
                    version: 1,
                }),
                "cgroup2" => Some(Hierarchy {
                    folder,
                    controllers: Vec::new(),
                    version: 2,
                }),
                _ => None,
            }
        })
        .collect()
}

/// Returns the hierarchy that has a controller.
pub(super) fn hierarchy_of<'a>(all: &'a [Hierarchy], controller: &str) -> Option<&'a Hierarchy> {
    all.iter().find(|hierarchy| hierarchy.has(controller))
}

/// Returns the scale of CPU weights on this host; the default if it has no control groups.
pub fn weight_scale() -> WeightScale {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    hierarchy_of(&hierarchies(&mounts), "cpu")
        .map(Hierarchy::weight_scale)
        .unwrap_or_default()
}

/// Returns the group of a process in a hierarchy, from the text of its /proc/PID/cgroup.
pub(super) fn path_in(cgroups: &str, hierarchy: &Hierarchy, controller: &str) -> Option<String> {
    cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = match hierarchy.version {
            1 => controllers.split(',').any(|known| known == controller),
            _ => number == "0" && controllers.is_empty(),
        };
        fits.then(|| path.to_string())
    })
}

/// Returns the folders of a group and of all groups above it, the hierarchy's own last. Only existing folders
/// are returned: in a container, the path may be the host's.
pub(super) fn folders(hierarchy: &Hierarchy, path: &str) -> Vec<PathBuf> {
    let whole = hierarchy.folder.join(path.trim_start_matches('/'));
    whole
        .ancestors()
        .take_while(|folder| folder.starts_with(&hierarchy.folder))
        .filter(|folder| folder.is_dir())
        .map(Path::to_path_buf)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_told_apart() {
        let all = hierarchies(
            "proc /proc proc rw 0 0\n\
             cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0\n\
             cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
        );
        assert_eq!(all.len(), 2);
        assert!(all[0].has("cpu") && !all[0].has("memory"));
        let own = "9:name=systemd:/\n4:cpu,cpuacct:/a/b\n0::/user.slice/c:d\n";
        assert_eq!(path_in(own, &all[0], "cpu").as_deref(), Some("/a/b"));
        assert_eq!(
            path_in(own, &all[1], "cpu").as_deref(),
            Some("/user.slice/c:d")
        );
    }
}
