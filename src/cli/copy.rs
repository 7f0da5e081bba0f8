//! `stead copy`: copies files between the host and machines, by scp.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{ExitCode, Stdio},
};

use clap::Args;

use crate::{
    failure::Failure,
    guest::{Remote, scp},
    host::{interrupt::before_end, process::Start, shell::shell_quote},
    report::{clean::Shown, talk},
    session::{Detail, Session, invocation::Invocation, locate::from_start},
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
    paths: Vec<String>,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

/// The machine of `MACHINE:PATH`. As with scp, a name with a slash before the colon is a local path.
fn machine_of(path: &str) -> Option<&str> {
    let (name, _) = path.split_once(':')?;
    (!name.contains('/') && !name.is_empty()).then_some(name)
}

/// A local file whose name has a colon is meant as a file, unless a machine has the name before
/// the colon.
fn plain(path: String, here: bool, is_machine: &dyn Fn(&str) -> bool) -> String {
    match machine_of(&path) {
        Some(name) if here && !is_machine(name) => format!("./{path}"),
        _ => path,
    }
}

/// The path as an argument of scp: `./` before a local name keeps scp from reading a colon as a
/// host, or a leading dash as an option.
fn word(path: &str) -> String {
    if machine_of(path).is_none() && !path.starts_with('/') && !path.starts_with("./") {
        format!("./{path}")
    } else {
        path.to_string()
    }
}

pub(super) fn run(invocation: &Invocation, args: CopyArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Existing)?;
    let paths: Vec<String> = (args.paths.into_iter())
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
    for name in paths.iter().filter_map(|path| machine_of(path)) {
        if !remotes.contains_key(name) {
            remotes.insert(name, session.reachable(Some(name))?.1);
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
    for path in &paths[..paths.len() - 1] {
        if machine_of(path).is_none() && std::fs::symlink_metadata(path).is_err() {
            return Err(Failure::error(
                format!("there is no file {path} on the host"),
                "write MACHINE:PATH for a path in a machine",
            ));
        }
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
    let mut command = scp(config.path());
    // Copies between machines go through the host, because machines do not have each other's keys.
    command.args(["-r", "-p", "-3"]);
    if invocation.style.quiet || invocation.style.json {
        command.arg("-q");
    }
    command.arg("--");
    command.args(paths.iter().map(|path| word(path)));
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
    let mut errors = Vec::new();
    if let Some(err) = child.stderr.take() {
        for line in BufReader::new(err).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_string();
            if !line.is_empty() {
                talk(&format!("{line}\n"));
                errors.push(line);
            }
        }
    }
    let status = child
        .wait()
        .map_err(|error| Failure::io("wait for scp", &error))?;
    if status.success() {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(hint) = hint(&errors, &paths) {
        talk(&format!("\nhint: {hint}\n"));
    }
    Ok(ExitCode::from(1))
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
