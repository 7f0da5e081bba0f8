//! A host with a full disk, and processes that are killed.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{Manner, Place, sha256, text};

/// Runs stead in new namespaces, with its data on a file system of this size.
fn on_a_small_disk(place: &Place, size: &str, arguments: &[&str]) -> std::process::Output {
    let data = place.path("data");
    fs::create_dir_all(&data).unwrap();
    let inner = place.stead(arguments);
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-euc"])
        .arg("mount -t tmpfs -o \"size=$1\" tmpfs \"$2\"; shift 2; \"$@\"; code=$?; ls -R \"$STEAD_DATA_DIR\"; exit $code")
        .args(["sh", size])
        .arg(&data)
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(place.path("."))
        .env_clear();
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.output().unwrap()
}

#[test]
fn a_full_disk() {
    let place = Place::new();
    let raw = place.raw();
    let url = place.server.serve("image", Manner::Well, &raw);
    // It fails before a byte is fetched, because the server announces the size.
    let output = on_a_small_disk(&place, "2m", &["box", "add", &url]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    for word in ["not enough space in", " needed, ", "stead box prune"] {
        assert!(text(&output).contains(word), "{word}: {}", text(&output));
    }
    // The unpacked size is not known before the disk is full.
    let noise: Vec<u8> = (0..raw.len() as u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    let mut noise = noise;
    noise[510..512].copy_from_slice(b"\x55\xaa");
    let packed = place.path("image.zst");
    fs::write(&packed, zstd::encode_all(noise.as_slice(), 1).unwrap()).unwrap();
    let output = on_a_small_disk(&place, "3m", &["box", "add", packed.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("No space left"), "{}", text(&output));
    assert!(!text(&output).contains("box-"), "{}", text(&output));
    assert!(place.adds(&[packed.to_str().unwrap()])["digest"].is_string());
}

/// stead is killed later each time until it succeeds; every file with a final name is complete.
#[test]
fn killed_at_any_time_it_leaves_nothing_half_made() {
    let place = Place::new();
    let image = place.raw();
    let packed = zstd::encode_all(image.as_slice(), 19).unwrap();
    let url = place.server.serve("image.zst", Manner::Well, &packed);
    let mut delay = Duration::ZERO;
    let mut killed = 0;
    loop {
        let mut child = place
            .stead(&["box", "add", &url, "--sha256", &sha256(&packed)])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(delay);
        let through = child
            .try_wait()
            .unwrap()
            .is_some_and(|status| status.success());
        let _ = child.kill();
        child.wait().unwrap();
        for name in place.left("images") {
            if let Some(digest) = name.strip_prefix("box-") {
                let found = sha256(&fs::read(place.path("data/images").join(&name)).unwrap());
                assert_eq!(digest.split('.').next().unwrap(), found);
            }
        }
        let output = place.stead(&["box", "verify"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        if through {
            break;
        }
        killed += 1;
        delay += Duration::from_millis(3);
        assert!(killed < 2000, "it never succeeded");
    }
    assert!(killed > 0);
    // The leftovers of the killed runs have been removed.
    let left = place.left("images");
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(place.left("downloads").is_empty());
}
