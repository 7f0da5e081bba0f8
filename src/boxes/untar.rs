//! Tar archives that others packed, entry by entry. The crate reads names and other extensions of an entry
//! into memory, however long they are, so what it may read between two files is bounded here.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

use tar::{Archive, Entry};

/// Of headers, long names and lists of holes before one file, in bytes. A sparse file of 300,000 parts has as
/// much.
const MOST_HEADERS: u64 = 8 << 20;

/// What an archive is read through.
pub struct Bounded<R> {
    inner: R,
    /// `None`: a file's content comes, and who reads it has a bound of its own.
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

/// What is done with an entry, as it is met.
pub type Each<'a, R, E> = dyn FnMut(&mut Entry<'_, Bounded<R>>) -> Result<(), E> + 'a;

/// Calls `each` with every entry, from front to back. What it leaves of an entry is passed over.
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
    let mut entries = archive.entries().map_err(unreadable)?;
    loop {
        left.set(Some(MOST_HEADERS));
        let Some(entry) = entries.next() else {
            return Ok(());
        };
        let mut entry = entry.map_err(unreadable)?;
        left.set(None);
        each(&mut entry)?;
        // Else it would be passed over as a part of the next one's header.
        io::copy(&mut entry, &mut io::sink()).map_err(unreadable)?;
    }
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

    /// The start of an archive whose first entry is an extension with so many bytes of content.
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
        // Every one of these says that another follows.
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
