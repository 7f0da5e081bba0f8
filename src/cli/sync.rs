//! `stead sync`: copies folders to machines, or back, or keeps them in sync.

use std::{
    path::{Component, Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde::Serialize;

use crate::{
    failure::Failure,
    guest::Remote,
    machinefile::{Machine, SyncFolder, is_default},
    plan::{self, MachinePlan, Plan},
    provision::host_files,
    report::{
        clean::{Shown, words},
        say, talk,
    },
    session::{
        Session,
        agreement::{self, Scope},
        condition::need_running,
        invocation::Invocation,
        locate::start_folder,
        operation::{Operation, until_interrupted},
        reach::{wait_for_answer, while_answering},
        target::Target,
        watch::in_foreground,
    },
    sync::{
        BackOptions, SyncError, fetch_back, list_changes,
        watch::{Watched, WatcherFiles},
    },
};

use super::{output, select::SelectionArgs};

const EXAMPLES: &str = "\
Examples:
  stead sync --watch                        Keep sending changes until Ctrl-C
  stead sync web --back target/report.html  Fetch a file back from web";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SyncArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Keep sending changes until Ctrl-C
    #[arg(short, long, conflicts_with_all = ["back", "dry_run"])]
    watch: bool,
    /// Show what would be sent, deleted or fetched; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Fetch this file or folder of a synced folder back from the guest; newer or different files on
    /// the host are kept
    #[arg(short, long, value_name = "PATH")]
    back: Option<PathBuf>,
    /// With --back: overwrite newer or different files on the host, too
    #[arg(long, requires = "back")]
    force: bool,
}

pub(super) fn run(invocation: &Invocation, args: SyncArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(invocation)?;
    let machines = session.select_named(&args.selection.into(), false)?;
    let agreement = agreement::need(invocation, &session.data, &session.project, Scope::Sync)?;
    if args.watch {
        return watch(invocation, session, &machines);
    }
    let mut operation = Operation::begin(invocation, "sync", session, machines, None)?;
    operation.agreement = agreement;
    if let Some(path) = &args.back {
        return back(invocation, &operation, path, args.force, args.dry_run);
    }
    let mut plans = Vec::new();
    for target in &operation.targets {
        let machine = &target.wanted.machine;
        if !machine.syncs.is_empty() {
            need_up(target)?;
        }
        answers(&operation, target)?;
        plans.push(MachinePlan {
            machine: machine.name.clone(),
            after: Vec::new(),
            steps: match &target.existing.observed {
                Some(observed) if observed.is_up() => {
                    let record = &observed.record;
                    plan::sync_steps(machine, &record.spec.shares, &record.mounted)
                }
                _ => Vec::new(),
            },
            drift: Vec::new(),
            stale: Vec::new(),
        });
    }
    if plans.iter().all(MachinePlan::is_empty) {
        say(invocation.style, "no machine has a folder to sync");
    }
    if args.dry_run {
        return dry_run(invocation, &operation);
    }
    let summary = operation.apply(Plan {
        machines: plans,
        runs: Vec::new(),
    })?;
    Ok(operation.conclude(invocation, &summary))
}

fn need_up(target: &Target) -> Result<(), Failure> {
    let name = &target.wanted.machine.name;
    need_running(name, target.existing.observed.as_ref()).map(|_| ())
}

fn watch(
    invocation: &Invocation,
    session: Session,
    machines: &[Machine],
) -> Result<ExitCode, Failure> {
    let uuid_of = |name: &str| session.identity(name).map(|it| it.uuid);
    // Two processes would send each edit twice.
    let place = WatcherFiles::of(&session.data, &session.owner());
    let other = place.read().filter(|state| state.process.is_alive());
    let is_left = |folder: &SyncFolder| other.is_none() || !folder.watch;
    let Some(watched) = Watched::of(&session.project, uuid_of, machines, is_left)? else {
        let asks = |machine: &Machine| machine.syncs.iter().any(|folder| folder.watch);
        if let Some(other) = other.as_ref().filter(|_| machines.iter().any(asks)) {
            return Err(Failure::error(
                format!(
                    "these folders have watch=#true, and a process in the background (pid {}) sends their edits already",
                    other.process.pid
                ),
                format!(
                    "`stead status` shows what it sent last, and {} has its log",
                    place.log().shown()
                ),
            ));
        }
        return Err(Failure::error(
            "no machine has a folder that can be watched",
            "add `sync \".\" to=\"/srv/app\"` to the Machinefile; shared folders (virtiofs, 9p) need no watching",
        ));
    };
    let survey = session.connection.survey()?;
    for target in session.targets(&survey, machines.to_vec(), None)? {
        let name = &target.wanted.machine.name;
        if watched.machines.iter().any(|it| it.machine == *name) {
            need_up(&target)?;
            session.reachable_files(&target)?;
        }
    }
    drop(session);
    in_foreground(invocation, &watched)
}

/// Waits until a machine that still boots answers.
fn answers(operation: &Operation, target: &Target) -> Result<(), Failure> {
    let session = &operation.session;
    // OpenSSH's files may have been removed, or the port may have changed.
    session.reachable_files(target)?;
    match &target.existing.observed {
        Some(observed)
            if observed.is_up()
                && !observed.has_booted()
                && !target.wanted.machine.syncs.is_empty() =>
        {
            wait_for_answer(session, observed, &remote(operation, target))
        }
        _ => Ok(()),
    }
}

/// Does `work` in a machine, as long as it runs.
async fn in_guest<T>(
    operation: &Operation,
    target: &Target,
    work: impl Future<Output = Result<T, SyncError>>,
) -> Result<T, Failure> {
    let name = target.wanted.machine.name.as_str();
    let machine = target.existing.observed.as_ref().map(|it| (it, name));
    while_answering(&operation.session, machine.as_slice(), work).await
}

fn remote(operation: &Operation, target: &Target) -> Remote {
    Remote {
        machine: target.wanted.machine.name.clone(),
        files: operation.session.files(&target.wanted.identity),
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    machine: &'a str,
    from: &'a Path,
    to: &'a str,
    changes: Vec<Change>,
    /// How many more changes there are than the list has.
    #[serde(skip_serializing_if = "is_default")]
    more: u64,
}

#[derive(Serialize)]
struct Change {
    action: &'static str,
    path: String,
}

/// Reads a line of rsync's list: the action and the path.
fn change(line: &str) -> Option<Change> {
    let (code, path) = line.split_once(' ')?;
    let action = match code.as_bytes() {
        b"*deleting" => "delete",
        [b'c', b'd', ..] => "make",
        [b'<' | b'>' | b'c' | b'h', ..] => "send",
        [b'.', b'f' | b'L', ..] => "touch",
        // A folder whose time changes because its content does.
        _ => return None,
    };
    Some(Change {
        action,
        path: path.trim_start().to_string(),
    })
}

fn dry_run(invocation: &Invocation, operation: &Operation) -> Result<ExitCode, Failure> {
    let mut all = Vec::new();
    for target in &operation.targets {
        let remote = remote(operation, target);
        for folder in &target.wanted.machine.syncs {
            if !folder.kind.is_one_way() {
                continue;
            }
            let ended = until_interrupted(
                "`stead sync`",
                in_guest(operation, target, list_changes(folder, &remote)),
            )?;
            all.push(Listed {
                machine: &target.wanted.machine.name,
                from: &folder.from,
                to: &folder.to,
                changes: ended
                    .listed
                    .iter()
                    .filter_map(|line| change(line))
                    .collect(),
                more: ended.unlisted,
            });
        }
    }
    if invocation.style.json {
        output::json(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    for listed in all {
        let mut text = format!(
            "{}: {} → {}",
            listed.machine,
            listed.from.shown(),
            listed.to
        );
        if listed.changes.is_empty() {
            text.push_str(": nothing to do");
        }
        text.push('\n');
        for change in &listed.changes {
            text.push_str(&format!(
                "  {:<6}  {}\n",
                change.action,
                words(&change.path)
            ));
        }
        if listed.more > 0 {
            text.push_str(&format!("  and {} more\n", listed.more));
        }
        output::data(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn back(
    invocation: &Invocation,
    operation: &Operation,
    path: &Path,
    force: bool,
    dry_run: bool,
) -> Result<ExitCode, Failure> {
    let here = start_folder(invocation)?;
    let mut found = Vec::new();
    for target in &operation.targets {
        for folder in &target.wanted.machine.syncs {
            if folder.kind.is_one_way()
                && let Some(inner) = within(folder, &here, path)
            {
                found.push((target, folder, inner));
            }
        }
    }
    if found.is_empty() && path.is_relative() {
        let folders: Vec<_> = (operation.targets.iter())
            .flat_map(|target| {
                target
                    .wanted
                    .machine
                    .syncs
                    .iter()
                    .map(move |it| (target, it))
            })
            .filter(|(_, folder)| folder.kind.is_one_way())
            .collect();
        if let ([(target, folder)], Some(inner)) = (folders.as_slice(), plain(path)) {
            found.push((*target, *folder, inner));
        }
    }
    // Where synced folders are nested, the innermost one is meant.
    let deepest = (found.iter())
        .map(|(_, folder, _)| folder.from.components().count())
        .max();
    found.retain(|(_, folder, _)| Some(folder.from.components().count()) == deepest);
    let (target, folder, inner) = match found.as_slice() {
        [one] => one,
        [] => {
            return Err(Failure::usage(
                format!("{} is not in a folder that rsync syncs", path.shown()),
                "give its path on the host, or its absolute path in the guest",
            ));
        }
        several => {
            let names: Vec<&str> = (several.iter())
                .map(|(target, ..)| target.wanted.machine.name.as_str())
                .collect();
            return Err(Failure::usage(
                format!("{} is synced to several places", path.shown()),
                format!(
                    "name the machine: {}; or give the absolute path in the guest",
                    names.join(", ")
                ),
            ));
        }
    };
    need_up(target)?;
    answers(operation, target)?;
    let remote = remote(operation, target);
    let scratch = operation.session.data.downloads();
    let mut host_runs = host_files(&operation.session.project);
    host_runs.extend(crate::trust::host_runs(&operation.session.project)?);
    let options = BackOptions {
        force,
        dry_run,
        host_runs: &host_runs,
    };
    let back = until_interrupted(
        "`stead sync --back`",
        in_guest(
            operation,
            target,
            fetch_back(folder, &remote, inner, &scratch, options),
        ),
    )?;
    if invocation.style.json {
        let skipped: Vec<_> = (back.skipped.iter())
            .map(|(path, why)| {
                serde_json::json!({ "path": path.to_string_lossy(), "why": why.why() })
            })
            .collect();
        let fetched: Vec<_> = back.fetched.iter().map(|it| it.to_string_lossy()).collect();
        output::json(&serde_json::json!({
            "machine": remote.machine,
            "folder": folder.from,
            "fetched": fetched,
            "skipped": skipped,
            "dry_run": dry_run,
        }))?;
    } else {
        let verb = if dry_run { "would fetch" } else { "fetched" };
        for path in &back.fetched {
            output::data(&format!("{verb} {}\n", words(&path.to_string_lossy())))?;
        }
        for (path, why) in &back.skipped {
            talk(&format!(
                "skipped {}: {}\n",
                words(&path.to_string_lossy()),
                why.why()
            ));
        }
        if back.skipped.iter().any(|(_, why)| why.can_be_forced()) {
            talk("hint: --force overwrites them with the guest's\n");
        }
        if back.fetched.is_empty() && back.skipped.is_empty() {
            say(
                invocation.style,
                "nothing to fetch: the host's files are the same",
            );
        }
    }
    Ok(if back.skipped.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Returns the path relative to a synced folder. `path` is on the host, relative to `here`, or in
/// the guest.
fn within(folder: &SyncFolder, here: &Path, path: &Path) -> Option<PathBuf> {
    let inner = match path.strip_prefix(&folder.to) {
        Ok(inner) => inner.to_path_buf(),
        Err(_) => flat(&here.join(path))?
            .strip_prefix(&folder.from)
            .ok()?
            .to_path_buf(),
    };
    plain(&inner)
}

/// Resolves `.` and `..` by the path's text alone.
fn flat(path: &Path) -> Option<PathBuf> {
    let mut flat = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                flat.pop().then_some(())?;
            }
            other => flat.push(other),
        }
    }
    Some(flat)
}

/// Returns the path if it has no `..` and does not leave its folder.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinefile::SyncKind;

    #[test]
    fn paths_are_found_in_folders() {
        let folder = SyncFolder {
            from: "/home/a/shop/src".into(),
            to: "/srv/app".into(),
            kind: SyncKind::Rsync,
            exclude: Vec::new(),
            delete: true,
            gitignore: false,
            owner: None,
            readonly: false,
            watch: false,
            at: String::new(),
        };
        let here = Path::new("/home/a/shop/docs");
        let at = |path: &str| within(&folder, here, Path::new(path));
        assert_eq!(at("../src/gen/x"), Some("gen/x".into()));
        assert_eq!(at("/srv/app/gen/x"), Some("gen/x".into()));
        assert_eq!(at("/srv/app"), Some("".into()));
        assert_eq!(at("/home/a/shop/src/f"), Some("f".into()));
        assert_eq!(at("/srv/app/../other"), None);
        assert_eq!(at("gen/x"), None);
    }

    #[test]
    fn rsyncs_list_is_read() {
        let read = |line| change(line).map(|it| (it.action, it.path));
        assert_eq!(
            read("*deleting   old.txt"),
            Some(("delete", "old.txt".into()))
        );
        assert_eq!(read("<f+++++++++ a b"), Some(("send", "a b".into())));
        assert_eq!(read("cd+++++++++ new/"), Some(("make", "new/".into())));
        assert_eq!(read(".d..t...... ./"), None);
    }
}
