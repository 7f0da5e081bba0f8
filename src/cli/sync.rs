use std::{
    path::{Component, Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde::Serialize;

use crate::{
    guest::Remote,
    machinefile::{SyncFolder, SyncKind, is_default},
    plan::{self, MachinePlan, Plan},
    provision::host_files,
    report::clean::{Shown, words},
    sync::{BackOptions, fetch_back, list_changes, watch::Watched},
};

use super::{
    Failure, Global,
    condition::need_running,
    output,
    select::Selection,
    session::{Session, Subject, start_folder},
    trust::{self, Scope},
    watch::in_foreground,
    work::{Work, until_interrupted},
};

#[derive(Args)]
pub struct SyncArgs {
    #[command(flatten)]
    selection: Selection,
    /// Go on sending edits as they are made, until Ctrl-C
    #[arg(short, long, conflicts_with_all = ["back", "dry_run"])]
    watch: bool,
    /// Show what would be sent and deleted, or fetched; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Fetch a file or folder of a synced folder from the guest; nothing of the host's is lost
    #[arg(short, long, value_name = "PATH")]
    back: Option<PathBuf>,
    /// With --back: overwrite what is newer or different on the host, too
    #[arg(long, requires = "back")]
    force: bool,
}

pub fn run(global: &Global, args: SyncArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = session.select_named(&args.selection, false)?;
    let agreement = trust::need(global, &session.data, &session.project, Scope::Sync)?;
    if args.watch {
        return watch(global, session, &machines);
    }
    let mut work = Work::begin(global, "sync", session, machines, None)?;
    work.agreement = agreement;
    if let Some(path) = &args.back {
        return back(global, &work, path, &args);
    }
    let mut plans = Vec::new();
    for subject in &work.subjects {
        let machine = &subject.wanted.machine;
        if !machine.syncs.is_empty() {
            need_up(subject)?;
        }
        // OpenSSH's files may have been removed, or the port moved.
        work.session.reachable_files(subject)?;
        plans.push(MachinePlan {
            machine: machine.name.clone(),
            after: Vec::new(),
            steps: match &subject.existing.observed {
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
        output::say(global, "no machine has a folder to sync");
    }
    if args.dry_run {
        return dry_run(global, &work);
    }
    let summary = work.apply(Plan {
        machines: plans,
        runs: Vec::new(),
    })?;
    Ok(work.conclude(global, &summary))
}

fn need_up(subject: &Subject) -> Result<(), Failure> {
    let name = &subject.wanted.machine.name;
    need_running(name, subject.existing.observed.as_ref()).map(|_| ())
}

fn watch(
    global: &Global,
    session: Session,
    machines: &[crate::machinefile::Machine],
) -> Result<ExitCode, Failure> {
    let uuid_of = |name: &str| session.identity(name).map(|it| it.uuid);
    let Some(watched) = Watched::of(&session.project, uuid_of, machines, |_| true)? else {
        return Err(Failure::error(
            "no machine has a folder that can be watched",
            "`sync \".\" to=\"/srv/app\"` in the Machinefile gives it one; what is shared (virtiofs, 9p) is there at once without",
        ));
    };
    let survey = session.connection.survey()?;
    for subject in session.subjects(&survey, machines.to_vec(), None)? {
        let name = &subject.wanted.machine.name;
        if watched.machines.iter().any(|it| it.machine == *name) {
            need_up(&subject)?;
            session.reachable_files(&subject)?;
        }
    }
    drop(session);
    in_foreground(global, &watched)
}

fn remote(work: &Work, subject: &Subject) -> Remote {
    Remote {
        machine: subject.wanted.machine.name.clone(),
        files: work.session.files(&subject.wanted.identity),
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    machine: &'a str,
    from: &'a Path,
    to: &'a str,
    changes: Vec<Change>,
    /// How many more there are, where they are very many.
    #[serde(skip_serializing_if = "is_default")]
    more: u64,
}

#[derive(Serialize)]
struct Change {
    action: &'static str,
    path: String,
}

/// A line of rsync's list: what would be done, and to what.
fn change(line: &str) -> Option<Change> {
    let (code, path) = line.split_once(' ')?;
    let action = match code.as_bytes() {
        b"*deleting" => "delete",
        [b'c', b'd', ..] => "make",
        [b'<' | b'>' | b'c' | b'h', ..] => "send",
        [b'.', b'f' | b'L', ..] => "touch",
        // A folder whose time changes with what is in it.
        _ => return None,
    };
    Some(Change {
        action,
        path: path.trim_start().to_string(),
    })
}

fn dry_run(global: &Global, work: &Work) -> Result<ExitCode, Failure> {
    let mut all = Vec::new();
    for subject in &work.subjects {
        let remote = remote(work, subject);
        for folder in &subject.wanted.machine.syncs {
            if folder.kind != SyncKind::Rsync {
                continue;
            }
            let ended = until_interrupted("`stead sync`", list_changes(folder, &remote))?;
            all.push(Listed {
                machine: &subject.wanted.machine.name,
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
    if global.json {
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

fn back(global: &Global, work: &Work, path: &Path, args: &SyncArgs) -> Result<ExitCode, Failure> {
    let here = start_folder(global)?;
    let mut found = Vec::new();
    for subject in &work.subjects {
        for folder in &subject.wanted.machine.syncs {
            if folder.kind == SyncKind::Rsync
                && let Some(inner) = within(folder, &here, path)
            {
                found.push((subject, folder, inner));
            }
        }
    }
    if found.is_empty() && path.is_relative() {
        let folders: Vec<_> = (work.subjects.iter())
            .flat_map(|subject| {
                subject
                    .wanted
                    .machine
                    .syncs
                    .iter()
                    .map(move |it| (subject, it))
            })
            .filter(|(_, folder)| folder.kind == SyncKind::Rsync)
            .collect();
        if let ([(subject, folder)], Some(inner)) = (folders.as_slice(), plain(path)) {
            found.push((*subject, *folder, inner));
        }
    }
    // The innermost of folders within one another is meant.
    let deepest = (found.iter())
        .map(|(_, folder, _)| folder.from.components().count())
        .max();
    found.retain(|(_, folder, _)| Some(folder.from.components().count()) == deepest);
    let (subject, folder, inner) = match found.as_slice() {
        [one] => one,
        [] => {
            return Err(Failure::usage(
                format!("{} is in no folder that is synced by rsync", path.shown()),
                "name it as it is on the host, or by its whole path in the guest",
            ));
        }
        several => {
            let names: Vec<&str> = (several.iter())
                .map(|(subject, ..)| subject.wanted.machine.name.as_str())
                .collect();
            return Err(Failure::usage(
                format!("{} is synced to several places", path.shown()),
                format!(
                    "name the machine: {}; or its whole path in the guest",
                    names.join(", ")
                ),
            ));
        }
    };
    need_up(subject)?;
    work.session.reachable_files(subject)?;
    let remote = remote(work, subject);
    let scratch = work.session.data.downloads();
    let mut host_runs = host_files(&work.session.project);
    host_runs.extend(crate::trust::host_runs(&work.session.project)?);
    let options = BackOptions {
        force: args.force,
        dry_run: args.dry_run,
        host_runs: &host_runs,
    };
    let back = until_interrupted(
        "`stead sync --back`",
        fetch_back(folder, &remote, inner, &scratch, options),
    )?;
    if global.json {
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
            "dry_run": args.dry_run,
        }))?;
    } else {
        let verb = if args.dry_run {
            "would fetch"
        } else {
            "fetched"
        };
        for path in &back.fetched {
            output::data(&format!("{verb} {}\n", words(&path.to_string_lossy())))?;
        }
        for (path, why) in &back.skipped {
            output::talk(&format!(
                "skipped {}: {}\n",
                words(&path.to_string_lossy()),
                why.why()
            ));
        }
        if back.skipped.iter().any(|(_, why)| why.can_be_forced()) {
            output::talk("hint: --force takes the guest's instead\n");
        }
        if back.fetched.is_empty() && back.skipped.is_empty() {
            output::say(global, "nothing to fetch: the host has all of it");
        }
    }
    Ok(if back.skipped.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Where in a folder a path is: on the host seen from `here`, or in the guest.
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

/// Without `.` and `..`, by its words.
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

/// A path that leads nowhere else.
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
