//! A module tree as one read-only file system.

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

/// Writes a squashfs of these files: root's, of no date, so that the same files make the same
/// bytes. gzip, since every kernel that reads squashfs at all reads that.
pub fn write(files: &[TreeFile], to: &Path) -> Result<(), KernelError> {
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
        let content = Lazy { file, open: None };
        writer
            .push_file(content, &file.name, header(0o644))
            .map_err(broken)?;
    }
    let out = File::create(to).map_err(KernelError::io("write", to))?;
    let mut out = BufWriter::new(out);
    writer.write(&mut out).map_err(broken)?;
    Ok(())
}

/// A file that is opened when it is read: a tree has more than a process may have open.
struct Lazy<'f> {
    file: &'f TreeFile,
    open: Option<File>,
}

impl Read for Lazy<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let file = match &mut self.open {
            Some(file) => file,
            none => none.insert(self.file.open()?),
        };
        let n = file.read(buffer)?;
        if n == 0 {
            self.open = None;
        }
        Ok(n)
    }
}

/// Modules are read once per boot; the time of packing them counts more than the last percents.
const LEVEL: u32 = 3;
