//! Boxes that are not here yet: fetched side by side, taken into the store, pinned in the lock
//! file.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

use crate::{
    boxes::{
        Incoming, Origin, Source, Store, StoredBox, Title,
        fetch::{Algorithm, Expected, Fetcher, Request, local},
        lockfile::{Entry, LOCK_FILE},
    },
    host::{lock::Lock, paths::DataDir},
    report::{Event, EventKind, Outcome, Reporter, bytes, elapsed},
};

use super::{
    Failure,
    session::Session,
    work::{Work, runtime},
};

/// A box to be fetched.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// As in the Machinefile.
    pub reference: String,
    pub source: Source,
    /// What it has to be, and who says so.
    pub expected: Option<Expected>,
}

/// Fetches boxes side by side, and says how far it is. Nothing has a final name that is not what it
/// has to be.
pub fn fetch(
    store: &Store,
    data: &DataDir,
    wanted: Vec<Wanted>,
    reporter: &Reporter,
) -> Result<Vec<(Origin, StoredBox)>, Failure> {
    let fetcher = Arc::new(Fetcher::new()?);
    let runtime = runtime()?;
    let results = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for (n, wanted) in wanted.into_iter().enumerate() {
            let (store, data) = (store.clone(), data.clone());
            let (reporter, fetcher) = (Arc::clone(reporter), Arc::clone(&fetcher));
            tasks.spawn(async move {
                let label = label(&wanted);
                let started = Instant::now();
                let result = one(&store, &data, &wanted, &fetcher, &reporter, &label).await;
                let outcome = match &result {
                    Ok(_) => Outcome::Done,
                    Err(_) => Outcome::Failed,
                };
                reporter.event(&Event::now(
                    &label,
                    EventKind::MachineDone {
                        outcome,
                        seconds: started.elapsed().as_secs_f64(),
                        changed: true,
                    },
                ));
                (n, result)
            });
        }
        let mut results = tasks.join_all().await;
        results.sort_by_key(|(n, _)| *n);
        results
    });
    reporter.finish();
    results.into_iter().map(|(_, result)| result).collect()
}

/// What progress lines call it.
fn label(wanted: &Wanted) -> String {
    wanted
        .source
        .stem()
        .unwrap_or_else(|| wanted.reference.clone())
}

