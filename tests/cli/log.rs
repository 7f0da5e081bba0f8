//! What the log shows, where it goes, and what is never in it.

use std::{fs, os::unix::fs::MetadataExt};

use crate::{ONE, Place};

/// The names of the logs that are kept, in order.
fn kept(place: &Place) -> Vec<String> {
    let folder = place.path().join("data/logs/runs");
    let mut names: Vec<String> = fs::read_dir(folder)
        .map(|entries| {
            (entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())).collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

/// A command that changes the store, and fails after it took the store's lock.
const REMOVE: [&str; 3] = ["box", "remove", "no-such-box"];

#[test]
fn what_changes_something_leaves_a_log_and_a_read_leaves_none() {
    let place = Place::with(ONE);
    for arguments in [
        &["--connect", "test:///default", "status"][..],
        &["validate"],
    ] {
        assert!(place.run(arguments).starts_with("exit 0"), "{arguments:?}");
    }
    assert!(kept(&place).is_empty());

    let said = place.run(&REMOVE);
    assert!(said.starts_with("exit 1"), "{said}");
    let names = kept(&place);
    assert_eq!(names.len(), 1);
    assert!(names[0].contains("-box-"), "{names:?}");
    let file = place.path().join("data/logs/runs").join(&names[0]);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("stead "), "{text}");
    assert!(text.contains("no-such-box"), "{text}");
    // Nothing of it is shown that was not asked for.
    assert!(!said.contains("DEBUG"), "{said}");
}

#[test]
fn the_last_twenty_logs_are_kept() {
    let place = Place::new();
    for _ in 0..22 {
        place.run(&REMOVE);
    }
    assert_eq!(kept(&place).len(), 20);
}

#[test]
fn each_libvirt_call_is_shown_where_it_is_asked_for() {
    let place = Place::with(ONE);
    let status = |more: &[&str], log: Option<&str>| {
        let mut command = place.stead(&["--connect", "test:///default", "status"]);
        command.args(more);
        if let Some(log) = log {
            command.env("STEAD_LOG", log);
        }
        let output = command.output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(out.starts_with("MACHINE"), "{out}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (more, log) in [(&[][..], Some("debug")), (&["-vv"], None)] {
        let said = status(more, log);
        for part in [
            "DEBUG stead::hypervisor::connection: libvirt: connecting to test:///default (--connect)",
            "DEBUG stead::hypervisor::error: libvirt: listing domains",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    assert!(status(&[], Some("hypervisor=debug")).contains("listing domains"));
    for (more, log) in [
        (&[][..], None),
        (&["-v"], None),
        (&[], Some("guest=debug")),
        (&["-vv"], Some("error")),
    ] {
        let said = status(more, log);
        assert!(!said.contains("libvirt:"), "{more:?} {log:?}: {said}");
    }
}

#[test]
fn a_level_that_cannot_be_read_is_an_error() {
    let place = Place::with(ONE);
    let output = place
        .stead(&["validate"])
        .env("STEAD_LOG", "loud")
        .output()
        .unwrap();
    let said = place.said(&output);
    assert!(said.starts_with("exit 2"), "{said}");
    assert!(said.contains("STEAD_LOG: invalid level `loud`"), "{said}");
}

#[test]
fn programs_are_shown_with_their_arguments() {
    let place = Place::new();
    let output = place
        .stead(&["doctor", "--connect", "test:///default"])
        .env("STEAD_LOG", "host=debug")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let line = said.lines().find(|line| line.contains("ssh -V"));
    let line = line.unwrap_or_else(|| panic!("no ssh -V: {said}"));
    assert!(line.contains("DEBUG") && line.contains("run: "), "{line}");
    // The environment that it runs in has HOME.
    assert!(!line.contains("home"), "{line}");
}

#[test]
fn secrets_are_hidden() {
    let place = Place::new();
    let url = "https://me:hunter2@127.0.0.1:9/the-token-of-deploy.qcow2";
    let output = place
        .stead(&["box", "add", url])
        .env("STEAD_LOG", "debug")
        .env("DEPLOY_TOKEN", "the-token-of-deploy")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let names = kept(&place);
    let text = fs::read_to_string(place.path().join("data/logs/runs").join(&names[0])).unwrap();
    let shown: Vec<&str> = said
        .lines()
        .filter(|line| line.contains(" stead::"))
        .collect();
    let shown = shown.join("\n");
    for log in [&text, &shown] {
        assert!(log.contains("127.0.0.1:9/***.qcow2"), "{log}");
        assert!(
            !log.contains("hunter2") && !log.contains("the-token"),
            "{log}"
        );
    }
}

#[test]
fn a_failure_of_stead_itself_names_the_log() {
    let place = Place::new();
    let output = place
        .stead(&REMOVE)
        .env("STEAD_TEST_PANIC_AT", "stead/begin")
        .output()
        .unwrap();
    let said = place.said(&output);
    assert!(said.contains("stead itself failed"), "{said}");
    let names = kept(&place);
    let path = format!("<folder>/data/logs/runs/{}", names[0]);
    assert!(
        said.contains(&format!("the log of this run is {path}")),
        "{said}"
    );
    let text = fs::read_to_string(place.path().join("data/logs/runs").join(&names[0])).unwrap();
    assert!(
        text.contains("ERROR stead::report::panics: stead itself failed"),
        "{text}"
    );
}

#[test]
fn a_report_has_versions_checks_and_the_last_log_and_no_names() {
    let place = Place::new();
    place.run(&REMOVE);
    let output = place
        .stead(&["doctor", "--report", "--connect", "test:///default"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        concat!("stead ", env!("CARGO_PKG_VERSION"), " ("),
        "\nhost: ",
        ", Linux ",
        "libvirt       test:///default (--connect): libvirt ",
        "\nend of the last log, ",
        "no-such-box",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // HOME is below the folder of this test.
    let home = place.path().join("home");
    assert!(!text.contains(home.to_str().unwrap()), "{text}");
}
