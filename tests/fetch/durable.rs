//! What a power cut and a full disk find.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Manner, Place, text};

/// One call of the kernel, as strace tells of it.
#[derive(Debug)]
enum Call {
    Sync(PathBuf),
    Name { from: PathBuf, to: PathBuf },
}

/// The calls that count, in their order, of lines as `7 fsync(5</a/b>) = 0` and
/// `7 rename("/a/b", "/a/c") = 0`; what was interrupted by another thread is put together.
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
            // A file without a name yet is shown as `/folder/#1234 (deleted)`.
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

/// Fails where a name was given to a file that had not been synced, or where something else came
/// before its folder was synced.
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
                    // A download on its way into the store: it has to be synced before it gets its
                    // final name, which is looked at there.
                    continue;
                }
                if is_step {
                    // A file that had no name; it was synced right before.
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
    // The box is there when its manifest is, so that comes after its disk.
    let at = |folder: &str| {
        calls
            .iter()
            .position(|call| matches!(call, Call::Name { to, .. } if to.parent() == Some(&data.join(folder)) && !to.to_string_lossy().contains(".incoming-")))
            .unwrap_or_else(|| panic!("nothing in {folder}: {calls:#?}"))
    };
    assert!(at("images") < at("boxes"));
}

/// The sizes of the file system, in KiB, at which it is tried: from one that has room for nothing to one
/// that has room for all, with every phase in between.
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
    // Each failure is one of room, and says so.
    let failed = out.lines().filter(|line| line.starts_with("code ")).count();
    let err = String::from_utf8_lossy(&output.stderr);
    let of_room = err
        .lines()
        .filter(|line| line.contains("No space left on device") || line.contains("has room for"))
        .count();
    assert!(failed >= 3, "{said}");
    assert!(of_room >= failed, "{said}");
}
