//! RPM packages and repositories as they are published, made by hand so that they can be made badly.

use crate::{Manner, Place, sha256, signer::Signer};

/// An entry of the payload.
pub(crate) fn entry(name: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{name}\0",
        1, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0
    )
    .into_bytes();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub(crate) fn file(name: &str, content: &[u8]) -> Vec<u8> {
    entry(name, 0o100_644, content)
}

/// Tags with their kinds, counts and values.
fn header(entries: &[(u32, u32, u32, Vec<u8>)]) -> Vec<u8> {
    let mut store = Vec::new();
    let mut index = Vec::new();
    for (tag, kind, count, value) in entries {
        if *kind == 4 {
            store.resize(store.len().next_multiple_of(4), 0);
        }
        for it in [*tag, *kind, store.len() as u32, *count] {
            index.extend(it.to_be_bytes());
        }
        store.extend(value);
    }
    let mut bytes = b"\x8e\xad\xe8\x01\0\0\0\0".to_vec();
    bytes.extend((entries.len() as u32).to_be_bytes());
    bytes.extend((store.len() as u32).to_be_bytes());
    bytes.extend(index);
    bytes.extend(store);
    bytes
}

fn text(tag: u32, value: &str) -> (u32, u32, u32, Vec<u8>) {
    (tag, 6, 1, format!("{value}\0").into_bytes())
}

/// A package in a repository.
pub(crate) struct Package {
    pub name: String,
    pub version: String,
    pub release: String,
    pub rpm: Vec<u8>,
}

impl Package {
    /// Signed by this key, where one is given.
    pub(crate) fn new(
        name: &str,
        version: &str,
        release: &str,
        entries: &[Vec<u8>],
        signer: Option<&Signer>,
    ) -> Self {
        let mut payload = entries.concat();
        payload.extend(entry("TRAILER!!!", 0, b""));
        let payload = zstd::encode_all(payload.as_slice(), 1).unwrap();
        let main = header(&[
            text(1000, name),
            text(1001, version),
            text(1002, release),
            text(1124, "cpio"),
            (5092, 8, 1, format!("{}\0", sha256(&payload)).into_bytes()),
            (5093, 4, 1, 8u32.to_be_bytes().to_vec()),
        ]);
        let signature = match signer {
            Some(signer) => {
                let signature = signer.sign("--detach-sign", &main);
                header(&[(267, 7, signature.len() as u32, signature)])
            }
            None => header(&[]),
        };
        let mut rpm = b"\xed\xab\xee\xdb".to_vec();
        rpm.resize(96, 0);
        rpm.extend(signature);
        rpm.resize(rpm.len().next_multiple_of(8), 0);
        rpm.extend(main);
        rpm.extend(payload);
        Package {
            name: name.into(),
            version: version.into(),
            release: release.into(),
            rpm,
        }
    }

    pub(crate) fn path(&self) -> String {
        format!(
            "Packages/{}-{}-{}.x86_64.rpm",
            self.name, self.version, self.release
        )
    }
}

impl Place {
    /// Publishes packages as a repository below this place's address.
    pub(crate) fn publish_rpms(&self, packages: &[Package]) {
        let mut list = String::from(
            "<?xml version=\"1.0\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\">\n",
        );
        for package in packages {
            list.push_str(&format!(
                "<package type=\"rpm\">\n <name>{}</name>\n <arch>x86_64</arch>\n <version epoch=\"0\" ver=\"{}\" rel=\"{}\"/>\n <checksum type=\"sha256\" pkgid=\"YES\">{}</checksum>\n <summary>s</summary>\n <size package=\"{}\" installed=\"1\" archive=\"1\"/>\n <location href=\"{}\"/>\n <format><rpm:license>GPL</rpm:license></format>\n</package>\n",
                package.name,
                package.version,
                package.release,
                sha256(&package.rpm),
                package.rpm.len(),
                package.path()
            ));
            self.serve(&package.path(), Manner::Well, &package.rpm);
        }
        list.push_str("</metadata>\n");
        let packed = zstd::encode_all(list.as_bytes(), 1).unwrap();
        self.serve("repodata/primary.xml.zst", Manner::Well, &packed);
        let repomd = format!(
            "<?xml version=\"1.0\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\">\n<data type=\"primary\">\n <checksum type=\"sha256\">{}</checksum>\n <location href=\"repodata/primary.xml.zst\"/>\n <size>{}</size>\n</data>\n</repomd>\n",
            sha256(&packed),
            packed.len()
        );
        self.serve("repodata/repomd.xml", Manner::Well, repomd.as_bytes());
    }
}
