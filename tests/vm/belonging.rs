//! Which project a machine belongs to when the project's folder is moved, renamed, changed or deleted.

use std::{fs, path::Path};

use crate::project::{Project, is_system, stead_in, text, virsh};

/// Two machines through all that people do to a project's folder: another Machinefile in it, one that
/// is wrong, a move, another name, keys that are lost, and a folder that is deleted.
#[test]
#[ignore = "boots many times; tests/libvirt tries the same without guests: ./dev test --full"]
fn machines_stay_their_projects() {
    let mut project = Project::new(
        "belongs",
        r#"
project "belongs"
defaults { cpus 1; memory "512MiB"; before "halt" { host "touch" "hooked" } }
machine "web" { box "debian-12-cloud" }
machine "db" { box "debian-12" }
"#,
    );
    let machinefile = fs::read_to_string(project.folder.join("Machinefile")).unwrap();
    project.ok(&["up"]);
    for machine in ["web", "db"] {
        project.ok(&[
            "exec",
            machine,
            "--",
            "sh",
            "-c",
            "echo kept >/var/tmp/mark; sync",
        ]);
    }
    let (web, db) = (project.domain("web"), project.domain("db"));

    // Another file of the folder has nothing of this one's.
    project.write(
        "Machinefile.ci",
        "project \"belongs-ci\"\nmachine \"runner\" { box \"debian-12\" }\n",
    );
    project
        .ok(&["-f", "Machinefile.ci", "destroy", "-y", "--leftovers"])
        .says(&["nothing to destroy"]);

    // What is not named any more is left alone.
    project.write(
        "Machinefile",
        &machinefile.replace("machine \"db\" { box \"debian-12\" }\n", ""),
    );
    project.ok(&["plan", "--destroy"]);
    assert_eq!(
        project.steps("web", &["--destroy"]).last().unwrap(),
        "undefine"
    );
    assert_eq!(project.state("db"), "ready");

    // With a Machinefile that is wrong, everything that needs none of it works.
    project.write("Machinefile", &format!("{machinefile}}}{{"));
    let said = project.ok(&["exec", "web", "--", "cat", "/var/tmp/mark"]);
    assert_eq!(said.out, "kept\n");
    said.says(&["Machinefile:", "using the records of"]);
    assert_eq!(
        project.ok(&["ssh", "db", "--", "cat", "/var/tmp/mark"]).out,
        "kept\n"
    );
    assert!(!project.ok(&["logs", "web", "-n", "3"]).out.is_empty());
    project.ok(&["copy", "web:/var/tmp/mark", "copied"]);
    assert_eq!(
        fs::read_to_string(project.folder.join("copied")).unwrap(),
        "kept\n"
    );
    assert_eq!(project.state("web"), "ready");
    another_daemon(&project);
    project.ok(&["halt"]).says(&["skipping hooks"]);
    assert!(!project.folder.join("hooked").exists());
    assert_eq!(project.state("db"), "off");

    // Moved, renamed, and all keys lost: the same machines, with the same disks.
    let old = project.folder.clone();
    let new = old.with_file_name("belongs-moved");
    fs::rename(&old, &new).unwrap();
    project.folder = new;
    project.write("Machinefile", &machinefile);
    project
        .run(&["up"], 1)
        .says(&["which is gone", "stead adopt"]);
    project.ok(&["adopt"]);
    project.write(
        "Machinefile",
        &machinefile.replace("project \"belongs\"", "project \"renamed\""),
    );
    for machine in ["web", "db"] {
        let uuid = project.field(machine, "uuid");
        fs::remove_dir_all(project.data.join("machines").join(uuid.as_str().unwrap())).unwrap();
    }
    project.ok(&["up"]).says(&["its keys were lost"]);
    for (machine, domain) in [("web", &web), ("db", &db)] {
        assert_eq!(project.domain(machine), *domain);
        let said = project.ok(&["exec", machine, "--", "cat", "/var/tmp/mark"]);
        assert_eq!(said.out, "kept\n", "{machine}");
    }
    // Of one that runs it is said, by what only looks too.
    let uuid = project.field("web", "uuid");
    let folder = project.data.join("machines").join(uuid.as_str().unwrap());
    fs::rename(folder.join("id_ed25519"), folder.join("away")).unwrap();
    let lost = "the keys of machine web are lost";
    project.run(&["up"], 1).says(&[lost, "stead restart web"]);
    assert!(project.ok(&["status"]).out.contains(lost));
    fs::rename(folder.join("away"), folder.join("id_ed25519")).unwrap();
    project.ok(&["halt", "--force", "db"]);
    assert!(project.folder.join("hooked").exists());

    // Deleted: they are shown, and removed from anywhere, with all that was theirs.
    fs::remove_dir_all(&project.folder).unwrap();
    let elsewhere = |arguments: &[&str]| {
        let output = stead_in(Path::new("/"), &project.data)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    };
    assert!(elsewhere(&["list"]).contains("belongs-moved (gone)"));
    elsewhere(&["destroy", "-y", "--domain", &db]);
    elsewhere(&["destroy", "-y", "--project", "renamed"]);
    let listed = virsh(&["list", "--all", "--name"]);
    for domain in [web, db] {
        assert!(!listed.lines().any(|line| line == domain), "{listed}");
        let disk = project.data.join("images").join(format!("{domain}.qcow2"));
        assert!(!disk.exists(), "{}", disk.display());
    }
    fs::create_dir_all(&project.folder).unwrap();
}

/// A shell with another XDG_RUNTIME_DIR talks to another libvirt daemon, to which the machines are off.
fn another_daemon(project: &Project) {
    if is_system() {
        return;
    }
    let runtime = tempfile::Builder::new()
        .prefix("xdg")
        .tempdir_in("/tmp")
        .unwrap();
    for command in [
        &["destroy", "-y", "web"][..],
        &["destroy", "-y"],
        &["halt"],
        &["status"],
        &["exec", "web", "--", "true"],
    ] {
        let output = (project
            .stead(command)
            .env("XDG_RUNTIME_DIR", runtime.path()))
        .output()
        .unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(
            said.contains("runs (QEMU, process") && said.contains("XDG_RUNTIME_DIR"),
            "{command:?}: {said}"
        );
    }
    let said = project.ok(&["exec", "web", "--", "cat", "/var/tmp/mark"]);
    assert_eq!(said.out, "kept\n");
}
