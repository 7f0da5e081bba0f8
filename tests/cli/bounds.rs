//! What a project holds in place of the files that stead expects: nothing is waited for, and nothing is read
//! without end.

use std::{fs, process::Command};

use super::Place;

const EMPTY: &str = "project \"shop\"\nmachine \"web\" { box \"debian-12\"; }\n";

fn pipe(place: &Place, name: &str) {
    let made = Command::new("mkfifo")
        .arg(place.path().join(name))
        .status()
        .unwrap();
    assert!(made.success());
}

/// A file of that size that takes no room.
fn hollow(place: &Place, name: &str, size: u64) {
    let file = fs::File::create(place.path().join(name)).unwrap();
    file.set_len(size).unwrap();
}

#[test]
fn includes_are_bounded_in_size_and_number() {
    let place = Place::with("project \"shop\"\ninclude \"other.kdl\"\n");
    pipe(&place, "other.kdl");
    let said = place.run(&["validate"]);
    assert!(said.contains("it is not a regular file"), "{said}");

    fs::remove_file(place.path().join("other.kdl")).unwrap();
    hollow(&place, "other.kdl", 3 << 30);
    let said = place.run(&["validate"]);
    assert!(said.contains("it is larger than 1.0 MiB"), "{said}");

    // Each of them twice the next: 2^40 in the end.
    for n in 0..40 {
        let next = n + 1;
        fs::write(
            place.path().join(format!("e{n}.kdl")),
            format!("include \"e{next}.kdl\"\ninclude \"e{next}.kdl\"\n"),
        )
        .unwrap();
    }
    fs::write(place.path().join("e40.kdl"), "").unwrap();
    fs::write(place.path().join("other.kdl"), "include \"e0.kdl\"\n").unwrap();
    let said = place.run(&["validate"]);
    assert_eq!(
        said.matches("includes more than 256 files").count(),
        1,
        "{said}"
    );
}

#[test]
fn a_local_machinefile_that_is_no_file_is_an_error() {
    let place = Place::with(EMPTY);
    pipe(&place, "Machinefile.local");
    let said = place.run(&["validate"]);
    assert!(
        said.starts_with("exit 2") && said.contains("it is not a regular file"),
        "{said}"
    );
}

#[test]
fn a_lock_file_is_read_within_bounds() {
    let place = Place::with(EMPTY);
    let connect = ["--connect", "test:///default"];
    pipe(&place, "Machinefile.lock");
    let said = place.run(&[&connect[..], &["plan"]].concat());
    assert!(said.contains("it is not a regular file"), "{said}");
    // A lock file that is wrong is no matter to what is there.
    let said = place.run(&[&connect[..], &["halt"]].concat());
    assert!(said.starts_with("exit 0"), "{said}");

    fs::remove_file(place.path().join("Machinefile.lock")).unwrap();
    hollow(&place, "Machinefile.lock", 3 << 30);
    let said = place.run(&[&connect[..], &["plan"]].concat());
    assert!(said.contains("it is larger than 4.0 MiB"), "{said}");
}
