//! Sends edits on the host to guests as they are made.
//!
//! One thread does it all, with three kinds of task: one per folder of the host gathers changes, one per
//! folder of a guest sends them, and one per machine knows whether the machine can be reached.

mod background;
mod pending;
mod presence;
mod state;
mod tree;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::{JoinSet, LocalSet},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    guest::{MachineFiles, Remote},
    host::paths::DataDir,
    machinefile::{SyncFolder, SyncKind},
    report::{Event, EventKind, Reporter},
};

use super::{
    Forwarder, error::SyncError, filter::Filter, folder::Pusher, outcome::Changes, rsync::Rules,
    shares::is_mounted, two_way,
};

pub use background::{WatcherStart, ensure, run_in_background, stop, stop_if_unneeded, written};
pub use presence::hold_sync;
pub use state::{Last, MachineState, State, Watched, WatchedMachine, WatcherFiles};

use pending::{Batch, Open, Pending};
use presence::Presence;
use tree::{Tree, TreeChanges};

/// A burst of changes is sent when no further change came for this long,
const QUIET: Duration = Duration::from_millis(15);
/// and after this long at the latest.
const LONGEST: Duration = Duration::from_millis(50);

/// The pause before another try after an error that may go away, such as a full disk.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// The pause before another check whether a missing folder is back.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How often a two-way folder is synced to find the guest's edits: Debian's unison comes without the
/// program that would report them.
const OTHER_SIDE: Duration = Duration::from_secs(10);

/// An edit that is found within this time after a two-way sync may have been made during that sync.
const MEANWHILE: Duration = Duration::from_secs(1);

/// Receives the watcher's notifications.
pub trait Listener {
    /// Everything is watched now: `folders` is the number of folders of the host, with those below.
    fn watching(&self, folders: usize);
    fn away(&self, machine: &str, reason: &str);
    fn sent(&self, machine: &str, to: &str, changes: Changes, whole: bool, seconds: f64);
    fn trouble(&self, machine: &str, to: &str, error: &SyncError);
    fn notice(&self, machine: &str, message: String);
    /// The trouble that was reported before is over.
    fn well(&self, machine: &str, to: &str);
}

/// A folder of the host.
struct Source {
    folder: SyncFolder,
    tree: RefCell<Option<Tree>>,
    rules: RefCell<Rc<Rules>>,
    /// The queues of changes, one per folder of a guest.
    to: Vec<Rc<Pending>>,
    /// Whether the folder is missing.
    gone: Cell<bool>,
    /// Notified when a sender finds the folder missing. inotify does not report that a folder above it
    /// was moved.
    missed: Notify,
}

/// A folder of a guest.
struct Destination {
    presence: Rc<Presence>,
    machine: String,
    uuid: uuid::Uuid,
    folder: SyncFolder,
    source: usize,
    pending: Rc<Pending>,
    /// When a two-way folder was last synced.
    ended: Cell<Option<Instant>>,
    /// What the last two-way sync skipped, so that it is said once.
    skipped: RefCell<Option<String>>,
}

/// Watches until it is dropped.
///
/// # Errors
/// If watching cannot start, or a limit of the host is reached.
pub async fn watch(
    data: &DataDir,
    watched: &Watched,
    listener: Rc<dyn Listener>,
) -> Result<(), SyncError> {
    let (sources, destinations, presences) = plan(data, watched)?;
    // From here on no change is missed.
    for source in &sources {
        source.begin()?;
    }
    listener.watching(
        (sources.iter())
            .filter_map(|source| source.tree.borrow().as_ref().map(Tree::len))
            .sum(),
    );
    let local = LocalSet::new();
    for presence in presences {
        let listener = Rc::clone(&listener);
        local.spawn_local(async move {
            let machine = presence.remote().machine.clone();
            presence
                .keep(|reason| listener.away(&machine, reason))
                .await;
        });
    }
    for destination in destinations {
        let source = Rc::clone(&sources[destination.source]);
        let (listener, data) = (Rc::clone(&listener), data.clone());
        local.spawn_local(async move { destination.serve(&data, &source, &*listener).await });
    }
    let mut gathering = JoinSet::new();
    for source in sources {
        gathering.spawn_local_on(async move { source.gather().await }, &local);
    }
    // None of them ends without an error.
    match local.run_until(gathering.join_next()).await {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => Err(SyncError::io("continue watching")(std::io::Error::other(
            error,
        ))),
        None => std::future::pending().await,
    }
}

