//! Fetches missing boxes in parallel, and imports them into the store.

use std::{sync::Arc, time::Instant};

use reqwest::Url;

use crate::{
    boxes::{
        Imported, Incoming, Origin, Store, StoredBox,
        catalogue::{Checksums, Signature},
        oci::{Puller, Reference},
    },
    failure::Failure,
    fetch::{
        Algorithm, Expected, FetchError, Fetcher, Request, find_in, kept, local, shown,
        verify_clearsigned, verify_detached,
    },
    host::{
        digest::name_of,
        lock::{Lock, LockName, own_holder},
        open,
        paths::DataDir,
        runtime::{blocking, runtime},
    },
    report::{Event, EventKind, Meter, Outcome, Reporter, bytes, clean::Shown},
};

use super::request::{BoxLocation, BoxRequest, choose, listing_in};

/// Fetches boxes in parallel, and reports progress. A file gets its final name only after its digest
/// matched.
pub fn fetch(
    store: &Store,
    data: &DataDir,
    wanted: Vec<BoxRequest>,
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
                let label = wanted.naming.name.clone();
                let started = Instant::now();
                let job = BoxFetch {
                    store,
                    data,
                    wanted,
                    fetcher,
                    reporter: Arc::clone(&reporter),
                };
                let result = job.run().await;
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

/// A box that is being fetched.
struct BoxFetch {
    store: Store,
    data: DataDir,
    wanted: BoxRequest,
    fetcher: Arc<Fetcher>,
    reporter: Reporter,
}

/// A fetched box, and its origin.
struct FetchedBox {
    stored: StoredBox,
    titled: bool,
    url: String,
    /// Of the file at the origin, or of the manifest in a registry.
    sha256: String,
    size: u64,
    etag: Option<String>,
}

impl BoxFetch {
    fn label(&self) -> &str {
        &self.wanted.naming.name
    }

    fn say(&self, step: &str, doing: String) {
        self.reporter.event(&Event::now(
            self.label(),
            EventKind::StepStarted {
                step: step.into(),
                doing,
            },
        ));
    }

    fn meter(&self) -> Meter {
        Meter::new(self.label(), "fetch", Arc::clone(&self.reporter))
    }

    async fn run(&self) -> Result<(Origin, StoredBox), Failure> {
        let label = self.label();
        let name = match &self.wanted.place {
            // Boxes of a repository share chunks, so they are pulled one after the other.
            BoxLocation::Registry(reference) => name_of(reference.place(), 16),
            _ => name_of(&self.wanted.key, 16),
        };
        // Another command may have fetched it while this one waited for the lock.
        let _held =
            Lock::acquire_async(&self.data.locks(), LockName::Download(&name), &own_holder())
                .await
                .map_err(|error| {
                    Failure::in_data(format!("lock the download of {label}"), &error)
                })?;
        let mut expected = self.wanted.expected.clone();
        if let Some(found) = self.here_already(&expected).await? {
            return Ok(found);
        }
        if let BoxLocation::Web {
            urls,
            checksums: Some(checksums),
        } = &self.wanted.place
        {
            let url = &checksums.url;
            self.say(
                "checksums",
                format!("reading its checksum from {}", shown(url)),
            );
            expected.push(published(&self.fetcher, checksums, &urls[0]).await?);
            if let Some(found) = self.here_already(&expected).await? {
                return Ok(found);
            }
        }
        let got = match &self.wanted.place {
            BoxLocation::Registry(reference) => self.pull(reference, &name).await?,
            _ => self.import(&name, &expected).await?,
        };
        let origin = Origin {
            reference: self.wanted.key.clone(),
            arch: std::env::consts::ARCH.to_string(),
            version: got.stored.manifest.version.clone(),
            url: got.url,
            sha256: got.sha256,
            size: got.size,
            digest: got.stored.digest.to_string(),
            verified: (expected.iter())
                .filter(|expected| expected.algorithm != Algorithm::Sha256)
                .map(Expected::digest)
                .collect(),
            titled: got.titled,
            etag: got.etag,
            fetched: jiff::Timestamp::now(),
        };
        self.store.remember(&origin)?;
        Ok((origin, got.stored))
    }

    /// Returns the box in the store that was made from a file or manifest with the expected digest
    /// before, if it is still intact.
    async fn here_already(
        &self,
        expected: &[Expected],
    ) -> Result<Option<(Origin, StoredBox)>, Failure> {
        let (store, wanted) = (self.store.clone(), self.wanted.clone());
        let expected = expected.to_vec();
        on_thread(self.label(), move || {
            let found = (expected.iter())
                .find_map(|expected| store.by_source(expected, std::env::consts::ARCH))
                // There may be several expected digests, and all must match.
                .filter(|(origin, _)| {
                    (expected.iter()).all(|expected| {
                        origin.sha256 == expected.hex
                            || origin.verified.contains(&expected.digest())
                    })
                })
                .filter(|(_, stored)| store.ensure_intact(stored).is_ok());
            let Some((origin, mut stored)) = found else {
                return Ok(None);
            };
            // Another reference to the same image may have another name for it.
            if origin.titled {
                stored = store.retitle(&stored, &wanted.naming.title(&origin.sha256))?;
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
        })
        .await
    }

    async fn pull(&self, reference: &Reference, name: &str) -> Result<FetchedBox, Failure> {
        self.say("fetch", format!("pulling {reference}"));
        let meter = self.meter();
        let puller = Puller {
            fetcher: Arc::clone(&self.fetcher),
            store: self.store.clone(),
            data: self.data.clone(),
        };
        let pulled = puller
            .pull(
                reference,
                self.wanted.expected.first(),
                &format!("oci-{name}"),
                Arc::new(move |done, total| meter.at(done, total)),
            )
            .await?;
        Ok(FetchedBox {
            stored: pulled.stored,
            titled: false,
            url: reference.to_string(),
            sha256: pulled.sha256,
            size: pulled.size,
            etag: None,
        })
    }

    /// Fetches or reads a file, and imports it.
    async fn import(&self, name: &str, expected: &[Expected]) -> Result<FetchedBox, Failure> {
        let (wanted, label) = (&self.wanted, self.label());
        let mut request = Request {
            urls: Vec::new(),
            expected: expected.to_vec(),
            size: None,
        };
        let mut naming = wanted.naming.clone();
        let (path, sha256, size, url, etag, ours) = match &wanted.place {
            BoxLocation::Web { urls, .. } => {
                request.urls.clone_from(urls);
                self.say("fetch", format!("fetching {}", shown(&urls[0])));
                let meter = self.meter();
                let show = |done, total| meter.at(done, total);
                let folder = self.data.downloads();
                let mut got = self.fetcher.get(&request, &folder, name, &show).await?;
                let mut chosen_there = false;
                if let Some(listing) = listing_in(&got) {
                    chosen_there = true;
                    let _ = std::fs::remove_file(&got.path);
                    let chosen = choose(&listing, &wanted.version, &got.url)?;
                    naming.version = Some(chosen.version);
                    request.urls = vec![chosen.url];
                    request.expected.extend(chosen.expected);
                    self.say("fetch", format!("fetching {}", shown(&request.urls[0])));
                    got = self.fetcher.get(&request, &folder, name, &show).await?;
                }
                let asked = request.urls.first() == Some(&got.url) && !chosen_there;
                let url = match &wanted.written_url {
                    Some(said) if asked => said.clone(),
                    _ => kept(&got.url),
                };
                (got.path, got.sha256, got.size, url, got.etag, true)
            }
            BoxLocation::File(path) => {
                self.say("fetch", format!("reading {}", path.shown()));
                let (file, asked) = (path.clone(), request.clone());
                let (sha256, size) = on_thread(label, move || {
                    Ok(local(open::file_in_place(&file), &file, &asked)?)
                })
                .await?;
                (path.clone(), sha256, size, wanted.key.clone(), None, false)
            }
            BoxLocation::Registry(reference) => {
                return Err(Failure::error(
                    format!("{reference} is not a file"),
                    crate::report::BUG,
                ));
            }
        };
        self.say("import", format!("importing {}", bytes(size)));
        let title = naming.title(&sha256);
        let (keeper, place, digest) = (self.store.clone(), path.clone(), sha256.clone());
        let imported = on_thread(label, move || {
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
            // It was moved into the store or unpacked, or is not a box.
            let _ = std::fs::remove_file(&path);
        }
        let Imported { stored, titled } = imported?;
        Ok(FetchedBox {
            stored,
            titled,
            url,
            sha256,
            size,
            etag,
        })
    }
}

/// Returns an image's digest from a checksum file, whose signature is checked first, if it has one.
async fn published(
    fetcher: &Fetcher,
    checksums: &Checksums,
    image: &Url,
) -> Result<Expected, FetchError> {
    let url = &checksums.url;
    let bytes = fetcher.small(url).await?;
    let bad = |message: String| FetchError::Signature {
        url: shown(url),
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
        url: shown(url),
        file: file.to_string(),
    })
}

/// Runs a part of the import of the image `label` on a thread of its own.
async fn on_thread<T: Send + 'static>(
    label: &str,
    part: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    blocking(part)
        .await
        .map_err(|error| Failure::error(format!("importing {label}: {error}"), "try again"))?
}
