//! Whose a machine is, tried with the program: on `test:///FILE`, a host that a file describes and
//! that begins anew with each command.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use stead::machine::{Identity, Owner, RECORD_FORMAT, Record};

struct Host {
    folder: tempfile::TempDir,
    domains: Vec<String>,
}

/// Without a terminal, it asks nobody, and so waits for nobody.
#[test]
fn destroy_that_cannot_ask_waits_for_no_lock() {
    let mut host = Host::new();
    host.write("shop/Machinefile", SHOP);
    let web = host.has(&host.owner("shop", "shop", "Machinefile"), "web");
    host.does("shop", &["list"]);
    host.write(
        &format!("data/locks/{}.lock", web.uuid),
        "another (pid 1)\n",
    );
    let lock = fs::File::open(host.root().join(format!("data/locks/{}.lock", web.uuid))).unwrap();
    lock.lock().unwrap();
    let said = host.fails("shop", &["destroy"]);
    assert!(
        said.contains("destroy would delete web of project shop") && !said.contains("waiting for"),
        "{said}"
    );
    drop(lock);
    assert!(
        host.does("shop", &["destroy", "db"])
            .contains("nothing to destroy")
    );
}

const SHOP: &str = "project \"shop\"\nmachine \"web\" { box \"debian-12\" }\nmachine \"db\" { box \"debian-12\" }\n";

