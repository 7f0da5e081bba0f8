//! A data folder that an older stead wrote is read as it is, and stores of boxes and kernels see the same damage.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use crate::{boxes, host::paths::DataDir, kernel::KernelStore, report::counted};

/// Where small:2 came from.
const URL: &str = "http://127.0.0.1:18999/small2.tar.zst";
/// The key of the source that the kernel came from.
const SOURCE: &str = "path 0123";

/// `testdata/old`: the boxes small:1 and small:2, which share their files, and a captured kernel.
struct Old {
    folder: tempfile::TempDir,
    data: DataDir,
}

impl Old {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/testdata/old");
        copy(&old, folder.path());
        let data = DataDir::at(folder.path());
        Old { folder, data }
    }

    fn images(&self) -> Vec<String> {
        names(&self.folder.path().join("images"))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = (fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Git keeps no modes; the store's files are read-only.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::write(&target, fs::read(entry.path()).unwrap()).unwrap();
            fs::set_permissions(&target, Permissions::from_mode(0o400)).unwrap();
        }
    }
}

/// A file that is there but for one byte.
fn alter(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    replace(path, &bytes);
}

fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn boxes_of_an_older_stead() {
    let old = Old::new();
    let store = boxes::Store::open(&old.data);
    let versions: Vec<_> = (store.list().unwrap().into_iter())
        .map(|stored| (stored.manifest.name, stored.manifest.version))
        .collect();
    assert_eq!(versions.len(), 2, "{versions:?}");
    let first = store.resolve_named("small").unwrap();
    assert_eq!(first.manifest.version, "1");
    assert!(store.resolve_named("small:2").is_err());
    let fetched = store.resolve(URL).unwrap();
    assert_eq!(fetched.manifest.version, "2");
    let found = store.by_reference(URL, "x86_64");
    assert_eq!(found.unwrap().1.digest, fetched.digest);
    assert_eq!(
        store.resolve(fetched.digest.short()).unwrap().digest,
        fetched.digest
    );
    for stored in [&first, &fetched] {
        // Their inodes are others now, so that they are hashed.
        store.ensure_intact(stored).unwrap();
        store.verify(stored).unwrap();
        assert!(store.sole_files(stored).unwrap().is_empty());
        let bytes = store.manifest_bytes(&stored.digest).unwrap();
        assert_eq!(super::Digest::of(&bytes), stored.digest);
    }
    let named = store.named().unwrap();
    assert_eq!(named.len(), 1);
    assert_eq!(store.remove(&first).unwrap(), 0);
    assert!(store.remove(&fetched).unwrap() > 0);
    assert!(
        (old.images().iter()).all(|name| name.starts_with("vmlinuz")
            || name.starts_with("modules")
            || name.starts_with("initramfs")),
        "{:?}",
        old.images()
    );
}

#[test]
fn kernels_of_an_older_stead() {
    let old = Old::new();
    let store = KernelStore::open(&old.data);
    let kernel = store.resolve_captured("shop").unwrap();
    for reference in ["shop", "6.1.0-1", kernel.digest.short()] {
        assert_eq!(store.resolve(reference).unwrap().digest, kernel.digest);
    }
    let remembered = store.of_source(SOURCE).unwrap().unwrap();
    assert_eq!(remembered.digest, kernel.digest);
    store.ensure_intact(&kernel).unwrap();
    store.verify(&kernel).unwrap();
    assert!(store.config(&kernel).is_some());
    assert!(store.initramfs(&kernel, None, &[]).unwrap().exists());
    assert_eq!(
        store.sole_files(&kernel).unwrap().len(),
        kernel.manifest.files().len()
    );
    // A file of each place, and of each kind of damage.
    let files: Vec<PathBuf> = store.sole_files(&kernel).unwrap();
    for path in &files {
        let whole = fs::read(path).unwrap();
        alter(path);
        let said = store.ensure_intact(&kernel).unwrap_err().to_string();
        assert!(
            said.contains("has changed since the kernel was added"),
            "{said}"
        );
        replace(path, &whole[1..]);
        let said = store.ensure_intact(&kernel).unwrap_err().to_string();
        let found = counted(whole.len() - 1, "byte");
        let sizes = format!("has {found}, expected {}", whole.len());
        assert!(said.contains(&sizes), "{said}");
        fs::remove_file(path).unwrap();
        let said = store.ensure_intact(&kernel).unwrap_err().to_string();
        assert!(said.contains("is missing (sha256 "), "{said}");
        fs::write(path, whole).unwrap();
        store.ensure_intact(&kernel).unwrap();
    }
    assert!(store.remove(&kernel).unwrap() > 0);
    assert!(store.list().unwrap().is_empty());
    assert!(names(&old.data.kernels().join("files")).is_empty());
    assert!(
        old.images()
            .iter()
            .all(|name| name.starts_with("box-") || name.starts_with("kernel-")),
        "{:?}",
        old.images()
    );
}

