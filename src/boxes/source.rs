//! What `box "…"` refers to: a name in the store or a catalogue, or the address of a box or an image.

use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::host::address::shown;

use super::oci::Reference;

/// A box as the Machinefile names it. A version follows after a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A name in a catalogue (`NAME`, `NAME/VERSION`, `NAME VERSION`) or in the store (`NAME`,
    /// `NAME:VERSION`, or a digest).
    Name,
    Web(Url),
    /// In a registry.
    Oci(Reference),
    /// Absolute.
    File(PathBuf),
}

impl Source {
    /// Parses a reference. It is a path if it begins with `/`, `./`, `../` or `~/`, or if it is a `file:` URL;
    /// relative paths start at `folder`.
    pub fn parse(reference: &str, folder: &Path) -> Result<Self, String> {
        if let Some((scheme, rest)) = reference.split_once("://") {
            let place = reference.split(' ').next().unwrap_or(reference);
            return match scheme {
                "https" | "http" => Url::parse(place)
                    .map(Source::Web)
                    // Do not print the URL: it may contain a password.
                    .map_err(|error| format!("not a valid URL: {error}")),
                "oci" => Reference::parse(rest).map(Source::Oci),
                "file" if rest.starts_with('/') => Url::parse(reference)
                    .ok()
                    .and_then(|url| url.to_file_path().ok())
                    .map(Source::File)
                    .ok_or(format!("{:?} is not a file URL", shown(reference))),
                "file" => Err(format!("{:?} names another host", shown(reference))),
                other => Err(format!(
                    "boxes are not fetched over {other:?}, expected https, oci or file"
                )),
            };
        }
        if let Some(rest) = reference.strip_prefix("~/") {
            let home = dirs::home_dir().ok_or("the home folder is not known")?;
            return Ok(Source::File(home.join(rest)));
        }
        if ["/", "./", "../"]
            .iter()
            .any(|start| reference.starts_with(start))
        {
            return Ok(Source::File(folder.join(reference)));
        }
        Ok(Source::Name)
    }

    /// Returns the name of an image that has none itself: its file name without the endings.
    pub fn stem(&self) -> Option<String> {
        let name = match self {
            Source::Name => return None,
            Source::Web(url) => url.path_segments()?.next_back()?.to_string(),
            Source::Oci(reference) => {
                return reference.repository.rsplit('/').next().map(str::to_string);
            }
            Source::File(path) => path.file_name()?.to_string_lossy().into_owned(),
        };
        let mut stem = name.as_str();
        while let Some((rest, ending)) = stem.rsplit_once('.') {
            const ENDINGS: [&str; 15] = [
                "xz", "gz", "zst", "bz2", "qcow2", "img", "raw", "vmdk", "vhd", "vhdx", "vpc",
                "tar", "box", "stead", "json",
            ];
            if !ENDINGS.contains(&ending) || rest.is_empty() {
                break;
            }
            stem = rest;
        }
        // Characters that a box's name may have.
        let plain: String = stem
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "-._+~".contains(c) {
                    c
                } else {
                    '-'
                }
            })
            .take(100)
            .collect();
        let plain = plain.trim_start_matches(['-', '.']);
        (!plain.is_empty()).then(|| plain.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reference_means() {
        let parse = |text: &str| Source::parse(text, Path::new("/project"));
        assert_eq!(parse("debian-12:12.5"), Ok(Source::Name));
        assert_eq!(parse("sha256:00"), Ok(Source::Name));
        assert_eq!(parse("debian/12"), Ok(Source::Name));
        assert_eq!(
            parse("./a.img"),
            Ok(Source::File("/project/./a.img".into()))
        );
        assert_eq!(parse("file:///a%20b"), Ok(Source::File("/a b".into())));
        assert!(matches!(parse("https://e.org/a"), Ok(Source::Web(_))));
        assert!(matches!(parse("oci://e.org/a:1"), Ok(Source::Oci(_))));
        for bad in [
            "oci://e.org/a",
            "ftp://e.org/a",
            "file://host/a",
            "https://",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for bad in ["file://u:pw66@h/x", "https://u:pw66@", "ftp://u:pw66@h/x"] {
            let message = parse(bad).unwrap_err();
            assert!(!message.contains("pw66"), "{bad}: {message}");
        }
    }

    #[test]
    fn names_of_images() {
        let stem = |text: &str| {
            Source::parse(text, Path::new("/p"))
                .unwrap()
                .stem()
                .unwrap()
        };
        assert_eq!(
            stem("https://e.org/x/debian-12-generic.qcow2?x=1"),
            "debian-12-generic"
        );
        assert_eq!(stem("./disk image.raw.xz"), "disk-image");
        assert_eq!(stem("./debian-12.stead.tar.zst"), "debian-12");
        assert_eq!(stem("./-x.img"), "x");
        assert_eq!(stem("./..-x.img"), "x");
    }
}
