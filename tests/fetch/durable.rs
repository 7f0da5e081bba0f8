//! What is left after a power cut, and with a full disk.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Manner, Place, text};

/// One system call, as strace prints it.
#[derive(Debug)]
enum Call {
    Sync(PathBuf),
    Name { from: PathBuf, to: PathBuf },
}

/// Parses lines such as `7 fsync(5</a/b>) = 0` and `7 rename("/a/b", "/a/c") = 0`; returns the calls that
/// matter, in order. Calls that another thread interrupted are joined.
fn calls(trace: &str) -> Vec<Call> {
    let mut begun: Vec<(String, String)> = Vec::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((pid, call)) = line.trim().split_once(' ') else {
            continue;
        };
        let mut call = call.trim().to_string();
        if let Some(start) = call.strip_suffix("<unfinished ...>") {
            begun.push((pid.to_string(), start.to_string()));
            continue;
        }
        if let Some((_, end)) = call.split_once("resumed>") {
            let at = begun.iter().position(|(other, _)| other == pid).unwrap();
            call = format!("{}{end}", begun.remove(at).1);
        }
        if !call.trim_end().ends_with("= 0") {
            continue;
        }
        let quoted: Vec<&str> = call.split('"').skip(1).step_by(2).collect();
        if call.starts_with("fsync(")
            || call.starts_with("fdatasync(")
            || call.starts_with("syncfs(")
        {
            // strace shows a file that has no name yet as `/folder/#1234 (deleted)`.
            let path = call.split(['<', '>']).nth(1).unwrap_or_default();
            calls.push(Call::Sync(path.into()));
        } else if let [from, to] = quoted[..] {
            let from = match call.split_once("/proc/self/fd/") {
                Some((_, rest)) => format!("fd {}", rest.split('"').next().unwrap()),
                None => from.to_string(),
            };
            calls.push(Call::Name {
                from: from.into(),
                to: to.into(),
            });
        }
    }
    calls
}

/// Fails if a file got its name before it was synced, or if its folder was not synced right after.
#[track_caller]
fn assert_in_order(calls: &[Call], data: &Path) -> usize {
    let mut synced: HashSet<PathBuf> = HashSet::new();
    let mut named = 0;
    for (n, call) in calls.iter().enumerate() {
        match call {
            Call::Sync(path) => {
                synced.insert(path.clone());
            }
            Call::Name { from, to } if to.starts_with(data) => {
                let is_step = to
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(".incoming-"));
                if is_step && !from.to_string_lossy().starts_with("fd ") {
                    // A download that moves into the store: it must be synced before it gets its final name,
                    // which is checked there.
                    continue;
                }
                if is_step {
                    // A file without a name must be synced right before it gets one.
                    assert!(
                        matches!(&calls[n - 1], Call::Sync(path) if path.starts_with(to.parent().unwrap())),
                        "{to:?} is named before it is synced: {calls:#?}"
                    );
                    synced.insert(to.clone());
                    continue;
                }
                named += 1;
                assert!(
                    synced.contains(from),
                    "{to:?} is named before {from:?} is synced: {calls:#?}"
                );
                let folder = to.parent().unwrap();
                assert!(
                    matches!(calls.get(n + 1), Some(Call::Sync(path)) if path == folder),
                    "{folder:?} is not synced after {to:?}: {calls:#?}"
                );
            }
            Call::Name { .. } => {}
        }
    }
    named
}

#[test]
fn every_file_is_synced_with_its_folder_before_what_relies_on_it() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let url = place.server.serve("disk.qcow2", Manner::Well, &image);
    let trace = place.path("trace");
    let stead = place.stead(&["box", "add", &url]);
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-y", "-s", "4096", "-o"])
        .arg(&trace)
        .args(["-e", "trace=fsync,fdatasync,syncfs,/^rename,/^link"])
        .arg(stead.get_program())
        .args(stead.get_args())
        .current_dir(place.folder.path())
        .env_clear();
    for (name, value) in stead.get_envs() {
        traced.env(name, value.unwrap());
    }
    let output = traced.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let calls = calls(&fs::read_to_string(trace).unwrap());
    let data = place.path("data").canonicalize().unwrap();
    assert!(assert_in_order(&calls, &data) >= 4, "{calls:#?}");
    // A box exists once its manifest does, so the manifest must come after the disk.
    let at = |folder: &str| {
        calls
            .iter()
            .position(|call| matches!(call, Call::Name { to, .. } if to.parent() == Some(&data.join(folder)) && !to.to_string_lossy().contains(".incoming-")))
            .unwrap_or_else(|| panic!("nothing in {folder}: {calls:#?}"))
    };
    assert!(at("images") < at("boxes"));
}

/// Sizes of the file system to try, in KiB: from no space at all to enough for everything, so that every
/// phase fails once.
const SIZES: [u32; 14] = [
    64, 100, 140, 180, 220, 260, 300, 400, 500, 700, 900, 1200, 2000, 16_000,
];

#[test]
fn a_disk_that_is_full_at_any_moment_leaves_nothing_half_made() {
    let place = Place::new();
    let image = place.raw();
    let packed = zstd::encode_all(image.as_slice(), 1).unwrap();
    let url = place.server.serve("disk.img.zst", Manner::Well, &packed);
    let data = place.path("data");
    fs::create_dir(&data).unwrap();
    let script = format!(
        r#"
mount -t tmpfs -o mode=700,size={first}k none "$1"
for size in {sizes}; do
    mount -o "remount,size=${{size}}k" "$1"
    echo "size $size"
    "$2" box add "$3" && echo added || echo "code $?"
    "$2" box verify || echo "damaged"
    "$2" box list --json | tr -d '\n'; echo
    case $("$2" box list --json) in *'"digest"'*) break ;; esac
done
find "$1" -name '.incoming-*'
"#,
        first = SIZES[0],
        sizes = SIZES.map(|it| it.to_string()).join(" "),
    );
    let stead = place.stead(&[]);
    let mut shell = Command::new("unshare");
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        shell.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    shell
        .args(["--mount", "sh", "-eu", "-c", &script, "sh"])
        .arg(&data)
        .arg(stead.get_program())
        .arg(&url)
        .current_dir(place.folder.path())
        .env_clear();
    for (name, value) in stead.get_envs() {
        shell.env(name, value.unwrap());
    }
    let output = shell.output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    println!("{said}");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("added"), "{said}");
    assert!(!out.contains("damaged"), "{said}");
    assert!(!out.contains(".incoming-"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    // Each failure is caused by a full disk, and says so.
    let failed = out.lines().filter(|line| line.starts_with("code ")).count();
    let err = String::from_utf8_lossy(&output.stderr);
    let of_room = err
        .lines()
        .filter(|line| {
            line.contains("No space left on device") || line.contains("not enough space in")
        })
        .count();
    assert!(failed >= 3, "{said}");
    assert!(of_room >= failed, "{said}");
}
