//! Boxes in a registry: Debian's docker-registry on 127.0.0.1, without a machine.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test that cannot go on panics"
)]

mod door;
mod logins;
mod place;
mod server;
mod strange;

use std::{
    fs,
    io::Read,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use door::{Door, Reply};
use place::{FULL, Place, disk_use, document, text};
use serde_json::Value;
use server::{Registry, sha256};
use sha2::{Digest, Sha256};

fn sha256_of(path: &Path) -> String {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(path).unwrap();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hex(&hash.finalize()),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The manifest under a tag or digest, as the registry has it.
fn manifest(registry: &Registry, version: &str) -> Value {
    let answer = registry.ask(
        "GET",
        &format!("/v2/team/small/manifests/{version}"),
        &["Accept: application/vnd.oci.image.manifest.v1+json"],
        b"",
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// The blobs of the disk's chunks, in their order.
fn chunks(manifest: &Value) -> Vec<String> {
    manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|layer| layer["annotations"]["vnd.stead.box.file"] == "disk.raw")
        .map(|layer| layer["digest"].as_str().unwrap()[7..].to_string())
        .collect()
}

/// A registry with the box small:1 under the tag `1`, the host that pushed it, and the report.
fn pushed() -> (Registry, Place, Value) {
    let (registry, place) = (Registry::start(), Place::new());
    place.add("1", 0);
    let reference = format!("oci://{}/team/small:1", registry.host());
    let report = place.does(&["box", "push", "small:1", &reference]);
    (registry, place, report)
}

#[test]
fn pushed_and_pulled_it_is_the_same_box() {
    let (registry, here, report) = pushed();
    // The kernel is one chunk more.
    assert_eq!(report["chunks"], FULL + 1);
    assert_eq!(report["uploaded_chunks"], FULL + 1);
    let tag = format!("oci://{}/team/small:1", registry.host());

    let there = Place::new();
    let pulled = there.does(&["box", "pull", &tag]);
    assert_eq!(pulled["digest"], report["digest"]);
    assert_eq!(pulled["name"], "small");
    let verified = there.stead(&["box", "verify"]).output().unwrap();
    assert!(verified.status.success(), "{}", text(&verified));
    let disk = pulled["manifest"]["disk"]["file"]["sha256"]
        .as_str()
        .unwrap();
    let disk = there.path("data").join(format!("images/box-{disk}.raw"));
    assert!(disk_use(&disk) < 4 << 20, "{} bytes", disk_use(&disk));
    assert!(there.kept_chunks().is_empty());
    assert!(there.left("downloads").is_empty());

    // The same box again: nothing is uploaded, and the manifest is the same.
    let again = here.does(&["box", "push", "small:1", &tag]);
    assert_eq!(again["uploaded_chunks"], 0);
    assert_eq!(again["sha256"], report["sha256"]);
    let before = registry.fetched();
    let pulled = there.does(&["box", "pull", &tag]);
    assert_eq!(pulled["digest"], report["digest"]);
    let only_config: usize =
        registry.fetched().values().sum::<usize>() - before.values().sum::<usize>();
    assert_eq!(only_config, 1);
    // Another host makes the same manifest of the same box.
    let other = Place::new();
    other.add("1", 0);
    let other = other.does(&["box", "push", "small:1", &tag]);
    assert_eq!(other["sha256"], report["sha256"]);
}

#[test]
fn a_changed_box_moves_only_what_changed() {
    let (registry, here, first) = pushed();
    let at = |tag: &str| format!("oci://{}/team/small:{tag}", registry.host());
    let there = Place::new();
    there.does(&["box", "pull", &at("1")]);

    let digest = here.add("2", 77);
    let report = here.does(&["box", "push", "small:2", &at("2")]);
    assert_eq!(report["chunks"], FULL + 1);
    assert_eq!(report["uploaded_chunks"], 1);
    let (old, new) = (manifest(&registry, "1"), manifest(&registry, "2"));
    let (old, new) = (chunks(&old), chunks(&new));
    let changed: Vec<usize> = (0..old.len()).filter(|n| old[*n] != new[*n]).collect();
    assert_eq!(changed, [2]);

    let before = registry.fetched();
    let pulled = there.does(&["box", "pull", &at("2")]);
    assert_eq!(pulled["digest"], digest);
    let after = registry.fetched();
    let fetched: Vec<&String> = after
        .keys()
        .filter(|blob| !before.contains_key(*blob))
        .collect();
    let config = digest.strip_prefix("sha256:").unwrap().to_string();
    let mut wanted = vec![&config, &new[2]];
    wanted.sort();
    assert_eq!(fetched, wanted);
    assert!(old.iter().all(|blob| before.get(blob) == after.get(blob)));

    // The other box was altered: its bad chunk is detected and fetched.
    let other = Place::new();
    let one = other.does(&["box", "pull", &at("1")]);
    let disk = one["manifest"]["disk"]["file"]["sha256"].as_str().unwrap();
    let disk = other.path(&format!("data/images/box-{disk}.raw"));
    let mut bytes = fs::read(&disk).unwrap();
    bytes[(5 * place::CHUNK) as usize + 7] ^= 1;
    fs::remove_file(&disk).unwrap();
    fs::write(&disk, bytes).unwrap();
    let before = registry.fetched();
    let pulled = other.does(&["box", "pull", &at("2")]);
    assert_eq!(pulled["digest"], digest);
    let after = registry.fetched();
    assert_eq!(after[&new[5]], before[&new[5]] + 1);
    assert_eq!(after[&new[4]], before[&new[4]]);

    // The digest still names the first box, although the tag has moved.
    let report = here.does(&["box", "push", "small:2", &at("1")]);
    assert_eq!(report["uploaded_chunks"], 0);
    let last = Place::new();
    let by_digest = format!(
        "oci://{}/team/small@sha256:{}",
        registry.host(),
        first["sha256"].as_str().unwrap()
    );
    let pulled = last.does(&["box", "pull", &by_digest]);
    assert_eq!(pulled["digest"], first["digest"]);
}

#[test]
fn a_pull_that_failed_goes_on() {
    let (registry, _, report) = pushed();
    let tag = format!("oci://{}/team/small:1", registry.host());
    let chunks = chunks(&manifest(&registry, "1"));
    let last = registry.blob(chunks.last().unwrap());
    let aside = last.with_extension("aside");
    fs::rename(&last, &aside).unwrap();

    let there = Place::new();
    there.fails(
        &["box", "pull", &tag],
        &[
            "has no blob",
            chunks.last().unwrap(),
            "good chunks will not be fetched again",
        ],
    );
    there.has_nothing();
    let kept = there.kept_chunks();
    assert!(!kept.is_empty());
    fs::rename(&aside, &last).unwrap();
    // Damage one of the saved chunks.
    let folder = there.left("downloads").remove(0);
    let damaged = there.path(&format!("data/downloads/{folder}/{}", kept[0]));
    fs::write(&damaged, b"x").unwrap();

    let before = registry.fetched();
    let pulled = there.does(&["box", "pull", &tag]);
    assert_eq!(pulled["digest"], report["digest"]);
    let after = registry.fetched();
    for blob in &kept[1..] {
        assert_eq!(before[blob], after[blob], "{blob} was asked for again");
    }
    assert_eq!(before[&kept[0]] + 1, after[&kept[0]]);
    assert!(there.left("downloads").is_empty());
}

#[test]
fn a_pull_that_was_killed_goes_on() {
    let (registry, _, report) = pushed();
    let chunks = chunks(&manifest(&registry, "1"));
    let last = chunks.last().unwrap().clone();
    // The last chunk never arrives, so that the pull can be killed in the middle.
    let stalls = Arc::new(AtomicBool::new(true));
    let (stalled, now) = (last.clone(), Arc::clone(&stalls));
    let door = Door::before(&registry.host(), move |_, seen| {
        if seen.path.ends_with(&stalled) && now.load(Ordering::SeqCst) {
            Reply::Stall
        } else {
            Reply::Pass
        }
    });
    let tag = format!("oci://{}/team/small:1", door.host());
    let there = Place::new();
    let mut child = there
        .stead(&["box", "pull", &tag])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // All other chunks of the disk, and the kernel.
    while there.kept_chunks().len() < chunks.len() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    there.has_nothing();

    stalls.store(false, Ordering::SeqCst);
    let before = door.seen().len();
    let pulled = there.does(&["box", "pull", &tag]);
    assert_eq!(pulled["digest"], report["digest"]);
    let mut blobs: Vec<String> = door.seen()[before..]
        .iter()
        .filter_map(|seen| Some(seen.path.split_once("/blobs/sha256:")?.1.to_string()))
        .collect();
    blobs.sort();
    let mut wanted = vec![last, report["digest"].as_str().unwrap()[7..].to_string()];
    wanted.sort();
    assert_eq!(blobs, wanted);
}

#[test]
fn an_upload_that_broke_is_tried_again() {
    let (registry, here) = (Registry::start(), Place::new());
    let digest = here.add("1", 0);
    let uploads = AtomicUsize::new(0);
    let door = Door::before(&registry.host(), move |_, seen| {
        if seen.method != "PUT" || !seen.path.contains("/uploads/") {
            return Reply::Pass;
        }
        match uploads.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::Say("503 Service Unavailable".into(), String::new()),
            1 => Reply::Stall,
            2 => Reply::Say("404 Not Found".into(), String::new()),
            _ => Reply::Pass,
        }
    });
    let tag = format!("oci://{}/team/small:1", door.host());
    let output = here
        .stead(&["--json", "box", "push", "small", &tag])
        .env("STEAD_TEST_STALL_MS", "1500")
        .output()
        .unwrap();
    assert_eq!(document(output)["uploaded_chunks"], FULL + 1);
    // Each attempt opens its own upload: for the config and the chunks, and three more.
    let opened = |it: &&door::Seen| it.method == "POST";
    let opened = door.seen().iter().filter(opened).count() as u64;
    assert_eq!(opened, 1 + FULL + 1 + 3);
    assert_eq!(Place::new().does(&["box", "pull", &tag])["digest"], digest);
}

#[test]
fn a_damaged_blob_is_refused_with_both_digests() {
    let (registry, _, report) = pushed();
    let tag = format!("oci://{}/team/small:1", registry.host());
    let blob = chunks(&manifest(&registry, "1"))[3].clone();
    let path = registry.blob(&blob);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&path, &bad).unwrap();

    let there = Place::new();
    there.fails(
        &["box", "pull", &tag],
        &[&blob, &sha256(&bad), "a chunk of"],
    );
    there.has_nothing();
    assert!(!there.kept_chunks().contains(&blob));
    fs::write(&path, &good[..middle]).unwrap();
    there.fails(&["box", "pull", &tag], &[&good.len().to_string()]);
    there.has_nothing();
    fs::write(&path, &good).unwrap();
    let pulled = there.does(&["box", "pull", &tag]);
    assert_eq!(pulled["digest"], report["digest"]);

    // The manifest itself, requested by its digest.
    let digest = report["sha256"].as_str().unwrap();
    let path = registry.blob(digest);
    let altered = fs::read_to_string(&path)
        .unwrap()
        .replacen("small", "smell", 1);
    fs::write(&path, altered.as_bytes()).unwrap();
    let by_digest = format!("oci://{}/team/small@sha256:{digest}", registry.host());
    let other = Place::new();
    // docker-registry checks it too; whichever detects it first, nothing is stored.
    let output = other.stead(&["box", "pull", &by_digest]).output().unwrap();
    place::failed(output, &[]);
    other.has_nothing();
}

#[test]
fn the_lock_file_pins_a_manifest_and_is_obeyed() {
    let (registry, here, first) = pushed();
    let tag = format!("oci://{}/team/small:1", registry.host());
    let first = first["sha256"].as_str().unwrap().to_string();
    let project = Place::new();
    project.write(
        "Machinefile",
        &format!("project \"p\"\nmachine \"m\" {{ box \"{tag}\"; }}\n"),
    );
    let lock = || fs::read_to_string(project.path("Machinefile.lock")).unwrap();
    let update = |place: &Place| {
        let output = place.stead(&["box", "update"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    update(&project);
    assert!(
        lock().contains(&format!("sha256 \"{first}\"")),
        "{}",
        lock()
    );
    assert!(lock().contains(&format!("url \"{tag}\"")), "{}", lock());
    assert!(update(&project).contains("is unchanged"));

    // The tag moves on, but a colleague's clone does not.
    here.add("2", 9);
    let second = here.does(&["box", "push", "small:2", &tag]);
    let second = second["sha256"].as_str().unwrap().to_string();
    let clone = Place::new();
    clone.write("Machinefile.lock", &lock());
    clone.write(
        "Machinefile",
        &fs::read_to_string(project.path("Machinefile")).unwrap(),
    );
    // With libvirt's test driver, `up` fetches the box and ends before it creates the machine.
    let up = |place: &Place| {
        let output = place
            .stead(&["--connect", "test:///default", "up", "--locked"])
            .env("STEAD_TEST_KILL_AT", "m/define")
            .output()
            .unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    up(&clone);
    let boxes = document(clone.stead(&["--json", "box", "list"]).output().unwrap());
    assert_eq!(boxes.as_array().unwrap().len(), 1);
    assert_eq!(boxes[0]["version"], "1", "the lock file was not obeyed");

    assert!(update(&project).contains("is now"), "{}", lock());
    assert!(lock().contains(&second), "{}", lock());

    // The pinned manifest is gone from the registry.
    let deleted = registry.ask(
        "DELETE",
        &format!("/v2/team/small/manifests/sha256:{first}"),
        &[],
        b"",
    );
    assert_eq!(deleted.status, 202, "{}", deleted.text());
    let late = Place::new();
    for name in ["Machinefile", "Machinefile.lock"] {
        late.write(name, &fs::read_to_string(clone.path(name)).unwrap());
    }
    let said = up(&late);
    for words in [first.as_str(), "Machinefile.lock", "stead box update"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    late.has_nothing();

    // The Machinefile's own digest is the manifest's too.
    let pinned = Place::new();
    pinned.write(
        "Machinefile",
        &format!("project \"p\"\nmachine \"m\" {{ box \"{tag}\" sha256=\"{second}\"; }}\n"),
    );
    update(&pinned);
    let other = "0".repeat(64);
    pinned.fails(
        &["box", "add", &tag, "--sha256", &other],
        &["has no manifest", &other, "--sha256"],
    );
    let both = format!("{}@sha256:{first}", tag);
    pinned.fails(
        &["box", "add", &both, "--sha256", &other],
        &["names another manifest", &other],
    );
}
