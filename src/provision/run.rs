use std::{collections::BTreeMap, fs, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use miette::Diagnostic;
use thiserror::Error;

use crate::{
    guest::{GuestError, Remote, shell_quote},
    host::paths::DataDir,
    machinefile::{Provisioner, ProvisionerKind, ScriptSource},
    sync::{Progress, RsyncTarget, SyncError, push},
};

use super::{
    Inventory,
    ansible::{AnsibleError, GuestRun, HostRun, run_in_guest, run_on_host},
};

#[derive(Debug, Error, Diagnostic)]
pub enum ProvisionError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("provisioner {name} ended with exit code {code}")]
    #[diagnostic(help(
        "the machine is up: look around with `stead ssh {machine}`, then run it again with `stead provision {machine}`"
    ))]
    Exit {
        name: String,
        machine: String,
        code: i32,
    },
    #[error("provisioner {name} was cut off: the connection to {machine} broke")]
    #[diagnostic(help(
        "`stead status` says whether the machine still runs; `stead logs {machine}` shows its console"
    ))]
    CutOff { name: String, machine: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ansible(#[from] AnsibleError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Guest(#[from] GuestError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sync(#[from] SyncError),
}

/// What a running provisioner has to say.
pub enum Saying<'a> {
    Line { stderr: bool, line: &'a str },
    Copied(Progress),
}

/// What Ansible has to know beside its playbook.
pub struct Site<'a> {
    pub data: &'a DataDir,
    /// For a run on the host, with how to reach machines; for one in a guest, without.
    pub inventory: Inventory,
    pub color: bool,
}

