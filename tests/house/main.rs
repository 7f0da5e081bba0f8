//! The rules of the house (ARCHITECTURE.md), read from the code: who may know whom, and what a room may do alone.

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

mod imports;

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

use imports::{Tree, circles};

/// In lines without tests. A larger file has a second reason to change: split it there.
const LARGEST_FILE: usize = 700;

/// A row imports what its columns name. A new `x` is a decision: is that knowledge really needed there?
#[test]
fn rooms_import_what_they_may() {
    let tree = Tree::read();
    let mut rooms = tree.rooms();
    // It only names the others.
    rooms.remove("lib");
    // From the top of the house to its ground: who imports most of the others first.
    let mut order: Vec<&str> = rooms.keys().copied().collect();
    let edges: Vec<BTreeSet<usize>> = (order.iter())
        .map(|room| {
            let position = |other: &&str| order.iter().position(|room| room == other);
            rooms[room].iter().filter_map(position).collect()
        })
        .collect();
    let names = |circle: Vec<usize>| circle.iter().map(|&n| order[n]).collect::<Vec<_>>();
    let circles: Vec<_> = circles(&edges).into_iter().map(names).collect();
    assert!(
        circles.is_empty(),
        "rooms that import each other: {circles:?}"
    );

    let below = |room: &str| {
        let mut seen = BTreeSet::new();
        let mut open = vec![room];
        while let Some(room) = open.pop() {
            open.extend(rooms[room].iter().filter(|other| seen.insert(**other)));
        }
        seen.len()
    };
    order.sort_by_key(|room| (std::cmp::Reverse(below(room)), *room));
    let mut matrix = String::new();
    for row in &order {
        let cells: String = (order.iter())
            .map(|column| match () {
                () if row == column => " -",
                () if rooms[row].contains(column) => " x",
                () => " .",
            })
            .collect();
        let _ = writeln!(matrix, "{row:12}{cells}");
    }
    insta::assert_snapshot!("rooms", matrix);
}

/// Files that need each other cannot be read, moved or tried alone. Two may be a type and its parts.
#[test]
fn no_circle_of_files_is_larger_than_two() {
    let tree = Tree::read();
    let imports = tree.imports();
    let large: Vec<String> = (circles(&imports).iter())
        .filter(|circle| circle.len() > 2)
        .map(|circle| {
            let name = |&n: &usize| tree.files[n].path.display().to_string();
            let needs = |n: &usize| {
                let within = imports[*n].iter().filter(|other| circle.contains(other));
                let names: Vec<String> = within.map(name).collect();
                format!("\n  {} imports {}", name(n), names.join(", "))
            };
            circle.iter().map(needs).collect()
        })
        .collect();
    assert!(
        large.is_empty(),
        "circles of more than two files: {}",
        large.join("\n")
    );
}

#[test]
fn no_file_has_outgrown_the_house() {
    let large: Vec<String> = (Tree::read().files.iter())
        .filter(|file| file.lines > LARGEST_FILE)
        .map(|file| format!("{} ({})", file.path.display(), file.lines))
        .collect();
    assert!(
        large.is_empty(),
        "more than {LARGEST_FILE} lines: {large:?}"
    );
}

/// What only some places may name, and where. Each is a folder or a file of src/. `reqwest::Url` is a type of
/// addresses, which everybody may have.
const ALONE: [(&str, &[&str]); 8] = [
    ("virt::", &["hypervisor"]),
    ("reqwest::", &["fetch", "boxes/oci"]),
    ("clap::", &["cli"]),
    ("rcgen::", &["tls"]),
    ("tracing_subscriber::", &["log"]),
    ("Command::new(\"ssh\")", &["guest/ssh.rs"]),
    // clippy.toml refuses it too, but not in a function with an exception for another reason.
    (".spawn()", &["host/process"]),
    (
        "unsafe {",
        &[
            "hypervisor",
            "host/confine",
            "host/process/command.rs",
            "host/process/inherited.rs",
            "host/process/terminal.rs",
            "network/outward/slirp.rs",
            "network/appearances.rs",
            "network/packet.rs",
            "sync/watch/tree.rs",
        ],
    ),
];

#[test]
fn what_a_room_does_alone() {
    let mut found = Vec::new();
    for file in Tree::read().files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src")
            .join(&file.path);
        let text = fs::read_to_string(path)
            .unwrap()
            .replace("reqwest::Url", "");
        for (n, line) in text.lines().take(file.lines).enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for (word, places) in ALONE {
                let begins = line.match_indices(word).any(|(at, _)| {
                    let is_name = |c: char| c.is_alphanumeric() || c == '_';
                    let before = line[..at].chars().next_back();
                    !word.starts_with(is_name) || !before.is_some_and(is_name)
                });
                if begins && !places.iter().any(|place| file.path.starts_with(place)) {
                    found.push(format!("{}:{}: {line}", file.path.display(), n + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
