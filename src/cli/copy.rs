//! `stead copy`: copies files between the host and machines, by scp.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{ChildStderr, ExitCode, Stdio},
    thread,
};

use clap::Args;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::sync::oneshot;

use crate::{
    failure::Failure,
    guest::{Remote, is_about_dial, scp},
    host::{
        file,
        interrupt::{LastAct, before_end},
        process::{Start, own_program},
        runtime::runtime,
        shell::shell_quote,
    },
    machine::Observed,
    report::{clean::Shown, talk},
    session::{
        Detail, Session,
        invocation::Invocation,
        locate::from_start,
        reach::{wait_for_answer, while_answering},
    },
};

use super::select::OtherProjectArgs;

const EXAMPLES: &str = "\
Examples:
  stead copy dump.sql db:           Copy a file into the home of db's login user
  stead copy web:/var/log/syslog .  Copy a file from web to this folder";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CopyArgs {
    /// Sources, then the target. MACHINE:PATH is a path in a machine, relative to its login user's
    /// home; it may have wildcards
    #[arg(required = true, num_args = 2.., value_name = "PATH")]
    paths: Vec<OsString>,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

/// The machine of `MACHINE:PATH`. As with scp, a name with a slash before the colon is a local path.
fn machine_of<P: AsRef<OsStr> + ?Sized>(path: &P) -> Option<&str> {
    let path = path.as_ref().as_bytes();
    let colon = path.iter().position(|byte| *byte == b':')?;
    let name = str::from_utf8(&path[..colon]).ok()?;
    (!name.contains('/') && !name.is_empty()).then_some(name)
}

/// A local file whose name has a colon is meant as a file, unless a machine has the name before
/// the colon.
fn plain(path: OsString, here: bool, is_machine: &dyn Fn(&str) -> bool) -> OsString {
    match machine_of(&path) {
        Some(name) if here && !is_machine(name) => in_folder(&path),
        _ => path,
    }
}

fn in_folder(path: &OsStr) -> OsString {
    let mut text = OsString::from("./");
    text.push(path);
    text
}

/// The path as an argument of scp: `./` before a local name keeps scp from reading a colon as a
/// host, or a leading dash as an option.
fn word<P: AsRef<OsStr> + ?Sized>(path: &P) -> OsString {
    let (path, is_remote) = (path.as_ref(), machine_of(path).is_some());
    let starts = |with: &[u8]| path.as_bytes().starts_with(with);
    match is_remote || starts(b"/") || starts(b"./") {
        true => path.to_os_string(),
        false => in_folder(path),
    }
}