type Parts = (Vec<Rc<Source>>, Vec<Destination>, Vec<Rc<Presence>>);

/// Sets up the tasks. A folder of the host that several machines have is watched once.
fn plan(data: &DataDir, watched: &Watched) -> Result<Parts, SyncError> {
    let mut sources: Vec<Source> = Vec::new();
    let mut known: HashMap<(PathBuf, Vec<String>, bool), usize> = HashMap::new();
    let mut destinations = Vec::new();
    let mut presences = Vec::new();
    for machine in &watched.machines {
        let remote = Remote {
            machine: machine.machine.clone(),
            files: MachineFiles::new(data, &machine.uuid),
        };
        let presence = Rc::new(Presence::new(remote, data.clone(), machine.uuid));
        presences.push(Rc::clone(&presence));
        for folder in &machine.folders {
            let key = (
                folder.from.clone(),
                folder.exclude.clone(),
                folder.gitignore,
            );
            let source = match known.get(&key) {
                Some(source) => *source,
                None => {
                    sources.push(Source {
                        folder: folder.clone(),
                        tree: RefCell::new(None),
                        rules: RefCell::new(Rc::new(Rules::new(b"")?)),
                        to: Vec::new(),
                        gone: Cell::new(false),
                        missed: Notify::new(),
                    });
                    known.insert(key, sources.len() - 1);
                    sources.len() - 1
                }
            };
            let pending = Rc::new(Pending::default());
            sources[source].to.push(Rc::clone(&pending));
            destinations.push(Destination {
                presence: Rc::clone(&presence),
                machine: machine.machine.clone(),
                uuid: machine.uuid,
                folder: folder.clone(),
                source,
                pending,
                ended: Cell::default(),
                skipped: RefCell::default(),
            });
        }
    }
    let sources = sources.into_iter().map(Rc::new).collect();
    Ok((sources, destinations, presences))
}

impl Source {
    fn filter(&self) -> Filter {
        let folder = &self.folder;
        Filter::new(&folder.from, &folder.exclude, folder.gitignore)
    }

    /// Starts to watch the folder, from scratch.
    fn begin(&self) -> Result<(), SyncError> {
        // The old tree is dropped only when the new one watches, so that no change is missed.
        self.tree.replace(Some(Tree::new(self.filter())?));
        self.rules.replace(Rc::new(self.rules_now()?));
        Ok(())
    }

    fn rules_now(&self) -> Result<Rules, SyncError> {
        Rules::new(&match self.folder.gitignore {
            true => self.filter().survey(false)?.rules,
            false => self.filter().rules(&[]),
        })
    }

    /// Returns rsync's rules. With `update`, git's part of them is read again.
    fn rules(&self, update: bool) -> Result<Rc<Rules>, SyncError> {
        if update && self.folder.gitignore {
            self.rules.replace(Rc::new(self.rules_now()?));
        }
        Ok(Rc::clone(&self.rules.borrow()))
    }

    async fn gather(&self) -> Result<(), SyncError> {
        let mut open = Open::default();
        loop {
            let Some(mut tree) = self.tree.take() else {
                return Ok(());
            };
            self.gather_from(&mut tree, &mut open).await?;
            // The folder is missing, or the ignore rules changed: build a new tree. The old one stays
            // alive until that watches, so that no change is missed.
            loop {
                match self.begin() {
                    Ok(()) => break,
                    Err(SyncError::Gone { .. } | SyncError::Io { .. }) => {
                        if !self.gone.replace(true) {
                            // The senders find out what is wrong, and report it.
                            self.to.iter().for_each(|it| it.add_all());
                        }
                        sleep(LOOK_AGAIN).await;
                    }
                    Err(error) => return Err(error),
                }
            }
            self.gone.set(false);
            self.to.iter().for_each(|it| it.add_all());
        }
    }

