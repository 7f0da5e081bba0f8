//! What a project holds in place of the files that stead expects: nothing is waited for, and nothing is read
//! without end.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
};

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
    assert!(said.contains("it is a pipe, not a regular file"), "{said}");

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
        said.starts_with("exit 2") && said.contains("it is a pipe, not a regular file"),
        "{said}"
    );
}

#[test]
fn a_lock_file_is_read_within_bounds() {
    let place = Place::with(EMPTY);
    let connect = ["--connect", "test:///default"];
    pipe(&place, "Machinefile.lock");
    let said = place.run(&[&connect[..], &["plan"]].concat());
    assert!(said.contains("it is a pipe, not a regular file"), "{said}");
    // A lock file that is wrong is no matter to what is there.
    let said = place.run(&[&connect[..], &["halt"]].concat());
    assert!(said.starts_with("exit 0"), "{said}");

    fs::remove_file(place.path().join("Machinefile.lock")).unwrap();
    hollow(&place, "Machinefile.lock", 3 << 30);
    let said = place.run(&[&connect[..], &["plan"]].concat());
    assert!(said.contains("it is larger than 4.0 MiB"), "{said}");
}

#[test]
fn what_lies_in_place_of_a_machinefile_is_named() {
    let place = Place::new();
    let inner = place.path().join("a/b");
    fs::create_dir_all(&inner).unwrap();
    let file = place.path().join("Machinefile");
    pipe(&place, "Machinefile");
    // From a folder below it too.
    for folder in [".", "a/b"] {
        for command in ["validate", "plan", "fmt", "up"] {
            let said = place.run(&["-C", folder, command]);
            assert!(
                said.starts_with("exit 2")
                    && said.contains("Machinefile is a pipe, but a Machinefile must be a file"),
                "{folder} {command}: {said}"
            );
        }
    }
    let said = place.run(&["-f", "Machinefile", "validate"]);
    assert!(
        said.contains("is a pipe, but a Machinefile must be a file"),
        "{said}"
    );
    fs::remove_file(&file).unwrap();
    symlink("gone", &file).unwrap();
    let said = place.run(&["validate"]);
    assert!(
        said.contains("Machinefile is a symlink to gone, which does not exist"),
        "{said}"
    );
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let said = place.run(&["validate"]);
    assert!(said.contains("Machinefile is a folder, but"), "{said}");
    // A folder above may be called so: nothing is wrong with that.
    let said = place.run(&["-C", "a/b", "validate"]);
    assert!(said.contains("there is no Machinefile in"), "{said}");
}

#[test]
fn other_files_that_are_none_are_named_and_not_waited_for() {
    let place = Place::with(EMPTY);
    pipe(&place, "pipe");
    fs::create_dir(place.path().join("folder")).unwrap();
    fs::create_dir(place.path().join("recipe")).unwrap();
    pipe(&place, "recipe/recipe.kdl");
    fs::create_dir(place.path().join("box")).unwrap();
    pipe(&place, "box/manifest.json");
    for (arguments, words) in [
        (&["box", "add", "./pipe"][..], "it is a pipe, not a"),
        (&["box", "add", "box"], "manifest.json: it is a pipe, not a"),
        (
            &["box", "build", "recipe"],
            "recipe.kdl: it is a pipe, not a",
        ),
        (&["kernel", "check", "./pipe"], "it is a pipe, not a"),
        (&["kernel", "import", "pipe"], "it is a pipe, not a"),
        (&["kernel", "import", "folder"], "it is a folder, not a"),
        (&["fmt", "pipe"], "it is a pipe, not a"),
        (&["fmt", "folder"], "it is a folder, not a"),
    ] {
        let said = place.run(arguments);
        assert!(
            !said.starts_with("exit 0") && said.contains(words),
            "{arguments:?}: {said}"
        );
    }
    for (line, words) in [
        ("include \"folder\"", "Machinefile:3:9"),
        ("include \"pipe\"", "cannot include pipe: it is a pipe"),
        ("catalogue \"./pipe\"", "pipe"),
        (
            "machine \"db\" { box \"b\"; user-data \"pipe\"; }",
            "pipe is a pipe",
        ),
    ] {
        fs::write(place.path().join("Machinefile"), format!("{EMPTY}{line}\n")).unwrap();
        let said = place.run(&["--connect", "test:///default", "plan"]);
        assert!(
            !said.starts_with("exit 0") && said.contains(words),
            "{line}: {said}"
        );
    }
}

#[test]
fn what_is_not_utf8_has_a_place_in_every_file() {
    let place = Place::with(EMPTY);
    let wrong = b"// \xc3\xbc\n  x \"\xfc\"\n";
    let write = |name: &str| fs::write(place.path().join(name), wrong).unwrap();
    write("Machinefile");
    let plan = &["--connect", "test:///default", "plan"][..];
    for command in [&["validate"][..], &["fmt"], &["fmt", "--check"], plan] {
        let said = place.run(command);
        assert!(
            said.starts_with("exit 2")
                && said.contains("Machinefile:2:6")
                && said.contains("this is not valid UTF-8")
                && said.contains("iconv"),
            "{command:?}: {said}"
        );
    }
    fs::write(
        place.path().join("Machinefile"),
        format!("include \"o.kdl\"\n{EMPTY}"),
    )
    .unwrap();
    write("o.kdl");
    let said = place.run(&["validate"]);
    assert!(
        said.contains("o.kdl:2:6") && said.contains("iconv"),
        "{said}"
    );
    fs::write(place.path().join("Machinefile"), EMPTY).unwrap();
    fs::create_dir(place.path().join("recipe")).unwrap();
    write("recipe/recipe.kdl");
    write("Machinefile.lock");
    for (command, name) in [
        (plan, "Machinefile.lock"),
        (&["box", "build", "recipe"], "recipe.kdl"),
    ] {
        let said = place.run(command);
        assert!(
            said.contains(&format!(
                "{name}: line 2, column 6 is not valid UTF-8; save it as UTF-8"
            )),
            "{said}"
        );
    }
}