async fn one(
    store: &Store,
    data: &DataDir,
    wanted: &Wanted,
    fetcher: &Fetcher,
    reporter: &Reporter,
    label: &str,
) -> Result<(Origin, StoredBox), Failure> {
    let arch = std::env::consts::ARCH;
    let key = hex_of(&wanted.reference);
    let say = |step: &str, doing: String| {
        reporter.event(&Event::now(
            label,
            EventKind::StepStarted {
                step: step.into(),
                doing,
            },
        ));
    };
    // Whoever comes second finds what the first has fetched.
    let locks = data.locks();
    let lock_name = format!("download-{key}");
    let held = tokio::task::spawn_blocking(move || {
        let holder = format!("stead (pid {})", std::process::id());
        Lock::acquire(&locks, &lock_name, &holder)
    })
    .await
    .map_err(|error| Failure::error(format!("fetching {label}: {error}"), "try again"))?
    .map_err(|error| Failure::io(format!("lock the download of {label}"), &error))?;
    if let Some(expected) = &wanted.expected
        && expected.algorithm == Algorithm::Sha256
        && let Some((origin, stored)) = store.by_source(&expected.hex, arch)
    {
        let origin = Origin {
            reference: wanted.reference.clone(),
            fetched: jiff::Timestamp::now(),
            ..origin
        };
        store.remember(&origin)?;
        return Ok((origin, stored));
    }
    let mut request = Request {
        urls: Vec::new(),
        expected: wanted.expected.iter().cloned().collect(),
        size: None,
    };
    let (path, sha256, size, url, etag, ours) = match &wanted.source {
        Source::Web(url) => {
            request.urls.push(url.clone());
            say("fetch", format!("fetching {url}"));
            let meter = Meter::new(label, Arc::clone(reporter));
            let got = fetcher
                .get(&request, &data.downloads(), &key, &|done, total| {
                    meter.at(done, total);
                })
                .await?;
            let url = got.url.to_string();
            (got.path, got.sha256, got.size, url, got.etag, true)
        }
        Source::File(path) => {
            say("fetch", format!("reading {}", path.display()));
            let (file, asked) = (path.clone(), request.clone());
            let (sha256, size) = blocking(label, move || Ok(local(&file, &asked)?)).await?;
            (
                path.clone(),
                sha256,
                size,
                wanted.reference.clone(),
                None,
                false,
            )
        }
        Source::Store => {
            return Err(Failure::error(
                format!("{} is a name and no place to fetch from", wanted.reference),
                "give a URL or a path",
            ));
        }
    };
    say("import", format!("taking {} in", bytes(size)));
    let title = Title {
        name: label.to_string(),
        version: sha256.chars().take(12).collect(),
        arch: arch.to_string(),
    };
    let (keeper, place, digest) = (store.clone(), path.clone(), sha256.clone());
    let stored = blocking(label, move || {
        Ok(keeper.import(
            &Incoming {
                path: &place,
                sha256: &digest,
                ours,
                title,
            },
            &mut |_| {},
        )?)
    })
    .await;
    if ours {
        // Moved into the store, unpacked, or no box at all.
        let _ = std::fs::remove_file(&path);
    }
    let stored = stored?;
    let origin = Origin {
        reference: wanted.reference.clone(),
        arch: arch.to_string(),
        version: stored.manifest.version.clone(),
        url,
        sha256,
        size,
        digest: stored.digest.to_string(),
        etag,
        fetched: jiff::Timestamp::now(),
    };
    store.remember(&origin)?;
    drop(held);
    Ok((origin, stored))
}

async fn blocking<T: Send + 'static>(
    label: &str,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::error(format!("taking {label} in: {error}"), "try again"))?
}

