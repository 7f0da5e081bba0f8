//! stead itself on machines of the test driver, which reads them from a file (drvtest.html).

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use stead::machine::{Identity, Phase};

use super::{domain_xml, record};

struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// With these machines running, as far as libvirt says.
    fn with(machinefile: &str, running: &[&str]) -> Self {
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
