//! The entry points of `cargo fuzz`: every parser here that reads foreign data. None may panic, hang, or use unlimited
//! memory or disk.

use std::io::Cursor;

use super::{
    deb, rpm,
    tree::{Bounded, Tree},
};

/// In bytes. With more, the target would mainly test the disk.
const UNPACKED: u64 = 1 << 22;

pub fn packages(data: &[u8]) {
    deb::fuzz(data);
    rpm::fuzz(data);
    let folder = tempfile::tempdir_in("/dev/shm").expect("memory");
    for take in [deb::fuzz_entries, rpm::fuzz_entries] {
        let root = tempfile::tempdir_in(folder.path()).expect("memory");
        let mut tree = Tree::new(root.path()).expect("memory");
        if take(&mut Bounded::new(Cursor::new(data), UNPACKED), &mut tree).is_ok() {
            let _ = tree.finish(root.path());
        }
    }
}