#[test]
fn fmt_writes_nothing_outside_of_the_project() {
    let place = Place::new();
    let ugly = "project   \"shop\"\n";
    let root = place.path().join("shop");
    let write = |name: &str| {
        let path = place.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, ugly).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        path
    };
    let outside = write("outside/Machinefile");
    fs::create_dir(&root).unwrap();
    symlink("../outside/Machinefile", root.join("Machinefile")).unwrap();
    for command in [&["-C", "shop", "fmt"][..], &["fmt", "shop/Machinefile"]] {
        let said = place.run(command);
        assert!(
            said.starts_with("exit 1")
                && said.contains(
                    "it is a symlink to <folder>/outside/Machinefile, which is not in <folder>/shop"
                ),
            "{said}"
        );
        assert!(
            said.contains("`stead fmt <folder>/outside/Machinefile`"),
            "{said}"
        );
    }
    assert_eq!(fs::read_to_string(&outside).unwrap(), ugly);
    let said = place.run(&["-C", "shop", "fmt", "--check"]);
    assert!(
        said.starts_with("exit 1") && said.contains("which is not in <folder>/shop"),
        "{said}"
    );
    // One within the project stays a symlink.
    fs::remove_file(root.join("Machinefile")).unwrap();
    let inside = write("shop/conf/dev.kdl");
    symlink("conf/dev.kdl", root.join("Machinefile")).unwrap();
    let part = write("shop/ops/part.kdl");
    symlink("../ops/part.kdl", root.join("conf/part.kdl")).unwrap();
    assert!(place.run(&["-C", "shop", "fmt"]).starts_with("exit 0"));
    assert!(
        place
            .run(&["fmt", "shop/conf/part.kdl"])
            .starts_with("exit 0")
    );
    for path in [&inside, &part] {
        assert_eq!(fs::read_to_string(path).unwrap(), "project \"shop\"\n");
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o640
        );
    }
    assert!(root.join("Machinefile").is_symlink() && root.join("conf/part.kdl").is_symlink());
}

/// Errors show lines of files, so a project must not choose which files of the computer are read.
#[test]
fn no_symlink_of_a_project_shows_another_file() {
    let place = Place::new();
    let root = place.path().join("shop");
    fs::create_dir(&root).unwrap();
    let secret = "-----BEGIN SECRET\nb3BlbnNzaC1rZXk=\n{{{\n";
    fs::write(place.path().join("id_rsa"), secret).unwrap();
    let good = "project \"shop\"\nmachine \"web\" { box \"debian-12\"; }\n";
    for name in ["Machinefile", "Machinefile.local", "Machinefile.lock"] {
        fs::write(root.join("Machinefile"), good).unwrap();
        let link = root.join(name);
        let _ = fs::remove_file(&link);
        symlink("../id_rsa", &link).unwrap();
        let commands: &[&[&str]] = match name {
            "Machinefile.lock" => &[&["--connect", "test:///default", "plan"], &["fmt", name]],
            _ => &[
                &["validate"],
                &["plan"],
                &["fmt", name],
                &["fmt", "--check", name],
            ],
        };
        for command in commands {
            let said = place.run(&[&["-C", "shop"], *command].concat());
            let said = said.replace("\n  │ ", " ");
            assert!(!said.contains("SECRET") && !said.contains("b3B"), "{said}");
            assert!(
                said.contains("it is a symlink to <folder>/id_rsa, which is not in <folder>/shop"),
                "{name} {command:?}: {said}"
            );
        }
        fs::remove_file(&link).unwrap();
    }
    // Nor does a catalogue elsewhere, or a recipe.
    symlink("../id_rsa", root.join("link.kdl")).unwrap();
    for catalogue in [
        "./link.kdl",
        &place.path().join("id_rsa").display().to_string(),
    ] {
        let text = good
            .replace("machine", &format!("catalogue \"{catalogue}\"\nmachine"))
            .replace("debian-12", "debian/12");
        fs::write(root.join("Machinefile"), text).unwrap();
        for command in ["plan", "status"] {
            let said = place.run(&["--connect", "test:///default", "-C", "shop", command]);
            assert!(!said.contains("SECRET") && !said.contains("b3B"), "{said}");
            assert!(said.contains("this is not a line of a catalogue"), "{said}");
        }
    }
    fs::create_dir(place.path().join("recipe")).unwrap();
    symlink("../id_rsa", place.path().join("recipe/recipe.kdl")).unwrap();
    let said = place.run(&["box", "build", "./recipe"]);
    assert!(
        !said.contains("SECRET") && said.contains("which is not in <folder>/recipe"),
        "{said}"
    );
    // One within the project is read.
    fs::remove_file(root.join("Machinefile")).unwrap();
    fs::write(root.join("dev.kdl"), good).unwrap();
    symlink("dev.kdl", root.join("Machinefile")).unwrap();
    assert!(place.run(&["-C", "shop", "validate"]).starts_with("exit 0"));
}

/// What a project's symlinks lead to is not written: not by the lock file, and not by `init`.
#[test]
fn files_that_stead_writes_follow_no_symlink() {
    let place = Place::new();
    let outside = place.path().join("outside");
    fs::create_dir(place.path().join("shop")).unwrap();
    symlink("../outside", place.path().join("shop/Machinefile")).unwrap();
    let said = place.run(&["-C", "shop", "init"]);
    assert!(
        said.starts_with("exit 1") && said.contains("exists already"),
        "{said}"
    );
    assert!(!outside.exists());
}
