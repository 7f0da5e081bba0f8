//! Folders of the host in guests: one step, whatever the kind.

use crate::{
    machinefile::{SyncFolder, SyncKind},
    report::{Event, EventKind},
    sync::{self, RsyncTarget},
};

use super::{error::ApplyError, steps::Steps};

impl Steps<'_> {
    pub(super) async fn sync(&self, folder: &SyncFolder) -> Result<(), ApplyError> {
        match folder.kind {
            SyncKind::TwoWay => self.sync_two_way(folder).await,
            // What is shared is mounted, and is not a step of this kind.
            SyncKind::Rsync | SyncKind::Auto | SyncKind::Virtiofs | SyncKind::NineP => {
                self.copy_folder(folder).await
            }
        }
    }

    async fn copy_folder(&self, folder: &SyncFolder) -> Result<(), ApplyError> {
        let target = RsyncTarget {
            from: &folder.from,
            to: &folder.to,
            contents: true,
            exclude: &folder.exclude,
            delete: folder.delete,
            as_root: None,
            mode: None,
            progress: true,
        };
        let step = format!("sync:{}", folder.to);
        sync::push(&target, &self.remote(), &mut |progress| {
            self.progress(&step, progress);
        })
        .await?;
        Ok(())
    }

    async fn sync_two_way(&self, folder: &SyncFolder) -> Result<(), ApplyError> {
        let outcome = sync::two_way::sync(folder, &self.remote()).await?;
        if let Some(words) = outcome.notice(&folder.to) {
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