pub(super) fn run(invocation: &Invocation, args: CopyArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Existing)?;
    let paths: Vec<OsString> = (args.paths.into_iter())
        .map(|path| {
            let here = std::fs::symlink_metadata(from_start(invocation, path.clone())?).is_ok();
            let is_machine = |name: &str| session.project.machine(name).is_some();
            let path = plain(path, here, &is_machine);
            match machine_of(&path) {
                Some(_) => Ok(path),
                None => from_start(invocation, path),
            }
        })
        .collect::<Result<_, Failure>>()?;
    let mut remotes: BTreeMap<&str, Remote> = BTreeMap::new();
    let mut machines: Vec<(Observed, &str)> = Vec::new();
    for name in paths.iter().filter_map(|path| machine_of(path)) {
        if !remotes.contains_key(name) {
            let (observed, remote) = session.reachable(Some(name))?;
            machines.push((observed, name));
            remotes.insert(name, remote);
        }
    }
    if remotes.is_empty() {
        let known: Vec<&str> = (session.project.machines.iter())
            .map(|machine| machine.name.as_str())
            .collect();
        return Err(Failure::usage(
            "no path of the copy is in a machine",
            format!(
                "write MACHINE:PATH for a path in a machine; the machines are: {}",
                known.join(", ")
            ),
        ));
    }
    for path in (paths[..paths.len() - 1].iter()).filter(|path| machine_of(path).is_none()) {
        if std::fs::symlink_metadata(path).is_err() {
            return Err(Failure::error(
                format!("there is no file {} on the host", Path::new(path).shown()),
                "write MACHINE:PATH for a path in a machine",
            ));
        }
        // scp would wait for somebody to write into a pipe.
        if std::fs::metadata(path).is_ok_and(|it| !it.is_file() && !it.is_dir()) {
            return Err(Failure::error(
                format!(
                    "{} is a pipe, a socket or a device, which cannot be copied",
                    Path::new(path).shown()
                ),
                "copy a file or a folder; `stead exec MACHINE -- sh -c 'cat >FILE' <PIPE` writes into a file of a machine",
            ));
        }
    }
    for (observed, name) in &machines {
        wait_for_answer(&session, observed, &remotes[name])?;
    }
    // Each machine's configuration is about that machine only, so they can be joined into one file.
    let mut config = tempfile::NamedTempFile::new()
        .map_err(|error| Failure::io("write a configuration for scp", &error))?;
    let path = config.path().to_path_buf();
    let _removed = before_end(move || drop(std::fs::remove_file(path)));
    for remote in remotes.values() {
        let path = remote.ssh_config();
        let text = std::fs::read(&path)
            .map_err(|error| Failure::io(format!("read {}", path.shown()), &error))?;
        config
            .write_all(&text)
            .map_err(|error| Failure::io("write a configuration for scp", &error))?;
    }
    let shell = Shell::for_logins_that_print(&remotes)?;
    let mut command = scp(config.path());
    if let Some(shell) = &shell {
        command.arg("-S").arg(shell.program());
    }
    // Copies between machines go through the host, because machines do not have each other's keys.
    command.args(["-r", "-p", "-3"]);
    if invocation.style.quiet || invocation.style.json {
        command.arg("-q");
    }
    command.arg("--");
    command.args(paths.iter().map(word));
    let mut child = command
        .stderr(Stdio::piped())
        .start()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Failure::error(
                "scp is not installed",
                "install it (Debian: `apt install openssh-client`)",
            ),
            _ => Failure::io("run scp", &error),
        })?;
    let pid = i32::try_from(child.id()).ok();
    let (ends, ended) = oneshot::channel();
    let scp = thread::spawn(move || {
        let errors = child.stderr.take().map(pass_on).unwrap_or_default();
        let status = child.wait();
        // Nobody waits for it if a machine was lost.
        let _ = ends.send(());
        (status, errors)
    });
    let concerned: Vec<_> = (machines.iter())
        .map(|(observed, name)| (observed, *name))
        .collect();
    let work = async {
        let _ = ended.await;
        Ok::<_, Failure>(())
    };
    let answered = runtime()?.block_on(while_answering(&session, &concerned, work));
    if let (Err(_), Some(pid)) = (&answered, pid) {
        // scp ends its ssh then.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let (status, errors) = scp
        .join()
        .map_err(|_| Failure::io("wait for scp", &std::io::ErrorKind::Other.into()))?;
    answered?;
    let status = status.map_err(|error| Failure::io("wait for scp", &error))?;
    if status.success() {
        return Ok(ExitCode::SUCCESS);
    }
    let shown: Vec<String> = (paths.iter())
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    if let Some(hint) = hint(&errors, &shown) {
        talk(&format!("\nhint: {hint}\n"));
    }
    Ok(ExitCode::from(1))
}

/// Shows what scp says, and returns it.
fn pass_on(stderr: ChildStderr) -> Vec<String> {
    let mut errors = Vec::new();
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_string();
        if !line.is_empty() && !is_about_dial(&line) {
            talk(&format!("{line}\n"));
            errors.push(line);
        }
    }
    errors
}

/// A program that scp runs in place of ssh.
struct Shell {
    folder: tempfile::TempDir,
    _removed: LastAct,
}

impl Shell {
    /// `None` if no login prints anything: scp would take that for the answer of its own program in the guest.
    fn for_logins_that_print(remotes: &BTreeMap<&str, Remote>) -> Result<Option<Self>, Failure> {
        let runtime = runtime()?;
        let mut prints = false;
        for remote in remotes.values() {
            prints |= !runtime.block_on(remote.greeting())?.is_empty();
        }
        if !prints {
            return Ok(None);
        }
        let failed = |error| Failure::io("write a program for scp", &error);
        let stead = own_program().map_err(|error| Failure::io("find stead itself", &error))?;
        let folder = tempfile::tempdir().map_err(failed)?;
        let path = folder.path().to_path_buf();
        let removed = before_end(move || drop(std::fs::remove_dir_all(path)));
        let shell = Shell {
            folder,
            _removed: removed,
        };
        let text = shell_text(&stead, remotes);
        file::replace(&shell.program(), text.as_bytes(), PROGRAM).map_err(failed)?;
        Ok(Some(shell))
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("ssh")
    }
}

/// The mode of a program of the user's own.
const PROGRAM: u32 = 0o700;

/// Where systems have the program of the subsystem `sftp`: Debian, Red Hat, Alpine and Arch, SUSE.
const SFTP: &str = "for f in /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh /usr/libexec/ssh /usr/libexec; do [ ! -x \"$f/sftp-server\" ] || exec \"$f/sftp-server\"; done; echo 'the guest has no sftp-server' >&2; exit 127";

