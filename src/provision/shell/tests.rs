//! Runs the launcher by a shell of this host in place of the guest's.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use super::*;
use crate::machinefile::Invocation;

/// A script, whose text is passed separately.
fn shell() -> Shell {
    Shell {
        source: ScriptSource::Path("/project/provision/app.sh".into()),
        run: Invocation::default(),
        workdir: None,
        privileged: false,
        user: None,
        label: "provision/app.sh".into(),
    }
}

struct Ran {
    out: String,
    err: String,
    result: Result<(), ProvisionError>,
}

impl Ran {
    fn error(&self) -> String {
        self.result.as_ref().unwrap_err().to_string()
    }
}

/// `place`: what /tmp is in a guest, so that runs of other tests are none of this guest's.
fn start(text: &str, place: &Path) -> (Child, ChildStdin) {
    let text = text.replace("/tmp/stead.", &format!("{}/stead.", place.display()));
    let mut child = Command::new("sh")
        .arg("-s")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    (child, stdin)
}

fn run(script: &str, change: impl FnOnce(&mut Shell)) -> Ran {
    run_in(tempfile::tempdir().unwrap().path(), script, change)
}

fn run_in(place: &Path, script: &str, change: impl FnOnce(&mut Shell)) -> Ran {
    let mut shell = shell();
    change(&mut shell);
    let named = Script {
        text: script,
        interpreter: &interpreter(script.as_bytes(), shell.run.interpreter.as_deref()),
        file: &file_name(&shell.source, "app"),
    };
    let word = unguessable().unwrap();
    // Standard input stays open, as with ssh.
    let text = launch(&shell, script.as_bytes(), &named, &word);
    let (mut child, stdin) = start(&text, place);
    let mut out = String::new();
    let mut err = String::new();
    let mut listener = Listener {
        word,
        sensitive: shell.run.sensitive,
        messages: Messages::default(),
        said: VecDeque::new(),
    };
    let stderr = BufReader::new(child.stderr.take().unwrap());
    for line in stderr.split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        listener.hear(true, &line, &mut |message| {
            if let ProvisionMessage::Line { line, .. } = message {
                err.push_str(line);
                err.push('\n');
            }
        });
    }
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    child.wait().unwrap();
    drop(stdin);
    let task = Task {
        what: "provisioner app".into(),
        name: "app",
        hint: String::new(),
    };
    let result = judge(&task, &shell, "web", &listener, &named);
    Ran { out, err, result }
}

fn plain(script: &str) -> Ran {
    run(script, |_| {})
}

#[test]
fn a_script_gets_arguments_and_environment_as_they_are() {
    let ran = run("printf '%s|' \"$@\" \"$A\"; exit 7", |shell| {
        shell.run.args = ["it's", "a b", "$HOME"].map(String::from).to_vec();
        shell.run.env.insert("A".into(), "q'\"$x\nline".into());
    });
    assert_eq!(ran.out, "it's|a b|$HOME|q'\"$x\nline|");
    assert_eq!(ran.error(), "provisioner app ended with exit code 7");
}

#[test]
fn without_a_shebang_it_stops_at_the_first_failure() {
    let ran = plain("echo one\nfalse\necho two\n");
    assert_eq!(ran.out, "one\n");
    assert_eq!(ran.error(), "provisioner app ended with exit code 1");
}

#[test]
fn a_shebang_is_obeyed_and_an_interpreter_comes_before_it() {
    let ran = plain("#!/bin/cat\nhello\n");
    assert_eq!(ran.out, "#!/bin/cat\nhello\n");
    assert!(ran.result.is_ok());
    let ran = run("#!/bin/false\nprint('py', 1)\n", |shell| {
        shell.run.interpreter = Some(vec!["python3".into(), "-u".into()]);
    });
    assert_eq!(ran.out, "py 1\n");
    let ran = plain("#!/usr/bin/env -S sh -eu\necho $0\n");
    assert!(ran.out.ends_with("/app.sh\n"), "{}", ran.out);
    assert_eq!(
        plain("#!/no/such/thing\n").error(),
        "provisioner app needs /no/such/thing, which machine web does not have"
    );
}

