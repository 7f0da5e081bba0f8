//! Odd hosts: variables that name no folder, limits, what is missing.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    process::{Command, Output},
};

use serde_json::Value;

use super::{ONE, Place};

const SESSION: [&str; 2] = ["--connect", "qemu:///session"];

/// What stead says and its exit code, with these variables. A signal would be no code.
fn with(place: &Place, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = place.stead(arguments);
    command.envs(variables.iter().copied());
    place.said(&command.output().unwrap())
}

/// The checks of `stead doctor` that are not ok: name, what was found and what to do.
fn wrong(command: &mut Command) -> Vec<(String, String, String)> {
    let output = command.arg("--json").arg("doctor").output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    (said["checks"].as_array().unwrap().iter())
        .filter(|check| check["verdict"] != "ok")
        .map(|check| {
            (
                text(&check["name"]),
                text(&check["found"]),
                text(&check["remedy"]),
            )
        })
        .collect()
}

fn check(place: &Place, variables: &[(&str, &str)], name: &str) -> Option<(String, String)> {
    let mut command = place.stead(&["--connect", super::NOWHERE]);
    command.envs(variables.iter().copied());
    let found = wrong(&mut command).into_iter();
    (found.filter(|check| check.0 == name))
        .map(|check| (check.1, check.2))
        .next()
}

/// A relative path leads to another folder from each project.
#[test]
fn a_relative_data_folder_is_refused() {
    let place = Place::with(ONE);
    for (variable, others) in [
        ("STEAD_DATA_DIR", &[][..]),
        ("HOME", &[("STEAD_DATA_DIR", "")][..]),
    ] {
        if variable == "HOME" && nix::unistd::geteuid().is_root() {
            // root's folder does not depend on it.
            continue;
        }
        let variables = [others, &[(variable, "rel")]].concat();
        let said = with(&place, &["box", "list"], &variables);
        assert!(said.starts_with("exit 1"), "{said}");
        assert!(said.contains("it is a relative path"), "{said}");
    }
    assert!(!place.path().join("rel").exists());
    let (found, _) = check(&place, &[("STEAD_DATA_DIR", "rel")], "data").unwrap();
    assert!(found.contains("it is a relative path"), "{found}");
}

