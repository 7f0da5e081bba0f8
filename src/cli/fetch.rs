//! Boxes that are not here yet: fetched side by side, taken into the store, pinned in the lock
//! file.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::Url;
use sha2::{Digest as _, Sha256};

use crate::{
    boxes::{
        Imported, Incoming, LOGIN_USER, Listing, Origin, SeedKind, Source, Store, StoredBox, Title,
        catalogue::{Checksums, Requirement, Resolved, Signature},
        fetch::{
            Algorithm, Expected, FetchError, Fetched, Fetcher, Request, find_in, local,
            verify_clearsigned, verify_detached,
        },
        lockfile::{Entry, LOCK_FILE},
    },
    host::{lock::Lock, paths::DataDir},
    machinefile::Machine,
    report::{Event, EventKind, Outcome, Reporter, bytes, elapsed},
};

use super::{
    Failure,
    catalogues::Catalogues,
    session::{Session, origin_key},
    work::{Work, runtime},
};

/// A box to be fetched.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What its origin is remembered by.
    pub key: String,
    pub place: Place,
    /// What it has to be, and who says so.
    pub expected: Vec<Expected>,
    /// What it is called where it says no name itself.
    pub called: Called,
    /// Which of the versions that a Vagrant server lists there.
    pub version: String,
}

/// Where it is.
#[derive(Clone, Debug)]
pub enum Place {
    Web {
        /// The same file at several places.
        urls: Vec<Url>,
        /// Where its publisher says what it has to be.
        checksums: Option<Checksums>,
    },
    File(PathBuf),
}

/// The part of a box's title that does not come from its content.
#[derive(Clone, Debug)]
pub struct Called {
    pub name: String,
    /// `None`: the start of its sha256.
    pub version: Option<String>,
    pub seed: SeedKind,
    pub login_user: String,
}

impl Wanted {
    /// Of a URL or a path.
    pub fn at(reference: &str, source: &Source) -> Option<Self> {
        let place = match source {
            Source::Web(url) => Place::Web {
                urls: vec![url.clone()],
                checksums: None,
            },
            Source::File(path) => Place::File(path.clone()),
            Source::Name => return None,
        };
        Some(Wanted {
            key: origin_key(reference, source),
            place,
            version: version_of(reference, source),
            expected: Vec::new(),
            called: Called {
                name: source.stem().unwrap_or_else(|| "image".into()),
                version: None,
                seed: SeedKind::CloudInit,
                login_user: LOGIN_USER.into(),
            },
        })
    }

    /// Of a box in a catalogue.
    pub fn listed(reference: &str, found: &Resolved<'_>) -> Self {
        Wanted {
            key: reference.to_string(),
            place: Place::Web {
                urls: found.image.urls.clone(),
                checksums: found.image.checksums.clone(),
            },
            version: String::new(),
            expected: found.image.expected.iter().cloned().collect(),
            called: Called {
                name: found.name.to_string(),
                version: Some(found.release.version.to_string()),
                seed: found.entry.seed,
                login_user: found.entry.login_user.clone(),
            },
        }
    }

    /// Of a box in the lock file: those bytes and no others, whatever the catalogue says by now.
    fn pinned(reference: &str, entry: &Entry, catalogues: &Catalogues) -> Result<Self, Failure> {
        let url = Url::parse(&entry.url).map_err(|error| {
            Failure::error(
                format!("{LOCK_FILE}: box {reference:?}: {:?} is no URL: {error}", entry.url),
                "take the file back from version control, or delete it: `stead up` writes a new one",
            )
        })?;
        let listed = (catalogues.all()?.split(reference)).and_then(|(name, _)| {
            (catalogues.all().ok()?.boxes()).find(|(other, _)| *other == name)
        });
        let mirrors = listed.and_then(|(_, entry)| {
            (entry.releases.iter())
                .flat_map(|release| release.images.values())
                .find(|image| image.urls.contains(&url))
        });
        Ok(Wanted {
            key: reference.to_string(),
            place: Place::Web {
                urls: mirrors.map_or_else(|| vec![url.clone()], |image| image.urls.clone()),
                // Its digest is known, and was checked against them then.
                checksums: None,
            },
            version: String::new(),
            expected: vec![pin_of(entry)],
            called: Called {
                name: listed.map_or(reference, |(name, _)| name).to_string(),
                version: Some(entry.version.clone()),
                seed: listed.map_or(SeedKind::CloudInit, |(_, entry)| entry.seed),
                login_user: listed
                    .map_or(LOGIN_USER, |(_, entry)| &entry.login_user)
                    .to_string(),
            },
        })
    }
}