#[test]
fn where_it_runs_has_to_be_there() {
    let at = |workdir: &str| run("pwd", |shell| shell.workdir = Some(workdir.into()));
    assert_eq!(at("/usr/lib").out, "/usr/lib\n");
    let ran = at("/no/such/folder");
    assert_eq!(ran.out, "");
    assert!(
        ran.error().starts_with(
            "provisioner app cannot run in /no/such/folder: machine web has no such folder"
        ),
        "{}",
        ran.error()
    );
}

/// With bash the line is known, however the script ends, and the script cannot tell that it is traced.
#[test]
fn the_failing_line_of_bash_is_known() {
    let fails = |text: &str| {
        let ran = plain(&format!("#!/bin/bash\nset -euo pipefail\n{text}"));
        assert_eq!(ran.err, "", "{text}");
        ran.error()
            .replace("provisioner app ended with exit code ", "")
    };
    insta::assert_snapshot!(
        [
            "echo one\nfalse\n",
            "f() {\n  true\n  false | cat\n}\nf\n",
            "x=$(exit 3)\n",
            "( exit 4 )\n",
            "if true; then\n  [ -e /nonexistent ]\nfi\n",
            "die() { exit 5; }\ntrue\ndie 'no'\n",
            "[ -e /nonexistent ] || exit 6\n",
            "for x in 1 2; do\n  test $x = 1\ndone\n",
            // bash does not say which of the two it was.
            "false || exit 7\nexit 7\n",
            // The script has its own trap.
            "trap 'true' EXIT\nfalse\n",
        ]
        .map(fails)
        .join("\n"),
        @r"
    1 at provision/app.sh:4: false
    1 at provision/app.sh:5: false | cat
    3 at provision/app.sh:3: x=$(exit 3)
    4 at provision/app.sh:3: ( exit 4 )
    1 at provision/app.sh:4: [ -e /nonexistent ]
    5 at provision/app.sh:5: die 'no'
    6 at provision/app.sh:3: [ -e /nonexistent ] || exit 6
    1 at provision/app.sh:4: test $x = 1
    7
    1
    "
    );
}

#[test]
fn looking_at_bash_changes_nothing_of_it() {
    // Compares the output with -x, the variables and traps of children, and the result.
    for script in [
        "#!/bin/bash\nset -x\ntrue\nfalse\necho \"$?\"\n",
        "#!/bin/bash\nenv | grep -i -e bash_env -e stead || echo none\n",
        "#!/bin/bash\nbash -c 'trap -p'; bash -c 'false; echo on'\nset | grep -c BASH_ENV || true\n",
        "#!/bin/bash\nexec 2>/dev/null\nfalse\n",
        "#!/bin/bash\necho a; false; ( false; echo b ); exit 9\n",
        "#!/bin/bash\nset -u\necho $nothing\n",
    ] {
        let ran = plain(script);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script).unwrap();
        let alone = Command::new("bash").arg(file.path()).output().unwrap();
        assert_eq!(ran.out, String::from_utf8_lossy(&alone.stdout), "{script}");
        let paths = |text: &str| {
            let lines = text.lines().map(|line| match line.find(": line ") {
                Some(at) => line[at..].to_string(),
                None => line.to_string(),
            });
            lines.collect::<Vec<_>>()
        };
        assert_eq!(
            paths(&ran.err),
            paths(&String::from_utf8_lossy(&alone.stderr)),
            "{script}"
        );
        let code = match &ran.result {
            Ok(()) => 0,
            Err(ProvisionError::Script { code, .. }) => *code,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(Some(code), alone.status.code(), "{script}");
    }
}

/// dash reports lines only in its own messages, Python only of exceptions that nothing caught.
#[test]
fn of_others_the_line_is_what_they_say_last() {
    let dash = plain("#!/bin/dash\nset -e\ntrue\nnosuchcommand\n");
    assert_eq!(
        dash.error(),
        "provisioner app ended with exit code 127 at provision/app.sh:4: nosuchcommand"
    );
    let dash = plain("#!/bin/dash\nset -eu\necho looking >&2\ngrep -q nothing /dev/null\n");
    assert_eq!(
        dash.error(),
        "provisioner app ended with exit code 1; its last output on stderr:\n  looking"
    );
    let python = plain(
        "#!/usr/bin/python3\nimport json\ndef load(text):\n    return json.loads(text)\nload('{')\n",
    );
    assert_eq!(
        python.error(),
        "provisioner app ended with exit code 1 at provision/app.sh:4: return json.loads(text)"
    );
    let python =
        plain("#!/usr/bin/python3\nimport sys\nprint('no', file=sys.stderr)\nsys.exit(3)\n");
    assert_eq!(
        python.error(),
        "provisioner app ended with exit code 3; its last output on stderr:\n  no"
    );
    let inline = run("#!/bin/bash\nfalse\n", |shell| {
        shell.source = ScriptSource::Inline(Secret(String::new()));
        shell.label = "an inline script".into();
    });
    assert_eq!(
        inline.error(),
        "provisioner app ended with exit code 1 in line 2 of an inline script: false"
    );
}

