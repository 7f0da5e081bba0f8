//! stead itself on machines of the test driver, which reads them from a file (drvtest.html).

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use stead::{
    guest::MachineFiles,
    host::{paths::DataDir, ports::Protocol},
    machine::{Identity, Phase, Record, Running, Signs},
    machinefile::Forward,
};

use super::{domain_xml, mark_running, record};

struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// With these machines running, as far as libvirt says.
    fn with(machinefile: &str, running: &[&str]) -> Self {
        Project::with_changed(machinefile, running, |_| {})
    }

    /// The same, with records that differ from the usual one.
    fn with_changed(machinefile: &str, running: &[&str], change: impl Fn(&mut Record)) -> Self {
        let project = Project {
            folder: tempfile::tempdir().unwrap(),
        };
        let root = project.folder.path().canonicalize().unwrap();
        fs::write(root.join("Machinefile"), machinefile).unwrap();
        let domains: String = running
            .iter()
            .map(|machine| {
                let mut record = record(machine);
                record.root.clone_from(&root);
                record.phase = Phase::Created;
                change(&mut record);
                domain_xml(&Identity::of("shop", &root, machine), Some(&record))
            })
            .collect();
        fs::write(root.join("node.xml"), format!("<node>{domains}</node>")).unwrap();
        project
    }

    fn stead(&self, arguments: &[&str]) -> Command {
        let root = self.folder.path().canonicalize().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
        command
            .arg("--connect")
            .arg(format!("test://{}/node.xml", root.display()))
            .args(arguments)
            .current_dir(&root)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", root.join("home"))
            .env("STEAD_DATA_DIR", root.join("data"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        said(&self.stead(arguments).output().unwrap())
    }
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text.into_owned())
}

const TWO: &str = "project \"shop\"
machine \"web\" { box \"debian-12\"; }
machine \"db\" { box \"debian-12\"; }
";

