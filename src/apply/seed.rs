//! The step that writes a machine's seed and keys.

use std::sync::Arc;

use crate::{
    boxes::SeedKind,
    guest::{MachineFiles, SeedContent, SshTarget, write_seed},
    machine::{Identity, Record},
    plan::{Step, WantedMachine},
    report::clean::Shown,
};

use super::{
    context::Context,
    error::ApplyError,
    steps::{Steps, blocking},
};

impl Steps<'_> {
    /// Writes the machine's files for OpenSSH: they may have been removed, or the port changed.
    pub(super) fn write_ssh_files(&self, record: &Record) -> Result<(), ApplyError> {
        let target = target(self.context, &self.job.wanted, record);
        Ok(target.write(&self.files())?)
    }

    /// Writes the seed. A copy keeps its machine's keys and instance id, so that stead can log in, and cloud-init
    /// does not take it for a new machine.
    pub(super) async fn seed(&self) -> Result<(), ApplyError> {
        let stored = self.stored_box()?;
        let record = self.renew_keys(stored.manifest.seed).await?;
        let wanted = self.job.wanted.clone();
        let files = self.files();
        let original = self.original().await?;
        let context = Arc::clone(self.context);
        let data = self.context.data.clone();
        blocking(move || {
            let domain = &wanted.identity.domain;
            if let Some(original) = &original {
                files.take_keys(&MachineFiles::new(&data, &original.uuid))?;
            }
            files.make_keys(domain)?;
            let instance = original.as_ref().unwrap_or(&wanted.identity);
            let content = seed_content(&wanted, instance, &record, &files)?;
            write_seed(stored.manifest.seed, &content, &files)?;
            target(&context, &wanted, &record).write(&files)?;
            Ok(())
        })
        .await
    }

    /// Checks whether a machine with a disk has lost its keys. Then its guest, which has the old ones, must get
    /// new ones. This is recorded before the keys are made, so that it is repeated after a kill in between.
    async fn renew_keys(&self, seed: SeedKind) -> Result<Record, ApplyError> {
        let (domain, mut record) = self.record().await?;
        let is_new =
            (self.job.plan.steps.iter()).any(|step| matches!(step, Step::Disk | Step::CopyDisk));
        if is_new || self.files().has_keys() {
            return Ok(record);
        }
        let was_up = !record.first_kernels.is_empty() || record.login_ids.is_some();
        if was_up && seed.begins_with_public_key() {
            return Err(ApplyError::KeysLost {
                machine: self.name().to_string(),
                folder: self.files().folder().shown(),
            });
        }
        if was_up {
            self.notice(match seed {
                SeedKind::CloudInit => "its keys were lost: it gets new ones at this boot, which cloud-init treats as its first (so it runs user-data again)",
                SeedKind::Credentials | SeedKind::Vagrant => "its keys were lost: it gets new ones at this boot",
            });
        }
        record.new_keys += 1;
        blocking(move || {
            domain.set_record(&record)?;
            Ok(record)
        })
        .await
    }
}

pub(super) fn seed_content<'a>(
    wanted: &'a WantedMachine,
    instance: &Identity,
    record: &'a Record,
    files: &MachineFiles,
) -> Result<SeedContent<'a>, ApplyError> {
    Ok(SeedContent {
        instance_id: match record.new_keys {
            0 => instance.uuid.to_string(),
            n => format!("{}-{n}", instance.uuid),
        },
        hostname: &record.spec.hostname,
        user: &record.login_user,
        authorized_key: files.read(&files.client_public_key())?,
        host_key: files.read(&files.host_key())?,
        host_public_key: files.read(&files.host_public_key())?,
        user_data: wanted.machine.user_data.as_deref(),
        bridges: &record.spec.bridges,
    })
}

/// How to reach a machine while steps are done to it.
pub(super) fn target(context: &Context, wanted: &WantedMachine, record: &Record) -> SshTarget {
    let uri = &context.connection.uri().uri;
    SshTarget::of(record, &wanted.identity.domain, uri)
}
