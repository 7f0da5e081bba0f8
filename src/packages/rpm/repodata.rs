//! Reads a repository's lists: repomd.xml, and the list of packages that it names
//! (<https://github.com/rpm-software-management/createrepo_c>).

use std::io::{self, BufRead};

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

use super::version::Evr;

/// The list of packages that repomd.xml names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    /// The path below the repository's address.
    pub path: String,
    pub sha256: String,
    /// The compressed size in bytes.
    pub size: Option<u64>,
}

/// A package in a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Package {
    pub name: String,
    pub arch: String,
    pub evr: Evr,
    pub sha256: String,
    /// In bytes.
    pub size: u64,
    /// The path below the repository's address.
    pub path: String,
}

/// Returns the `primary` list of repomd.xml; `None` if there is none with a sha256.
pub(super) fn primary(repomd: &[u8]) -> io::Result<Option<List>> {
    let mut reader = Reader::from_reader(repomd);
    let mut buffer = Vec::new();
    let mut list: Option<List> = None;
    let mut field = Field::Other;
    loop {
        match reader.read_event_into(&mut buffer).map_err(bad)? {
            Event::Start(tag) | Event::Empty(tag) => match tag.local_name().as_ref() {
                "data" if attribute(&tag, "type").as_deref() == Some("primary") => {
                    list = Some(List::default());
                }
                "location" => {
                    if let Some(list) = &mut list {
                        list.path = attribute(&tag, "href").unwrap_or_default();
                    }
                }
                "checksum" if attribute(&tag, "type").as_deref() == Some("sha256") => {
                    field = Field::Sha256;
                }
                "size" => field = Field::Size,
                _ => field = Field::Other,
            },
            Event::Text(text) => {
                if let Some(list) = &mut list {
                    let text = text.trim().to_string();
                    match field {
                        Field::Sha256 => list.sha256 = text.to_ascii_lowercase(),
                        Field::Size => list.size = text.parse().ok(),
                        Field::Other => {}
                    }
                }
                field = Field::Other;
            }
            Event::End(tag) if tag.local_name().as_ref() == "data" => {
                if let Some(list) = list.take() {
                    return Ok((is_sha256(&list.sha256) && !list.path.is_empty()).then_some(list));
                }
            }
            Event::Eof => return Ok(None),
            _ => {}
        }
        buffer.clear();
    }
}

#[derive(Clone, Copy)]
enum Field {
    Sha256,
    Size,
    Other,
}

/// Returns the packages whose name is `wanted`, in the order of the list, which is read as a stream.
pub(super) fn packages(
    reader: impl BufRead,
    wanted: &dyn Fn(&str) -> bool,
) -> io::Result<Vec<Package>> {
    let mut reader = Reader::from_reader(reader);
    let mut buffer = Vec::new();
    let mut found = Vec::new();
    let mut package: Option<Package> = None;
    // The element whose text comes next.
    let mut inside: &'static str = "";
    loop {
        match reader.read_event_into(&mut buffer).map_err(bad)? {
            Event::Start(tag) | Event::Empty(tag) => {
                inside = "";
                match tag.local_name().as_ref() {
                    "package" => package = Some(Package::default()),
                    // `format` contains other elements with the same names.
                    "format" => {
                        found.extend(package.take().filter(is_whole));
                    }
                    name => {
                        if let Some(package) = &mut package {
                            inside = begin(package, name, &tag);
                        }
                    }
                }
            }
            Event::Text(text) => {
                if let Some(it) = &mut package
                    && !inside.is_empty()
                {
                    let text = text.trim().to_string();
                    match inside {
                        // The rest of the package is skipped.
                        "name" if !wanted(&text) => package = None,
                        "name" => it.name = text,
                        "arch" => it.arch = text,
                        _ => it.sha256 = text.to_ascii_lowercase(),
                    }
                    inside = "";
                }
            }
            Event::End(tag) if tag.local_name().as_ref() == "package" => {
                found.extend(package.take().filter(is_whole));
            }
            Event::Eof => return Ok(found),
            _ => {}
        }
        buffer.clear();
    }
}

