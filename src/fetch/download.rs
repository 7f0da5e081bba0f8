//! Fetches a file over HTTP. An interrupted download is continued, the file is hashed while it arrives, and it gets its name
//! only when it is verified.

use std::{fs, path::Path, time::Duration};

use reqwest::{
    Response, StatusCode, Url,
    header::{
        AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderValue, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED,
        RANGE,
    },
};

use crate::host::runtime::blocking;

use super::{
    client::Fetcher,
    digest::wants_sha512,
    error::FetchError,
    partial::{PartialFile, PartialNote, room},
    request::{Fetched, Request},
    retry::{AttemptError, TRIES, checked, pause},
    urls::{mark, shown},
};

/// If the size is not known, free space is checked again after this many bytes.
const UNANNOUNCED: u64 = 256 << 20;
/// Largest small file (checksums, signatures, catalogues), in bytes.
pub(super) const SMALL: u64 = 4 << 20;

impl Fetcher {
    /// Fetches a small file into memory.
    pub async fn small(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        self.retried(|| async {
            let mut response = self.send(url, |request| request).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(url, &e))? {
                if bytes.len() as u64 + chunk.len() as u64 > SMALL {
                    return Err(AttemptError::Final(FetchError::TooLarge {
                        url: shown(url),
                        limit: SMALL,
                    }));
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        })
        .await
    }

    /// Whether the file at `url` still has this ETag. Fetches no data.
    pub async fn unchanged(&self, url: &Url, etag: &str) -> Result<bool, FetchError> {
        self.retried(|| async {
            let value = HeaderValue::from_str(etag).ok();
            let response = self
                .client
                .head(url.clone())
                .headers(
                    value
                        .map(|value| (IF_NONE_MATCH, value))
                        .into_iter()
                        .collect(),
                )
                .send()
                .await
                .map_err(|error| self.broken(url, &error))?;
            if response.status() == StatusCode::NOT_MODIFIED {
                return Ok(true);
            }
            let response = checked(url, response)?;
            Ok(response
                .headers()
                .get(ETAG)
                .is_some_and(|now| now.as_bytes() == etag.as_bytes()))
        })
        .await
    }

    /// Fetches a file into `folder`, under a name that belongs to it alone. Continues an earlier download. The caller holds
    /// a lock on it.
    ///
    /// `progress` gets the bytes that are done, and the bytes in all, or 0 if these are not known.
    pub async fn get(
        &self,
        request: &Request,
        folder: &Path,
        name: &str,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Fetched, FetchError> {
        self.get_as(None, request, folder, name, progress).await
    }

    /// Like [`Self::get`], with this Authorization. It is not sent to another host to which a redirect leads.
    pub async fn get_as(
        &self,
        authorization: Option<&HeaderValue>,
        request: &Request,
        folder: &Path,
        name: &str,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Fetched, FetchError> {
        fs::create_dir_all(folder).map_err(FetchError::io("create", folder))?;
        // Hashes the part that exists, which takes long for a large one.
        let opened = {
            let (folder, name) = (folder.to_path_buf(), name.to_string());
            let sha512 = wants_sha512(&request.expected);
            blocking(move || PartialFile::open(&folder, &name, sha512))
        };
        let mut part = (opened.await)
            .map_err(|error| FetchError::io("read", &folder.join(name))(error.into()))??;
        let mut last = None;
        for url in &request.urls {
            match self
                .get_from(url, authorization, request, &mut part, progress)
                .await
            {
                Ok(etag) => {
                    let (sha256, size) = part.verify(&request.expected, url)?;
                    return Ok(Fetched {
                        path: part.path,
                        sha256,
                        size,
                        url: url.clone(),
                        etag,
                    });
                }
                // The next mirror may have it.
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(FetchError::Client {
            message: "no URL was given".into(),
        }))
    }

    async fn get_from(
        &self,
        url: &Url,
        authorization: Option<&HeaderValue>,
        request: &Request,
        part: &mut PartialFile,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Option<String>, FetchError> {
        let mut failures = 0;
        loop {
            let before = part.size();
            let error = match self
                .stream(url, authorization, request, part, progress)
                .await
            {
                Ok(etag) => return Ok(etag),
                Err(AttemptError::Final(error)) => return Err(error),
                Err(AttemptError::Retry(error, pause)) => (error, pause),
            };
            failures = if part.size() > before {
                1
            } else {
                failures + 1
            };
            if failures >= TRIES {
                return Err(error.0);
            }
            tokio::time::sleep(error.1.unwrap_or_else(|| pause(failures))).await;
        }
    }

    /// Sends one request, and reads its data to the end.
    async fn stream(
        &self,
        url: &Url,
        authorization: Option<&HeaderValue>,
        wanted: &Request,
        part: &mut PartialFile,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Option<String>, AttemptError> {
        let from = part.resumes(url)?;
        let response = self
            .send(url, |mut request| {
                if let Some(value) = authorization {
                    request = request.header(AUTHORIZATION, value);
                }
                match &from {
                    Some((at, validator)) => request
                        .header(RANGE, format!("bytes={at}-"))
                        .header(IF_RANGE, validator),
                    None => request,
                }
            })
            .await;
        let mut response = match response {
            // The server's file ends where the part ends, or is shorter. So it is fetched from the start.
            Err(AttemptError::Final(FetchError::Status { status: 416, .. })) if from.is_some() => {
                part.restart(PartialNote::default())?;
                return Err(AttemptError::Retry(
                    FetchError::Status {
                        url: shown(url),
                        status: 416,
                        reason: "Range Not Satisfiable".into(),
                    },
                    Some(Duration::ZERO),
                ));
            }
            other => other?,
        };
        let resumed = response.status() == StatusCode::PARTIAL_CONTENT;
        if resumed {
            let at = from.as_ref().map(|(at, _)| *at);
            if range_start(&response) != at {
                // The server ignores the requested range, so the download cannot be continued.
                part.restart(PartialNote::default())?;
                return Err(AttemptError::Retry(
                    FetchError::WrongRange { url: shown(url) },
                    Some(Duration::ZERO),
                ));
            }
        } else {
            // The server does not support ranges, or the file has changed.
            part.restart(PartialNote {
                url: mark(url),
                validator: validator(&response),
            })?;
        }
        let start = part.size();
        let total = response.content_length().map(|length| start + length);
        if let (Some(size), Some(total)) = (wanted.size, total)
            && size != total
        {
            return Err(AttemptError::Final(FetchError::Size {
                url: shown(url),
                found: total,
                wanted: size,
            }));
        }
        let limit = wanted.size.or(total);
        if let Some(limit) = limit {
            room(part.folder(), limit - start.min(limit))?;
        }
        let etag = response
            .headers()
            .get(ETAG)
            .and_then(|value| value.to_str().ok())
            .map(str::to_string);
        progress(start, limit.unwrap_or(0));
        loop {
            let before = part.size();
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                // The error below says how far it got, which is more helpful than this one.
                Err(error) if !error.is_timeout() && limit.is_some() => break,
                Err(error) => return Err(self.broken(url, &error)),
            };
            part.write(&chunk)?;
            if let Some(limit) = limit
                && part.size() > limit
            {
                let found = part.size();
                part.restart(PartialNote::default())?;
                return Err(AttemptError::Final(FetchError::Size {
                    url: shown(url),
                    found,
                    wanted: limit,
                }));
            }
            progress(part.size(), limit.unwrap_or(0));
            // If the size is not known, the data may never end.
            if limit.is_none() && part.size() / UNANNOUNCED != before / UNANNOUNCED {
                room(part.folder(), UNANNOUNCED)?;
            }
        }
        if let Some(limit) = limit
            && part.size() < limit
        {
            return Err(AttemptError::Retry(
                FetchError::CutShort {
                    url: shown(url),
                    found: part.size(),
                    wanted: limit,
                },
                None,
            ));
        }
        Ok(etag)
    }
}

/// Returns the position of the first byte of a 206 (RFC 9110 §14.4): `bytes 100-199/200`.
fn range_start(response: &Response) -> Option<u64> {
    let value = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    value
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

/// Returns the value for If-Range (RFC 9110 §13.1.5): a strong ETag, or else a date.
fn validator(response: &Response) -> Option<String> {
    let text =
        |name| -> Option<String> { Some(response.headers().get(name)?.to_str().ok()?.to_string()) };
    text(ETAG)
        .filter(|etag| !etag.starts_with("W/"))
        .or_else(|| text(LAST_MODIFIED))
}