impl Called {
    fn title(&self, sha256: &str) -> Title {
        Title {
            name: self.name.clone(),
            version: (self.version.clone()).unwrap_or_else(|| sha256.chars().take(12).collect()),
            arch: std::env::consts::ARCH.to_string(),
            seed: self.seed,
            login_user: self.login_user.clone(),
        }
    }
}

/// A file of a Vagrant server's listing.
pub struct Choice {
    pub version: String,
    pub url: Url,
    expected: Option<Expected>,
}

/// The listing, where what came is one and no box.
fn listing_in(got: &Fetched) -> Option<Listing> {
    if got.size > LARGEST_LISTING {
        return None;
    }
    Listing::parse(&std::fs::read(&got.path).ok()?)
}

/// In bytes.
const LARGEST_LISTING: u64 = 4 << 20;

/// The newest version of a listing that fits.
pub fn choose(listing: &Listing, version: &str, at: &Url) -> Result<Choice, Failure> {
    let wrong = |message: String| {
        Failure::error(
            message,
            format!("{at} lists its versions; `version` in the Machinefile asks for one"),
        )
    };
    let requirement = Requirement::parse(version).map_err(wrong)?;
    let chosen = listing
        .choose(&requirement, std::env::consts::ARCH)
        .map_err(wrong)?;
    let url = at.join(&chosen.url).map_err(|error| {
        wrong(format!(
            "{}: {:?} is no URL: {error}",
            listing.name, chosen.url
        ))
    })?;
    if url.scheme() != "https" && chosen.expected.is_none() {
        return Err(wrong(format!(
            "{} is at {url}, which is unprotected, and the listing says no digest",
            listing.name
        )));
    }
    Ok(Choice {
        version: chosen.version,
        url,
        expected: chosen.expected,
    })
}

/// A URL has none in itself, so it stands behind a space.
fn version_of(reference: &str, source: &Source) -> String {
    match source {
        Source::Web(_) => (reference.split_once(' '))
            .map_or("", |(_, version)| version)
            .to_string(),
        _ => String::new(),
    }
}

