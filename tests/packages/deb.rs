//! Debian packages and archives as they are published, made by hand so that they can be made badly.

use std::io::Write;

use tar::{EntryType, Header};

use crate::{Manner, Place, sha256};

/// A tar entry, whatever its name.
pub(crate) fn entry(path: &str, kind: EntryType, target: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    let bytes = header.as_mut_bytes();
    bytes[..path.len()].copy_from_slice(path.as_bytes());
    bytes[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend(content);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

pub(crate) fn file(path: &str, content: &[u8]) -> Vec<u8> {
    entry(path, EntryType::Regular, "", content)
}

/// A .deb with these entries.
pub(crate) fn deb(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut data = entries.concat();
    data.extend([0; 1024]);
    packed_deb(
        "data.tar.xz",
        &liblzma::encode_all(data.as_slice(), 1).unwrap(),
    )
}

pub(crate) fn packed_deb(name: &str, data: &[u8]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in [
        ("debian-binary", &b"2.0\n"[..]),
        (
            "control.tar.xz",
            &liblzma::encode_all(&[0; 1024][..], 1).unwrap(),
        ),
        (name, data),
    ] {
        writeln!(
            out,
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`",
            0,
            0,
            0,
            100644,
            content.len()
        )
        .unwrap();
        out.extend(content);
        if out.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

/// A kernel as Debian packs it.
pub(crate) fn kernel(release: &str) -> Vec<Vec<u8>> {
    let long = format!(
        "./usr/lib/modules/{release}/kernel/{}/x.ko.xz",
        "deep/".repeat(30)
    );
    vec![
        entry("./", EntryType::Directory, "", b""),
        entry("./boot/", EntryType::Directory, "", b""),
        file(&format!("./boot/vmlinuz-{release}"), b"an image"),
        file(&format!("./boot/config-{release}"), b"CONFIG_X=y\n"),
        file(&format!("./boot/System.map-{release}"), b"map"),
        file(
            &format!("./usr/lib/modules/{release}/kernel/fs/x.ko.xz"),
            b"a module",
        ),
        entry(
            "././@LongLink",
            EntryType::GNULongName,
            "",
            format!("{long}\0").as_bytes(),
        ),
        file(&long[..99], b"a deep one"),
        entry(
            &format!("./usr/lib/modules/{release}/fs"),
            EntryType::Symlink,
            "kernel/fs",
            b"",
        ),
        entry(
            &format!("./usr/lib/modules/{release}/build"),
            EntryType::Symlink,
            "/usr/src/x",
            b"",
        ),
        file("./usr/share/doc/x/copyright", b"free"),
    ]
}

/// A package in an archive.
pub(crate) struct Package {
    pub name: String,
    pub version: String,
    pub depends: String,
    pub deb: Vec<u8>,
    pub manner: Manner,
}

impl Package {
    pub(crate) fn new(name: &str, version: &str, depends: &str, deb: Vec<u8>) -> Self {
        Package {
            name: name.into(),
            version: version.into(),
            depends: depends.into(),
            deb,
            manner: Manner::Well,
        }
    }

    pub(crate) fn path(&self) -> String {
        format!("pool/main/l/{}_{}_amd64.deb", self.name, self.version)
    }
}

pub(crate) fn release(suite: &str, more: &str, lists: &[(&str, &[u8])]) -> String {
    let mut text = format!(
        "Origin: Debian\nSuite: {suite}\nCodename: {suite}\nAcquire-By-Hash: yes\nArchitectures: amd64\n{more}SHA256:\n"
    );
    for (path, bytes) in lists {
        text.push_str(&format!(" {} {} {path}\n", sha256(bytes), bytes.len()));
    }
    text
}

impl Place {
    /// Publishes packages as a suite of this place's archive, and gives its list as it is packed.
    pub(crate) fn publish(&self, suite: &str, packages: &[Package]) -> Vec<u8> {
        self.publish_with(suite, "", packages)
    }

    pub(crate) fn publish_with(&self, suite: &str, more: &str, packages: &[Package]) -> Vec<u8> {
        let mut list = String::new();
        for package in packages {
            let path = package.path();
            list.push_str(&format!(
                "Package: {}\nVersion: {}\nArchitecture: amd64\nDepends: {}\nFilename: {path}\nSize: {}\nSHA256: {}\nDescription: x\n y\n\n",
                package.name,
                package.version,
                package.depends,
                package.deb.len(),
                sha256(&package.deb)
            ));
            self.serve(&path, package.manner, &package.deb);
        }
        let packed = liblzma::encode_all(list.as_bytes(), 1).unwrap();
        self.serve(
            &format!(
                "dists/{suite}/main/binary-amd64/by-hash/SHA256/{}",
                sha256(&packed)
            ),
            Manner::Well,
            &packed,
        );
        let text = release(suite, more, &[("main/binary-amd64/Packages.xz", &packed)]);
        self.serve(
            &format!("dists/{suite}/InRelease"),
            Manner::Well,
            &self.signer.sign("--clearsign", text.as_bytes()),
        );
        packed
    }
}
