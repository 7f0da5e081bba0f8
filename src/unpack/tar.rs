//! Reads foreign tar archives entry by entry. The crate reads an entry's name and other extensions into
//! memory, however long they are, so this limits how much it may read between two files.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

use tar::{Archive, Entry};

/// Largest size of headers, long names and lists of holes before one file, in bytes. A sparse file of 300,000
/// parts needs as much.
const MOST_HEADERS: u64 = 8 << 20;

/// A reader with a limit between two files' contents.
pub struct Bounded<R> {
    inner: R,
    /// Bytes left until the next content. `None` inside a file's content, which the callers bound themselves.
    left: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(left) = self.left.get() {
            let left = left.checked_sub(n as u64).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a name or header in it has more than {MOST_HEADERS} bytes"),
                )
            })?;
            self.left.set(Some(left));
        }
        Ok(n)
    }
}

/// Called for each entry in the archive's order.
pub(super) type Each<'a, R, E> = dyn FnMut(&mut Entry<'_, Bounded<R>>) -> Result<(), E> + 'a;

/// Calls `each` with every entry, from front to back. Content that `each` does not read is skipped, and so are
/// headers about all files that follow (pax(1)), such as the comment of `git archive`.
pub fn each_entry<R: Read, E>(
    reader: R,
    unreadable: &dyn Fn(io::Error) -> E,
    each: &mut Each<'_, R, E>,
) -> Result<(), E> {
    let left = Rc::new(Cell::new(None));
    let mut archive = Archive::new(Bounded {
        inner: reader,
        left: Rc::clone(&left),
    });
    left.set(Some(MOST_HEADERS));
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        left.set(None);
        each(&mut entry)?;
        // Otherwise the rest would be skipped as a part of the next entry's header.
        io::copy(&mut entry, &mut io::sink()).map_err(unreadable)?;
        left.set(Some(MOST_HEADERS));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, EntryType, Header};

    fn names(bytes: &[u8]) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        each_entry(bytes, &|error| error, &mut |entry| {
            names.push(String::from_utf8_lossy(&entry.path_bytes()).into_owned());
            Ok(())
        })?;
        Ok(names)
    }

    /// The start of an archive whose first entry is an extension with `size` bytes of content.
    fn long(kind: EntryType, size: u64) -> impl Read {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'a'))
    }

    #[test]
    fn names_have_a_bound() {
        for kind in [
            EntryType::GNULongName,
            EntryType::GNULongLink,
            EntryType::XHeader,
            EntryType::XGlobalHeader,
        ] {
            let error =
                each_entry(long(kind, 1 << 40), &|error| error, &mut |_| Ok(())).unwrap_err();
            assert!(error.to_string().contains("a name or header"), "{error}");
        }
    }

    #[test]
    fn holes_have_a_bound() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNUSparse);
        header.set_size(0);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.isextended = [1];
        header.set_cksum();
        // Each of these headers announces another one.
        let stream = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(1));
        assert!(each_entry(stream, &|error| error, &mut |_| Ok(())).is_err());
    }

    #[test]
    fn content_that_nobody_reads_is_no_header() {
        let mut builder = Builder::new(Vec::new());
        let content = vec![7; (MOST_HEADERS + 1000) as usize];
        for name in ["large", &format!("{}/deep", "long".repeat(50)), "last"] {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            builder
                .append_data(&mut header, name, content.as_slice())
                .unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        assert_eq!(names(&bytes).unwrap().len(), 3);
        assert!(names(&bytes[..bytes.len() / 2]).is_err());
    }
}