fn pin_of(entry: &Entry) -> Expected {
    Expected {
        algorithm: Algorithm::Sha256,
        hex: entry.sha256.clone(),
        by: LOCK_FILE.to_string(),
    }
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
                let label = wanted.called.name.clone();
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

async fn one(
    store: &Store,
    data: &DataDir,
    wanted: &Wanted,
    fetcher: &Fetcher,
    reporter: &Reporter,
    label: &str,
) -> Result<(Origin, StoredBox), Failure> {
    let arch = std::env::consts::ARCH;
    let name = hex_of(&wanted.key);
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
    let lock_name = format!("download-{name}");
    let held = tokio::task::spawn_blocking(move || {
        let holder = format!("stead (pid {})", std::process::id());
        Lock::acquire(&locks, &lock_name, &holder)
    })
    .await
    .map_err(|error| Failure::error(format!("fetching {label}: {error}"), "try again"))?
    .map_err(|error| Failure::io(format!("lock the download of {label}"), &error))?;
    if let Some(found) = here_already(store, wanted)? {
        return Ok(found);
    }
    let mut request = Request {
        urls: Vec::new(),
        expected: wanted.expected.clone(),
        size: None,
    };
    let mut called = wanted.called.clone();
    let (path, sha256, size, url, etag, ours) = match &wanted.place {
        Place::Web { urls, checksums } => {
            if let Some(checksums) = checksums {
                say(
                    "checksums",
                    format!("checking what it has to be by {}", checksums.url),
                );
                let expected = published(fetcher, checksums, &urls[0]).await?;
                request.expected.push(expected);
            }
            request.urls.clone_from(urls);
            say("fetch", format!("fetching {}", urls[0]));
            let meter = Meter::new(label, Arc::clone(reporter));
            let show = |done, total| meter.at(done, total);
            let mut got = fetcher
                .get(&request, &data.downloads(), &name, &show)
                .await?;
            if let Some(listing) = listing_in(&got) {
                let _ = std::fs::remove_file(&got.path);
                let chosen = choose(&listing, &wanted.version, &got.url)?;
                called.version = Some(chosen.version);
                request.urls = vec![chosen.url];
                request.expected.extend(chosen.expected);
                say("fetch", format!("fetching {}", request.urls[0]));
                got = fetcher
                    .get(&request, &data.downloads(), &name, &show)
                    .await?;
            }
            let url = got.url.to_string();
            (got.path, got.sha256, got.size, url, got.etag, true)
        }
        Place::File(path) => {
            say("fetch", format!("reading {}", path.display()));
            let (file, asked) = (path.clone(), request.clone());
            let (sha256, size) = blocking(label, move || Ok(local(&file, &asked)?)).await?;
            (path.clone(), sha256, size, wanted.key.clone(), None, false)
        }
    };
    say("import", format!("taking {} in", bytes(size)));
    let title = called.title(&sha256);
    let (keeper, place, digest) = (store.clone(), path.clone(), sha256.clone());
    let imported = blocking(label, move || {
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
    let Imported { stored, titled } = imported?;
    let origin = Origin {
        reference: wanted.key.clone(),
        arch: arch.to_string(),
        version: stored.manifest.version.clone(),
        url,
        sha256,
        size,
        digest: stored.digest.to_string(),
        titled,
        etag,
        fetched: jiff::Timestamp::now(),
    };
    store.remember(&origin)?;
    drop(held);
    Ok((origin, stored))
}

/// The box, where a file that has to be this one has become one before.
fn here_already(store: &Store, wanted: &Wanted) -> Result<Option<(Origin, StoredBox)>, Failure> {
    let arch = std::env::consts::ARCH;
    let Some(expected) =
        (wanted.expected.iter()).find(|expected| expected.algorithm == Algorithm::Sha256)
    else {
        return Ok(None);
    };
    let Some((origin, mut stored)) = store.by_source(&expected.hex, arch) else {
        return Ok(None);
    };
    // Another reference to the same image may call it something else.
    if origin.titled {
        stored = store.retitle(&stored, &wanted.called.title(&expected.hex))?;
    }
    let origin = Origin {
        reference: wanted.key.clone(),
        version: stored.manifest.version.clone(),
        digest: stored.digest.to_string(),
        fetched: jiff::Timestamp::now(),
        ..origin
    };
    store.remember(&origin)?;
    Ok(Some((origin, stored)))
}

/// What a checksum file says of an image. Where it is signed, the signature comes first.
async fn published(
    fetcher: &Fetcher,
    checksums: &Checksums,
    image: &Url,
) -> Result<Expected, FetchError> {
    let url = &checksums.url;
    let bytes = fetcher.small(url).await?;
    let bad = |message: String| FetchError::Signature {
        url: url.to_string(),
        message,
    };
    let text = match &checksums.signature {
        Signature::None => String::from_utf8_lossy(&bytes).into_owned(),
        Signature::Inside(key) => verify_clearsigned(key, &bytes).map_err(bad)?,
        Signature::Beside(place, key) => {
            let signature = fetcher.small(place).await?;
            verify_detached(key, &bytes, &signature).map_err(bad)?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    let file = (image.path_segments())
        .and_then(|mut segments| segments.next_back())
        .unwrap_or_default();
    find_in(&text, file, url.as_str()).ok_or_else(|| FetchError::NoChecksum {
        url: url.to_string(),
        file: file.to_string(),
    })
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

/// What has to be fetched for a machine's box, if it is anything that can be: the Machinefile's
/// digest is the strongest word, then the lock file. The size in the lock file is not held against
/// the server: what it has now is to be told by its digest.
fn wanted(session: &Session, machine: &Machine) -> Result<Option<Wanted>, Failure> {
    let arch = std::env::consts::ARCH;
    let reference = &machine.box_ref;
    let Ok(source) = Source::parse(reference, &session.project.root) else {
        return Ok(None);
    };
    let entry = session.lock_file.get(reference, arch);
    let mut wanted = match (Wanted::at(reference, &source), entry) {
        (Some(mut wanted), entry) => {
            // A listing says something else by now.
            if let (Source::Web(url), Some(entry)) = (&source, entry)
                && url.as_str() != entry.url
            {
                let Wanted { place, called, .. } =
                    Wanted::pinned(reference, entry, &session.catalogues)?;
                wanted.place = place;
                wanted.called.version = called.version;
            }
            wanted
        }
        (None, Some(entry)) => {
            return Wanted::pinned(reference, entry, &session.catalogues).map(Some);
        }
        (None, None) => {
            return Ok((session.catalogues.find(reference, arch)?)
                .map(|found| Wanted::listed(reference, &found)));
        }
    };
    match expected_by_machinefile(machine) {
        Some(expected) => wanted.expected.push(expected),
        None => wanted.expected.extend(entry.map(pin_of)),
    }
    Ok(Some(wanted))
}

pub fn expected_by_machinefile(machine: &Machine) -> Option<Expected> {
    Some(Expected {
        algorithm: Algorithm::Sha256,
        hex: machine.box_sha256.clone()?,
        by: "the Machinefile".into(),
    })
}

/// Fetches the boxes of machines that have to be made or booted, where they are not here. Says
/// whether there were any.
pub fn fetch_missing(work: &mut Work, machines: &[String]) -> Result<bool, Failure> {
    let mut missing: Vec<Wanted> = Vec::new();
    for subject in &work.subjects {
        let machine = &subject.wanted.machine;
        if subject.leftover || subject.stored_box.is_some() || !machines.contains(&machine.name) {
            continue;
        }
        if let Some(wanted) = wanted(&work.session, machine)?
            && !missing.iter().any(|other| other.key == wanted.key)
        {
            missing.push(wanted);
        }
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
        let named = match Source::parse(reference, &project.root) {
            Ok(Source::Name) => !session.is_listed(reference),
            Ok(_) => false,
            Err(_) => true,
        };
        match entry {
            None => named,
            Some(entry) => {
                !named && (machine.box_sha256.as_ref()).is_none_or(|it| *it == entry.sha256)
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
    lock.retain(|reference| references.contains(&reference) && session.may_be_pinned(reference));
    for machine in &session.project.machines {
        let reference = &machine.box_ref;
        let pinned = match (&machine.box_sha256, lock.get(reference, arch)) {
            (Some(sha256), Some(entry)) => *sha256 == entry.sha256,
            (None, entry) => entry.is_some(),
            (Some(_), None) => false,
        };
        if pinned || !session.may_be_pinned(reference) {
            continue;
        }
        let source = Source::parse(reference, &session.project.root).unwrap_or(Source::Name);
        let key = origin_key(reference, &source);
        // One of a machine that was not asked for may not be here.
        if let Ok(stored) = session.wanted_box(machine)
            && let Some((origin, _)) = session.store.by_reference_and_digest(&key, &stored.digest)
        {
            lock.set(reference, arch, pin_to(reference, &source, origin));
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

/// An entry of the lock file. A path stays as it is written: it means something elsewhere too.
pub fn pin_to(reference: &str, source: &Source, origin: Origin) -> Entry {
    Entry {
        version: origin.version,
        url: match source {
            Source::File(_) => reference.to_string(),
            _ => origin.url,
        },
        sha256: origin.sha256,
        size: origin.size,
    }
}

fn place(root: &Path) -> String {
    root.join(LOCK_FILE).display().to_string()
}