#[test]
fn a_folder_of_somebody_elses_files_is_no_data_folder() {
    let place = Place::with(ONE);
    let root = place.path().to_str().unwrap();
    let said = with(&place, &["box", "list"], &[("STEAD_DATA_DIR", root)]);
    assert!(said.contains("it has files that are not stead's"), "{said}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

/// Each error names the path, and says what to do; what only reads works.
#[test]
fn a_data_folder_that_cannot_be_made() {
    let place = Place::with(ONE);
    fs::write(place.path().join("image"), "").unwrap();
    let variables = [("STEAD_DATA_DIR", "/proc/stead")];
    assert!(with(&place, &["box", "list"], &variables).starts_with("exit 0"));
    let said = with(&place, &["box", "add", "./image"], &variables);
    assert!(said.contains("/proc/stead/locks: "), "{said}");
    assert!(said.contains("choose it with STEAD_DATA_DIR"), "{said}");
    let (found, remedy) = check(&place, &variables, "data").unwrap();
    assert!(found.contains("/proc/stead"), "{found}");
    assert!(remedy.contains("STEAD_DATA_DIR"), "{remedy}");
    // A file above it: `doctor` reports the rest, too.
    let below = [("STEAD_DATA_DIR", "/etc/passwd/stead")];
    let (found, remedy) = check(&place, &below, "data").unwrap();
    assert!(found.contains("Not a directory"), "{found}");
    assert!(remedy.contains("STEAD_DATA_DIR"), "{remedy}");
    let mut command = place.stead(&["--connect", super::NOWHERE]);
    command.envs(below);
    let found = wrong(&mut command);
    assert!(found.iter().any(|check| check.0 == "libvirt"), "{found:?}");
}

#[test]
fn folders_of_libvirt_that_are_relative_are_named_at_once() {
    let place = Place::with(ONE);
    for (variable, value, said) in [
        (
            "XDG_RUNTIME_DIR",
            "rel",
            "XDG_RUNTIME_DIR is the relative path rel",
        ),
        (
            "XDG_CACHE_HOME",
            "rel",
            "XDG_CACHE_HOME is the relative path rel",
        ),
        ("HOME", "", "HOME is empty"),
    ] {
        let text = with(
            &place,
            &[&SESSION[..], &["list"]].concat(),
            &[(variable, value)],
        );
        assert!(
            text.contains(said) && text.contains("or unset it"),
            "{text}"
        );
    }
    assert!(!place.path().join("rel").exists());
}

#[test]
fn a_uri_that_is_none() {
    let place = Place::with(ONE);
    let said = with(&place, &["list"], &[("LIBVIRT_DEFAULT_URI", "nonsense")]);
    assert!(said.contains("it is not a libvirt URI"), "{said}");
    assert!(said.contains("write qemu:///session"), "{said}");
    // One that is no text is not left out in silence.
    let mut command = place.stead(&["list"]);
    command.env("LIBVIRT_DEFAULT_URI", OsStr::from_bytes(b"nons\xff"));
    let said = place.said(&command.output().unwrap());
    assert!(said.contains("it is not a libvirt URI"), "{said}");
}

/// stead is not killed by the limit of the size of files (setrlimit(2)), and says what it is.
#[test]
fn a_limit_of_the_size_of_files_is_an_error() {
    let place = Place::with(ONE);
    let small = place.small("1");
    let stead = env!("CARGO_BIN_EXE_stead");
    let output = place
        .stead(&[])
        .env("STEAD", stead)
        .output_of(&format!("ulimit -f 1; exec \"$STEAD\" box add {small}"));
    let said = place.said(&output);
    assert!(said.contains("File too large"), "{said}");
    assert!(said.contains("ulimit -f unlimited"), "{said}");
}

/// A user who may have two processes: an error of the host, and no wait.
#[test]
fn a_limit_of_processes_is_an_error() {
    let place = Place::with(ONE);
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(place.path().join("image"), vec![1; 1 << 16]).unwrap();
    // root has no such limit, and another user may not find the program.
    let limited = match nix::unistd::geteuid().is_root() {
        true => "setpriv --reuid 61234 --regid 61234 --clear-groups prlimit --nproc=2",
        false => "prlimit --nproc=1",
    };
    let output = place
        .stead(&[])
        .env("STEAD", env!("CARGO_BIN_EXE_stead"))
        .output_of(&format!(
            "exec 3<\"$STEAD\"; exec timeout 60 {limited} /proc/self/fd/3 box add ./image"
        ));
    let said = place.said(&output);
    assert!(said.starts_with("exit 1"), "{said}");
    assert!(said.contains("cannot start a thread"), "{said}");
    assert!(
        said.contains("ulimit -u") && !said.contains("a bug in stead"),
        "{said}"
    );
}

#[test]
fn a_folder_that_was_removed() {
    let place = Place::with(ONE);
    let output = place
        .stead(&[])
        .env("STEAD", env!("CARGO_BIN_EXE_stead"))
        .output_of("mkdir gone; cd gone; rmdir ../gone; exec \"$STEAD\" validate");
    let said = place.said(&output);
    assert!(said.contains("cannot find the current folder"), "{said}");
    assert!(said.contains("`cd` into another one"), "{said}");
}

#[test]
fn doctor_names_what_programs_take_for_granted() {
    let place = Place::with(ONE);
    let (found, _) = check(&place, &[("TMPDIR", "/proc")], "TMPDIR").unwrap();
    assert!(found.contains("/proc"), "{found}");
    let path = std::env::var("PATH").unwrap();
    let (found, _) = check(&place, &[("PATH", &format!("{path}:bin"))], "PATH").unwrap();
    assert!(found.contains("(bin)"), "{found}");
    for name in ["TMPDIR", "PATH", "data", "runtime", "/proc"] {
        assert_eq!(check(&place, &[], name), None);
    }
}

/// A QEMU that cannot be run, and one that is built without a network of its own, as on RHEL 10.
#[test]
fn doctor_tries_qemu() {
    let place = Place::with(ONE);
    let bin = place.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let write = |name: &str, text: &str| {
        fs::write(bin.join(name), text).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    write(
        "qemu-system-x86_64",
        "#!/bin/sh\necho 'error while loading shared libraries: libslirp.so.0' >&2; exit 127\n",
    );
    let (found, remedy) = check(&place, &[("PATH", &path)], "qemu").unwrap();
    assert!(
        found.contains("error while loading shared libraries"),
        "{found}"
    );
    assert!(remedy.contains("reinstall"), "{remedy}");
    write(
        "qemu-system-x86_64",
        "#!/bin/sh\ncase $* in *help*) printf 'Available netdev backend types:\\nsocket\\ntap\\n';; *) echo QEMU 10;; esac\n",
    );
    write("libslirp.so.0", "");
    let variables = [
        ("PATH", path.as_str()),
        ("LD_LIBRARY_PATH", bin.to_str().unwrap()),
    ];
    let (found, remedy) = check(&place, &variables, "libslirp").unwrap();
    assert!(found.contains("machines do not start"), "{found}");
    assert!(remedy.contains("install libslirp"), "{remedy}");
}

/// Arguments for a guest may have any bytes.
#[test]
fn commands_for_guests_need_no_text() {
    let place = Place::with(ONE);
    let odd = OsStr::from_bytes(b"a\xff");
    for words in [
        &["exec", "web", "--", "cat"][..],
        &["exec", "--detach", "web", "--", "cat"],
        &["ssh", "web", "--", "cat"],
        &["ssh", "web", "-c"],
        &["run", "web", "--", "cat"],
        &["copy", "web:x"],
    ] {
        let mut command = place.stead(&[&["--connect", super::NOWHERE][..], words].concat());
        let said = place.said(&command.arg(odd).output().unwrap());
        assert!(said.contains("cannot reach libvirt"), "{words:?}: {said}");
    }
}

trait Shell {
    /// Runs a line by sh in place of stead, with its environment and folder.
    fn output_of(&mut self, line: &str) -> Output;
}

impl Shell for Command {
    fn output_of(&mut self, line: &str) -> Output {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).env_clear();
        for (name, value) in self.get_envs() {
            shell.envs(value.map(|value| (name, value)));
        }
        shell
            .current_dir(self.get_current_dir().unwrap())
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    }
}