impl Host {
    fn new() -> Self {
        Host {
            folder: tempfile::tempdir().unwrap(),
            domains: Vec::new(),
        }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn owner(&self, project: &str, folder: &str, file: &str) -> Owner {
        Owner {
            project: project.into(),
            // No trailing slash: an identity is of the path's bytes.
            root: self.root().join(folder).components().collect(),
            file: file.into(),
        }
    }

    /// A machine that runs.
    fn has(&mut self, owner: &Owner, machine: &str) -> Identity {
        self.has_with(owner, machine, |_| {})
    }

    fn has_with(
        &mut self,
        owner: &Owner,
        machine: &str,
        change: impl FnOnce(&mut Record),
    ) -> Identity {
        let mut record = super::record(machine);
        record.project.clone_from(&owner.project);
        record.root.clone_from(&owner.root);
        record.file = Some(owner.file.clone());
        change(&mut record);
        let identity = owner.first(machine);
        self.domains
            .push(super::domain_xml(&identity, Some(&record)));
        identity
    }

    fn stead(&self, folder: &str, arguments: &[&str]) -> Command {
        let host = self.root().join("host.xml");
        fs::write(&host, format!("<node>{}</node>", self.domains.concat())).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
        command
            .arg("--connect")
            .arg(format!("test://{}", host.display()))
            .args(arguments)
            .current_dir(self.root().join(folder))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root().join("home"))
            .env("STEAD_DATA_DIR", self.root().join("data"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, folder: &str, arguments: &[&str]) -> Output {
        self.stead(folder, arguments).output().unwrap()
    }

    /// What it prints on stderr, when it succeeds.
    fn does(&self, folder: &str, arguments: &[&str]) -> String {
        let output = self.run(folder, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8(output.stderr).unwrap()
    }

    fn fails(&self, folder: &str, arguments: &[&str]) -> String {
        let output = self.run(folder, arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8(output.stderr).unwrap()
    }

    fn json(&self, folder: &str, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(folder, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Machines that a command's events say are done with, in order.
    fn worked_on(&self, folder: &str, arguments: &[&str]) -> Vec<String> {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = self.run(folder, &all);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        let events = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let mut names: Vec<String> = (events.lines())
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|event| event["event"] == "step-started")
            .filter_map(|event| event["machine"].as_str().map(String::from))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn another_file_of_the_folder_has_machines_of_its_own() {
    let mut host = Host::new();
    host.write("Machinefile", SHOP);
    host.write(
        "Machinefile.ci",
        "project \"shop-ci\"\nmachine \"runner\" { box \"debian-12\" }\n",
    );
    let (shop, ci) = (
        host.owner("shop", "", "Machinefile"),
        host.owner("shop-ci", "", "Machinefile.ci"),
    );
    host.has(&shop, "web");
    host.has(&shop, "db");
    host.has(&ci, "runner");
    let ci = ["-f", "Machinefile.ci"];
    assert_eq!(
        host.worked_on("", &[&ci[..], &["destroy", "-y"]].concat()),
        ["runner"]
    );
    assert_eq!(
        host.worked_on("", &[&ci[..], &["destroy", "-y", "--leftovers"]].concat()),
        ["runner"]
    );
    assert_eq!(host.worked_on("", &["halt", "--force"]), ["db", "web"]);
    assert_eq!(
        host.worked_on("", &["destroy", "-y", "--leftovers"]),
        ["db", "web"]
    );
    let said = host.fails("", &["-f", "Machinefile.ci", "destroy", "-y", "web"]);
    assert!(said.contains("there is no machine web"), "{said}");
}

/// The same name in both files is two machines; before files were noted, it was one, of the
/// project whose name stands in its record.
#[test]
fn machines_of_before_files_were_noted_are_found_and_told_apart() {
    let mut host = Host::new();
    host.write("Machinefile", SHOP);
    host.write(
        "Machinefile.ci",
        "project \"shop-ci\"\nmachine \"runner\" { box \"debian-12\" }\n",
    );
    let before = |record: &mut Record| {
        record.file = None;
        record.format = 1;
    };
    let shop = host.owner("shop", "", "Machinefile");
    host.has_with(&shop, "web", before);
    host.has_with(&shop, "old", before);
    let ci = host.owner("shop-ci", "", "Machinefile");
    host.has_with(&ci, "runner", before);
    assert_eq!(
        host.worked_on("", &["halt", "--force", "--leftovers"]),
        ["old", "web"]
    );
    // Nor are they taken where nobody can tell which project's they are.
    host.write("Machinefile", "}{");
    host.fails("", &["destroy", "-y"]);
    host.write("Machinefile", SHOP);
    assert_eq!(
        host.worked_on(
            "",
            &["-f", "Machinefile.ci", "destroy", "-y", "--leftovers"]
        ),
        ["runner"]
    );
}

#[test]
fn what_no_machinefile_names_is_left_alone() {
    let mut host = Host::new();
    host.write(
        "Machinefile",
        "project \"shop\"\nmachine \"web\" { box \"debian-12\" }\n",
    );
    let shop = host.owner("shop", "", "Machinefile");
    host.has(&shop, "web");
    host.has(&shop, "db");
    for command in [&["destroy", "-y"][..], &["halt", "--force"]] {
        assert_eq!(host.worked_on("", command), ["web"]);
        let said = host.does("", command);
        assert!(
            said.contains("skipped, because") && said.contains("db"),
            "{said}"
        );
    }
    assert_eq!(
        host.worked_on("", &["destroy", "-y", "--leftovers"]),
        ["db", "web"]
    );
    assert_eq!(host.worked_on("", &["destroy", "-y", "db"]), ["db"]);
    let all = host.json("", &["--json", "status"]);
    assert_eq!(all["machines"].as_array().unwrap().len(), 2);
    assert_eq!(all["machines"][1]["in_machinefile"], false);
    // What goes by the Machinefile says that it is not in there, and does not advise what cannot be.
    for command in [
        &["up", "db"][..],
        &["restart", "db"],
        &["sync", "db"],
        &["plan", "db"],
    ] {
        let said = host.fails("", command);
        assert!(said.contains("machine db is no longer in"), "{said}");
        assert!(said.contains("stead destroy db"), "{said}");
    }
}

/// A leftover that is worked on is locked, as every other machine.
#[test]
fn a_leftover_is_locked() {
    let mut host = Host::new();
    host.write(
        "Machinefile",
        "project \"shop\"\nmachine \"web\" { box \"debian-12\" }\n",
    );
    let shop = host.owner("shop", "", "Machinefile");
    host.has(&shop, "web");
    let db = host.has(&shop, "db");
    let locks = host.root().join("data/locks");
    fs::create_dir_all(&locks).unwrap();
    let path = locks.join(format!("{}.lock", db.uuid));
    fs::write(&path, "`stead up` (pid 1)\n").unwrap();
    let held = fs::File::open(&path).unwrap();
    held.lock().unwrap();
    let mut child = host
        .stead("", &["--json", "destroy", "-y", "--leftovers"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::{BufRead, BufReader};
    let first = BufReader::new(child.stdout.take().unwrap()).lines().next();
    let first = first.unwrap().unwrap();
    assert!(
        first.contains("waiting") && first.contains("`stead up` (pid 1)"),
        "{first}"
    );
    drop(held);
    child.wait().unwrap();
}

#[test]
fn a_project_without_machines_still_has_what_it_had() {
    let mut host = Host::new();
    host.write("Machinefile", "project \"shop\"\n");
    let shop = host.owner("shop", "", "Machinefile");
    host.has(&shop, "web");
    let said = host.does("", &["destroy", "-y"]);
    assert!(
        said.contains("skipped, because") && said.contains("web"),
        "{said}"
    );
    assert_eq!(host.worked_on("", &["destroy", "-y", "web"]), ["web"]);
    assert_eq!(
        host.worked_on("", &["halt", "--force", "--leftovers"]),
        ["web"]
    );
    let said = host.fails("", &["up"]);
    assert!(said.contains("describes no machine"), "{said}");
}

#[test]
fn a_machinefile_that_is_wrong_keeps_nobody_from_its_machines() {
    let broken = [
        ("syntax", "project \"shop\"\nmachine \"web\" { box \n", 2),
        (
            "unset",
            "project \"shop\"\nmachine \"web\" { box \"${env.NOT_SET_AT_ALL}\" }\n",
            1,
        ),
        (
            "script",
            "project \"shop\"\nmachine \"web\" { box \"b\"; provision \"x\" { script \"gone.sh\" } }\n",
            1,
        ),
        (
            "folder",
            "project \"shop\"\nmachine \"web\" { box \"b\"; sync \"./gone\" to=\"/srv\" }\n",
            1,
        ),
        (
            "playbook",
            "project \"shop\"\nmachine \"web\" { box \"b\"; provision \"x\" { ansible \"gone.yml\" } }\n",
            1,
        ),
        (
            "hook",
            "project \"shop\"\nmachine \"web\" { box \"b\"; before \"halt\" { host \"./gone\" } }\n",
            1,
        ),
        (
            "include",
            "project \"shop\"\ninclude \"gone.kdl\"\nmachine \"web\" { box \"b\" }\n",
            2,
        ),
    ];
    for (what, machinefile, machines) in broken {
        let mut host = Host::new();
        host.write("Machinefile", machinefile);
        let shop = host.owner("shop", "", "Machinefile");
        host.has(&shop, "web");
        // Where the names in it can be read, this is one that it does not name.
        host.has(&shop, "old");
        let (halted, destroyed) = (
            host.worked_on("", &["halt", "--force"]),
            host.worked_on("", &["destroy", "-y"]),
        );
        assert_eq!(
            (halted.len(), destroyed.len()),
            (machines, machines),
            "{what}"
        );
        assert_eq!(destroyed.last().unwrap(), "web");
        let said = host.does("", &["destroy", "-y", "web"]);
        assert!(
            said.contains("skipping hooks") && said.contains("Machinefile:"),
            "{what}: {said}"
        );
        let status = host.json("", &["--json", "status"]);
        assert_eq!(status["machines"].as_array().unwrap().len(), 2, "{what}");
        let port = host.json("", &["--json", "port", "web"]);
        assert_eq!(port[0]["host"], 22_222);
        let config = host.run("", &["ssh-config", "web"]);
        assert!(
            String::from_utf8_lossy(&config.stdout).contains("22222"),
            "{}",
            text(&config)
        );
        for command in [
            &["ssh", "web"][..],
            &["exec", "web", "--", "true"],
            &["copy", "web:a", "b"],
        ] {
            // As far as its keys, which nobody made here.
            let said = host.fails("", command);
            assert!(
                said.contains("keys of machine web are lost"),
                "{what}: {said}"
            );
        }
        let said = host.fails("", &["logs", "web"]);
        assert!(said.contains("no console log"), "{what}: {said}");
        // What needs the Machinefile says what is wrong with it.
        let output = host.run("", &["up"]);
        assert_eq!(output.status.code(), Some(2), "{what}: {}", text(&output));
    }
}

/// What only an `up` needs is no reason for a `halt` to fail.
#[test]
fn a_lock_file_or_a_catalogue_that_is_wrong_is_no_matter_to_what_is_there() {
    let mut host = Host::new();
    host.write("Machinefile", &format!("catalogue \"./boxes.kdl\"\n{SHOP}"));
    host.write("Machinefile.lock", "<<<<<<< ours\n");
    host.write("boxes.kdl", "}{");
    let shop = host.owner("shop", "", "Machinefile");
    host.has(&shop, "web");
    assert_eq!(host.worked_on("", &["halt", "--force"]), ["web"]);
    assert_eq!(host.worked_on("", &["destroy", "-y"]), ["web"]);
    host.json("", &["--json", "status"]);
}

#[test]
fn a_project_that_is_gone_is_reached_from_anywhere() {
    let mut host = Host::new();
    let shop = host.owner("shop", "was/here", "Machinefile");
    let web = host.has(&shop, "web");
    host.has(&shop, "db");
    let list = host.run("", &["list"]);
    let shown = text(&list);
    assert!(
        shown.contains("was/here (gone)") && shown.contains("stead adopt"),
        "{shown}"
    );
    let list = host.json("", &["--json", "list"]);
    assert_eq!(list["machines"][0]["gone"], true);
    let folder = shop.root.display().to_string();
    for from_anywhere in [
        &["destroy", "-y", "--project", "shop"][..],
        &["destroy", "-y", "--project", "./was/here"],
        &["destroy", "-y", "--project", &folder],
        &["halt", "--force", "--project", "shop"],
        // As if the folder was there.
        &["-C", "was/here", "destroy", "-y"],
        &["-f", "was/here/Machinefile", "destroy", "-y"],
    ] {
        assert_eq!(
            host.worked_on("", from_anywhere),
            ["db", "web"],
            "{from_anywhere:?}"
        );
        let said = host.does("", from_anywhere);
        assert!(
            said.contains("is gone") && said.contains("skipping hooks"),
            "{said}"
        );
    }
    let uuid = web.uuid.to_string();
    for domain in [web.domain.as_str(), &uuid] {
        assert_eq!(
            host.worked_on("", &["destroy", "-y", "--domain", domain]),
            ["web"]
        );
        let said = host.fails("", &["ssh", "--domain", domain]);
        assert!(said.contains("keys of machine web are lost"), "{said}");
    }
    let status = host.json("", &["--json", "status", "--project", "shop"]);
    assert_eq!(status["machines"].as_array().unwrap().len(), 2);
    let said = host.fails("", &["destroy", "-y", "--project", "other"]);
    assert!(said.contains("project other has no machines on"), "{said}");
    let said = host.fails("", &["destroy", "-y", "--domain", "web"]);
    assert!(said.contains("no domain web"), "{said}");
    let said = host.fails("", &["destroy", "-y", "db", "--domain", &uuid]);
    assert!(said.contains("--domain names a machine already"), "{said}");
}

/// The folder is there, its Machinefile was deleted.
#[test]
fn a_deleted_machinefile_keeps_nobody_from_its_machines() {
    let mut host = Host::new();
    fs::create_dir_all(host.root().join("shop/src")).unwrap();
    let shop = host.owner("shop", "shop", "Machinefile");
    host.has(&shop, "web");
    for folder in ["shop", "shop/src"] {
        assert_eq!(host.worked_on(folder, &["destroy", "-y"]), ["web"]);
    }
    let said = host.fails("", &["destroy", "-y"]);
    assert!(said.contains("no Machinefile"), "{said}");
}

/// Machines of a project that is there are taken with its Machinefile: hooks and names count.
#[test]
fn a_project_that_is_there_is_worked_on_with_its_machinefile() {
    let mut host = Host::new();
    host.write(
        "shop/Machinefile",
        "project \"shop\"\nmachine \"web\" { box \"b\"; before \"halt\" { host \"touch\" \"hooked\" } }\n",
    );
    let shop = host.owner("shop", "shop", "Machinefile");
    let web = host.has(&shop, "web");
    host.has(&shop, "old");
    assert_eq!(
        host.worked_on("", &["destroy", "-y", "--project", "shop"]),
        ["web"]
    );
    // Where nobody has agreed to what it runs here, it is halted all the same.
    let halt = ["halt", "--force", "--domain", &web.domain];
    let said = host.does("", &halt);
    assert!(
        said.contains("skipping the project's hooks on this computer"),
        "{said}"
    );
    assert!(!host.root().join("shop/hooked").exists());
    host.does("shop", &["trust", "--yes"]);
    host.does("", &halt);
    assert!(host.root().join("shop/hooked").exists());
}

#[test]
fn projects_of_one_name_are_told_apart_by_their_folders() {
    let mut host = Host::new();
    let (one, two) = (
        host.owner("shop", "one", "Machinefile"),
        host.owner("shop", "two", "Machinefile"),
    );
    host.has(&one, "web");
    host.has(&two, "web");
    let said = host.fails("", &["destroy", "-y", "--project", "shop"]);
    assert!(
        said.contains("several projects") && said.contains("--project FOLDER"),
        "{said}"
    );
    assert_eq!(
        host.worked_on("", &["destroy", "-y", "--project", "./two"]),
        ["web"]
    );
}

#[test]
fn a_moved_project_takes_its_machines_over() {
    let mut host = Host::new();
    host.write("new/Machinefile", SHOP);
    let old = host.owner("shop", "old", "Machinefile");
    host.has(&old, "web");
    // Nothing is made while the machines that are meant may wait elsewhere.
    let said = host.fails("new", &["up"]);
    assert!(
        said.contains("which is gone") && said.contains("stead adopt"),
        "{said}"
    );
    for command in ["status", "halt", "destroy"] {
        let said = host.does("new", &[command]);
        assert!(said.contains("stead adopt"), "{command}: {said}");
    }
    let said = host.fails("new", &["ssh", "web"]);
    assert!(said.contains("stead adopt"), "{said}");
    let said = host.does("new", &["adopt"]);
    assert!(said.contains("web: belongs to this project now"), "{said}");
    let said = host.fails("new", &["adopt", "db"]);
    assert!(said.contains("has no machine db"), "{said}");
    // Called otherwise meanwhile: only by the folder.
    host.write("new/Machinefile", &SHOP.replace("shop", "store"));
    let said = host.fails("new", &["adopt"]);
    assert!(said.contains("--from"), "{said}");
    host.does("new", &["adopt", "--from", "../old"]);
}

#[test]
fn a_copy_of_a_project_takes_nothing_from_it() {
    let mut host = Host::new();
    host.write("one/Machinefile", SHOP);
    host.write("two/Machinefile", SHOP);
    let one = host.owner("shop", "one", "Machinefile");
    host.has(&one, "web");
    for adopt in [&["adopt"][..], &["adopt", "--from", "../one"]] {
        host.fails("two", adopt);
    }
    let said = host.fails("two", &["adopt", "--from", "../one"]);
    assert!(said.contains("still exists"), "{said}");
    // Nor what the project here has a namesake of.
    let gone = host.owner("shop", "gone", "Machinefile");
    host.has(&gone, "web");
    let two = host.owner("shop", "two", "Machinefile");
    host.has(&two, "web");
    let said = host.fails("two", &["adopt"]);
    assert!(said.contains("has a machine web already"), "{said}");
}

/// Another name is no other project, and its disk goes with it.
#[test]
fn a_renamed_project_keeps_its_machines() {
    let mut host = Host::new();
    host.write("Machinefile", &SHOP.replace("shop", "store"));
    let shop = host.owner("shop", "", "Machinefile");
    let web = host.has(&shop, "web");
    let status = host.json("", &["--json", "status"]);
    assert_eq!(status["machines"][0]["domain"], web.domain);
    let disk = host.root().join("data/images").join(web.overlay());
    fs::create_dir_all(disk.parent().unwrap()).unwrap();
    fs::write(&disk, "").unwrap();
    let plan = host.run("", &["plan", "--destroy"]);
    assert!(text(&plan).contains("delete the disk"), "{}", text(&plan));
    assert_eq!(host.worked_on("", &["halt", "--force"]), ["web"]);
}

/// Without libvirt, what is wrong with the file is what one has to know.
#[test]
fn a_wrong_machinefile_of_no_machine_is_an_error() {
    let host = Host::new();
    host.write(
        "Machinefile",
        "project \"shop\"\nmachine \"web\" { bux \"b\" }\n",
    );
    let output = host.run("", &["destroy", "-y"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("bux"));
}

/// A file that is wrong must not choose what `halt` runs or talks to.
#[test]
fn a_wrong_machinefile_chooses_no_program() {
    let host = Host::new();
    host.write("x", "#!/bin/sh\ntouch ran\n");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(host.root().join("x"), fs::Permissions::from_mode(0o755)).unwrap();
    host.write(
        "Machinefile",
        "project \"shop\"\nconnect \"qemu+ext:///session?command=./x\"\nmachine \"web\" { bux \"b\" }\n",
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
    command
        .args(["destroy", "-y"])
        .current_dir(host.root())
        .env("HOME", host.root())
        .env("STEAD_DATA_DIR", host.root().join("data"))
        .env("LIBVIRT_DEFAULT_URI", "test:///default");
    assert_eq!(command.output().unwrap().status.code(), Some(2));
    assert!(!host.root().join("ran").exists());
}

/// A shell opens `2>FILE` without O_APPEND, so whoever opens the file again writes over what ssh writes, or ssh over it.
#[test]
fn a_machine_that_does_not_answer_is_reported_once_and_whole() {
    let mut host = Host::new();
    host.write("Machinefile", SHOP);
    let shop = host.owner("shop", "", "Machinefile");
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let web = host.has_with(&shop, "web", |record| record.ssh_port = port);
    let keys = format!("data/machines/{}", web.uuid);
    for key in ["id_ed25519", "host_ed25519"] {
        host.write(
            &format!("{keys}/{key}"),
            "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n",
        );
        host.write(&format!("{keys}/{key}.pub"), "ssh-ed25519 AAAA x\n");
    }
    let expected = format!(
        "error: web cannot be reached: 127.0.0.1:{port}: Connection refused (os error 111)\n\nhint: `stead logs web` shows its console, and `stead console web` types at it\n"
    );
    let path = host.root().join("said");
    for arguments in [
        &["ssh", "web"][..],
        &["ssh", "web", "-c", "true"],
        &["exec", "web", "--", "true"],
    ] {
        for both in [false, true] {
            let file = fs::File::create(&path).unwrap();
            let mut command = host.stead("", arguments);
            command.stderr(file.try_clone().unwrap());
            if both {
                command.stdout(file);
            }
            let status = command.status().unwrap();
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                expected,
                "{arguments:?}"
            );
            assert_eq!(status.code(), Some(255), "{arguments:?}");
        }
        for redirection in ["2>&-", ">&- 2>&-", "2>/dev/full", ">/dev/full 2>&1"] {
            let stead = host.stead("", arguments);
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &format!("exec \"$@\" {redirection}"), "sh"])
                .arg(stead.get_program())
                .args(stead.get_args())
                .current_dir(host.root())
                .env("HOME", host.root())
                .env("STEAD_DATA_DIR", host.root().join("data"));
            let status = shell.status().unwrap();
            assert_eq!(status.code(), Some(255), "{arguments:?} {redirection}");
        }
    }
}

/// A newer stead's machine can be seen and halted; what would write its record is refused.
#[test]
fn a_newer_stead_s_machine_is_not_changed() {
    let mut host = Host::new();
    host.write("Machinefile", SHOP);
    let shop = host.owner("shop", "", "Machinefile");
    host.has_with(&shop, "web", |record| record.format = RECORD_FORMAT + 1);
    host.json("", &["--json", "status"]);
    assert_eq!(host.worked_on("", &["halt", "--force"]), ["web"]);
    let said = host.fails("", &["destroy", "-y"]);
    assert!(said.contains("a newer stead"), "{said}");
}

/// What libvirt here calls off, and what runs all the same under another daemon, is not touched.
#[test]
fn a_machine_that_another_daemon_runs_is_not_touched() {
    let mut host = Host::new();
    host.write("Machinefile", SHOP);
    let shop = host.owner("shop", "", "Machinefile");
    let web = host.has(&shop, "web");
    let running = host.domains[0].clone();
    let off = "<test:runstate xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>5</test:runstate></domain>";
    let images = host.root().join("data/images");
    fs::create_dir_all(&images).unwrap();
    let disk = images.join(web.overlay());
    fs::write(&disk, "").unwrap();
    let machine = host.root().join("data/machines").join(web.uuid.to_string());
    fs::create_dir_all(&machine).unwrap();
    fs::write(
        machine.join("runtime.json"),
        "{\"uri\":\"test:///elsewhere\",\"runtime_dir\":null}",
    )
    .unwrap();
    let mut qemu = like_qemu(&web.uuid.to_string());
    for domain in [running.replace("</domain>", off), String::new()] {
        host.domains[0] = domain;
        for command in [
            &["destroy", "-y"][..],
            &["halt"],
            &["status"],
            &["up"],
            &["exec", "web", "--", "true"],
            &["destroy", "-y", "web"],
        ] {
            let said = host.fails("", command);
            let pid = qemu.id().to_string();
            assert!(
                said.contains("machine web runs")
                    && said.contains(&pid)
                    && said.contains("--connect test:///elsewhere"),
                "{command:?}: {said}"
            );
        }
        assert!(disk.exists() && machine.exists());
        if !host.domains[0].is_empty() {
            let list = host.json("", &["--json", "list"]);
            assert_eq!(list["machines"][0]["state"], "elsewhere");
        }
    }
    qemu.kill().unwrap();
    qemu.wait().unwrap();
}

/// A process with a QEMU's arguments, for whoever looks at /proc: a shell that was told more than it
/// needs, and ends with its standard input.
fn like_qemu(uuid: &str) -> std::process::Child {
    Command::new("sh")
        .args(["-c", "read line", "qemu", "-uuid", uuid])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}
