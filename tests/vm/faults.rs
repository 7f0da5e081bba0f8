//! stead is killed or panics at any step, and the next command continues.

use std::os::unix::process::ExitStatusExt;

use crate::project::{Project, text, virsh};

/// `up` is killed before every step that it has, and after the last; each run goes on where the
/// one before was killed. Then `destroy` the same way.
#[test]
fn killed_at_every_step_it_converges() {
    let project = Project::new(
        "killed",
        r#"
project "killed"
machine "vm" {
    box "debian-12"
    cpus 1
    memory "384MiB"
    sync "files" to="/srv/files"
    provision "one" { shell inline="echo one >>/var/tmp/ran"; }
    provision "two" { shell inline="echo two >>/var/tmp/ran"; }
    ready { tcp 22; }
    before "up" { host inline="echo before >>hooks"; }
    after "up" { guest inline="echo after >>/var/tmp/hooks"; host inline="echo after >>hooks"; }
    before "destroy" { host inline="echo going >>hooks"; }
}
"#,
    );
    project.write("files/a", "a\n");
    let mut steps = project.steps("vm", &[]);
    assert!(steps.len() >= 9, "{steps:?}");
    steps.push("end".into());
    kill_at_each(&project, "up", &["up"], &steps);
    // The last kill came after the last step: all is done.
    assert_eq!(project.state("vm"), "ready");
    project.ok(&["up"]).says(&["is up"]);
    let ran = project.ok(&["exec", "--", "cat", "/var/tmp/ran"]).out;
    assert_eq!(ran, "one\ntwo\n");
    // What comes after `up` is owed until it has run; the first of it ran anew for the second.
    let ran = project.ok(&["exec", "--", "cat", "/var/tmp/hooks"]).out;
    assert_eq!(ran, "after\nafter\n");
    let hooks = || std::fs::read_to_string(project.folder.join("hooks")).unwrap();
    assert!(
        hooks().contains("before\n") && hooks().ends_with("after\n"),
        "{}",
        hooks()
    );

    let mut steps = project.steps("vm", &["--destroy"]);
    assert!(steps.len() >= 5, "{steps:?}");
    steps.push("end".into());
    kill_at_each(&project, "destroy", &["destroy", "-y"], &steps);
    project.ok(&["destroy", "-y"]).says(&["nothing to destroy"]);
    assert!(hooks().ends_with("going\n"), "{}", hooks());
    project.assert_gone("vm");
}

fn kill_at_each(project: &Project, command: &str, arguments: &[&str], steps: &[String]) {
    let domain = project.domain("vm");
    let disk = project.data.join("images").join(format!("{domain}.qcow2"));
    for step in steps {
        let output = project
            .stead(arguments)
            .env("STEAD_TEST_KILL_AT", format!("vm/{step}"))
            .output()
            .unwrap();
        assert_eq!(
            output.status.signal(),
            Some(9),
            "{command} was not killed at {step}: {}",
            text(&output)
        );
        // A disk is never without its domain.
        let defined = virsh(&["list", "--all", "--name"])
            .lines()
            .any(|line| line == domain);
        assert!(
            defined || !disk.exists(),
            "{command} at {step}: orphan disk"
        );
        // What only reads works in between.
        project.ok(&["status"]);
        project.ok(&["plan"]);
    }
}

/// A `destroy` that was killed half-way, and then `up`: a new machine, not a broken one.
#[test]
fn up_after_half_a_destroy_makes_it_anew() {
    let project = Project::new(
        "half",
        "project \"half\"\nmachine \"vm\" { box \"debian-12\"; cpus 1; memory \"384MiB\"; }\n",
    );
    for (arguments, at) in [
        (["up", "-q"], "vm/start"),
        (["destroy", "-y"], "vm/undefine"),
    ] {
        let output = project
            .stead(&arguments)
            .env("STEAD_TEST_KILL_AT", at)
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), Some(9), "{}", text(&output));
    }
    assert_eq!(project.state("vm"), "half-destroyed");
    project.ok(&["up"]);
    assert_eq!(project.ok(&["exec", "--", "hostname"]).out, "vm\n");
    project.ok(&["destroy", "-y"]);
    project.assert_gone("vm");
}

/// A program that finds stead as `$STEAD`, as [`Project::stead`] runs it.
fn around(project: &Project, program: &str, arguments: &[&str]) -> std::process::Command {
    let stead = project.stead(&[]);
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    for (name, value) in stead.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(folder) = stead.get_current_dir() {
        command.current_dir(folder);
    }
    command.env("STEAD", stead.get_program());
    command.env("TERM", "xterm");
    command
}

/// Ctrl-C while a machine boots; a terminal that is closed, and a reader that goes away; then two `up`s at once.
#[test]
fn interrupted_and_contended() {
    use std::{io::Read, process::Stdio, time::Duration};
    let project = Project::new(
        "interrupted",
        "project \"intr\"\nmachine \"vm\" { box \"debian-12\"; cpus 1; memory \"384MiB\"; }\n",
    );
    let mut child = project
        .stead(&["up"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while project.state("vm") != "booting" {
        std::thread::sleep(Duration::from_millis(50));
    }
    // As a person's terminal would send it.
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(
        said.contains("vm not finished") && said.contains("`stead up` continues"),
        "{said}"
    );

    // A terminal that is closed: its end is a signal, and nothing can be written any more.
    let mut terminal = around(&project, "script", &["-qec", "\"$STEAD\" up", "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It is at work once it says so.
    let mut drawn = [0; 16];
    let mut out = terminal.stdout.take().unwrap();
    assert!(out.read(&mut drawn).unwrap() > 0);
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    project.ok(&["status"]);
    // A reader that goes away ends nothing.
    let piped = around(&project, "sh", &["-c", "\"$STEAD\" up --json | head -n 1"])
        .output()
        .unwrap();
    assert!(piped.status.success(), "{}", text(&piped));
    assert_eq!(project.state("vm"), "ready");
    project.ok(&["halt", "--force"]);

    let first = project
        .stead(&["up"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first has the lock as soon as the second says that it waits.
    let second = project
        .stead(&["up"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let first_id = first.id();
    let second_id = second.id();
    let first = first.wait_with_output().unwrap();
    let second = second.wait_with_output().unwrap();
    assert!(first.status.success(), "{}", text(&first));
    assert!(second.status.success(), "{}", text(&second));
    let both = format!(
        "{}{}",
        String::from_utf8_lossy(&first.stderr),
        String::from_utf8_lossy(&second.stderr)
    );
    let waited = [first_id, second_id]
        .iter()
        .any(|id| both.contains(&format!("waiting: held by `stead up` (pid {id})")));
    assert!(waited, "{both}");
    assert!(both.contains("is up"), "{both}");
    project.ok(&["destroy", "-y"]);
    project.assert_gone("vm");
}