#[test]
fn restart_makes_nothing() {
    let project = Project::with(TWO, &[]);
    let (code, text) = project.run(&["restart"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("no machine of project shop has been made yet"),
        "{text}"
    );
    assert!(text.contains("`stead up` makes them"), "{text}");
    let (code, text) = project.run(&["restart", "db"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("machine db has not been made yet"), "{text}");
    // Of some that were not named, those that are there are restarted.
    let project = Project::with(TWO, &["web"]);
    let (_, text) = project.run(&["restart", "--plain"]);
    assert!(
        text.contains("db   skipped: it has not been made yet"),
        "{text}"
    );
    let (code, text) = project.run(&["restart", "web", "db"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("machine db has not been made yet"), "{text}");
}

#[test]
fn restart_halts_nothing_that_could_not_come_up_again() {
    // Its box is gone, and nobody listens where another would come from.
    for name in ["debian-12", "https://127.0.0.1:1/x.qcow2"] {
        let machinefile = format!("project \"shop\"\nmachine \"web\" {{ box \"{name}\"; }}\n");
        let project = Project::with(&machinefile, &["web"]);
        let (code, text) = project.run(&["restart", "--json"]);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("error:"), "{text}");
        assert!(!text.contains("\"step\":\"stop\""), "{text}");
    }
}

/// A machine that its user reboots is not ready meanwhile, and `up` waits for it.
#[test]
fn a_guest_that_reboots_by_itself_is_not_ready() {
    let project = Project::with(TWO, &["web"]);
    let root = project.folder.path().canonicalize().unwrap();
    let identity = Identity::of("shop", &root, "web");
    let running = Running {
        ready: Some(jiff::Timestamp::UNIX_EPOCH),
        kernel: Some("6.1.0".into()),
        signs: Some(Signs::default()),
        ..Running::default()
    };
    mark_running(&root, &running);
    let log = MachineFiles::new(&DataDir::at(root.join("data")), &identity.uuid).console_log();
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    for (text, wanted) in [
        ("", "ready"),
        ("[  9.1] reboot: Restarting system\r\n", "rebooting"),
        (
            "[  9.1] reboot: Restarting system\r\n\r\nweb login: ",
            "ready",
        ),
    ] {
        fs::write(&log, text).unwrap();
        for command in ["status", "list"] {
            let output = project.stead(&[command, "--json"]).output().unwrap();
            let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(shown["machines"][0]["state"], wanted, "{command}: {shown}");
        }
        let (_, status) = project.run(&["status", "web"]);
        let is_told = status.contains("web: does not answer any more");
        assert_eq!(is_told, wanted == "rebooting", "{status}");
    }
}

#[test]
fn a_panic_is_never_silent() {
    let project = Project::with(TWO, &["web"]);
    let panic = |place: &str, arguments: &[&str]| {
        let output = project
            .stead(arguments)
            .env("STEAD_TEST_PANIC_AT", place)
            .output()
            .unwrap();
        let code = output.status.code();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code, Some(1), "{arguments:?}: {err}");
        assert!(
            err.contains("error: stead itself failed: STEAD_TEST_PANIC_AT"),
            "{err}"
        );
        assert!(
            err.contains("hint: this is a bug in stead: report it"),
            "{err}"
        );
        String::from_utf8(output.stdout).unwrap()
    };
    for place in ["stead/begin", "web/stop"] {
        assert_eq!(panic(place, &["-q", "halt"]), "");
        panic(place, &["--plain", "halt"]);
        let events = panic(place, &["--json", "halt"]);
        let failed = (events.lines())
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .find(|event| event["event"] == "step-failed")
            .unwrap();
        assert_eq!(failed["step"], "stead");
        let error = failed["error"].as_str().unwrap();
        assert!(
            error.contains("stead itself failed: STEAD_TEST_PANIC_AT"),
            "{error}"
        );
        assert!(failed["hint"].as_str().unwrap().contains("stead doctor"));
    }
}

/// A release as a hostile guest's `uname -r` gives it, and a project's name of the same kind.
#[test]
fn words_of_a_machine_do_nothing_to_the_terminal() {
    let project = Project::with(TWO, &[]);
    let root = project.folder.path().canonicalize().unwrap();
    let hostile = "6.1\u{1b}]52;c;Y3VybCBldmls\u{7}\u{9b}2J\u{202e}\nweb: fine";
    let mut record = record("web");
    record.root.clone_from(&root);
    record.phase = Phase::Created;
    record.spec.box_name = hostile.into();
    record.login_user = hostile.into();
    record.spec.hostname = hostile.into();
    let json = serde_json::to_string(&record).unwrap();
    // XML has no C0; JSON escapes them.
    assert!(!json.contains('\u{1b}'));
    let domain = domain_xml(&Identity::of("shop", &root, "web"), Some(&record));
    fs::write(root.join("node.xml"), format!("<node>{domain}</node>")).unwrap();
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["plan"],
        &["list"],
        &["list", "--json"],
        &["port"],
        &["resources"],
        &["top", "--once"],
        &["ssh-config"],
        &["inventory"],
        &["halt", "--plain"],
        &["destroy"],
    ] {
        let (_, text) = project.run(arguments);
        let bad = |c: char| {
            (c.is_control() && !matches!(c, '\n' | '\t')) || ('\u{202a}'..='\u{202e}').contains(&c)
        };
        assert!(!text.contains(bad), "{arguments:?}: {text:?}");
        assert!(
            !text.lines().any(|line| line == "web: fine"),
            "{arguments:?}: {text}"
        );
    }
}

