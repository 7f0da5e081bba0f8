//! Machines that are set up by Ansible, from the host and inside them.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::project::{Project, data, text, variable};

/// The example, as a project of its own.
fn example() -> Project {
    let repo = PathBuf::from(variable("STEAD_TEST_REPO"));
    let from = repo.join("examples/ansible-site");
    let machinefile = fs::read_to_string(from.join("Machinefile")).unwrap();
    let project = Project::with_data("ansible site", &machinefile, data());
    copy(&from, &project.folder);
    project
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Ansible or another tool, in the project's folder, with the stead under test.
fn tool(project: &Project, words: &[&str]) -> Output {
    let repo = variable("STEAD_TEST_REPO");
    Command::new(words[0])
        .args(&words[1..])
        .current_dir(&project.folder)
        .env("STEAD", variable("STEAD_BIN"))
        .env("STEAD_DATA_DIR", &project.data)
        .env(
            "ANSIBLE_INVENTORY_PLUGINS",
            format!("{repo}/provisioners/ansible/plugins/inventory"),
        )
        .env("ANSIBLE_INVENTORY_ENABLED", "stead,script,yaml,ini")
        .env("ANSIBLE_VAULT_PASSWORD_FILE", "vault-password")
        .env("ANSIBLE_NOCOLOR", "1")
        .output()
        .unwrap()
}

#[track_caller]
fn tool_ok(project: &Project, words: &[&str]) -> String {
    let output = tool(project, words);
    assert!(output.status.success(), "{words:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn page() -> String {
    let mut stream = std::net::TcpStream::connect("127.0.0.1:18180").unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

/// Everything that was recorded of a machine, and all that stead keeps on disk of its runs.
fn kept(project: &Project, machine: &str) -> String {
    let domain = project.domain(machine);
    crate::project::virsh(&["metadata", &domain, "--uri", "urn:stead:machine"])
}

/// The example's two machines, by one playbook over both; then what else reads the inventory.
#[test]
fn ansible_sets_up_a_project() {
    let project = example();
    let plan = project.ok(&["plan"]).out;
    assert!(
        plan.contains(
            "site (after db, web)\n  run provisioner site over db, web (it has not run yet)"
        ),
        "{plan}"
    );

    // Nothing is begun where the end of it is known.
    let password = fs::read_to_string(project.folder.join("vault-password")).unwrap();
    fs::remove_file(project.folder.join("vault-password")).unwrap();
    project
        .run(&["up"], 1)
        .says(&["the vault password file", "Machinefile:"]);
    assert_eq!(project.state("db"), "absent");

    // So is an Ansible that is too old, and none at all.
    project.write("vault-password", &password);
    project.write(
        "bin/ansible-playbook",
        "#!/bin/sh\necho 'ansible-playbook 2.9.27'\n",
    );
    let program = project.folder.join("bin/ansible-playbook");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for said in ["but this host has 2.9.27", "but it is not installed"] {
        let up = project
            .stead(&["up"])
            .env("PATH", program.parent().unwrap())
            .output()
            .unwrap();
        assert!(text(&up).contains(said), "{}", text(&up));
        let _ = fs::remove_file(&program);
    }
    assert_eq!(project.state("db"), "absent");

    // A wrong password is found when both machines are up, and they stay.
    project.write("vault-password", "another one\n");
    project.run(&["up"], 1).says(&[
        "provisioner site: ",
        "Decryption failed",
        "vault-password-file",
        "stead provision --only site",
    ]);
    assert_eq!(
        fs::read_dir(project.data.join("ansible/runs"))
            .unwrap()
            .count(),
        0
    );
    project.write("vault-password", &password);

    let up = project.ok(&["up"]);
    up.says(&[
        "RUNNING HANDLER [database : Restart the greeting]",
        "done in",
    ]);
    let page_is = page();
    assert!(page_is.contains("<p>db runs Debian on 6."), "{page_is}");
    assert!(page_is.contains("hello from db, the database"), "{page_is}");
    assert_eq!(project.state("web"), "ready");
    assert_eq!(
        project.ok(&["exec", "web", "--", "cat", "/etc/motd"]).out,
        "web.shop.test of ansible-site, release 3\n"
    );
    assert!(!up.err.contains("a-token-that-nobody-reads"));
    assert!(!kept(&project, "db").contains("a-token-that-nobody-reads"));
    assert_eq!(
        fs::read_dir(project.data.join("ansible/runs"))
            .unwrap()
            .count(),
        0
    );

    // Up again does nothing; run again it changes nothing; an edit of a role is seen.
    project.ok(&["up"]).says(&["db   is up", "web  is up"]);
    let again = project.ok(&["provision", "--only", "site"]);
    let recap: Vec<&str> = again
        .err
        .lines()
        .filter(|line| line.contains("ok="))
        .collect();
    assert!(
        recap.len() == 2
            && recap
                .iter()
                .all(|line| line.contains("changed=0") && line.contains("failed=0")),
        "{}",
        again.err
    );
    project.write("roles/common/defaults/main.yml", "motd: edited\n");
    let plan = project.ok(&["plan"]).out;
    assert!(
        plan.contains("site\n  ! changed since it ran; `stead provision --only site` runs it"),
        "{plan}"
    );
    let status = project.json(&["status", "--json"]);
    assert_eq!(status["provisioners"][0]["pending"], Value::Null);
    assert_eq!(status["provisioners"][0]["changed"], true);

    // A command about one machine leaves it alone, and a failing task is named.
    project
        .ok(&["up", "db"])
        .says(&["changed since it ran; `stead provision --only site` runs it"]);
    project.write(
        "Machinefile",
        &fs::read_to_string(project.folder.join("Machinefile"))
            .unwrap()
            .replace("skip-tags \"never-here\"", "tags \"never-here\""),
    );
    project.run(&["provision", "--only", "site"], 1).says(&[
        "provisioner site: task \"Never here\" failed on",
        "exit code 2",
    ]);

    other_tools(&project);
    inventories(&project);

    // A machine that is off is in no list.
    project.ok(&["halt", "web"]);
    let list = project.json(&["inventory", "--list"]);
    assert_eq!(list["fronts"]["hosts"], Value::Array(Vec::new()));
    assert!(list["_meta"]["hostvars"].get("web").is_none());
    project
        .run(&["inventory", "--host", "web"], 1)
        .says(&["machine web is not running"]);
    project.run(&["inventory", "--host", "wbe"], 2);

    // One without Ansible says what to do.
    project.write("alone.yml", "- hosts: all\n  tasks: []\n");
    project.write(
        "Machinefile.local",
        "machine \"db\" { provision \"in\" { ansible-local \"alone.yml\"; }; }\n",
    );
    project.run(&["provision", "db", "--only", "in"], 1).says(&[
        "Machinefile.local:1:33: Ansible is not installed in machine db",
        "install=\"package\"",
    ]);
    project.ok(&["destroy", "-y"]);
}

fn inventories(project: &Project) {
    let repo = variable("STEAD_TEST_REPO");
    let list = project.json(&["inventory", "--list"]);
    assert_eq!(
        list["production"]["children"],
        serde_json::json!(["fronts", "stores"])
    );
    assert_eq!(list["role_database"]["hosts"], serde_json::json!(["db"]));
    let db = project.json(&["inventory", "--host", "db"]);
    assert_eq!(db["listen"], 5432);
    assert_eq!(db["stead_forwards"]["5432"], 15532);

    // Without a connection that is open already, the host's key is checked.
    for machine in ["db", "web"] {
        tool(
            project,
            &["ssh", "-F", "capistrano/.stead-ssh", "-O", "exit", machine],
        );
    }
    let script = format!("{repo}/provisioners/stead-inventory");
    let said = tool_ok(project, &["ansible", "-i", &script, "all", "-m", "ping"]);
    for machine in ["db | SUCCESS", "web | SUCCESS"] {
        assert!(said.contains(machine), "{said}");
    }
    project.write(
        "inventory/stead.yml",
        &format!(
            "plugin: stead\nproject: ..\nstead: {}\nkeyed_groups:\n  - key: stead_labels.role\n    prefix: tier\n",
            variable("STEAD_BIN")
        ),
    );
    let graph = tool_ok(
        project,
        &["ansible-inventory", "-i", "inventory/stead.yml", "--graph"],
    );
    assert!(graph.contains("@tier_frontend:\n  |  |--web"), "{graph}");
    assert!(
        graph.contains("@production:\n  |  |--@fronts:\n  |  |  |--web"),
        "{graph}"
    );
    let said = tool_ok(
        project,
        &[
            "ansible",
            "-i",
            "inventory/stead.yml",
            "tier_database",
            "-m",
            "ping",
        ],
    );
    assert!(
        said.contains("db | SUCCESS") && !said.contains("web |"),
        "{said}"
    );
}

/// `ssh-config` for those that read it by OpenSSH and by themselves.
fn other_tools(project: &Project) {
    let config = project.ok(&["ssh-config"]).out;
    project.write("capistrano/.stead-ssh", &config);
    let said = tool_ok(
        project,
        &[
            "rsync",
            "-e",
            "ssh -F capistrano/.stead-ssh",
            "-a",
            "site.yml",
            "web:/tmp/by-rsync",
        ],
    );
    assert_eq!(said, "");
    tool_ok(
        project,
        &[
            "scp",
            "-qF",
            "capistrano/.stead-ssh",
            "site.yml",
            "db:/tmp/by-scp",
        ],
    );
    tool_ok(project, &["sh", "-c", "cd capistrano && cap vm deploy"]);
    assert_eq!(
        project
            .ok(&[
                "ssh",
                "web",
                "-c",
                "cat site/current/index.html; ls /tmp/by-rsync"
            ])
            .out,
        "<p>deployed by Capistrano</p>\n/tmp/by-rsync\n"
    );
}
