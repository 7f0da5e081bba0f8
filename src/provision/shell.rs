//! Runs scripts in the guest.

use std::collections::VecDeque;

use crate::{
    guest::Remote,
    host::{digest::nonce, open},
    machinefile::{ScriptSource, Secret, Shell},
};

use super::{
    error::ProvisionError,
    failing_line::{can_be_traced, failing_line, interpreter},
    launcher::{GRACE, Launch, RunAs, launcher},
    message::ProvisionMessage,
};

/// How many of the last lines of standard error are kept.
const REMEMBERED: usize = 60;

/// How many of them an error shows.
pub(super) const REPEATED: usize = 5;

/// How much longer this side waits than the guest, which measures the time limit and then ends the
/// processes.
const PATIENCE: std::time::Duration = GRACE.saturating_add(std::time::Duration::from_secs(60));

/// What runs, for errors.
pub struct Task<'a> {
    /// Such as `provisioner app` or `hook after up (seed.sh)`.
    pub what: String,
    /// The name of the script's file in the guest, if the script has no file of its own.
    pub name: &'a str,
    /// What to do after a failure.
    pub hint: String,
}

/// The largest script, in bytes: nobody writes one that long.
const LARGEST: u64 = 64 << 20;

/// Reads a script.
pub(super) fn read(source: &ScriptSource) -> Result<Vec<u8>, ProvisionError> {
    match source {
        ScriptSource::Inline(Secret(text)) => Ok(text.clone().into_bytes()),
        // A guest that can write to the script's folder must not put another file in its place.
        ScriptSource::Path(path) => {
            open::bytes_in_place(path, LARGEST).map_err(|source| ProvisionError::Read {
                path: path.clone(),
                source,
            })
        }
    }
}

/// Returns a word that only this run's launcher knows, to begin its messages: 128 bits from the kernel.
fn unguessable() -> Result<String, ProvisionError> {
    let nonce = nonce().map_err(|source| ProvisionError::Read {
        path: "/dev/urandom".into(),
        source,
    })?;
    Ok(format!("stead-{nonce}"))
}

/// The launcher's messages.
#[derive(Default)]
struct Messages {
    /// The script's folder, once it was started.
    started: Option<String>,
    no_user: bool,
    no_workdir: bool,
    no_interpreter: bool,
    late: bool,
    /// An earlier run has not ended.
    busy: bool,
    at: Vec<String>,
    ended: Option<i32>,
}

impl Messages {
    fn hear(&mut self, message: &str) {
        let (word, rest) = message.split_once(' ').unwrap_or((message, ""));
        match word {
            "started" => self.started = Some(rest.to_string()),
            "no-user" => self.no_user = true,
            "no-workdir" => self.no_workdir = true,
            "no-interpreter" => self.no_interpreter = true,
            "late" => self.late = true,
            "busy" => self.busy = true,
            "at" => self.at.push(rest.to_string()),
            "ended" => self.ended = rest.parse().ok(),
            _ => {}
        }
    }
}

/// Separates the launcher's messages from the script's output.
struct Listener {
    word: String,
    sensitive: bool,
    messages: Messages,
    /// The last lines of standard error; never those of a sensitive script.
    said: VecDeque<String>,
}

