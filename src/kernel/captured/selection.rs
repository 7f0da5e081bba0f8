//! Chooses the files to copy from a host.

use std::path::PathBuf;

use super::{
    super::facts::{Facts, Offer, OfferedFile},
    error::CaptureError,
};

/// As PATH_MAX, in bytes.
const LONGEST_PATH: usize = 4096;
/// Largest file of modprobe.d and similar folders, in bytes.
pub(super) const LARGEST_SETTING: u64 = 1 << 20;

/// The files to copy from a host, by their path there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub release: String,
    pub image: SelectedFile,
    pub config: Option<SelectedFile>,
    pub system_map: Option<SelectedFile>,
    pub tree: Option<SelectedFile>,
    pub settings: Vec<SelectedFile>,
    /// Paths below the tree that are skipped.
    pub exclude: Vec<String>,
    /// Whether only root can read the files, so that sudo copies them.
    pub sudo: bool,
    /// Files on the host that are not copied, with the reason.
    pub left_out: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedFile {
    pub path: String,
    /// In bytes.
    pub size: u64,
    pub files: u64,
}

/// Chooses the files to copy. The error says why a full capture of this host is impossible.
pub fn pick(facts: &Facts, offer: &Offer, host: &str) -> Result<Selection, CaptureError> {
    let release = facts.release.clone();
    let file = |place: &OfferedFile| SelectedFile {
        path: place.path.clone(),
        size: place.size,
        files: 1,
    };
    let readable = offer.images.iter().find(|image| image.readable);
    let (image, sudo) = match (readable, offer.images.first()) {
        (Some(image), _) => (image, false),
        (None, Some(image)) if offer.sudo => (image, true),
        (None, Some(image)) => {
            return Err(CaptureError::Unreadable {
                host: host.to_string(),
                path: image.path.clone(),
            });
        }
        (None, None) => {
            return Err(CaptureError::NoImage {
                host: host.to_string(),
                release,
            });
        }
    };
    if !offer.tar {
        return Err(CaptureError::NoTar {
            host: host.to_string(),
        });
    }
    let mut left_out = Vec::new();
    let mut optional = |places: &[OfferedFile]| {
        let found = places.iter().find(|place| place.readable || sudo);
        if found.is_none() {
            left_out.extend(
                places
                    .iter()
                    .map(|place| format!("{} can only be read by root", place.path)),
            );
        }
        found.map(file)
    };
    let config = optional(&offer.configs);
    let system_map = optional(&offer.system_maps);
    // A name with a line break looks like two names, but no host has such names.
    let settings = offer
        .settings
        .iter()
        .filter(|place| place.readable && place.size <= LARGEST_SETTING)
        .map(file)
        .collect();
    let tree = offer.tree.as_ref().filter(|tree| tree.readable || sudo);
    if tree.is_none() {
        left_out.push(match &offer.tree {
            Some(tree) => format!("{} can only be read by root", tree.path),
            None => format!("there is no /lib/modules/{release}: everything is built in"),
        });
    }
    let mut exclude = Vec::new();
    if let Some(tree) = tree {
        exclude = vec![
            format!("{}/build", tree.path),
            format!("{}/source", tree.path),
        ];
        for link in &offer.dangling {
            let link = link.trim_start_matches("./");
            if !["build", "source"].contains(&link) {
                exclude.push(format!("{}/{link}", tree.path));
            }
        }
    }
    Ok(Selection {
        release,
        image: file(image),
        config,
        system_map,
        tree: tree.map(|tree| SelectedFile {
            path: tree.path.clone(),
            size: tree.kib * 1024,
            files: tree.files,
        }),
        settings,
        exclude,
        sudo,
        left_out,
    })
}

impl Selection {
    pub fn all(&self) -> Vec<&SelectedFile> {
        [
            Some(&self.image),
            self.config.as_ref(),
            self.system_map.as_ref(),
            self.tree.as_ref(),
        ]
        .into_iter()
        .flatten()
        .chain(&self.settings)
        .collect()
    }

    /// Returns where a file of the archive belongs below the folder, or why it is refused.
    pub(super) fn place(&self, name: &str) -> Result<PathBuf, &'static str> {
        let release = &self.release;
        let is = |file: Option<&SelectedFile>| {
            file.is_some_and(|file| file.path.trim_start_matches('/') == name)
        };
        if name.len() > LONGEST_PATH {
            return Err("the name is too long");
        }
        if name
            .split('/')
            .any(|part| matches!(part, ".." | ".") || part.is_empty())
            || name.contains(['\0', '\\'])
            || name.chars().any(char::is_control)
        {
            return Err("it is not a plain path");
        }
        if is(Some(&self.image)) {
            return Ok(format!("boot/vmlinuz-{release}").into());
        }
        if is(self.config.as_ref()) {
            return Ok(format!("boot/config-{release}").into());
        }
        if is(self.system_map.as_ref()) {
            return Ok(format!("boot/System.map-{release}").into());
        }
        if self.settings.iter().any(|file| is(Some(file))) {
            return Ok(name.into());
        }
        if let Some(tree) = &self.tree
            && let Some(below) = name.strip_prefix(tree.path.trim_start_matches('/'))
            && (below.is_empty() || below.starts_with('/'))
        {
            return Ok(format!("lib/modules/{release}{below}").into());
        }
        Err("it was not requested")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kernel::facts::{
        parse_facts,
        tests::{NONCE, answer},
    };

    pub(crate) fn selection() -> Selection {
        let (facts, offer) = parse_facts(
            answer(
                "image yes 5 /boot/vmlinuz-6.1.0-47-amd64\n\
                 config yes 5 /boot/config-6.1.0-47-amd64\n\
                 system_map no 5 /boot/System.map-6.1.0-47-amd64\n\
                 tree yes 1 1 /lib/modules/6.1.0-47-amd64\n\
                 settings yes 5 /etc/modprobe.d/a.conf\ntools /bin/tar",
            )
            .as_bytes(),
            NONCE,
            "db1",
        )
        .unwrap();
        pick(&facts, &offer, "db1").unwrap()
    }

    #[test]
    fn only_what_can_be_read_is_picked() {
        let selection = selection();
        assert_eq!(selection.system_map, None);
        assert_eq!(
            selection.left_out,
            ["/boot/System.map-6.1.0-47-amd64 can only be read by root"]
        );
        let offer = |text: &str| parse_facts(answer(text).as_bytes(), NONCE, "db1").unwrap();
        let (facts, closed) = offer("image no 5 /boot/vmlinuz-6.1.0-47-amd64\ntools /bin/tar");
        let error = pick(&facts, &closed, "db1").unwrap_err();
        assert!(matches!(error, CaptureError::Unreadable { .. }), "{error}");
        let (_, by_sudo) =
            offer("image no 5 /boot/vmlinuz-6.1.0-47-amd64\ntools /bin/tar\ntools sudo");
        assert!(pick(&facts, &by_sudo, "db1").unwrap().sudo);
        let (_, none) = offer("tools /bin/tar");
        assert!(matches!(
            pick(&facts, &none, "db1"),
            Err(CaptureError::NoImage { .. })
        ));
    }
}