/// Returns the program. scp gives it options, `-s` among them if it wants the subsystem, then `--`, the machine and a
/// command.
fn shell_text(stead: &Path, remotes: &BTreeMap<&str, Remote>) -> String {
    let word = |path: &Path| shell_quote(&path.to_string_lossy());
    let folders: String = (remotes.iter())
        .map(|(name, remote)| {
            format!(
                "{}) f={} ;;\n",
                shell_quote(name),
                word(remote.files.folder())
            )
        })
        .collect();
    format!(
        "#!/bin/sh\n\
         s=\n\
         while [ \"$1\" != -- ]; do\n\
         [ \"$1\" != -s ] || s=1\n\
         shift\n\
         done\n\
         shift\n\
         case $1 in\n{folders}esac\n\
         [ -z \"$s\" ] || set -- \"$1\" {}\n\
         exec {} through \"$f\" \"$@\"\n",
        shell_quote(SFTP),
        word(stead),
    )
}

/// Suggests a fix for an error of scp's.
fn hint(errors: &[String], paths: &[String]) -> Option<String> {
    let any = |words: &str| errors.iter().any(|line| line.contains(words));
    let target = paths.last()?;
    let machine = paths.iter().find_map(|path| machine_of(path))?;
    if any("Permission denied") {
        return Some(match machine_of(target) {
            Some(machine) => format!(
                "the login user may not write there: copy to its home, then run `stead exec {machine} -- sudo mv …`"
            ),
            None => format!(
                "if the login user may not read the file, run `stead exec {machine} -- sudo cat FILE >FILE`; if you may not write the target, choose another one"
            ),
        });
    }
    if any("Not a directory") || any("not a directory") {
        return Some(format!(
            "several files can only be copied into a folder, and {target} is not a folder"
        ));
    }
    if any("No such file or directory") || any("not found") {
        let (target, sources) = paths.split_last()?;
        let patterns = sources.iter().filter(|path| machine_of(path).is_some());
        if patterns.clone().any(|path| path.contains(['*', '?', '['])) {
            return Some(
                "in a machine, *, ? and [ make a name a pattern; write a backslash before them to mean the characters themselves"
                    .into(),
            );
        }
        let in_machine = |path: &String| {
            let (machine, path) = path.split_once(':')?;
            let folder = match path.rsplit_once('/') {
                Some(("", _)) => "/",
                Some((folder, _)) => folder,
                None => ".",
            };
            let folder = shell_quote(folder);
            Some(format!(
                "`stead exec {machine} -- ls -la {folder}` shows what is there"
            ))
        };
        return patterns
            .chain(std::iter::once(target).filter(|path| machine_of(path).is_some()))
            .find_map(in_machine);
    }
    if any("No space left") {
        return Some(format!("the disk of {target} is full"));
    }
    if any("Connection closed") || any("Connection refused") || any("lost connection") {
        return Some(format!(
            "`stead status {machine}` shows whether it still runs"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        assert_eq!(machine_of("web:/etc/passwd"), Some("web"));
        assert_eq!(machine_of("./a:b"), None);
        assert_eq!(machine_of("plain"), None);
        let known = |name: &str| name == "web";
        assert_eq!(plain("odd: name".into(), true, &known), "./odd: name");
        assert_eq!(plain("odd: name".into(), false, &known), "odd: name");
        assert_eq!(plain("web:name".into(), true, &known), "web:name");
        assert_eq!(word("-dash"), "./-dash");
        assert_eq!(word("/abs"), "/abs");
        assert_eq!(word("web:-dash"), "web:-dash");
        // Names that are no text.
        let odd = |path: &[u8]| OsStr::from_bytes(path).to_os_string();
        assert_eq!(word(&odd(b"a\xff")), odd(b"./a\xff"));
        assert_eq!(machine_of(&odd(b"web:a\xff")), Some("web"));
        assert_eq!(machine_of(&odd(b"w\xff:a")), None);
    }

    #[test]
    fn what_scp_says_has_a_hint() {
        let words = |text: &str, paths: &[&str]| {
            hint(
                &[text.to_string()],
                &paths.iter().map(ToString::to_string).collect::<Vec<_>>(),
            )
            .unwrap_or_default()
        };
        assert!(
            words(
                "scp: dest open \"/etc/x\": Permission denied",
                &["x", "web:/etc/x"]
            )
            .contains("stead exec web -- sudo mv")
        );
        let missing = "scp: /srv/x y/dump: No such file or directory";
        assert_eq!(
            words(missing, &["web:/srv/x y/dump", "."]),
            "`stead exec web -- ls -la '/srv/x y'` shows what is there"
        );
        assert_eq!(
            words(missing, &["dump", "web:dump"]),
            "`stead exec web -- ls -la .` shows what is there"
        );
        assert!(words(missing, &["web:/srv/*.sql", "."]).contains("a pattern"));
        assert!(
            words("scp: /root/x: Permission denied", &["web:/root/x", "."]).contains("sudo cat")
        );
        assert!(
            words(
                "scp: /etc/hosts: Not a directory",
                &["a", "b", "web:/etc/hosts"]
            )
            .contains("into a folder")
        );
    }
}
