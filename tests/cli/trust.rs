//! What a project may do to the host.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{NOWHERE, Place};

/// libvirt runs the program that such a URI names, as soon as it is opened.
#[test]
fn a_machinefile_names_no_program_by_its_connect() {
    for uri in [
        "qemu+ext:///session?command=./x",
        "qemu+ssh:///session?command=./x",
    ] {
        let machine = "machine \"web\" { box \"debian-12\"; }\n";
        let place = Place::with(&format!("project \"shop\"\nconnect {uri:?}\n{machine}"));
        let program = place.path().join("x");
        fs::write(&program, "#!/bin/sh\ntouch ran\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        for command in [
            &["status"][..],
            &["plan"],
            &["up"],
            &["destroy", "-y"],
            &["validate"],
        ] {
            let said = place.run(command);
            assert!(
                said.starts_with("exit 2") && said.contains("Machinefile:2:9"),
                "{command:?}: {said}"
            );
        }
        for command in [
            &["list"][..],
            &["box", "list"],
            &["box", "prune", "-y"],
            &["kernel", "list"],
            &["resources"],
            &["top", "--once"],
            &["doctor"],
        ] {
            let mut stead = place.stead(command);
            let said = place.said(&stead.env("LIBVIRT_DEFAULT_URI", NOWHERE).output().unwrap());
            assert!(!said.contains("command="), "{command:?}: {said}");
        }
        assert!(!place.path().join("ran").exists());
    }
}

/// Also where the project may say it: which machines `list` shows is not for a folder to decide.
#[test]
fn commands_about_the_host_take_no_word_of_the_project() {
    let place = Place::with(
        "project \"shop\"\nconnect \"qemu:///system\"\nmachine \"web\" { box \"debian-12\"; }\n",
    );
    for command in [
        &["list"][..],
        &["resources"],
        &["top", "--once"],
        &["doctor"],
    ] {
        let mut stead = place.stead(command);
        let said = place.said(&stead.env("LIBVIRT_DEFAULT_URI", NOWHERE).output().unwrap());
        assert!(
            said.contains("LIBVIRT_DEFAULT_URI") && !said.contains("qemu:///system ("),
            "{command:?}: {said}"
        );
    }
}
