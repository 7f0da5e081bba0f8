//! Running provisioners, and putting down that they ran.

use jiff::Timestamp;

use crate::{
    hypervisor::Provisioned,
    provision::{self, Saying},
    report::{Event, EventKind},
};

use super::{
    error::ApplyError,
    steps::{Steps, blocking},
};

impl Steps<'_> {
    pub(super) async fn provision(&self, name: &str) -> Result<(), ApplyError> {
        let wanted = &self.job.wanted;
        let provisioner = wanted
            .machine
            .provisioners
            .iter()
            .find(|provisioner| provisioner.name == name)
            .ok_or_else(|| ApplyError::Internal(format!("no provisioner {name}")))?;
        let digest = wanted
            .provisioners
            .iter()
            .find(|known| known.name == name)
            .map(|known| known.digest.clone())
            .unwrap_or_default();
        let step = format!("provision:{name}");
        provision::run(provisioner, &self.remote(), &mut |saying| match saying {
            Saying::Line { stderr, line } => self.reporter.event(&Event::now(
                self.name(),
                EventKind::Output {
                    source: name.to_string(),
                    stderr,
                    line: line.to_string(),
                },
            )),
            Saying::Copied(progress) => self.progress(&step, progress),
        })
        .await?;
        let (domain, mut record) = self.record().await?;
        record.provisioned.insert(
            name.to_string(),
            Provisioned {
                digest,
                at: Timestamp::now(),
            },
        );
        blocking(move || Ok(domain.set_record(&record)?)).await
    }
}
