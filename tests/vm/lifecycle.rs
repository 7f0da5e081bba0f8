//! The life of a machine: made, synced, provisioned, halted, restarted, destroyed.

use std::{fs, process::Stdio};

use crate::project::{Project, assert_closed_to_others, text, virsh};

/// One machine from nothing to nothing, in a folder whose name is not plain.
#[test]
fn a_machine_lives() {
    let project = Project::new(
        "it lives — für alle",
        r#"
project "life"
machine "web" {
    box "debian-12"
    cpus 1
    memory "512MiB"
    disk "12GiB"
    labels role="frontend"
    forward 18461 to=8000
    sync "." to="/srv/app files" { exclude "secret" }
    provision "app" {
        shell "provision/app.sh" {
            args "it's" "two words"
            env GREETING="h\"i $USER"
        }
    }
    provision "motd" { file "files/motd" to="/etc/motd" mode="0640" owner="root:stead"; }
    provision "each" run="always" { shell inline="echo again >>/var/tmp/each" }
    provision "edited" run="changed" { shell "provision/edited.sh" }
    provision "secret" run="never" {
        shell "provision/secret.py" interpreter="python3 -u" workdir="/srv/app files" sensitive=#true timeout="5m" {
            env TOKEN="s3cretvalue"
        }
    }
    before "up" { host "hooks/say.sh" "goes up" "a  b" }
    after "up" {
        host inline="ssh -F \"$STEAD_SSH_CONFIG\" \"$STEAD_MACHINE\" touch /var/tmp/by-hook"
        guest privileged=#false inline="echo is up for $(id -un)"
    }
    before "halt" { guest inline="touch /var/tmp/halting; echo goes down" }
    after "destroy" { host "echo" "is gone" }
    ready { tcp 22; exec "test -e /var/tmp/app"; timeout "300s" }
}
"#,
    );
    project.write(
        "provision/app.sh",
        "#!/bin/sh\necho \"$1|$2|$GREETING|$(id -un)\" | tee /var/tmp/app\n",
    );
    project.write("provision/edited.sh", "echo edited 1\n");
    project.write(
        "provision/secret.py",
        "import os, time\nprint(os.environ['TOKEN'], os.getcwd())\nopen('/tmp/asked', 'w').close()\nwhile not os.path.exists('/tmp/go'): time.sleep(0.1)\nraise SystemExit(os.environ['TOKEN'])\n",
    );
    project.write(
        "hooks/say.sh",
        "#!/bin/sh\necho \"$STEAD_MACHINE of $STEAD_PROJECT $1 [$2] $STEAD_CONNECT\"\ntest \"$PWD\" = \"$STEAD_ROOT\"\n",
    );
    project.write("files/motd", "welcome\n");
    project.write("secret", "no\n");
    project.write("name with\nnewline", "odd\n");

    assert_eq!(project.state("web"), "absent");
    let up = project.ok(&["up"]);
    up.says(&[
        "it's|two words|h\"i $USER|root",
        "stead ssh web",
        "18461",
        "| web of life goes up [a  b] qemu:///",
        "| is up for stead",
        "| edited 1",
    ]);
    assert_eq!(project.state("web"), "ready");
    assert_closed_to_others(&project.data);

    // Again: nothing to do.
    assert!(
        project
            .steps("web", &[])
            .iter()
            .all(|step| step == "provision:each" || step == "ready")
    );
    let up = project.ok(&["up", "--no-provision"]);
    up.says(&["is up"]);
    assert!(!up.err.contains("goes up"), "{}", up.err);
    project.ok(&["exec", "--", "test", "-e", "/var/tmp/by-hook"]);

    // What went in.
    let said = project.ok(&["exec", "web", "--", "cat", "/var/tmp/app", "/etc/motd"]);
    assert_eq!(said.out, "it's|two words|h\"i $USER|root\nwelcome\n");
    let said = project.ok(&["exec", "--", "sudo", "stat", "-c", "%a %U:%G", "/etc/motd"]);
    assert_eq!(said.out, "640 root:stead\n");
    let said = project.ok(&[
        "ssh",
        "web",
        "-c",
        "cd '/srv/app files' && ls -1b && df --output=size -BM / | tail -1",
    ]);
    assert!(
        said.out.contains(
            "Machinefile\nMachinefile.lock\nfiles\nhooks\nname\\ with\\nnewline\nprovision\n"
        ),
        "{}",
        said.out
    );
    assert!(!said.out.contains("secret"));
    // The disk was grown to what was asked for.
    let size: u64 = said
        .out
        .lines()
        .last()
        .unwrap()
        .trim()
        .trim_end_matches('M')
        .parse()
        .unwrap();
    assert!(size > 11000, "{size} MiB");
    assert_eq!(project.ok(&["exec", "web", "--", "hostname"]).out, "web\n");

    // Exit codes, standard input, words.
    project.run(&["exec", "web", "--", "sh", "-c", "exit 42"], 42);
    project.run(&["ssh", "web", "-c", "exit 7"], 7);
    let output = project.with_input(&["exec", "web", "--", "wc", "-c"], &[b'x'; 100_000]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "100000",
        "{}",
        text(&output)
    );
    let said = project.ok(&[
        "exec", "web", "--", "printf", "[%s]", "a b", "$HOME", "'", "",
    ]);
    assert_eq!(said.out, "[a b][$HOME]['][]");

    // Host key checking is on, with a key that was known before the first boot.
    let config = project.ok(&["ssh-config", "web"]).out;
    assert!(config.contains("StrictHostKeyChecking yes"), "{config}");

    // Copies both ways.
    project.write("up.txt", "from the host\n");
    project.ok(&["copy", "-q", "up.txt", "web:/tmp/down.txt"]);
    project.ok(&["copy", "-q", "web:/tmp/down.txt", "back.txt"]);
    assert_eq!(
        fs::read_to_string(project.folder.join("back.txt")).unwrap(),
        "from the host\n"
    );

    // An edit goes in, a deletion too.
    fs::remove_file(project.folder.join("up.txt")).unwrap();
    project.write("new.txt", "new\n");
    project.ok(&["sync", "web"]);
    project.ok(&["exec", "web", "--", "test", "-e", "/srv/app files/new.txt"]);
    project.run(
        &["exec", "web", "--", "test", "-e", "/srv/app files/up.txt"],
        1,
    );

    // The forwarded port leads in, and only from this host.
    project.ok(&["ssh", "web", "-c", "setsid python3 -c 'import socket as s; l = s.create_server((\"\", 8000)); c = l.accept()[0]; c.sendall(b\"hello\"); c.close()' >/dev/null 2>&1 </dev/null & until grep -q :1F40 /proc/net/tcp; do sleep 0.1; done"]);
    let mut stream = std::net::TcpStream::connect("127.0.0.1:18461").unwrap();
    let mut hello = String::new();
    std::io::Read::read_to_string(&mut stream, &mut hello).unwrap();
    assert_eq!(hello, "hello");
    let ports = project.ok(&["port"]).out;
    assert!(ports.contains("127.0.0.1:18461"), "{ports}");

    // The console was kept.
    assert!(project.ok(&["logs", "web"]).out.contains("web login:"));

    secrets_stay(&project);

    // Edits show in the plan and are told apart: what runs once waits until it is asked for.
    project.write(
        "provision/app.sh",
        "#!/bin/sh\necho changed >/var/tmp/app\n",
    );
    project.write("provision/edited.sh", "echo edited 2\n");
    const CHANGED: &str = "provisioner app changed since it ran; `stead provision web` runs it";
    let plan = project.ok(&["plan"]).out;
    assert!(plan.contains(&format!("! {CHANGED}")), "{plan}");
    assert!(
        plan.contains("run provisioner edited (it changed since it ran)"),
        "{plan}"
    );
    let status = project.ok(&["status"]).out;
    assert!(status.contains(&format!("web: {CHANGED}")), "{status}");
    let states: Vec<String> = (project
        .field("web", "provisioners")
        .as_array()
        .unwrap()
        .iter())
    .map(|it| {
        format!(
            "{} {}",
            it["name"].as_str().unwrap(),
            it["state"].as_str().unwrap()
        )
    })
    .collect();
    assert_eq!(
        states,
        [
            "app changed",
            "motd ran",
            "each ran",
            "edited changed",
            "secret failed"
        ]
    );
    let edited = fs::read_to_string(project.folder.join("Machinefile"))
        .unwrap()
        .replace("cpus 1", "cpus 2")
        .replace("disk \"12GiB\"", "disk \"13GiB\"");
    project.write("Machinefile", &edited);
    let up = project.ok(&["up"]);
    up.says(&[
        "cpus is 1, wanted 2; `stead restart web` applies it",
        "disk is 12GiB, wanted 13GiB; only a new machine can have it",
        "| edited 2",
        CHANGED,
    ]);
    let app = || {
        project
            .ok(&["exec", "web", "--", "cat", "/var/tmp/app"])
            .out
    };
    assert_eq!(app(), "it's|two words|h\"i $USER|root\n");
    project.ok(&["provision", "web"]);
    assert_eq!(app(), "changed\n");
    let ran: usize = project
        .ok(&["exec", "--", "wc", "-l", "/var/tmp/each"])
        .out
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(ran, 3);
    let said = project.ok(&["provision", "--all", "-v"]);
    said.says(&["provisioned app in", "provisioned motd in"]);
    assert!(!said.err.contains("provisioned secret"), "{}", said.err);

    // The login user's shell becomes a program that prints, and that notes what it is asked to run.
    let shell =
        "#!/bin/bash\nprintf '%s\\n' \"$*\" >>/var/tmp/read\necho Welcome\nexec /bin/bash \"$@\"\n";
    let install = "printf %s \"$1\" >/usr/local/bin/odd && chmod 755 /usr/local/bin/odd && usermod -s /usr/local/bin/odd stead";
    project.ok(&[
        "exec", "web", "--", "sudo", "sh", "-c", install, "sh", shell,
    ]);

    // Down and up: the same machine, with what a boot applies.
    project
        .ok(&["restart"])
        .says(&["| goes down", "goes up", "| is up"]);
    project.ok(&["exec", "--", "test", "-e", "/var/tmp/halting"]);
    assert_eq!(project.ok(&["exec", "--", "nproc"]).out, "2\n");
    assert_eq!(
        project.ok(&["exec", "--", "cat", "/var/tmp/app"]).out,
        "changed\n"
    );
    let read = project.ok(&["exec", "--", "cat", "/var/tmp/read"]).out;
    let is_fine = |line: &str| line == "-c exec sh" || line.contains("by-hook");
    assert!(read.lines().all(is_fine), "{read}");
    // What is interrupted has ended in the guest, too.
    let mut long = project
        .stead(&["exec", "web", "--", "sh", "-c", "sleep 4321 & sleep 4321"])
        .spawn()
        .unwrap();
    let sleeps = "pgrep -cf '^sleep 4321' || true";
    let count = || project.ok(&["exec", "--", "sh", "-c", sleeps]).out;
    while count() != "2\n" {}
    long.kill().unwrap();
    long.wait().unwrap();
    while count() != "0\n" {}
    let halt = project.ok(&["halt", "--no-hooks"]);
    assert!(!halt.err.contains("goes down"), "{}", halt.err);
    assert_eq!(project.state("web"), "off");
    project
        .run(&["exec", "--", "true"], 1)
        .says(&["machine web is not running", "stead up web"]);
    project.ok(&["halt"]);

    // No terminal, no -y: nothing is destroyed.
    project
        .run(&["destroy"], 2)
        .says(&["cannot ask: standard input is not a terminal", "-y"]);
    assert_eq!(project.state("web"), "off");
    project.ok(&["destroy", "-y"]).says(&["| is gone"]);
    project.assert_gone("web");
    project.ok(&["destroy", "-y"]).says(&["nothing to destroy"]);
}

