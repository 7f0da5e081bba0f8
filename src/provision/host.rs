//! Runs the scripts and programs of hooks on the host.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
};

use crate::{
    host::process::{self, Answers, Asks, Command, Environment, Limits, ProgramError},
    machinefile::{HostCommand, HostSource, ScriptSource, Secret},
    report::clean,
};

use super::{
    error::ProvisionError,
    failing_line::interpreter,
    launcher::GRACE,
    message::ProvisionMessage,
    shell::{REPEATED, Task, read},
};

/// Runs a command of a hook to its end, in `folder`, with these variables added to the environment.
///
/// Arguments are passed unchanged, without a shell, unless the hook is itself a shell script. Its standard input is empty;
/// what it asks on its terminal (/dev/tty), as sudo, ssh and git do, `answers` answers.
///
/// # Errors
/// If it cannot be started, ends with another exit code than 0, or takes longer than its time limit.
pub async fn run_on_host(
    task: &Task<'_>,
    host: &HostCommand,
    folder: &Path,
    environment: &[(&str, OsString)],
    each: &mut (dyn FnMut(ProvisionMessage<'_>) + Send),
    answers: &dyn Answers,
) -> Result<(), ProvisionError> {
    // The file must exist until the command has ended.
    let mut kept = None;
    let words: Vec<OsString> = match &host.what {
        HostSource::Program(program) => vec![program.into()],
        HostSource::Script(source) => {
            let text = read(source)?;
            let mut words: Vec<OsString> = interpreter(&text, host.run.interpreter.as_deref())
                .into_iter()
                .map(OsString::from)
                .collect();
            match source {
                ScriptSource::Path(path) => words.push(path.into()),
                ScriptSource::Inline(Secret(text)) => {
                    let file = private_file(text)?;
                    words.push(file.path().into());
                    kept = Some(file);
                }
            }
            words
        }
    };
    let missing = |program: &OsString| ProvisionError::NoProgram {
        what: task.what.clone(),
        program: program.to_string_lossy().into_owned(),
    };
    let (program, options) = words
        .split_first()
        .ok_or_else(|| missing(&OsString::new()))?;
    // Looked up here, so that the project's folder does not decide which program a name means.
    let found = match program.to_str() {
        Some(name) if !name.contains('/') => process::find(name).ok_or_else(|| missing(program))?,
        _ => PathBuf::from(program),
    };
    let mut command = Command::new(found, "")
        .environment(Environment::Whole)
        .args(options)
        .args(&host.run.args)
        .folder(folder)
        .asks(Asks::OnTerminal)
        .grace(GRACE)
        .limits(Limits {
            time: host.run.timeout,
            ..Limits::WORK
        });
    for (name, value) in environment {
        command = command.env(name, value);
    }
    for (name, value) in &host.run.env {
        command = command.env(name, value);
    }
    let mut last = VecDeque::new();
    let mut hear = |stderr: bool, line: &str| {
        if host.run.sensitive {
            return;
        }
        if stderr && !line.trim().is_empty() {
            last.push_back(format!("\n  {line}"));
            if last.len() > REPEATED {
                last.pop_front();
            }
        }
        each(ProvisionMessage::Line { stderr, line });
    };
    let ended = command.conversation(&mut hear, answers).await;
    drop(kept);
    let status = ended.map_err(|error| {
        let what = task.what.clone();
        let program = program.to_string_lossy().into_owned();
        match error {
            ProgramError::NotInstalled { .. } => ProvisionError::NoProgram { what, program },
            ProgramError::TimedOut { limit, .. } => ProvisionError::TimedOut {
                what,
                limit,
                hint: task.hint.clone(),
            },
            ProgramError::Unanswered { asked, .. } => ProvisionError::Asks {
                what,
                words: match host.run.sensitive {
                    true => "something that is hidden, because it is sensitive".into(),
                    false => format!("{:?}", clean::words(asked.words.trim())),
                },
                hint: task.hint.clone(),
            },
            ProgramError::Start { source, .. } => ProvisionError::Start {
                what,
                program,
                source,
            },
            error => ProvisionError::Program {
                what,
                source: error,
            },
        }
    })?;
    if status.success() {
        return Ok(());
    }
    Err(ProvisionError::Script {
        what: task.what.clone(),
        code: status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .unwrap_or(1),
        detail: if host.run.sensitive {
            "; its output is hidden, because it is sensitive".into()
        } else if last.is_empty() {
            String::new()
        } else {
            format!(
                "; its last output on stderr:{}",
                last.into_iter().collect::<String>()
            )
        },
        hint: task.hint.clone(),
    })
}

/// Writes a script's text to a file that only this user can read, and that is removed with its handle.
fn private_file(text: &str) -> Result<tempfile::NamedTempFile, ProvisionError> {
    let write = || {
        let mut file = tempfile::Builder::new().prefix("stead-hook.").tempfile()?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
        Ok(file)
    };
    write().map_err(|source| ProvisionError::Read {
        path: std::env::temp_dir(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, pin::Pin, time::Duration};

    use super::*;
    use crate::{
        host::process::{Asked, Reply},
        machinefile::Invocation,
    };

    /// Answers everything in the same way.
    struct Always(Option<&'static str>);

    impl Answers for Always {
        fn answer<'a>(
            &'a self,
            asked: &'a Asked,
        ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
            Box::pin(async move {
                match self.0 {
                    Some(answer) => Reply::Answer(answer.into()),
                    None => Reply::Nobody(Box::new(asked.clone())),
                }
            })
        }
    }

    /// Returns its output and its result.
    async fn run(what: HostSource, invocation: Invocation) -> (String, Result<(), ProvisionError>) {
        run_answered(what, invocation, None).await
    }

    async fn run_answered(
        what: HostSource,
        invocation: Invocation,
        answer: Option<&'static str>,
    ) -> (String, Result<(), ProvisionError>) {
        let task = Task {
            what: "the hook before up (it)".into(),
            name: "it",
            hint: String::new(),
        };
        let command = HostCommand {
            what,
            run: invocation,
            label: "it".into(),
        };
        let mut said = String::new();
        let mut each = |message: ProvisionMessage<'_>| {
            if let ProvisionMessage::Line { line, .. } = message {
                said.push_str(line);
                said.push('\n');
            }
        };
        let environment = [("STEAD_MACHINE", OsString::from("web"))];
        let folder = Path::new("/usr");
        let answers = Always(answer);
        let result = run_on_host(&task, &command, folder, &environment, &mut each, &answers).await;
        (said, result)
    }

    fn inline(text: &str) -> HostSource {
        HostSource::Script(ScriptSource::Inline(Secret(text.into())))
    }

    #[tokio::test]
    async fn words_are_passed_as_they_are() {
        let words = Invocation {
            args: ["%s|", "a  b", "$HOME", "it's; false"]
                .map(String::from)
                .to_vec(),
            ..Invocation::default()
        };
        let (said, result) = run(HostSource::Program("printf".into()), words.clone()).await;
        assert_eq!(said, "a  b|$HOME|it's; false|\n");
        assert!(result.is_ok());
        let script = "#!/bin/sh\nshift; printf '%s|' \"$@\" \"$STEAD_MACHINE\" \"$PWD\"\n";
        let (said, _) = run(inline(script), words).await;
        assert_eq!(said, "a  b|$HOME|it's; false|web|/usr|\n");
    }

    #[tokio::test]
    async fn how_it_failed_is_told() {
        let plain = Invocation::default;
        let (_, result) = run(inline("echo no >&2\nfalse\necho on"), plain()).await;
        assert_eq!(
            result.unwrap_err().to_string(),
            "the hook before up (it) ended with exit code 1; its last output on stderr:\n  no"
        );
        let (_, result) = run(HostSource::Program("no-such-program".into()), plain()).await;
        assert_eq!(
            result.unwrap_err().to_string(),
            "the hook before up (it): cannot find no-such-program, neither as a program in PATH nor as a file of the project"
        );
        let secret = Invocation {
            sensitive: true,
            ..Invocation::default()
        };
        let (said, result) = run(inline("echo s3cret; echo s3cret >&2; exit 3"), secret).await;
        assert_eq!(said, "");
        assert!(!result.unwrap_err().to_string().contains("s3cret"));
    }

    #[tokio::test]
    async fn when_the_time_is_up_all_of_it_ends() {
        let short = Invocation {
            timeout: Some(Duration::from_millis(500)),
            ..Invocation::default()
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!(
            "setsid sleep 8881.5 & echo $! >{0}; sleep 8881.25 & echo $! >>{0}; wait",
            file.path().display()
        );
        let (_, result) = run(inline(&script), short).await;
        assert!(matches!(result, Err(ProvisionError::TimedOut { .. })));
        let pids = fs::read_to_string(file.path()).unwrap();
        assert_eq!(pids.lines().count(), 2);
        for pid in pids.lines() {
            // It has ended, or is a zombie that nobody has waited for.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
        }
    }

    #[tokio::test]
    async fn all_that_it_printed_is_told() {
        let script = "seq 30000; echo last; exit 7";
        let (said, result) = run(inline(script), Invocation::default()).await;
        assert_eq!(said.lines().count(), 30_001);
        assert!(said.ends_with("\nlast\n"));
        assert!(result.is_err());
    }

    #[tokio::test]
    async fn one_that_is_stopped_has_failed() {
        let script = "echo one; kill -STOP $$; echo never";
        let (_, result) = run(inline(script), Invocation::default()).await;
        assert!(result.unwrap_err().to_string().contains("exit code 147"));
    }

    /// As sudo, ssh and git do. Their questions went to the terminal of stead, where they were stopped for good.
    #[tokio::test]
    async fn what_asks_on_its_terminal_is_answered_or_told() {
        let script = "exec 3<>/dev/tty; stty -echo <&3; printf 'Password: ' >&3; read -r it <&3; echo \"got $it\"";
        let plain = Invocation::default;
        let (said, result) = run_answered(inline(script), plain(), Some("s3cret")).await;
        assert_eq!(said, "got s3cret\n");
        result.unwrap();
        let (said, result) = run(inline(script), plain()).await;
        assert_eq!(said, "");
        assert_eq!(
            result.unwrap_err().to_string(),
            "the hook before up (it) asks \"Password:\", but nobody answers: there is no terminal here, or it was ended there with Ctrl-D"
        );
        // Its standard input is empty.
        let (said, result) = run(inline("read -r it || echo none"), plain()).await;
        assert_eq!(said, "none\n");
        result.unwrap();
    }

    #[tokio::test]
    async fn what_it_leaves_running_goes_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!("sleep 8882 & echo $! >{}", file.path().display());
        let (_, result) = run(inline(&script), Invocation::default()).await;
        result.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let pid = fs::read_to_string(file.path()).unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        assert!(stat.contains(") S "), "{stat}");
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}