#[test]
fn a_manifest_is_bounded_and_has_its_digest() {
    let old = Old::new();
    let kernels = KernelStore::open(&old.data);
    let kernel = kernels.resolve("shop").unwrap();
    let path = (old.data.kernels()).join(format!("{}.json", kernel.digest.hex()));
    alter(&path);
    let said = kernels.resolve("shop").unwrap_err().to_string();
    assert!(
        said.contains("has changed since its kernel was added"),
        "{said}"
    );
    assert!(kernels.manifest_bytes(&kernel.digest).is_err());
    let large = vec![b' '; (super::MANIFEST_LIMIT + 1) as usize];
    let said = kernels.keep_manifest(&large).unwrap_err().to_string();
    assert!(said.contains("1.0 MiB"), "{said}");

    let store = boxes::Store::open(&old.data);
    let stored = store.resolve("small").unwrap();
    let path = (old.data.boxes()).join(format!("{}.json", stored.digest.hex()));
    replace(&path, &large);
    let said = store.list().unwrap_err().to_string();
    assert!(said.contains("it is larger than 1.0 MiB"), "{said}");
}

/// What the other store works on is left alone.
#[test]
fn what_a_killed_process_left_is_removed() {
    let old = Old::new();
    let images = old.data.images();
    let manifests = [old.data.boxes(), old.data.kernels()];
    for name in [".incoming-a", ".kernel-incoming-b"] {
        fs::write(images.join(name), "x").unwrap();
    }
    for folder in &manifests {
        fs::write(folder.join(".incoming-c"), "x").unwrap();
    }
    let kernels = KernelStore::open(&old.data);
    let (own, young) = (
        kernels.work_folder().unwrap(),
        kernels.work_folder().unwrap(),
    );
    let abandoned = kernels.work_folder().unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
    for folder in [&own, &abandoned] {
        let folder = fs::File::open(folder.path()).unwrap();
        folder.set_modified(long_ago).unwrap();
    }
    kernels.sweep(Some(own.path()));
    assert!(own.path().exists() && young.path().exists());
    assert!(!abandoned.path().exists());
    assert!(images.join(".incoming-a").exists());
    assert!(!images.join(".kernel-incoming-b").exists());
    assert!(!manifests[1].join(".incoming-c").exists());
    boxes::Store::open(&old.data).sweep(None);
    assert!(!images.join(".incoming-a").exists());
    assert!(!manifests[0].join(".incoming-c").exists());
}

/// An initramfs is written like all other files of the store: under its lock, so that nobody takes it for something that
/// a killed process left.
#[test]
fn an_initramfs_is_written_under_the_lock() {
    let old = Old::new();
    let store = KernelStore::open(&old.data);
    let kernel = store.resolve_captured("shop").unwrap();
    let write = |n: usize| {
        let carried = [("n".to_string(), "x".repeat(n))];
        store.initramfs(&kernel, None, &carried)
    };
    let there = write(1).unwrap();
    let (done, is_done) = mpsc::channel();
    std::thread::scope(|scope| {
        let held = store.lock().unwrap();
        assert_eq!(write(1).unwrap(), there);
        scope.spawn(|| done.send(write(2)).unwrap());
        let early = is_done.recv_timeout(Duration::from_millis(300));
        assert!(early.is_err(), "it did not wait for the lock: {early:?}");
        drop(held);
        assert!(is_done.recv().unwrap().unwrap().exists());
    });
}

/// The store of boxes removes what is unfinished in the folder of images too, but never what is not its own.
#[test]
fn an_initramfs_is_written_while_the_boxes_are_swept() {
    let old = Old::new();
    let store = KernelStore::open(&old.data);
    let kernel = store.resolve_captured("shop").unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let boxes = boxes::Store::open(&old.data);
            while !ended.load(Ordering::Relaxed) {
                let _held = boxes.lock().unwrap();
                boxes.sweep(None);
            }
        });
        let written: Result<Vec<_>, _> = (1..300)
            .map(|n| store.initramfs(&kernel, None, &[("n".to_string(), "x".repeat(n))]))
            .collect();
        ended.store(true, Ordering::Relaxed);
        written.unwrap();
    });
}