fn begin(package: &mut Package, name: &str, tag: &BytesStart) -> &'static str {
    let attribute = |name: &str| attribute(tag, name).unwrap_or_default();
    match name {
        "name" => return "name",
        "arch" => return "arch",
        "checksum" if attribute("type") == "sha256" => return "checksum",
        "version" => {
            package.evr = Evr {
                epoch: attribute("epoch").parse().unwrap_or(0),
                version: attribute("ver"),
                release: attribute("rel"),
            };
        }
        "size" => package.size = attribute("package").parse().unwrap_or(0),
        "location" => package.path = attribute("href"),
        _ => {}
    }
    ""
}

fn is_whole(package: &Package) -> bool {
    !package.name.is_empty()
        && !package.path.is_empty()
        && !package.evr.version.is_empty()
        && package.size > 0
        && is_sha256(&package.sha256)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn attribute(tag: &BytesStart, name: &str) -> Option<String> {
    tag.attributes()
        .flatten()
        .find(|attribute| attribute.key.as_ref() == name)
        .and_then(|attribute| {
            quick_xml::escape::unescape(&attribute.value)
                .ok()
                .map(|text| text.into_owned())
        })
}

fn bad(error: quick_xml::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_packages() {
        let sha256 = "a".repeat(64);
        let text = format!(
            r#"<?xml version="1.0"?><repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>1</revision>
            <data type="filelists"><checksum type="sha256">{}</checksum><location href="repodata/f.xml.gz"/></data>
            <data type="primary"><checksum type="sha256"> {sha256}
            </checksum><open-checksum type="sha256">{}</open-checksum><location href="repodata/p.xml.zst"/><size>123</size><open-size>456</open-size></data></repomd>"#,
            "b".repeat(64),
            "c".repeat(64)
        );
        assert_eq!(
            primary(text.as_bytes()).unwrap(),
            Some(List {
                path: "repodata/p.xml.zst".into(),
                sha256,
                size: Some(123)
            })
        );
        assert_eq!(primary(b"<repomd/>").unwrap(), None);
        let weak = r#"<repomd><data type="primary"><checksum type="sha">aa</checksum><location href="x"/></data></repomd>"#;
        assert_eq!(primary(weak.as_bytes()).unwrap(), None);
        assert!(primary(b"<a></b>").is_err());
    }

    #[test]
    fn packages_by_name() {
        let sha256 = "a".repeat(64);
        let package = |name: &str| {
            format!(
                r#"<package type="rpm"><name>{name}</name><arch>x86_64</arch><version epoch="0" ver="6.11.4" rel="301.fc41"/><checksum type="sha256" pkgid="YES">{sha256}</checksum><summary>s &amp; t</summary><size package="12" installed="3" archive="4"/><location href="Packages/k/{name}-6.11.4.rpm"/><format><rpm:provides><rpm:entry name="x"/></rpm:provides><file>/boot</file></format></package>"#
            )
        };
        let text = format!(
            r#"<?xml version="1.0"?><metadata xmlns="x" xmlns:rpm="y" packages="3">{}{}{}</metadata>"#,
            package("bash"),
            package("kernel-core"),
            package("kernel-modules")
        );
        let found = packages(text.as_bytes(), &|name| name.starts_with("kernel")).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0],
            Package {
                name: "kernel-core".into(),
                arch: "x86_64".into(),
                evr: Evr {
                    epoch: 0,
                    version: "6.11.4".into(),
                    release: "301.fc41".into()
                },
                sha256,
                size: 12,
                path: "Packages/k/kernel-core-6.11.4.rpm".into(),
            }
        );
        assert!(
            packages(&b"<package><name>kernel</name></package>"[..], &|_| true)
                .unwrap()
                .is_empty()
        );
    }
}
