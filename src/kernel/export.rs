//! A kernel as one file, for a colleague: a tar of its manifest and its files, compressed with zstd.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::Path,
};

use tar::{Builder, EntryType, Header};

use crate::{
    host::{file, open},
    report::clean::Shown,
    store::MANIFEST_LIMIT,
    unpack::each_entry,
};

use super::{
    error::KernelError,
    manifest::KernelManifest,
    store::{KernelStore, StoredKernel},
};

const MANIFEST: &str = "manifest.json";
/// zstd's level. Most of the content is compressed already.
const LEVEL: i32 = 3;

impl KernelStore {
    /// Verifies a kernel and writes it to a file, completely or not at all. Returns the file's size in bytes.
    pub fn export(&self, stored: &StoredKernel, to: &Path) -> Result<u64, KernelError> {
        self.verify(stored)?;
        let folder = match to.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let manifest = self.manifest_bytes(&stored.digest)?;
        let write = || -> io::Result<u64> {
            let file = file::temporary(folder)?;
            let packed = zstd::stream::write::Encoder::new(BufWriter::new(file), LEVEL)?;
            let mut archive = Builder::new(packed);
            let mut add = |name: &str, size: u64, content: &mut dyn Read| {
                let mut header = Header::new_gnu();
                header.set_entry_type(EntryType::Regular);
                header.set_mode(0o644);
                header.set_size(size);
                archive.append_data(&mut header, name, content)
            };
            add(MANIFEST, manifest.len() as u64, &mut manifest.as_slice())?;
            for (entry, part) in stored.manifest.files() {
                let mut content = File::open(self.file(entry, part))?;
                add(&entry.name, entry.size, &mut content)?;
            }
            let mut packed = archive.into_inner()?.finish()?;
            packed.flush()?;
            let whole = packed
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?;
            let size = whole.as_file().metadata()?.len();
            file::persist(whole, to, file::PRIVATE)?;
            Ok(size)
        };
        write().map_err(KernelError::io("write", to))
    }

    /// Imports a file that [`Self::export`] wrote. Every file is hashed while it is read, and the kernel is
    /// added only if all match the manifest.
    pub fn import(&self, path: &Path) -> Result<StoredKernel, KernelError> {
        let bad = |message: String| KernelError::NotAnArchive {
            path: path.to_path_buf(),
            message,
        };
        let unreadable = |error: io::Error| bad(error.to_string());
        let file = open::file(path).map_err(KernelError::io("open", path))?;
        let reader = zstd::stream::read::Decoder::new(file).map_err(unreadable)?;
        let _held = self.begin(None)?;
        let mut manifest: Option<(KernelManifest, Vec<u8>)> = None;
        let mut missing: Vec<String> = Vec::new();
        each_entry(reader, &unreadable, &mut |entry| {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if entry.header().entry_type() != EntryType::Regular {
                return Err(bad(format!("its entry {name:?} is not a file")));
            }
            let Some((manifest, _)) = &manifest else {
                if name != MANIFEST {
                    return Err(bad(format!("its first entry is {name:?}, not {MANIFEST}")));
                }
                let mut bytes = Vec::new();
                entry
                    .take(MANIFEST_LIMIT)
                    .read_to_end(&mut bytes)
                    .map_err(unreadable)?;
                let parsed = KernelManifest::parse(&bytes, &path.shown())?;
                missing = (parsed.files().iter())
                    .map(|(entry, _)| entry.name.clone())
                    .collect();
                manifest = Some((parsed, bytes));
                return Ok(());
            };
            let files = manifest.files();
            let known = files.iter().find(|(file, _)| file.name == name);
            let Some((claimed, part)) = known.filter(|_| missing.contains(&name)) else {
                return Err(bad(format!(
                    "its entry {name:?} is not listed in its {MANIFEST}"
                )));
            };
            self.keep_stream(&name, entry, *part, path, Some(claimed))?;
            missing.retain(|other| *other != name);
            Ok(())
        })?;
        let Some((_, bytes)) = manifest else {
            return Err(bad("it is empty".into()));
        };
        if let Some(name) = missing.first() {
            return Err(bad(format!("its file {name} is missing")));
        }
        self.keep_manifest(&bytes)
    }
}
