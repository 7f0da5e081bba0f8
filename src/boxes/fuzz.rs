//! Entry points for `cargo fuzz`: every parser of foreign data in this room. None may panic, hang or use
//! memory without bound, and what it accepts must read the same after it is written again.

use std::{io::Write, path::Path};

use crate::{
    fetch::{PublicKey, find_in, verify_clearsigned, verify_detached},
    resolve::lockfile::LockFile,
    store::{Bounds, write_sparse},
};

use super::{
    archive::read_archive,
    catalogue::{Catalogue, Requirement, Version},
    image,
    manifest::{DiskFormat, Manifest},
    oci,
    opened::Opened,
    partitions, qcow2, recipe,
    source::Source,
    vagrant::{self, Listing, Settings},
};

/// The most bytes that are unpacked; more would only test the disk.
const UNPACKED: u64 = 1 << 22;

pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::parse(data, "fuzz") {
        assert!(crate::host::names::is_user(&manifest.login_user));
        let bytes = manifest.to_bytes().expect("it was read");
        assert_eq!(Manifest::parse(&bytes, "fuzz").expect("written"), manifest);
    }
}

pub fn text_files(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(lock) = LockFile::parse(text) {
        assert_eq!(LockFile::parse(&lock.render()).expect("written"), lock);
    }
    if let Ok(catalogue) = Catalogue::parse(text, "fuzz") {
        for (name, _) in catalogue.boxes() {
            let _ = catalogue.find(name, "x86_64");
        }
    }
    let _ = recipe::parse(text, Path::new("/fuzz"));
    let _ = find_in(text, "disk.qcow2", "fuzz");
    let _ = Settings::parse(text);
    let _ = Source::parse(text, Path::new("/fuzz")).map(|source| source.stem());
    if let Some(version) = Version::parse(text) {
        assert!(Requirement::parse(text).expect("a version").fits(&version));
    }
    let _ = Requirement::parse(text);
}

pub fn signatures(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = PublicKey::parse(text);
    }
    thread_local! {
        static KEY: PublicKey =
            PublicKey::parse(include_str!("catalogue/testdata/key.asc")).expect("a key");
    }
    KEY.with(|key| {
        // No input may be a valid signature of other content by that key.
        assert!(verify_detached(key, b"not what was signed", data).is_err());
        let _ = verify_clearsigned(key, data);
    });
}

pub fn vagrant(data: &[u8]) {
    let _ = vagrant::disks(data);
    if let Some(listing) = Listing::parse(data) {
        let _ = listing.choose(&Requirement::Any, "x86_64");
    }
}

pub fn registries(data: &[u8]) {
    oci::fuzz(data);
}

/// Images and archives in every compression.
pub fn files(data: &[u8]) {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("memory");
    file.write_all(data).expect("memory");
    let Ok(opened) = Opened::open(file.path(), None) else {
        return;
    };
    let Ok((compression, _)) = opened.probe() else {
        return;
    };
    let bounds = || Bounds::of_size(UNPACKED);
    if let Ok(mut reader) = opened.unpacked(compression) {
        let mut sparse = tempfile::tempfile_in("/dev/shm").expect("memory");
        let _ = write_sparse(&mut *reader, &mut sparse, &mut bounds(), &mut |_| {});
    }
    let _ = read_archive(&opened, &mut |_, _, _, _, reader| {
        let _ = std::io::copy(
            &mut std::io::Read::take(reader, UNPACKED),
            &mut std::io::sink(),
        );
        Ok(())
    });
    let temporary = || Ok(tempfile::NamedTempFile::new_in("/dev/shm").expect("memory"));
    let _ = vagrant::unpack(&opened, compression, &temporary, &mut bounds(), &mut |_| {});
}

/// Headers of disk images. Each input is read as every kind, whatever it begins with; an accepted image must
/// not name another file.
pub fn images(data: &[u8]) {
    use image::Kind;
    let mut file = tempfile::tempfile_in("/dev/shm").expect("memory");
    file.write_all(data).expect("memory");
    for kind in [Kind::Qcow2, Kind::Vmdk, Kind::Vhd, Kind::Vhdx] {
        let good = image::objection(&file, kind).is_ok_and(|objection| objection.is_none());
        if good && kind == Kind::Qcow2 {
            assert!(qcow2::backing(&file).expect("looked at").is_none());
        }
    }
    let _ = qcow2::backing(&file);
    let _ = qcow2::virtual_size(&file);
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        let _ = partitions::needed(&file, format);
    }
}
