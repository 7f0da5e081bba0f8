//! What a project may do to the host.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use super::{NOWHERE, ONE, Place};

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

/// A project that does everything that there is to ask about.
const EVERYTHING: &str = r#"
project "shop"
catalogue "https://127.0.0.1:9/boxes.kdl"
defaults { box "debian-12"; }
machine "web" {
    kernel { path "../kernel/vmlinuz"; }
    sync "../outside" to="/srv/outside" outside=#true
    sync "." to="/srv/app" type="9p"
    before "up" { host "./hooks/up.sh" "a b" { env TOKEN="${env.SHOP_TOKEN}"; }; }
    after "up" { host "make" "assets"; }
    before "halt" { host inline="touch ran-halt"; }
    after "destroy" { host inline="touch ran-destroy"; }
    provision "site" { ansible "site.yml" { vault-password-file "pass.sh"; vault-password-file "../secret"; }; }
}
"#;

fn write(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// `shop` in a place that has what [`EVERYTHING`] names.
fn everything() -> Place {
    let place = Place::new();
    let root = place.path().join("shop");
    write(&root.join("Machinefile"), EVERYTHING, 0o644);
    write(
        &root.join("hooks/up.sh"),
        "#!/bin/sh\n. hooks/lib.sh\n",
        0o755,
    );
    write(&root.join("hooks/lib.sh"), "touch ran-up\n", 0o644);
    write(&root.join("site.yml"), "- hosts: all\n", 0o644);
    write(&root.join("pass.sh"), "#!/bin/sh\necho pass\n", 0o755);
    write(&place.path().join("secret"), "pass\n", 0o600);
    write(&place.path().join("kernel/vmlinuz"), "x", 0o644);
    write(&place.path().join("outside/file"), "x", 0o644);
    place
}

fn shop(place: &Place, arguments: &[&str]) -> Command {
    let mut stead = place.stead(&[&["-C", "shop"], arguments].concat());
    stead
        .env("LIBVIRT_DEFAULT_URI", "test:///default")
        .env("SHOP_TOKEN", "s3cret-token");
    stead
}

/// How many projects have been agreed to.
fn answers(place: &Place) -> usize {
    fs::read_dir(place.path().join("data/trust")).map_or(0, Iterator::count)
}

fn said(place: &Place, arguments: &[&str]) -> String {
    place.said(&shop(place, arguments).output().unwrap())
}

#[test]
fn everything_that_reaches_the_host_is_listed_in_plain_words() {
    let place = everything();
    let text = said(&place, &["trust", "--show"]);
    let (text, digest) = text.split_once("--trust=sha256:").unwrap();
    assert_eq!(digest.lines().next().unwrap().len(), 64, "{digest}");
    insta::assert_snapshot!(text);
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn without_a_terminal_nothing_is_asked_and_nothing_is_done() {
    let place = everything();
    for command in [
        &["up"][..],
        &["up", "--no-provision"],
        &["restart"],
        &["provision"],
        &["sync"],
        &["sync", "--watch"],
        &["run", "--", "true"],
        &["kernel", "update"],
        &["box", "outdated"],
        &["box", "update"],
        &["box", "list", "--available"],
    ] {
        let text = said(&place, command);
        assert!(
            text.starts_with("exit 1") && text.contains("you have not agreed to it"),
            "{command:?}: {text}"
        );
        assert!(text.contains("`stead trust --yes`"), "{text}");
    }
    for left in ["ran-up", "ran-halt", "ran-destroy", "Machinefile.lock"] {
        assert!(!place.path().join("shop").join(left).exists(), "{left}");
    }
}

/// Asked on a terminal; what is typed decides.
fn on_a_terminal(place: &Place, arguments: &[&str], typed: &str, meanwhile: &dyn Fn()) -> String {
    use nix::pty::openpty;
    use std::io::{Read, Write};
    let pty = openpty(None, None).unwrap();
    let output = place.path().join("said");
    let mut stead = shop(place, arguments);
    let mut child = stead
        .stdin(Stdio::from(pty.slave))
        .stdout(Stdio::null())
        .stderr(fs::File::create(&output).unwrap())
        .spawn()
        .unwrap();
    let read = || {
        let mut text = String::new();
        fs::File::open(&output)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        text
    };
    while !read().contains("[y/N]") && !read().contains("[N]o") {
        if child.try_wait().unwrap().is_some() {
            return read();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    meanwhile();
    fs::File::from(pty.master)
        .write_all(format!("{typed}\n").as_bytes())
        .unwrap();
    child.wait().unwrap();
    read()
}

#[test]
fn what_is_agreed_to_is_remembered_until_it_changes() {
    let place = everything();
    let nothing = || ();
    let text = on_a_terminal(&place, &["sync"], "n", &nothing);
    assert!(
        text.contains("the folder") && text.contains("cancelled: nothing was changed"),
        "{text}"
    );
    // Only what `sync` is about was asked.
    assert!(!text.contains("make assets"), "{text}");
    let text = on_a_terminal(&place, &["trust"], "y", &nothing);
    assert!(
        text.contains("make assets") && !text.contains("[e]dits"),
        "{text}"
    );
    let text = said(&place, &["sync"]);
    assert!(text.contains("has not been made yet"), "{text}");
    let text = said(&place, &["trust"]);
    assert!(text.contains("agreed to all of it"), "{text}");

    // Lines that reach nothing of the host's do not ask again.
    let file = place.path().join("shop/Machinefile");
    let edited = EVERYTHING.replace(
        "machine \"web\" {",
        "machine \"web\" { cpus 2; memory \"2GiB\";",
    );
    fs::write(&file, &edited).unwrap();
    assert!(said(&place, &["trust"]).contains("agreed to all of it"));

    // A file that an agreed script includes does, and asks about that one alone.
    fs::write(place.path().join("shop/hooks/lib.sh"), "touch ran-other\n").unwrap();
    let text = said(&place, &["trust"]);
    assert!(
        text.contains("hooks/up.sh") && text.contains("(changed since you agreed: hooks/lib.sh)"),
        "{text}"
    );
    assert!(!text.contains("make assets"), "{text}");
    let text = said(&place, &["up"]);
    assert!(text.contains("you have not agreed to it"), "{text}");
    // What `sync` is about is as it was.
    assert!(said(&place, &["sync"]).contains("has not been made yet"));

    assert!(said(&place, &["trust", "--yes"]).starts_with("exit 0"));
    assert!(said(&place, &["trust"]).contains("agreed to all of it"));
    // A new name is a new question; other values of variables are none.
    let mut stead = shop(&place, &["trust"]);
    let text = place.said(&stead.env("SHOP_TOKEN", "another-token").output().unwrap());
    assert!(text.contains("agreed to all of it"), "{text}");
    fs::write(&file, edited.replace("make\" \"assets", "make\" \"install")).unwrap();
    let text = said(&place, &["trust"]);
    assert!(
        text.contains("make install") && !text.contains("up.sh"),
        "{text}"
    );

    assert!(said(&place, &["trust", "--revoke"]).starts_with("exit 0"));
    assert!(said(&place, &["sync"]).contains("you have not agreed to it"));
}

#[test]
fn a_symlink_that_leads_elsewhere_is_another_folder() {
    let place = Place::new();
    let root = place.path().join("shop");
    let machine =
        "machine \"web\" { box \"debian-12\"; sync \"data\" to=\"/srv/d\" outside=#true; }";
    write(
        &root.join("Machinefile"),
        &format!("project \"shop\"\n{machine}\n"),
        0o644,
    );
    for name in ["a", "b"] {
        fs::create_dir(place.path().join(name)).unwrap();
    }
    let link = root.join("data");
    std::os::unix::fs::symlink("../a", &link).unwrap();
    assert!(said(&place, &["trust", "--yes"]).contains("<folder>/a"));
    assert!(said(&place, &["sync"]).contains("has not been made yet"));
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("../b", &link).unwrap();
    let text = said(&place, &["sync"]);
    assert!(
        text.contains("<folder>/b") && text.contains("not agreed"),
        "{text}"
    );
}

/// What is past the bounds could change without anybody being asked.
#[test]
fn where_not_all_files_can_be_looked_at_yes_is_for_once() {
    let place = Place::new();
    let root = place.path().join("shop");
    let text = "project \"shop\"\nmachine \"web\" { box \"debian-12\"; before \"up\" { host \"./hooks/up.sh\"; }; }\n";
    write(&root.join("Machinefile"), text, 0o644);
    write(&root.join("hooks/up.sh"), "#!/bin/sh\n. \"$x\"\n", 0o755);
    for n in 0..1001 {
        write(&root.join(format!("hooks/{n}.sh")), "", 0o644);
    }
    let up = || said(&place, &["up"]);
    assert!(
        up().contains("more files than stead checks (1000 files"),
        "{}",
        up()
    );
    // Yes lets this command go on, and holds for no other.
    let asked = on_a_terminal(&place, &["up"], "y", &|| ());
    assert!(asked.contains("your agreement holds only once"), "{asked}");
    assert!(
        !asked.contains("cancelled: nothing was changed") && asked.contains("debian-12"),
        "{asked}"
    );
    assert!(up().contains("not agreed"), "{}", up());
    let yes = said(&place, &["trust", "--yes"]);
    assert!(
        yes.starts_with("exit 0") && yes.contains("asks for agreement each time"),
        "{yes}"
    );
    assert!(up().contains("not agreed"), "{}", up());
    // A digest of some files says nothing of the others.
    let shown = said(&place, &["trust", "--show"]);
    let digest = shown
        .split("--trust=")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    let once = said(&place, &["up", &format!("--trust={digest}")]);
    assert!(once.contains("--trust cannot agree to"), "{once}");
    // Edits are told to be whatever becomes of them.
    assert!(said(&place, &["trust", "--yes", "--edits"]).starts_with("exit 0"));
    assert!(!up().contains("not agreed"), "{}", up());
    assert!(said(&place, &["trust", "--edits"]).contains("agreed to all of it"));
}

#[test]
fn edits_can_be_agreed_to_where_nobody_else_makes_them() {
    let place = Place::new();
    let root = place.path().join("shop");
    let text = |sync: &str| {
        format!(
            "project \"shop\"\nmachine \"web\" {{ box \"debian-12\"; {sync} before \"up\" {{ host \"./up.sh\"; }}; }}\n"
        )
    };
    write(&root.join("Machinefile"), &text(""), 0o644);
    write(&root.join("up.sh"), "#!/bin/sh\n", 0o755);
    let asked = on_a_terminal(&place, &["trust"], "e", &|| ());
    assert!(asked.contains("[e]dits"), "{asked}");
    fs::write(root.join("up.sh"), "#!/bin/sh\necho edited\n").unwrap();
    let shown = said(&place, &["trust", "--show"]);
    assert!(shown.contains("--trust="), "{shown}");
    assert!(shown.contains("all of it, and to edits"), "{shown}");
    assert!(said(&place, &["trust"]).contains("agreed to all of it already"));
    let up = |place: &Place| said(place, &["up"]);
    assert!(!up(&place).contains("not agreed"), "{}", up(&place));

    // A machine that may write the script is somebody else.
    fs::write(
        root.join("Machinefile"),
        text("sync \".\" to=\"/srv/app\" mode=\"two-way\";"),
    )
    .unwrap();
    let asked = on_a_terminal(&place, &["up"], "n", &|| ());
    assert!(
        asked.contains("web writes the project") || asked.contains("web writes 'the project"),
        "{asked}"
    );
    assert!(
        asked.contains("./up.sh") || asked.contains("up.sh"),
        "{asked}"
    );
    assert!(!asked.contains("[e]dits"), "{asked}");
    assert!(said(&place, &["trust", "--yes", "--edits"]).starts_with("exit 0"));
    fs::write(root.join("up.sh"), "#!/bin/sh\necho by the guest\n").unwrap();
    assert!(up(&place).contains("not agreed"), "{}", up(&place));
    // Nor does the machine get rid of the question by taking its own share out of the Machinefile.
    fs::write(root.join("Machinefile"), text("")).unwrap();
    assert!(up(&place).contains("not agreed"), "{}", up(&place));
}

#[test]
fn a_digest_agrees_once_and_only_to_what_it_is_of() {
    let place = everything();
    let shown = said(&place, &["trust", "--show"]);
    let digest = shown
        .lines()
        .find_map(|line| line.strip_prefix("--trust="))
        .unwrap();
    let text = said(&place, &["sync", &format!("--trust={digest}")]);
    assert!(text.contains("has not been made yet"), "{text}");
    // It is not remembered.
    assert!(said(&place, &["sync"]).contains("not agreed"));
    fs::write(place.path().join("shop/hooks/lib.sh"), "touch ran-other\n").unwrap();
    let text = said(&place, &["up", &format!("--trust={digest}")]);
    assert!(
        text.contains("--trust has another hash than project"),
        "{text}"
    );
    assert_eq!(answers(&place), 0);
}

#[test]
fn a_project_that_reaches_nothing_is_never_asked_about() {
    let place = Place::new();
    let root = place.path().join("shop");
    write(
        &root.join("Machinefile"),
        r#"
project "shop"
machine "web" {
    box "${env.HOME:-x}"
    sync "src" to="/srv/src" type="9p"
    sync "." to="/srv/all" type="9p" readonly=#true
    sync "." to="/srv/copy"
    after "up" { guest inline="true"; }
    provision "a" { shell inline="true"; }
}
"#
        .replace(
            "box \"${env.HOME:-x}\"",
            "box \"debian-12\"; hostname \"a-${env.USER:-x}\"",
        )
        .as_str(),
        0o644,
    );
    fs::create_dir(root.join("src")).unwrap();
    let text = said(&place, &["trust", "--show"]);
    assert!(text.contains("does nothing to this computer"), "{text}");
    assert!(said(&place, &["sync"]).contains("has not been made yet"));
    assert_eq!(answers(&place), 0);
}

/// Every program that a look could start is a trap, and so are the project's own.
#[test]
fn a_look_runs_nothing_and_fetches_nothing() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let url = format!("https://{}", server.local_addr().unwrap());
    let place = everything();
    let root = place.path().join("shop");
    let text = EVERYTHING
        .replace("https://127.0.0.1:9", &url)
        .replace("box \"debian-12\"", &format!("box \"{url}/x.qcow2\""));
    fs::write(root.join("Machinefile"), text).unwrap();
    let caught = place.path().join("caught");
    let trap = format!("#!/bin/sh\necho \"$0\" >>{}\n", caught.display());
    for name in [
        "ansible",
        "ansible-galaxy",
        "ansible-playbook",
        "awk",
        "bash",
        "bwrap",
        "cat",
        "chmod",
        "cp",
        "curl",
        "depmod",
        "dpkg",
        "env",
        "false",
        "getent",
        "git",
        "gpg",
        "gpgv",
        "id",
        "ip",
        "kmod",
        "ln",
        "losetup",
        "ls",
        "lsmod",
        "make",
        "mkfs.vfat",
        "mkisofs",
        "modinfo",
        "modprobe",
        "mount",
        "nsenter",
        "objcopy",
        "pass.sh",
        "pkexec",
        "podman",
        "python",
        "python3",
        "qemu-img",
        "qemu-kvm",
        "qemu-nbd",
        "qemu-system-aarch64",
        "qemu-system-x86_64",
        "rpm",
        "rsync",
        "scp",
        "sed",
        "sftp",
        "sh",
        "ssh",
        "ssh-add",
        "ssh-agent",
        "ssh-keygen",
        "ssh-keyscan",
        "stead",
        "stead-watch",
        "sudo",
        "systemctl",
        "tar",
        "true",
        "udevadm",
        "umount",
        "uname",
        "unison",
        "unshare",
        "up.sh",
        "virsh",
        "virtiofsd",
        "wget",
        "xz",
        "zstd",
    ] {
        write(&place.path().join("traps").join(name), &trap, 0o755);
        write(&root.join(name), &trap, 0o755);
    }
    let path = format!(".:{}", place.path().join("traps").display());
    for agreed in [false, true] {
        if agreed {
            assert!(said(&place, &["trust", "--yes"]).starts_with("exit 0"));
        }
        for command in [
            &["validate"][..],
            &["validate", "--json"],
            &["plan"],
            &["status"],
            &["list"],
            &["fmt", "--check"],
            &["fmt"],
            &["port"],
            &["inventory"],
            &["trust", "--show"],
            &["box", "list"],
            &["kernel", "list"],
            &["halt"],
            &["destroy", "-y"],
        ] {
            let mut stead = shop(&place, command);
            let text = place.said(&stead.env("PATH", &path).output().unwrap());
            assert!(
                text.starts_with("exit 0") || text.starts_with("exit 1"),
                "{command:?}: {text}"
            );
            assert!(
                !caught.exists(),
                "{command:?} ran {}",
                fs::read_to_string(&caught).unwrap_or_default()
            );
            let came = server.accept();
            assert!(came.is_err(), "{command:?} asked the network");
        }
    }
    // The traps do catch.
    let mut stead = shop(&place, &["doctor"]);
    stead.env("PATH", &path).output().unwrap();
    let text = fs::read_to_string(&caught).unwrap();
    assert!(
        text.contains("traps/rsync") && !text.contains("./"),
        "{text}"
    );
}

/// As git does it: who works in a folder below /tmp is not to obey whoever put a file into /tmp.
#[test]
fn a_machinefile_above_has_to_be_ones_own() {
    let place = Place::with(ONE);
    fs::create_dir(place.path().join("below")).unwrap();
    let file = place.path().join("Machinefile");
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    assert!(
        place
            .run(&["-C", "below", "validate"])
            .starts_with("exit 0")
    );
    mode(0o666);
    for command in ["validate", "status", "fmt", "up"] {
        let text = place.run(&["-C", "below", command]);
        assert!(
            text.starts_with("exit 2") && text.contains("can be written by everybody"),
            "{command}: {text}"
        );
    }
    // Where it is named, or where one works in its own folder, it is no surprise.
    assert!(place.run(&["validate"]).starts_with("exit 0"));
    assert!(
        place
            .run(&["-C", "below", "-f", "../Machinefile", "validate"])
            .starts_with("exit 0")
    );
    mode(0o644);
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    std::os::unix::fs::chown(&file, Some(4242), None).unwrap();
    let text = place.run(&["-C", "below", "validate"]);
    assert!(text.contains("belongs to uid 4242"), "{text}");
    let mut by_sudo = place.stead(&["-C", "below", "validate"]);
    let text = place.said(&by_sudo.env("SUDO_UID", "4242").output().unwrap());
    assert!(text.starts_with("exit 0"), "{text}");
}

#[test]
fn the_question_names_whose_files_they_are() {
    let place = everything();
    let script = place.path().join("shop/hooks/lib.sh");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o666)).unwrap();
    let text = said(&place, &["trust", "--show"]);
    assert!(
        text.contains("hooks/lib.sh can be written by everybody on this computer"),
        "{text}"
    );
}

#[test]
fn answers_are_kept_privately_and_two_at_once_lose_none() {
    let place = everything();
    let root = place.path().join("shop");
    fs::copy(root.join("Machinefile"), root.join("Other")).unwrap();
    let children: Vec<_> = (0..6)
        .map(|n| {
            let file = if n % 2 == 0 { "Machinefile" } else { "Other" };
            let mut stead = shop(&place, &["-f", file, "trust", "--yes"]);
            stead.stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let folder = place.path().join("data/trust");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<_> = (fs::read_dir(&folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in &files {
        assert_eq!(mode(file), 0o600);
        let text = fs::read_to_string(file).unwrap();
        assert!(
            !text.contains("s3cret") && !text.contains("assets"),
            "{text}"
        );
    }
    for file in ["Machinefile", "Other"] {
        assert!(said(&place, &["-f", file, "trust"]).contains("agreed to all of it"));
    }
    // One that somebody else can write says nothing.
    fs::set_permissions(&files[0], fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(&files[1], fs::Permissions::from_mode(0o666)).unwrap();
    let text = said(&place, &["sync"]);
    assert!(
        text.contains("is not a file that only you can write"),
        "{text}"
    );
}

/// A word without a slash is a program of PATH, also where a guest put a file of that name there.
#[test]
fn a_bare_word_is_a_program_and_a_path_is_the_file() {
    let machine = |host: &str| {
        format!(
            "project \"shop\"\nmachine \"web\" {{ box \"debian-12\"; before \"up\" {{ host \"{host}\"; }}; }}\n"
        )
    };
    let place = Place::with(&machine("sh"));
    for name in ["sh", "mine.sh"] {
        write(&place.path().join(name), "#!/bin/sh\n", 0o755);
    }
    let shown = |place: &Place| place.run(&["trust", "--show"]);
    let text = shown(&place);
    assert!(
        text.contains("    sh   (before up)") && !text.contains("with sh"),
        "{text}"
    );
    let write_machine = |host| fs::write(place.path().join("Machinefile"), machine(host)).unwrap();
    write_machine("./sh");
    assert!(shown(&place).contains("with sh\n"), "{}", shown(&place));
    write_machine("mine.sh");
    let text = shown(&place);
    assert!(
        text.starts_with("exit 2") && text.contains("\"./mine.sh\""),
        "{text}"
    );
}

/// Names of files are the project's too: none writes a line of its own.
#[test]
fn no_name_writes_lines_of_its_own() {
    let place = Place::new();
    let root = place.path().join("shop\n  runs nothing");
    let machine =
        "machine \"web\" { box \"debian-12\"; before \"up\" { host inline=\". hooks/*.sh\"; }; }";
    write(
        &root.join("Machinefile"),
        &format!("project \"shop\"\n{machine}\n"),
        0o644,
    );
    write(&root.join("hooks/a\n  fetches nothing\n.sh"), "", 0o644);
    for command in [&["trust", "--show"][..], &["trust"], &["up"], &["validate"]] {
        let mut stead = place.stead(command);
        let text = place.said(&stead.current_dir(&root).output().unwrap());
        for line in text.lines() {
            let own = ["runs nothing", "fetches nothing"]
                .iter()
                .any(|it| line.trim().starts_with(it));
            assert!(!own, "{command:?}: {text}");
        }
    }
}

/// What a question cuts, another command shows.
#[test]
fn what_is_cut_in_the_question_is_shown_whole() {
    let place = Place::new();
    let root = place.path().join("shop");
    let script: String = (0..30).map(|n| format!("echo line-{n};\\n")).collect();
    let word = format!("{}-end", "x".repeat(3000));
    let machine = format!(
        "machine \"web\" {{ box \"debian-12\"; before \"up\" {{ host inline=\"{script}. hooks/*.sh\"; host \"true\" \"{word}\"; }}; }}"
    );
    write(
        &root.join("Machinefile"),
        &format!("project \"shop\"\n{machine}\n"),
        0o644,
    );
    for n in 0..20 {
        write(&root.join(format!("hooks/{n}.sh")), "", 0o644);
    }
    let ends = ["echo line-29;", "-end", "hooks/9.sh"];
    let asked = said(&place, &["trust"]);
    assert!(
        asked.contains("`stead trust --show` shows all of it"),
        "{asked}"
    );
    assert!(!ends.iter().any(|end| asked.contains(end)), "{asked}");
    for command in [&["trust", "--show"][..], &["trust", "--show", "--json"]] {
        let shown = said(&place, command);
        assert!(ends.iter().all(|end| shown.contains(end)), "{shown}");
        assert!(!shown.contains(" more"), "{shown}");
    }
}

/// What a playbook imports runs here as it does, wherever it lies.
#[test]
fn what_a_playbook_imports_is_shown_and_asked_about() {
    let place = Place::new();
    let root = place.path().join("shop");
    let text = "project \"shop\"\nmachine \"m\" { box \"debian-12\"; sync \"sub\" to=\"/srv/a\" type=\"virtiofs\"; provision \"x\" { ansible \"pb.yml\"; }; }\n";
    write(&root.join("Machinefile"), text, 0o644);
    write(
        &root.join("pb.yml"),
        "- import_playbook: sub/pb.yml\n",
        0o644,
    );
    write(&root.join("sub/pb.yml"), "- hosts: all\n", 0o644);
    let shown = said(&place, &["trust", "--show"]);
    assert!(
        shown.contains("ansible-playbook pb.yml, with 1 more file "),
        "{shown}"
    );
    assert!(shown.contains("with pb.yml, sub/pb.yml"), "{shown}");
    assert!(
        shown.contains("m writes sub, which holds sub/pb.yml"),
        "{shown}"
    );
    assert!(said(&place, &["trust", "--yes"]).starts_with("exit 0"));
    assert!(said(&place, &["trust"]).contains("agreed to all of it"));
    write(
        &root.join("sub/pb.yml"),
        "- hosts: all\n  tasks: [ { shell: id, delegate_to: localhost } ]\n",
        0o644,
    );
    let asked = said(&place, &["trust"]);
    assert!(
        asked.contains("changed since you agreed: sub/pb.yml"),
        "{asked}"
    );
    assert!(said(&place, &["up"]).contains("not agreed"));
    // A file that the playbook does not read asks nothing.
    assert!(said(&place, &["trust", "--yes"]).starts_with("exit 0"));
    write(&root.join("src/main.rs"), "fn main() {}\n", 0o644);
    assert!(said(&place, &["trust"]).contains("agreed to all of it"));
}

/// Who agrees should not learn only then that it was for nothing.
#[test]
fn what_this_computer_cannot_give_is_refused_before_the_question() {
    for (text, said_at) in [
        (
            "network \"lan\" bridge=\"br0\"\nmachine \"web\" { box \"debian-12\"; network \"lan\"; }\n",
            "network \"lan\" needs qemu:///system",
        ),
        (
            "machine \"web\" { box \"debian-12\"; forward 8080 address=\"192.0.2.1\"; }\n",
            "this computer does not have the address 192.0.2.1",
        ),
    ] {
        let place = Place::with(&format!("project \"shop\"\n{text}"));
        let said = place.run(&["--connect", "test:///default", "up"]);
        assert!(said.starts_with("exit 2"), "{said}");
        assert!(said.contains(said_at), "{said}");
        assert!(!said.contains("you have not agreed"), "{said}");
    }
}