/// Runs one provisioner to its end. Only those that run Ansible look at `site`.
pub async fn run(
    provisioner: &Provisioner,
    remote: &Remote,
    site: &Site<'_>,
    each: &mut (dyn FnMut(Saying<'_>) + Send),
) -> Result<(), ProvisionError> {
    match &provisioner.kind {
        ProvisionerKind::Shell {
            source,
            args,
            env,
            privileged,
            user,
        } => {
            let script = match source {
                ScriptSource::Inline(text) => text.clone().into_bytes(),
                ScriptSource::Path(path) => {
                    fs::read(path).map_err(|source| ProvisionError::Read {
                        path: path.clone(),
                        source,
                    })?
                }
            };
            let run_as = match user {
                Some(user) => RunAs::User(user),
                None if *privileged => RunAs::Root,
                None => RunAs::Login,
            };
            let text = launcher(&provisioner.name, &script, args, env, run_as);
            let status = remote
                .stream("exec sh -s", Some(text.as_bytes()), &mut |stderr, line| {
                    each(Saying::Line { stderr, line });
                })
                .await?;
            let name = provisioner.name.clone();
            let machine = remote.machine.clone();
            match status.code() {
                Some(0) => Ok(()),
                Some(255) | None => Err(ProvisionError::CutOff { name, machine }),
                Some(code) => Err(ProvisionError::Exit {
                    name,
                    machine,
                    code,
                }),
            }
        }
        ProvisionerKind::File {
            from,
            to,
            mode,
            owner,
        } => {
            let owner = match owner.as_deref() {
                None => "root:root".to_string(),
                Some(owner) if owner.contains(':') => owner.to_string(),
                // chown(1): with a colon and no group, the user's login group.
                Some(user) => format!("{user}:"),
            };
            let target = RsyncTarget {
                from,
                to,
                contents: from.is_dir(),
                exclude: &[],
                delete: false,
                as_root: Some(&owner),
                mode: *mode,
                progress: true,
            };
            push(&target, remote, &mut |progress| {
                each(Saying::Copied(progress));
            })
            .await?;
            Ok(())
        }
        ProvisionerKind::Ansible { playbook } => {
            let run = HostRun {
                name: &provisioner.name,
                playbook,
                inventory: site.inventory.file(),
                limit: vec![&remote.machine],
                data: site.data,
                color: site.color,
                again: again(&remote.machine, &provisioner.name),
                look: Some(remote.machine.clone()),
            };
            let mut line = |stderr, line: &str| each(Saying::Line { stderr, line });
            Ok(run_on_host(&run, &mut line).await?)
        }
        ProvisionerKind::AnsibleLocal { playbook, install } => {
            let run = GuestRun {
                name: &provisioner.name,
                playbook,
                install: *install,
                inventory: site.inventory.file(),
                color: site.color,
                again: again(&remote.machine, &provisioner.name),
            };
            let mut line = |stderr, line: &str| each(Saying::Line { stderr, line });
            Ok(run_in_guest(&run, remote, &mut line).await?)
        }
    }
}

fn again(machine: &str, provisioner: &str) -> String {
    format!(
        "stead provision {machine} --only {}",
        shell_quote(provisioner)
    )
}

#[derive(Clone, Copy)]
enum RunAs<'a> {
    Login,
    Root,
    User(&'a str),
}

/// A POSIX shell program, fed to `sh` on standard input, that puts the script and its environment
/// into a private folder, runs it, and takes the folder away. Nothing of them stands in any
/// process's arguments, where other users of the guest could read it.
fn launcher(
    name: &str,
    script: &[u8],
    args: &[String],
    env: &BTreeMap<String, String>,
    run_as: RunAs<'_>,
) -> String {
    let file = if name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    {
        name
    } else {
        "script"
    };
    let mut environment = String::new();
    for (key, value) in env {
        environment.push_str(&format!("export {key}={}\n", single_quoted(value)));
    }
    // Without a #! line, sh runs it and stops at the first command that fails.
    let interpreter = if script.starts_with(b"#!") {
        ""
    } else {
        "sh -e "
    };
    let arguments: String = args
        .iter()
        .map(|word| format!(" {}", shell_quote(word)))
        .collect();
    let (own, sudo) = match run_as {
        RunAs::Login => (String::new(), String::new()),
        RunAs::Root => (String::new(), "sudo -n -H ".to_string()),
        RunAs::User(user) => (
            format!("sudo -n chown -R {} \"$d\"\n", shell_quote(user)),
            format!("sudo -n -H -u {} ", shell_quote(user)),
        ),
    };
    let cleanup = match run_as {
        RunAs::User(_) => "sudo -n rm -rf \"$d\"",
        _ => "rm -rf \"$d\"",
    };
    format!(
        "set -e\n\
         umask 077\n\
         d=$(mktemp -d /tmp/stead.XXXXXXXX)\n\
         trap '{cleanup}' EXIT\n\
         base64 -d >\"$d/env\" <<'END_OF_ENV'\n{env}\nEND_OF_ENV\n\
         base64 -d >\"$d/{file}\" <<'END_OF_SCRIPT'\n{script}\nEND_OF_SCRIPT\n\
         chmod 700 \"$d/{file}\"\n\
         {own}\
         set +e\n\
         {sudo}sh -c '. \"$0/env\"; umask 022; cd; exec {interpreter}\"$0/{file}\" \"$@\"' \"$d\"{arguments} </dev/null\n\
         exit $?\n",
        env = BASE64.encode(&environment),
        script = BASE64.encode(script),
    )
}

fn single_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_here(script: &str, args: &[&str], env: &[(&str, &str)]) -> (String, i32) {
        use std::{
            io::Write,
            process::{Command, Stdio},
        };
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let env = env
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        let text = launcher("app", script.as_bytes(), &args, &env, RunAs::Login);
        let mut child = Command::new("sh")
            .arg("-s")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        (
            String::from_utf8(output.stdout).unwrap(),
            output.status.code().unwrap(),
        )
    }

    #[test]
    fn a_script_gets_arguments_and_environment_as_they_are() {
        let (out, code) = run_here(
            "printf '%s|' \"$@\" \"$A\"; exit 7",
            &["it's", "a b", "$HOME"],
            &[("A", "q'\"$x\nline")],
        );
        assert_eq!(out, "it's|a b|$HOME|q'\"$x\nline|");
        assert_eq!(code, 7);
    }

    #[test]
    fn without_a_shebang_it_stops_at_the_first_failure() {
        let (out, code) = run_here("echo one\nfalse\necho two\n", &[], &[]);
        assert_eq!(out, "one\n");
        assert_eq!(code, 1);
    }

    #[test]
    fn a_shebang_is_obeyed() {
        let (out, code) = run_here("#!/bin/cat\nhello\n", &[], &[]);
        assert_eq!(out, "#!/bin/cat\nhello\n");
        assert_eq!(code, 0);
    }
}
