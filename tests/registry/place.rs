//! A host with stead's data, and boxes to store on it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

/// Size of a chunk in bytes, as docs/reference/oci.md has it.
pub(crate) const CHUNK: u64 = 32 << 20;
/// Chunks of the disk that are not only zeros.
pub(crate) const FULL: u64 = 7;

pub(crate) struct Place {
    pub folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Place {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn stead(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("STEAD_DATA_DIR", self.path("data"))
            // Requests to a registry on this host must not go through a proxy.
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed; returns the JSON that it prints last.
    #[track_caller]
    pub(crate) fn does(&self, arguments: &[&str]) -> Value {
        document(self.stead(&["--json"]).args(arguments).output().unwrap())
    }

    /// Runs a command that must fail; returns its error.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str], words: &[&str]) -> String {
        failed(self.stead(arguments).output().unwrap(), words)
    }

    /// Checks that no file has a final name.
    #[track_caller]
    pub(crate) fn has_nothing(&self) {
        for folder in ["images", "boxes", "origins", "oci"] {
            assert_eq!(self.left(folder), Vec::<String>::new(), "{folder}");
        }
    }

    pub(crate) fn left(&self, folder: &str) -> Vec<String> {
        fs::read_dir(self.path("data").join(folder))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Names of the verified chunks of an unfinished pull: their digests.
    pub(crate) fn kept_chunks(&self) -> Vec<String> {
        self.left("downloads")
            .into_iter()
            .filter(|name| name.starts_with("oci-"))
            .flat_map(|name| self.left(&format!("downloads/{name}")))
            .filter(|name| name.len() == 64)
            .collect()
    }

    /// Makes a box folder with a sparse disk and a kernel; `mark` changes the third chunk.
    pub(crate) fn box_folder(&self, version: &str, mark: u8) -> PathBuf {
        let path = self.path(&format!("box-{version}"));
        fs::create_dir_all(&path).unwrap();
        let disk = File::create(path.join("disk.raw")).unwrap();
        // Add a chunk that is a hole, and a part of one.
        disk.set_len((FULL + 1) * CHUNK + 12345).unwrap();
        for n in 0..FULL {
            let number = u8::try_from(n).unwrap();
            let byte = if n == 2 { mark } else { number };
            let mut bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 249) as u8).collect();
            bytes[..2].copy_from_slice(&[byte, number]);
            disk.write_all_at(&bytes, n * CHUNK).unwrap();
        }
        fs::write(path.join("vmlinuz"), b"a kernel, as far as this goes").unwrap();
        let entry = |name: &str| {
            let path = path.join(name);
            json!({
                "name": name,
                "size": fs::metadata(&path).unwrap().len(),
                "sha256": crate::sha256_of(&path),
            })
        };
        let manifest = json!({
            "format_version": 1,
            "name": "small",
            "version": version,
            "arch": std::env::consts::ARCH,
            "disk": {
                "file": entry("disk.raw"),
                "format": "raw",
                "virtual_size": (FULL + 1) * CHUNK,
            },
            "boot": { "direct": {
                "kernel": entry("vmlinuz"), "kernel_release": "6.1", "cmdline": "root=/dev/vda",
            } },
            "seed": "credentials",
            "login_user": "stead",
        });
        fs::write(path.join("manifest.json"), manifest.to_string()).unwrap();
        path
    }

    /// Adds a box to the store; returns its digest.
    #[track_caller]
    pub(crate) fn add(&self, version: &str, mark: u8) -> String {
        let folder = self.box_folder(version, mark);
        let added = self.does(&["box", "add", folder.to_str().unwrap()]);
        added["digest"].as_str().unwrap().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[track_caller]
pub(crate) fn document(output: Output) -> Value {
    assert!(output.status.success(), "{}", text(&output));
    // Events are printed first.
    let out = String::from_utf8(output.stdout).unwrap();
    let at = out.find("\n{\n").map_or(0, |at| at + 1);
    serde_json::from_str(&out[at..]).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[track_caller]
pub(crate) fn failed(output: Output, words: &[&str]) -> String {
    let said = text(&output);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
    said
}

pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Returns how many bytes of the disk a file uses.
pub(crate) fn disk_use(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).unwrap().blocks() * 512
}