/// Only qemu:///session and root's qemu:///system have networks.
#[test]
fn a_console_is_of_a_machine_that_runs_where_there_are_consoles() {
    let project = Project::with(TWO, &["web"]);
    let (code, said) = project.run(&["console", "web"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("opening the console of domain") && said.contains("not supported"),
        "{said}"
    );
    let (code, said) = project.run(&["console", "db"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("machine db has not been made yet"), "{said}");
}

#[test]
fn links_are_not_everywhere() {
    let two = "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"web\"\nmachine \"db\"\n";
    let project = Project::with(two, &["web", "db"]);
    for words in [
        &["link"][..],
        &["link", "cut", "web"],
        &["link", "record", "web"],
    ] {
        let (code, said) = project.run(words);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("have no links"), "{said}");
    }
    let (code, said) = project.run(&["link", "cut", "wbe"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("did you mean web?"), "{said}");
}

/// A machine whose port 8080 was in use when it booted.
fn with_forwards() -> Project {
    Project::with_changed(
        "project \"shop\"\nmachine \"web\" { box \"debian-12\"; }\n",
        &["web"],
        |record| {
            let near = Forward {
                auto_correct: true,
                ..Forward::tcp(8080, 80)
            };
            record.spec.forwards = vec![
                near.moved_to(8082),
                Forward {
                    protocol: Protocol::Udp,
                    address: [0, 0, 0, 0].into(),
                    ..Forward::tcp(5353, 53)
                },
                Forward::tcp(9000, 9000),
                Forward::tcp(9001, 9001),
            ];
        },
    )
}

#[test]
fn forwards_are_shown_with_protocol_address_and_the_port_that_they_got() {
    let project = with_forwards();
    let (_, text) = project.run(&["port"]);
    assert_eq!(
        text,
        "\
MACHINE  HOST             GUEST   INSTEAD OF
web      127.0.0.1:22222  22      -
web      127.0.0.1:8082   80      8080
web      0.0.0.0:5353     53/udp  -
web      127.0.0.1:9000   9000    -
web      127.0.0.1:9001   9001    -
"
    );
    let json = |arguments: &[&str]| -> serde_json::Value {
        let (_, text) = project.run(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    let ports = json(&["port", "--json"]);
    assert_eq!(
        ports[1],
        serde_json::json!({ "machine": "web", "auto": false, "protocol": "tcp", "address": "127.0.0.1", "host": 8082, "guest": 80, "instead_of": 8080 })
    );
    assert_eq!(
        ports[2],
        serde_json::json!({ "machine": "web", "auto": false, "protocol": "udp", "address": "0.0.0.0", "host": 5353, "guest": 53 })
    );
    let status = &json(&["status", "--json"])["machines"][0];
    assert_eq!(
        status["forwards"],
        serde_json::json!(["8082→80", "0.0.0.0:5353→53/udp", "9000-9001→9000-9001"])
    );
    assert_eq!(status["ports"][1]["protocol"], "udp");
    assert_eq!(status["ports"].as_array().unwrap().len(), 4);
    let (_, text) = project.run(&["status"]);
    assert!(
        text.contains(
            "web: port 8080 of 127.0.0.1 was in use, so port 8082 leads to port 80 of the guest"
        ),
        "{text}"
    );
}

/// Before anything is fetched or started, and at the line of the Machinefile.
#[test]
fn ports_that_cannot_be_opened_are_refused_first() {
    let project = Project::with(
        "project \"shop\"\nmachine \"web\" count=2 {\n    box \"https://127.0.0.1:1/x.qcow2\"\n    forward 80\n    forward 8080 address=\"127.1.2.3\"\n    forward 8090 address=\"192.0.2.1\"\n}\n",
        &[],
    );
    let (code, text) = project.run(&["trust", "--show"]);
    assert_eq!(code, Some(0), "{text}");
    let demand =
        "ports 8090-8091 of 192.0.2.1 to port 8090 of machines web-1, web-2   Machinefile:6:13";
    assert!(text.contains(demand), "{text}");
    let (code, text) = project.run(&["up"]);
    assert_eq!(code, Some(2), "{text}");
    for part in [
        "only root may listen on port 80 of 127.0.0.1",
        "Machinefile:4:13",
        "forward a port from 1024 up, such as 8080",
        "net.ipv4.ip_unprivileged_port_start=80",
        "this computer does not have the address 192.0.2.1",
        "Machinefile:6:13",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert_eq!(text.matches("only root").count(), 1, "{text}");
}
