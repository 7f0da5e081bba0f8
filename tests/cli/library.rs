//! libvirt's library: the program starts without it, and says what is missing where it needs it.

use std::{fs, path::Path, process::Command};

use crate::{ONE, Place};

/// What the loader is to load before the program begins.
fn needed(program: &Path) -> String {
    let output = Command::new("readelf")
        .args(["--dynamic", "--wide"])
        .arg(program)
        .output()
        .expect("readelf comes with the linker");
    let said = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<&str> = said.lines().filter(|l| l.contains("(NEEDED)")).collect();
    needed.join("\n")
}

#[test]
fn no_program_loads_libvirt_when_it_starts() {
    for program in [
        env!("CARGO_BIN_EXE_stead").into(),
        env!("CARGO_BIN_EXE_stead-watch").into(),
        std::env::current_exe().unwrap(),
    ] {
        let needed = needed(&program);
        assert!(needed.contains("libc.so"), "{needed}");
        assert!(!needed.contains("libvirt"), "{needed}");
    }
}

/// A folder in which the loader finds these libraries before those of the host.
fn with_libraries(place: &Place, write: impl Fn(&Path)) -> String {
    let folder = place.path().join("libraries");
    fs::create_dir(&folder).unwrap();
    for name in ["libvirt.so.0", "libvirt-qemu.so.0"] {
        write(&folder.join(name));
    }
    folder.to_str().unwrap().into()
}

#[test]
fn what_needs_no_libvirt_works_without_it() {
    let place = Place::with(ONE);
    let libraries = with_libraries(&place, |file| fs::write(file, "no library").unwrap());
    let said = |arguments: &[&str]| {
        let mut command = place.stead(arguments);
        place.said(&command.env("LD_LIBRARY_PATH", &libraries).output().unwrap())
    };
    for arguments in [
        &["--version"][..],
        &["validate"],
        &["fmt"],
        &["completions", "bash"],
        &["box", "list"],
    ] {
        assert!(said(arguments).starts_with("exit 0\n"), "{arguments:?}");
    }
    let status = said(&["status"]);
    assert!(status.starts_with("exit 1\n"), "{status}");
    assert!(
        status.contains("cannot load libvirt: <folder>/libraries/libvirt.so.0: "),
        "{status}"
    );
    assert!(status.contains("apt install libvirt0"), "{status}");
    let doctor = said(&["doctor"]);
    assert!(doctor.starts_with("exit 1\n"), "{doctor}");
    assert!(
        doctor.contains("failed   libvirt       cannot load libvirt: "),
        "{doctor}"
    );
    assert!(doctor.contains("apt install libvirt0"), "{doctor}");
}

/// The loader itself crashes on a library that is cut short.
#[test]
fn a_libvirt_that_is_cut_short_is_an_error() {
    let known = Command::new("/sbin/ldconfig").arg("-p").output().unwrap();
    let known = String::from_utf8(known.stdout).unwrap();
    let find = |name: &str| {
        let line = known
            .lines()
            .find(|line| line.trim().starts_with(name))
            .unwrap();
        line.rsplit_once("=> ").unwrap().1.trim().to_string()
    };
    for library in ["libvirt.so.0", "libvirt-qemu.so.0"] {
        let bytes = fs::read(find(library)).unwrap();
        for size in [0, 64, 4096, bytes.len() / 2, bytes.len() - bytes.len() / 8] {
            let place = Place::with(ONE);
            let folder = place.path().join("libraries");
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(library), &bytes[..size]).unwrap();
            let output = place
                .stead(&["--connect", "test:///default", "list"])
                .env("LD_LIBRARY_PATH", &folder)
                .output()
                .unwrap();
            let said = place.said(&output);
            assert!(
                said.starts_with("exit 1\n") && said.contains("cannot load libvirt"),
                "{library} of {size} bytes: {:?} {said}",
                output.status
            );
        }
    }
}

#[test]
fn a_libvirt_that_lacks_a_function_is_named() {
    let place = Place::with(ONE);
    let libraries = with_libraries(&place, |file| {
        let made = Command::new("cc")
            .args(["-shared", "-x", "c", "/dev/null", "-o"])
            .arg(file)
            .status()
            .expect("cc is what links this test");
        assert!(made.success());
    });
    let output = place
        .stead(&["--connect", "test:///default", "list"])
        .env("LD_LIBRARY_PATH", libraries)
        .output()
        .unwrap();
    let said = place.said(&output);
    assert!(said.starts_with("exit 1\n"), "{said}");
    assert!(
        said.contains("virConnectBaselineCPU") && said.contains("it is too old"),
        "{said}"
    );
    assert!(said.contains("version 9.0 or newer"), "{said}");
}