#[test]
fn a_last_line_without_an_end_is_not_lost() {
    let ran = plain("printf 'to out'; printf 'to err' >&2");
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("to out", "to err\n"));
    assert!(ran.result.is_ok());
}

#[test]
fn of_a_sensitive_script_nothing_is_said() {
    let ran = run("echo s3cret >&2\nnosuch$TOKEN\n", |shell| {
        shell.run.sensitive = true;
        shell.run.env.insert("TOKEN".into(), "s3cret".into());
    });
    assert_eq!(ran.err, "");
    assert_eq!(
        ran.error(),
        "provisioner app ended with exit code 127; its output is hidden, because it is sensitive"
    );
}

#[test]
fn exit_codes_that_ssh_has_too_are_the_scripts() {
    assert!(
        plain("exit 255")
            .error()
            .starts_with("provisioner app ended with exit code 255")
    );
    assert_eq!(
        plain("kill -9 $$").error(),
        "provisioner app ended with exit code 137 (128 + signal 9)"
    );
}

/// Whether any process has this word among its arguments.
fn runs(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0)
                .any(|it| it == word.as_bytes())
        })
    })
}

/// Also processes that ignore SIGTERM, or that left the script's session.
#[test]
fn when_the_time_is_up_all_of_it_ends() {
    let ran = run(
        "echo on\nsetsid sleep 3333.25 &\n( trap '' TERM; sleep 3333.5 ) &\nsleep 3333.75\n",
        |shell| shell.run.timeout = Some(Duration::from_millis(700)),
    );
    assert_eq!(ran.out, "on\n");
    assert_eq!(
        ran.error(),
        "provisioner app timed out after 0.7s, and was killed with everything that it had started"
    );
    for word in ["3333.25", "3333.5", "3333.75"] {
        assert!(!runs(word), "{word} is left");
    }
}

/// When stead is interrupted or killed, the connection ends.
#[test]
fn when_nobody_listens_any_more_all_of_it_ends() {
    let script = "sleep 4444.5 & sleep 4444.25\n";
    let shell = shell();
    let named = Script {
        text: script,
        interpreter: &interpreter(script.as_bytes(), None),
        file: "app",
    };
    let place = tempfile::tempdir().unwrap();
    let text = launch(&shell, script.as_bytes(), &named, "word");
    let (mut child, stdin) = start(&text, place.path());
    while !(runs("4444.5") && runs("4444.25")) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // ssh closes its output too.
    drop((stdin, child.stdout.take(), child.stderr.take()));
    child.wait().unwrap();
    assert!(!runs("4444.5") && !runs("4444.25"));
}

/// What an earlier run started may outlast its caller for a while.
#[test]
fn a_run_waits_for_the_one_before() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("order");
    let shown = file.display();
    let script = format!("trap '' TERM\nwhile :; do echo first >>{shown}; sleep 0.1; done\n");
    let shell = shell();
    let named = Script {
        text: &script,
        interpreter: &interpreter(script.as_bytes(), None),
        file: "app",
    };
    let text = launch(&shell, script.as_bytes(), &named, "word");
    let (mut first, stdin) = start(&text, place.path());
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop((stdin, first.stdout.take(), first.stderr.take()));
    let last = format!("echo second >>{shown}; sleep 0.5");
    let second = run_in(place.path(), &last, |_| {});
    second.result.as_ref().unwrap();
    assert!(
        second
            .err
            .contains("waiting for an earlier run of a provisioner"),
        "{}",
        second.err
    );
    let order = std::fs::read_to_string(&file).unwrap();
    assert!(order.ends_with("first\nsecond\n"), "{order}");
    first.wait().unwrap();
}