/// What a sensitive script is given and prints is nowhere to be seen: not in what stead says and
/// keeps, and not among the processes of either side while it runs.
fn secrets_stay(project: &Project) {
    const SECRET: &str = "s3cretvalue";
    let child = project
        .stead(&["provision", "web", "--only", "secret", "-v", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    project.ok(&[
        "ssh",
        "web",
        "-c",
        "until [ -e /tmp/asked ]; do sleep 0.1; done",
    ]);
    // The pattern does not find itself.
    let seen = project
        .ok(&[
            "ssh",
            "web",
            "-c",
            "cat /proc/[0-9]*/cmdline 2>/dev/null | grep -ac '[s]3cret'; true",
        ])
        .out;
    assert_eq!(seen, "0\n");
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        assert!(!line.contains(SECRET), "{line}");
    }
    project.ok(&["exec", "web", "--", "touch", "/tmp/go"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let said = text(&output);
    assert!(
        said.contains("provisioner secret ended with exit code 1; its output is hidden"),
        "{said}"
    );
    let domain = project.domain("web");
    for told in [
        said,
        virsh(&["dumpxml", &domain]),
        project.ok(&["plan", "--json"]).out,
        project.ok(&["status", "--json"]).out,
        project.ok(&["validate", "--json"]).out,
        project.ok(&["logs", "web"]).out,
    ] {
        assert!(!told.contains(SECRET), "{told}");
    }
    // Nothing of it is left in the guest.
    let left = project
        .ok(&["ssh", "web", "-c", "ls /tmp | grep -c stead; true"])
        .out;
    assert_eq!(left, "0\n");
}

/// Machines come up in parallel, dependents after what they depend on; events say so.
#[test]
fn machines_come_up_in_order() {
    let project = Project::new(
        "order",
        r#"
project "order"
defaults { box "debian-12"; cpus 1; memory "384MiB"; }
machine "app" count=3 { depends-on "db"; ready { tcp 22; } }
machine "db" { provision "mark" { shell inline="touch /var/tmp/db"; } }
"#,
    );
    let said = project.ok(&["up", "--json", "--jobs", "2"]);
    let events: Vec<serde_json::Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let at = |machine: &str, event: &str, step: Option<&str>| {
        events
            .iter()
            .position(|e| {
                e["machine"] == machine
                    && e["event"] == event
                    && step.is_none_or(|step| e["step"] == step)
            })
            .unwrap_or_else(|| panic!("no {event} of {machine} in {}", said.out))
    };
    let db_done = at("db", "machine-done", None);
    for app in ["app-1", "app-2", "app-3"] {
        assert!(at(app, "step-started", Some("box")) > db_done);
    }
    // Two side by side: the second starts before the first is there. The third has its turn then.
    let apps = || ["app-1", "app-2", "app-3"].into_iter();
    let mut starts: Vec<(usize, &str)> = apps()
        .map(|app| (at(app, "step-started", Some("start")), app))
        .collect();
    starts.sort_unstable();
    let reached = apps()
        .map(|app| at(app, "step-done", Some("reach")))
        .min()
        .unwrap();
    assert!(
        starts[1].0 < reached && reached < starts[2].0,
        "{}",
        said.out
    );
    let waits = at(starts[2].1, "awaits-turn", None);
    assert_eq!(events[waits]["after"].as_array().unwrap().len(), 2);

    let list = project.json(&["list", "--json"]);
    let names: Vec<&str> = list["machines"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["project"] == "order")
        .map(|row| row["machine"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["app-1", "app-2", "app-3", "db"]);

    // A machine that the Machinefile no longer names is told of, and goes when asked.
    project.write(
        "Machinefile",
        "project \"order\"\nmachine \"db\" { box \"debian-12\"; cpus 1; memory \"384MiB\"; after \"destroy\" { host \"touch\" \"gone\"; }; }\n",
    );
    let status = project.ok(&["status"]).out;
    assert!(
        status.contains("app-1: is no longer in the Machinefile"),
        "{status}"
    );
    project.ok(&["destroy", "-y", "app-1"]);
    let status = project.ok(&["status"]).out;
    assert!(!status.contains("app-1"), "{status}");
    // Where nobody has agreed to what runs on the host, it is left out, and nothing else is.
    let without = |arguments: &[&str]| project.stead_without_trust(arguments).output().unwrap();
    assert!(without(&["trust", "--revoke"]).status.success());
    let destroy = without(&["destroy", "-y"]);
    assert!(destroy.status.success(), "{}", text(&destroy));
    assert!(
        text(&destroy).contains("skipped, because")
            && text(&destroy).contains("skipping the project's hooks on this computer"),
        "{}",
        text(&destroy)
    );
    assert!(!project.folder.join("gone").exists());
    assert!(project.ok(&["status"]).out.contains("app-2"));
    project.ok(&["destroy", "-y", "--leftovers"]);
    assert!(!project.ok(&["status"]).out.contains("app-2"));
}