fn hex_of(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Progress events, a few a second.
struct Meter {
    label: String,
    reporter: Reporter,
    state: Mutex<(Instant, Option<(Instant, u64)>)>,
}

impl Meter {
    fn new(label: &str, reporter: Reporter) -> Self {
        Meter {
            label: label.to_string(),
            reporter,
            state: Mutex::new((Instant::now(), None)),
        }
    }

    fn at(&self, done: u64, total: u64) {
        let Ok(mut state) = self.state.lock() else {
            return;
        };
        let now = Instant::now();
        // The first bytes were here before.
        let (start, before) = *state.1.get_or_insert((now, done));
        if now.duration_since(state.0) < Duration::from_millis(200) || total == 0 {
            return;
        }
        state.0 = now;
        let seconds = now.duration_since(start).as_secs_f64().max(0.001);
        #[allow(clippy::cast_precision_loss)]
        let rate = (done - before.min(done)) as f64 / seconds;
        #[allow(clippy::cast_precision_loss)]
        let left = (total - done.min(total)) as f64 / rate.max(1.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rate = rate as u64;
        let percent = u8::try_from(done.saturating_mul(100) / total).unwrap_or(100);
        self.reporter.event(&Event::now(
            &self.label,
            EventKind::Progress {
                step: "fetch".into(),
                percent,
                rate: format!("{}/s", bytes(rate)),
                eta: elapsed(Duration::from_secs_f64(left.min(1e6))),
            },
        ));
    }
}

/// What a box has to be, where the Machinefile or the lock file knows it. The size in the lock file
/// is not held against the server: what it has now is to be told by its digest.
fn expectation(work: &Work, machine: &crate::machinefile::Machine) -> Option<Expected> {
    let expected = |hex: &str, by: &str| Expected {
        algorithm: Algorithm::Sha256,
        hex: hex.to_string(),
        by: by.to_string(),
    };
    let arch = std::env::consts::ARCH;
    match &machine.box_sha256 {
        Some(sha256) => Some(expected(sha256, "the Machinefile")),
        None => (work.session.lock_file.get(&machine.box_ref, arch))
            .map(|entry| expected(&entry.sha256, LOCK_FILE)),
    }
}

/// Fetches the boxes of machines that have to be made or booted, where they are not here. Says
/// whether there were any.
pub fn fetch_missing(work: &mut Work, machines: &[String]) -> Result<bool, Failure> {
    let mut missing: Vec<Wanted> = Vec::new();
    for subject in &work.subjects {
        let machine = &subject.wanted.machine;
        if subject.leftover
            || subject.stored_box.is_some()
            || !machines.contains(&machine.name)
            || missing
                .iter()
                .any(|wanted| wanted.reference == machine.box_ref)
        {
            continue;
        }
        let source = Source::parse(&machine.box_ref, &work.session.project.root);
        let source = match source {
            Ok(Source::Store) | Err(_) => continue,
            Ok(source) => source,
        };
        missing.push(Wanted {
            reference: machine.box_ref.clone(),
            source,
            expected: expectation(work, machine),
        });
    }
    if missing.is_empty() {
        return Ok(false);
    }
    fetch(
        &work.session.store,
        &work.session.data,
        missing,
        &work.reporter,
    )?;
    Ok(true)
}

/// Fails where the lock file is not what it would be after `pin`.
pub fn need_pinned(session: &Session) -> Result<(), Failure> {
    let arch = std::env::consts::ARCH;
    let project = &session.project;
    let pinned = project.machines.iter().all(|machine| {
        let reference = &machine.box_ref;
        let entry = session.lock_file.get(reference, arch);
        match (Source::parse(reference, &project.root), entry) {
            (Ok(Source::Store), None) => true,
            (Ok(Source::Store) | Err(_), _) | (Ok(_), None) => false,
            (Ok(_), Some(entry)) => {
                (machine.box_sha256.as_ref()).is_none_or(|sha256| *sha256 == entry.sha256)
            }
        }
    });
    let mut named = session.lock_file.clone();
    named.retain(|reference| project.machines.iter().any(|m| m.box_ref == reference));
    if pinned && named == session.lock_file {
        return Ok(());
    }
    Err(Failure::error(
        format!(
            "{} would change, and --locked forbids it",
            place(&project.root)
        ),
        "run the same without --locked, and commit what it writes",
    ))
}

/// Pins what the project's boxes are.
pub fn pin(work: &mut Work) -> Result<(), Failure> {
    let arch = std::env::consts::ARCH;
    let session = &work.session;
    let mut lock = session.lock_file.clone();
    let references: Vec<&str> = (session.project.machines.iter())
        .map(|machine| machine.box_ref.as_str())
        .collect();
    lock.retain(|reference| references.contains(&reference));
    for machine in &session.project.machines {
        let reference = &machine.box_ref;
        let found = match (&machine.box_sha256, lock.get(reference, arch)) {
            (Some(sha256), Some(entry)) if *sha256 == entry.sha256 => continue,
            (Some(sha256), _) => session.store.by_source(sha256, arch),
            (None, Some(_)) => continue,
            (None, None) => session.store.by_reference(reference, arch),
        };
        // One of a machine that was not asked for may not be here.
        if let Some((origin, _)) = found {
            lock.set(
                reference,
                arch,
                Entry {
                    version: origin.version,
                    url: origin.url,
                    sha256: origin.sha256,
                    size: origin.size,
                },
            );
        }
    }
    if lock == session.lock_file {
        return Ok(());
    }
    let root: PathBuf = session.project.root.clone();
    if lock.is_empty() {
        match std::fs::remove_file(root.join(LOCK_FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::io(format!("remove {}", place(&root)), &error));
            }
            _ => {}
        }
    } else {
        lock.write(&root)?;
    }
    work.session.lock_file = lock;
    Ok(())
}

fn place(root: &Path) -> String {
    root.join(LOCK_FILE).display().to_string()
}