    /// Gathers changes until the tree must be rebuilt.
    async fn gather_from(&self, tree: &mut Tree, open: &mut Open) -> Result<(), SyncError> {
        loop {
            let next = open.next();
            tokio::select! {
                changed = tree.changed() => changed?,
                () = until(next) => {}
                () = self.missed.notified() => return Ok(()),
            }
            let mut found = TreeChanges::default();
            tree.read(&mut found)?;
            let burst = Instant::now();
            while burst.elapsed() < LONGEST {
                match timeout(QUIET, tree.changed()).await {
                    Ok(changed) => {
                        changed?;
                        tree.read(&mut found)?;
                    }
                    Err(_) => break,
                }
            }
            if found.gone || found.stale {
                return Ok(());
            }
            open.update(burst, found.writing, &found.paths);
            found.paths.extend(open.due(Instant::now()));
            for to in &self.to {
                if found.all {
                    to.add_all();
                } else {
                    to.add(&found.paths);
                }
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// How edits get to a guest.
enum SendMethod {
    Copy(Box<Pusher>),
    TwoWay,
    /// The guest has the folder itself, and gets events.
    Events(Forwarder),
}

const HOLDER: &str = "`stead sync --watch`";

impl Destination {
    /// Ends when it is time to sync a two-way folder for edits of the guest. Never ends for others.
    async fn other_side(&self) {
        match self.folder.kind {
            SyncKind::TwoWay => sleep(OTHER_SIDE).await,
            SyncKind::Rsync | SyncKind::Virtiofs | SyncKind::NineP | SyncKind::Auto => {
                std::future::pending().await
            }
        }
    }

    async fn serve(&self, data: &DataDir, source: &Source, listener: &dyn Listener) {
        let mut here = self.presence.receiver();
        let mut reported = String::new();
        loop {
            let Ok(connection) = here.wait_for(|it| *it > 0).await.map(|it| *it) else {
                return;
            };
            // Send everything: the guest may have missed changes, or lost files.
            self.pending.keep_all();
            let mut method = None;
            loop {
                let Some(batch) = self.pending.take() else {
                    tokio::select! {
                        () = self.pending.added() => {}
                        () = self.other_side() => self.pending.keep_all(),
                        _ = here.wait_for(|it| *it != connection) => break,
                    }
                    continue;
                };
                match self.send(data, source, &mut method, &batch, listener).await {
                    Ok(()) if reported.is_empty() => {}
                    Ok(()) => {
                        reported.clear();
                        listener.well(&self.machine, &self.folder.to);
                    }
                    Err(SyncError::Lost { .. }) => {
                        self.presence.report_lost();
                        break;
                    }
                    Err(error) => {
                        if matches!(error, SyncError::Gone { .. }) && !source.gone.get() {
                            source.missed.notify_one();
                        }
                        let text = error.to_string();
                        if reported != text {
                            listener.trouble(&self.machine, &self.folder.to, &error);
                            reported = text;
                        }
                        tokio::select! {
                            () = self.pending.added() => {}
                            () = sleep(TRY_AGAIN) => {}
                            _ = here.wait_for(|it| *it != connection) => break,
                        }
                        self.pending.keep_all();
                    }
                }
            }
            if here.wait_for(|it| *it != connection).await.is_err() {
                return;
            }
        }
    }

    async fn send(
        &self,
        data: &DataDir,
        source: &Source,
        method: &mut Option<SendMethod>,
        batch: &Batch,
        listener: &dyn Listener,
    ) -> Result<(), SyncError> {
        let started = Instant::now();
        // A file that has other names is the same file by each of them, and the event had only one.
        let is_copied = matches!(method, Some(SendMethod::Copy(_)));
        let whole = *batch == Batch::All || (is_copied && batch.has_linked(&self.folder.from));
        let rules = source.rules(whole)?;
        let remote = self.presence.remote();
        if method.is_none() {
            let kind = self.folder.kind;
            // Only the guest knows whether the folder is shared.
            let is_mounted = !kind.is_shared() && is_mounted(&self.folder.to, remote).await?;
            *method = Some(match kind {
                SyncKind::Virtiofs | SyncKind::NineP => SendMethod::Events(Forwarder::default()),
                SyncKind::Auto if is_mounted => SendMethod::Events(Forwarder::default()),
                SyncKind::Rsync | SyncKind::TwoWay if is_mounted => {
                    return Err(SyncError::Mounted {
                        machine: self.machine.clone(),
                        to: self.folder.to.clone(),
                    });
                }
                SyncKind::TwoWay => SendMethod::TwoWay,
                SyncKind::Rsync | SyncKind::Auto => {
                    SendMethod::Copy(Box::new(Pusher::new(&self.folder, remote).await?))
                }
            });
        }
        let Some(method) = method else { return Ok(()) };
        let not_locked = || SyncError::io(format!("lock {} for a sync", self.folder.to));
        let changes = match method {
            SendMethod::Copy(pusher) => {
                let _held = hold_sync(data, self.uuid, HOLDER)
                    .await
                    .map_err(not_locked())?;
                let list = match whole {
                    true => None,
                    false => batch.list(&self.folder.from),
                };
                pusher.push(&rules, list.as_deref()).await?
            }
            SendMethod::TwoWay => {
                let _held = hold_sync(data, self.uuid, HOLDER)
                    .await
                    .map_err(not_locked())?;
                // Measured from the start of this call, without the wait for another sync.
                let meanwhile =
                    (self.ended.get()).is_some_and(|at| started.duration_since(at) < MEANWHILE);
                let mut compare = if meanwhile { batch.paths() } else { Vec::new() };
                compare.retain(|path| {
                    std::fs::symlink_metadata(self.folder.from.join(path))
                        .is_ok_and(|it| it.is_file())
                });
                let outcome = two_way::sync(&self.folder, remote, &compare, &mut drop).await;
                self.ended.set(Some(Instant::now()));
                let outcome = outcome?;
                if let Some(words) = outcome.conflict_notice(&self.folder.to) {
                    listener.notice(&self.machine, words);
                }
                let skipped = outcome.skip_notice(&self.folder.to);
                if let Some(words) = skipped
                    .clone()
                    .filter(|_| skipped != *self.skipped.borrow())
                {
                    listener.notice(&self.machine, words);
                }
                self.skipped.replace(skipped);
                return Ok(());
            }
            // There are no paths to send events for, and the guest has the files anyway.
            SendMethod::Events(_) if whole => return Ok(()),
            SendMethod::Events(forwarder) => {
                let from = &self.folder.from;
                forwarder
                    .forward(remote, from, &self.folder.to, &batch.paths())
                    .await?;
                return Ok(());
            }
        };
        listener.sent(
            &self.machine,
            &self.folder.to,
            changes,
            whole,
            started.elapsed().as_secs_f64(),
        );
        Ok(())
    }
}

/// Reports a watcher's notifications as events.
pub struct WatchReporter {
    pub reporter: Reporter,
    pub watched: Watched,
}

impl Listener for WatchReporter {
    fn watching(&self, folders: usize) {
        for machine in &self.watched.machines {
            for folder in &machine.folders {
                self.reporter.event(&Event::now(
                    &machine.machine,
                    EventKind::Watching {
                        from: folder.from.clone(),
                        to: folder.to.clone(),
                        folders,
                    },
                ));
            }
        }
    }

    fn away(&self, machine: &str, reason: &str) {
        self.reporter.event(&Event::now(
            machine,
            EventKind::Away {
                reason: reason.to_string(),
            },
        ));
    }

    fn sent(&self, machine: &str, to: &str, changes: Changes, whole: bool, seconds: f64) {
        self.reporter.event(&Event::now(
            machine,
            EventKind::Synced {
                to: to.to_string(),
                sent: changes.sent,
                made: changes.made,
                deleted: changes.deleted,
                touched: changes.touched,
                whole,
                seconds,
            },
        ));
    }

    fn well(&self, _machine: &str, _to: &str) {}

    fn notice(&self, machine: &str, message: String) {
        (self.reporter).event(&Event::now(machine, EventKind::Notice { message }));
    }

    fn trouble(&self, machine: &str, to: &str, error: &SyncError) {
        use miette::Diagnostic;
        self.reporter.event(&Event::now(
            machine,
            EventKind::StepFailed {
                step: format!("sync:{to}"),
                error: error.to_string(),
                hint: error.help().map(|help| help.to_string()),
                console: Vec::new(),
            },
        ));
    }
}
