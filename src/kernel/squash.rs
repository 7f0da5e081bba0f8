//! Writes a module tree as one read-only file system.

use std::{
    fs::File,
    io::{self, BufWriter, Read},
    path::Path,
};

use backhand::{
    FilesystemCompressor, FilesystemWriter, NodeHeader,
    compression::{CompressionOptions, Compressor, Gzip},
};

use super::{error::KernelError, tree::TreeFile};

/// Writes a squashfs of these files. They belong to root and have no date, so that the same files make the
/// same bytes. It is compressed with gzip, which every kernel that has squashfs can read.
#[expect(
    clippy::disallowed_methods,
    reason = "in a temporary folder, whose files are moved into place later"
)]
pub(super) fn write(files: &[TreeFile], to: &Path) -> Result<(), KernelError> {
    let broken = |error: backhand::BackhandError| {
        KernelError::io("write", to)(std::io::Error::other(error.to_string()))
    };
    let header = |mode| NodeHeader::new(mode, 0, 0, 0);
    let mut writer = FilesystemWriter::default();
    let gzip = CompressionOptions::Gzip(Gzip {
        compression_level: LEVEL,
        window_size: 15,
        strategies: 0,
    });
    let compressor = FilesystemCompressor::new(Compressor::Gzip, Some(gzip)).map_err(broken)?;
    writer.set_compressor(compressor);
    writer.set_time(0);
    writer.set_root_mode(0o755);
    for file in files {
        if let Some((folder, _)) = file.name.rsplit_once('/') {
            writer.push_dir_all(folder, header(0o755)).map_err(broken)?;
        }
        let content = Lazy::Closed(file);
        writer
            .push_file(content, &file.name, header(0o644))
            .map_err(broken)?;
    }
    let out = File::create(to).map_err(KernelError::io("write", to))?;
    let mut out = BufWriter::new(out);
    writer.write(&mut out).map_err(broken)?;
    Ok(())
}

/// A file that is opened when it is read: a tree has more files than a process may have open.
enum Lazy<'f> {
    Closed(&'f TreeFile),
    Open(File),
    /// The end was reached; the writer reads once more.
    AtEnd,
}

impl Read for Lazy<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Lazy::Closed(file) = self {
            *self = Lazy::Open(file.open()?);
        }
        let Lazy::Open(file) = self else {
            return Ok(0);
        };
        let n = file.read(buffer)?;
        if n == 0 && !buffer.is_empty() {
            *self = Lazy::AtEnd;
        }
        Ok(n)
    }
}

/// gzip's level. Modules are read once per boot, so the time to compress them matters more than the last few
/// percent of size.
const LEVEL: u32 = 3;

#[cfg(test)]
mod tests {
    use std::{fs, io::BufReader};

    use backhand::{FilesystemReader, InnerNode};

    use super::*;
    use crate::kernel::tree::files_of;

    /// Files of less than a block, of several, of none, and of exactly one.
    #[test]
    fn files_are_packed_whole_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let sizes = [("a", 10), ("b", 300 << 10), ("c", 0), ("d", 128 << 10)];
        for (name, size) in sizes {
            fs::write(tree.join(name), name.repeat(size)).unwrap();
        }
        let out = folder.path().join("tree.squashfs");
        write(&files_of(&tree).unwrap(), &out).unwrap();
        let file = BufReader::new(File::open(&out).unwrap());
        let read = FilesystemReader::from_reader(file).unwrap();
        let mut found = Vec::new();
        for node in read.files() {
            if let InnerNode::File(file) = &node.inner {
                let mut content = String::new();
                let mut reader = read.file(file).reader();
                reader.read_to_string(&mut content).unwrap();
                let name = node.fullpath.file_name().unwrap().to_str().unwrap();
                assert!(content.bytes().all(|byte| byte == name.as_bytes()[0]));
                found.push((name.to_string(), content.len()));
            }
        }
        assert_eq!(found, sizes.map(|(name, size)| (name.to_string(), size)));
    }
}
