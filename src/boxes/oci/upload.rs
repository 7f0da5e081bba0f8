//! Uploads blobs to a registry.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Url, header::LOCATION};

use crate::fetch::{Ask, AttemptError};

use super::{error::OciError, layout::Blob, registry::Registry};

impl Registry {
    /// Uploads a blob in one piece: a POST opens the upload, a PUT sends the content (the oldest way, so all
    /// registries support it). `progress` gets the bytes sent.
    pub(super) async fn upload(
        &self,
        blob: &Blob,
        bytes: Bytes,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), OciError> {
        let ask = Ask::put()
            .content_type("application/octet-stream")
            .body(bytes);
        self.fetcher
            .retried(|| async {
                // An interrupted upload cannot be resumed, so each attempt opens a new one.
                let url = self.open_upload(blob).await.map_err(AttemptError::Final)?;
                let used = self.authorization(&url).await;
                let request = ask.clone().authorization(used.clone());
                let answer = match self.fetcher.upload_once(&url, &request, progress).await {
                    Ok(answer) => answer,
                    Err(AttemptError::Final(error)) => {
                        return Err(AttemptError::Final(error.into()));
                    }
                    Err(AttemptError::Retry(error, after)) => {
                        return Err(AttemptError::Retry(error.into(), after));
                    }
                };
                if (200..=299).contains(&answer.status) {
                    return Ok(());
                }
                let renewed = self
                    .renewed(used, &answer)
                    .await
                    .map_err(AttemptError::Final)?;
                let error = self.refused(&answer, "an upload").await;
                // A registry that was restarted may have forgotten the upload.
                Err(if renewed.is_some() || answer.status == 404 {
                    AttemptError::Retry(error, Some(Duration::ZERO))
                } else {
                    AttemptError::Final(error)
                })
            })
            .await
    }

    async fn open_upload(&self, blob: &Blob) -> Result<Url, OciError> {
        let url = self.url("blobs", "uploads/")?;
        let answer = self.ask(&url, &Ask::post()).await?;
        if answer.status != 202 {
            return Err(self.refused(&answer, "the start of an upload").await);
        }
        let Some(location) = answer.header(LOCATION) else {
            return Err(self.status(
                answer.status,
                "the start of an upload",
                ", but named no address for it",
            ));
        };
        let mut url = self.location(location)?;
        url.query_pairs_mut()
            .append_pair("digest", &format!("sha256:{}", blob.sha256));
        Ok(url)
    }
}
