//! Programs that fail, print too much, take too long, or leave others behind.

use super::*;
use crate::host::process::output::{LONGEST_LINE, STDERR_KEPT};

fn sh(script: &str) -> Command {
    Command::new("sh", "dash").args(["-c", script])
}

/// Whether a process exists and is not a zombie.
fn lives(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

/// Waits for a process to end, since a kill takes some time.
fn assert_ends(pid: &str) {
    for _ in 0..1000 {
        if !lives(pid) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{pid} lives on");
}

#[test]
fn what_it_reads_prints_and_ends_with() {
    let output = sh("cat; echo bad >&2; exit 3").input("told").run().unwrap();
    assert_eq!(output.stdout, b"told");
    assert_eq!(output.message(), "bad");
    assert_eq!(output.status.code(), Some(3));
    let error = sh("echo bad >&2; exit 3").succeed().unwrap_err();
    assert_eq!(error.to_string(), "sh failed (exit status: 3): bad");
    // More input than a pipe holds, and the program reads nothing.
    let output = sh("true").input(vec![b'x'; 1 << 20]).run().unwrap();
    assert!(output.status.success());
}

#[test]
fn a_missing_program_names_its_package() {
    let error = Command::new("no-such-program", "some-package")
        .run()
        .unwrap_err();
    assert_eq!(error.to_string(), "no-such-program is not installed");
    let help = miette::Diagnostic::help(&error).unwrap().to_string();
    assert_eq!(help, "install it (Debian: `apt install some-package`)");
    let error = sh("true").folder("/no/such").run().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot run sh in /no/such: the folder does not exist"
    );
}

#[test]
fn its_environment_is_what_was_decided() {
    let output = Command::new("env", "coreutils")
        .env("A", "1")
        .run()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let allowed: Vec<&str> = PLAIN.into_iter().chain(["A", "LC_ALL"]).collect();
    for line in text.lines() {
        let name = line.split('=').next().unwrap();
        assert!(allowed.contains(&name), "{line}");
    }
    assert!(text.contains("A=1\n") && text.contains("LC_ALL=C.UTF-8\n"));
    // cargo sets many variables with this prefix.
    let whole = Command::new("env", "coreutils").environment(Environment::Whole);
    let has_cargo = |command: &Command| {
        let output = command.run().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("\nCARGO_")
    };
    assert!(has_cargo(&whole));
    assert!(!has_cargo(&whole.without("CARGO_")));
}

#[test]
fn one_that_takes_too_long_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    // One process has a session of its own, the other ignores SIGTERM.
    let script =
        "setsid sleep 1000 & echo $! > a; sh -c 'trap \"\" TERM; sleep 1000' & echo $! > b; wait";
    let error = sh(script)
        .folder(folder.path())
        .limits(Limits::ANSWER.within(Duration::from_millis(700)))
        .run()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "sh timed out after 700ms, and was killed with everything that it had started"
    );
    for file in ["a", "b"] {
        assert_ends(
            std::fs::read_to_string(folder.path().join(file))
                .unwrap()
                .trim(),
        );
    }
}

#[test]
fn output_without_end_is_cut_off() {
    let small = Limits {
        output: 100_000,
        ..Limits::ANSWER
    };
    let error = sh("yes | tr -d '\\n'").limits(small).run().unwrap_err();
    assert!(
        error.to_string().starts_with("sh printed more than "),
        "{error}"
    );
    // The end of stderr is kept.
    let output = sh("seq 100000 >&2; echo end >&2")
        .limits(small)
        .run()
        .unwrap();
    assert_eq!(output.stderr.len(), STDERR_KEPT);
    assert!(output.stderr.ends_with(b"100000\nend\n"));
}

#[test]
fn what_it_leaves_running_is_not_waited_for() {
    let output = sh("sleep 1000 & echo $!").run().unwrap();
    let pid = String::from_utf8(output.stdout).unwrap();
    assert!(lives(pid.trim()));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.trim().parse().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
}

