//! Files of kernels as they came from others: none is read into memory whose size is not that of its kind.

use std::{
    io::{self, Read},
    path::Path,
};

use crate::host::open;

/// Of what depmod(8) writes and a package may bring, in bytes; a distribution's have 2 MB.
pub const LARGEST_TABLE: u64 = 64 << 20;

/// # Errors
/// `InvalidData` where it has more bytes than that.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open::file(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has more than {limit} bytes, which no such file has"),
        ));
    }
    Ok(bytes)
}

/// # Errors
/// As [`read`], and `InvalidData` where it is not text.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        assert!(read(file.path(), LARGEST_TABLE).is_err());
        file.as_file().set_len(10).unwrap();
        assert_eq!(read(file.path(), 10).unwrap(), [0; 10]);
        assert!(read(file.path(), 9).is_err());
    }
}
