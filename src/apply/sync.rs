//! The step that syncs a folder, of any type.

use tokio::time::Instant;

use crate::{
    machine::{Power, mark_of_copy},
    machinefile::{SyncFolder, SyncKind},
    report::{Event, EventKind},
    sync::{self, SyncError, SyncMessage, watch::hold_sync},
};

use super::{
    error::ApplyError,
    steps::{Steps, blocking},
};

impl Steps<'_> {
    pub(super) async fn sync(&self, folder: &SyncFolder) -> Result<(), ApplyError> {
        // The watcher may be syncing it too.
        let uuid = self.job.wanted.identity.uuid;
        let _held = hold_sync(&self.context.data, uuid, "stead")
            .await
            .map_err(|source| ApplyError::Io {
                doing: format!("lock {} for a sync", folder.to),
                source,
            })?;
        match folder.kind {
            SyncKind::TwoWay => self.sync_two_way(folder).await?,
            // Shared folders are mounted by another step.
            SyncKind::Rsync | SyncKind::Auto | SyncKind::Virtiofs | SyncKind::NineP => {
                self.copy_folder(folder).await?;
            }
        }
        self.mark_copied(folder).await
    }

    /// Records that the machine has the folder, so that a later `up` sees which ones it lacks.
    async fn mark_copied(&self, folder: &SyncFolder) -> Result<(), ApplyError> {
        let (domain, mark) = (self.domain().await?, mark_of_copy(folder));
        blocking(move || {
            let Some(mut running) = domain.running()? else {
                return Ok(());
            };
            let is_new = (running.copied.as_mut()).is_some_and(|marks| marks.insert(mark));
            match is_new {
                true => Ok(domain.set_running(&running)?),
                false => Ok(()),
            }
        })
        .await
    }

    async fn copy_folder(&self, folder: &SyncFolder) -> Result<(), ApplyError> {
        let started = Instant::now();
        let step = format!("sync:{}", folder.to);
        let remote = self.remote();
        let ended = sync::sync_folder(folder, &remote, &mut |saying| match saying {
            SyncMessage::Progress(progress) => self.progress(&step, progress),
            SyncMessage::Notice(message) => self.notice(format!("{}: {message}", folder.to)),
        })
        .await;
        let changes = match ended {
            Err(SyncError::Lost { .. }) if self.is_off().await? => {
                return Err(ApplyError::Stopped {
                    machine: self.name().to_string(),
                });
            }
            other => other?,
        };
        self.reporter.event(&Event::now(
            self.name(),
            EventKind::Synced {
                to: folder.to.clone(),
                sent: changes.sent,
                made: changes.made,
                deleted: changes.deleted,
                touched: changes.touched,
                whole: true,
                seconds: started.elapsed().as_secs_f64(),
            },
        ));
        Ok(())
    }

    async fn is_off(&self) -> Result<bool, ApplyError> {
        let (domain, _) = self.record().await?;
        blocking(move || Ok(domain.power()? == Power::Off)).await
    }

    async fn sync_two_way(&self, folder: &SyncFolder) -> Result<(), ApplyError> {
        let mut say = |words: String| self.notice(format!("{}: {words}", folder.to));
        let outcome = sync::two_way::sync(folder, &self.remote(), &[], &mut say).await?;
        let (conflicts, skipped) = (
            outcome.conflict_notice(&folder.to),
            outcome.skip_notice(&folder.to),
        );
        for words in [conflicts, skipped].into_iter().flatten() {
            self.notice(words);
        }
        Ok(())
    }

    pub(super) fn progress(&self, step: &str, progress: sync::Progress) {
        self.reporter.event(&Event::now(
            self.name(),
            EventKind::Progress {
                step: step.to_string(),
                percent: progress.percent,
                rate: progress.rate,
                eta: progress.eta,
            },
        ));
    }
}