#[tokio::test]
async fn lines_come_whole_and_long_ones_in_pieces() {
    let mut lines = Vec::new();
    let status =
        sh("printf 'a\\nb\\r\\n'; printf c; head -c 200000 /dev/zero | tr '\\0' x >&2; exit 1")
            .lines(&mut |is_error, line| lines.push((is_error, line.to_string())))
            .await
            .unwrap();
    assert_eq!(status.code(), Some(1));
    let of = |wanted: bool| -> Vec<&str> {
        (lines.iter())
            .filter(|(is_error, _)| *is_error == wanted)
            .map(|(_, line)| line.as_str())
            .collect()
    };
    assert_eq!(of(false), ["a", "b", "c"]);
    assert_eq!(of(true).concat(), "x".repeat(200_000));
    assert!(of(true).iter().all(|line| line.len() < 2 * LONGEST_LINE));
}

#[tokio::test]
async fn one_that_nobody_waits_for_any_more_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let command = sh("sleep 1000 & echo $! > new; mv new pid; wait").folder(folder.path());
    {
        let run = command.output();
        tokio::pin!(run);
        while !pid.exists() {
            tokio::select! {
                _ = &mut run => panic!("it ended"),
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
    }
    assert_ends(std::fs::read_to_string(pid).unwrap().trim());
}

#[tokio::test]
async fn one_can_be_run_from_within_a_runtime() {
    assert_eq!(sh("echo here").run().unwrap().stdout, b"here\n");
}

/// Answers with the words of the question, or with nothing.
struct Echo(std::sync::Mutex<Vec<crate::host::process::Asked>>, bool);

impl Answers for Echo {
    fn answer<'a>(
        &'a self,
        asked: &'a crate::host::process::Asked,
    ) -> std::pin::Pin<Box<dyn Future<Output = crate::host::process::Reply> + Send + 'a>> {
        use crate::host::process::Reply;
        self.0.lock().unwrap().push(asked.clone());
        let reply = match self.1 {
            true => Reply::Answer(format!("<{}>", asked.words.trim())),
            false => Reply::Nobody(Box::new(asked.clone())),
        };
        Box::pin(async { reply })
    }
}

#[tokio::test]
async fn each_way_to_ask_is_seen_and_answered() {
    let script = "echo first; printf 'line? '; read -r a; printf 'on stderr? ' >&2; read -r b
        exec 3<>/dev/tty; stty -echo; printf 'hidden? ' >&3; read -r c <&3; stty echo
        printf 'shown? ' >&3; read -r d <&3
        echo keys:; stty -icanon; read -r e
        echo \"$a $b $c $d $e\"; exit 7";
    let (answers, mut said) = (Echo(Default::default(), true), Vec::new());
    let status = sh(script)
        .asks(Asks::OnInput)
        .limits(Limits::ANSWER)
        .conversation(&mut |_, line| said.push(line.to_string()), &answers)
        .await
        .unwrap();
    assert_eq!(status.code(), Some(7));
    assert_eq!(
        said,
        [
            "first",
            "keys:",
            "<line?> <on stderr?> <hidden?> <shown?> <>"
        ]
    );
    let asked = answers.0.lock().unwrap();
    let how: Vec<(bool, bool)> = asked.iter().map(|it| (it.is_hidden, it.by_keys)).collect();
    let line = (false, false);
    assert_eq!(how, [line, line, (true, false), line, (false, true)]);
    assert_eq!(asked[4].before.last().unwrap(), "keys:");
}

#[tokio::test]
async fn a_question_that_nobody_answers_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let answers = Echo(Default::default(), false);
    let error = sh("printf 'Sure? '; read -r it; touch on")
        .asks(Asks::OnInput)
        .folder(folder.path())
        .conversation(&mut |_, _| {}, &answers)
        .await
        .unwrap_err();
    let ProgramError::Unanswered { asked, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(asked.words, "Sure? ");
    assert!(!folder.path().join("on").exists());
    let missing = Command::new("no-such-program", "p").asks(Asks::OnTerminal);
    let error = missing.conversation(&mut |_, _| {}, &answers).await;
    assert!(matches!(error, Err(ProgramError::NotInstalled { .. })));
}