impl Listener {
    /// Takes a line. Returns whether the script has ended.
    fn hear(
        &mut self,
        is_error: bool,
        line: &str,
        each: &mut dyn FnMut(ProvisionMessage<'_>),
    ) -> bool {
        let (line, message) = match line.split_once(&self.word).filter(|_| is_error) {
            // The script's last line may have no line end.
            Some((before, message)) => (before, Some(message.trim_start())),
            None => (line, None),
        };
        if message.is_none() || !line.is_empty() {
            // Lines before the script's start are from sudo or the shell.
            if is_error && !(self.sensitive && self.messages.started.is_some()) {
                self.said.push_back(line.to_string());
                if self.said.len() > REMEMBERED {
                    self.said.pop_front();
                }
            }
            if !self.sensitive {
                each(ProvisionMessage::Line {
                    stderr: is_error,
                    line,
                });
            }
        }
        if let Some(message) = message {
            if message == "waits" {
                each(ProvisionMessage::Line {
                    stderr: true,
                    line: "waiting for an earlier run of a provisioner to end in the guest",
                });
            }
            self.messages.hear(message);
        }
        self.messages.ended.is_some()
    }
}

/// Runs a script in the guest to its end.
///
/// # Errors
/// If it cannot be started, ends with another exit code than 0, takes longer than its time limit, or the
/// connection is lost.
pub async fn run(
    task: &Task<'_>,
    shell: &Shell,
    remote: &Remote,
    each: &mut (dyn FnMut(ProvisionMessage<'_>) + Send),
) -> Result<(), ProvisionError> {
    let bytes = read(&shell.source)?;
    let script = Script {
        text: &String::from_utf8_lossy(&bytes),
        interpreter: &interpreter(&bytes, shell.run.interpreter.as_deref()),
        file: &file_name(&shell.source, task.name),
    };
    let word = unguessable()?;
    let text = launch(shell, &bytes, &script, &word);
    let mut listener = Listener {
        word,
        sensitive: shell.run.sensitive,
        messages: Messages::default(),
        said: VecDeque::new(),
    };
    let mut hear = |is_error: bool, line: &str| listener.hear(is_error, line, each);
    let whole = remote.hold("exec sh -s", text.as_bytes(), &mut hear);
    let in_time = match shell.run.timeout {
        None => Some(whole.await),
        // The guest itself measures the time; this limit is for one that does not answer.
        Some(limit) => tokio::time::timeout(limit + PATIENCE, whole).await.ok(),
    };
    match in_time {
        Some(ended) => {
            ended?;
        }
        None => listener.messages.late = true,
    }
    judge(task, shell, &remote.machine, &listener, &script)
}

fn launch(shell: &Shell, bytes: &[u8], script: &Script<'_>, word: &str) -> String {
    launcher(&Launch {
        file: script.file,
        script: bytes,
        interpreter: script.interpreter,
        args: &shell.run.args,
        env: &shell.run.env,
        workdir: shell.workdir.as_deref(),
        run_as: RunAs::of(shell),
        timeout: shell.run.timeout,
        traced: !shell.run.sensitive
            && !shell.run.env.contains_key("BASH_ENV")
            && can_be_traced(script.interpreter, bytes),
        word,
    })
}

struct Script<'a> {
    text: &'a str,
    interpreter: &'a [String],
    file: &'a str,
}

fn judge(
    task: &Task<'_>,
    shell: &Shell,
    machine: &str,
    listener: &Listener,
    script: &Script<'_>,
) -> Result<(), ProvisionError> {
    let told = &listener.messages;
    let said: Vec<String> = listener.said.iter().cloned().collect();
    let what = task.what.clone();
    let machine = machine.to_string();
    if told.late {
        return Err(ProvisionError::TimedOut {
            what,
            limit: shell.run.timeout.unwrap_or_default(),
            hint: task.hint.clone(),
        });
    }
    if told.busy {
        return Err(ProvisionError::Busy { what, machine });
    }
    if told.no_user {
        let user = shell.user.clone().unwrap_or_default();
        return Err(ProvisionError::NoUser {
            what,
            machine,
            user,
        });
    }
    if told.no_workdir {
        return Err(ProvisionError::NoWorkdir {
            what,
            machine,
            workdir: shell.workdir.clone().unwrap_or_default(),
        });
    }
    if told.no_interpreter {
        return Err(ProvisionError::NoInterpreter {
            what,
            machine,
            interpreter: script.interpreter.first().cloned().unwrap_or_default(),
        });
    }
    match (told.ended, &told.started) {
        (Some(0), Some(_)) => Ok(()),
        (Some(code), Some(folder)) => Err(ProvisionError::Script {
            what,
            code,
            detail: detail(shell, folder, told, &said, code, script),
            hint: task.hint.clone(),
        }),
        // A launcher that could not create its folder does not report its end either.
        (ended, None) if ended.is_some() || !said.is_empty() => {
            let said = said.last().cloned().unwrap_or_default();
            let hint = if said.starts_with("sudo") {
                "its login user needs sudo without a password, for `privileged` and for other users; privileged=#false runs it without sudo".to_string()
            } else {
                format!(
                    "inspect the machine with `stead ssh {machine}`; `stead logs {machine}` shows its console"
                )
            };
            Err(ProvisionError::NotStarted {
                what,
                machine,
                said,
                hint,
            })
        }
        _ => Err(ProvisionError::ScriptCutOff { what, machine }),
    }
}

/// Returns where a script failed, or its last output; neither if it is sensitive.
fn detail(
    shell: &Shell,
    folder: &str,
    told: &Messages,
    said: &[String],
    code: i32,
    script: &Script<'_>,
) -> String {
    if shell.run.sensitive {
        return "; its output is hidden, because it is sensitive".into();
    }
    let path = format!("{folder}/{}", script.file);
    let line = failing_line(script.text, script.interpreter, &path, &told.at, said, code);
    let text = line.and_then(|line| script.text.lines().nth(line - 1).map(|text| (line, text)));
    if let Some((line, text)) = text {
        let text: String = text.trim().chars().take(100).collect();
        return match shell.source {
            ScriptSource::Path(_) => format!(" at {}:{line}: {text}", shell.label),
            ScriptSource::Inline(_) => format!(" in line {line} of {}: {text}", shell.label),
        };
    }
    let last: Vec<&String> = said.iter().filter(|line| !line.trim().is_empty()).collect();
    let last = &last[last.len().saturating_sub(REPEATED)..];
    if last.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = last.iter().map(|line| format!("\n  {line}")).collect();
    format!("; its last output on stderr:{}", lines.concat())
}

/// Returns the script's own file name, if a shell needs no quotes for it.
fn file_name(source: &ScriptSource, name: &str) -> String {
    let name = match source {
        ScriptSource::Path(path) => path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        ScriptSource::Inline(_) => name.to_string(),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ours = ["run", "trace", "at", ".", ".."];
    if !name.is_empty()
        && !name.starts_with('-')
        && name.chars().all(plain)
        && !ours.contains(&name.as_str())
    {
        name
    } else {
        "script".into()
    }
}

#[cfg(test)]
mod tests;
