//! Shared folders of the host: virtiofsd is started before the machine, and the folders are mounted when it can
//! be reached.

use crate::{
    guest::MachineFiles,
    hypervisor::HypervisorError,
    machine::{FIRST_USER, Record, Share, ShareKind},
    report::clean::Shown,
    sync::{
        self, Mounting, ShareError,
        virtiofs::{self, Owner, SharePaths},
    },
};

use super::{
    context::Context,
    error::ApplyError,
    steps::{Steps, blocking},
};

/// Starts the virtiofsd of each share. They end when QEMU ends. Blocks.
pub(super) fn before_start(
    context: &Context,
    record: &Record,
    files: &MachineFiles,
) -> Result<(), ApplyError> {
    let shares = &record.spec.shares;
    for share in shares.iter().filter(|it| it.kind == ShareKind::NineP) {
        if !share.from.is_dir() {
            return Err(ShareError::Gone {
                from: share.from.clone(),
            }
            .into());
        }
    }
    let mut served = shares.iter().filter(|it| it.kind == ShareKind::Virtiofs);
    let Some(first) = served.next() else {
        return Ok(());
    };
    let virtiofsd = virtiofs::find().map_err(|lack| ShareError::NoVirtiofsd {
        why: format!("cannot share {}: {}", first.from.shown(), lack.why),
        remedy: lack.remedy,
    })?;
    let qemu = match context.connection.uri().is_session() {
        true => None,
        false => context
            .connection
            .qemu_ids()
            .map(|(uid, gid)| Owner { uid, gid }),
    };
    let login = record.login_ids.unwrap_or(FIRST_USER);
    for share in std::iter::once(first).chain(served) {
        let started = virtiofs::start(
            &virtiofsd,
            share,
            &SharePaths::of(share, files),
            login,
            qemu,
        );
        if let Err(error) = started {
            after_failure(record, files);
            return Err(error.into());
        }
    }
    Ok(())
}

/// Ends the virtiofsd processes after a failed start, since nothing will connect to them.
pub(super) fn after_failure(record: &Record, files: &MachineFiles) {
    for share in &record.spec.shares {
        if share.kind == ShareKind::Virtiofs {
            virtiofs::end(&SharePaths::of(share, files));
        }
    }
}

/// Adds a hint to QEMU's error about a socket or folder that it may not open.
pub(super) fn explained(error: HypervisorError, context: &Context, record: &Record) -> ApplyError {
    let shares = &record.spec.shares;
    match error {
        HypervisorError::Libvirt {
            doing,
            message,
            code,
            hint: _,
        } if !context.connection.uri().is_session()
            && !shares.is_empty()
            && message.contains("Permission denied")
            && shares.iter().any(|share| {
                message.contains("/run/stead/") || message.contains(&*share.from.to_string_lossy())
            }) =>
        {
            HypervisorError::Libvirt {
                doing,
                message,
                code,
                hint: Some("under qemu:///system QEMU runs as a user of its own, and permissions, AppArmor or SELinux deny it access; docs/concepts/shared-folders.md explains what to allow".into()),
            }
            .into()
        }
        other => other.into(),
    }
}

impl Steps<'_> {
    pub(super) async fn mount(&self, shares: &[Share]) -> Result<(), ApplyError> {
        self.own_ids(shares).await?;
        let done = sync::mount(shares, &self.remote()).await?;
        let (domain, mut record) = self.record().await?;
        let kernel = blocking({
            let domain = domain.clone();
            move || Ok(domain.running()?.unwrap_or_default().kernel)
        })
        .await?
        .unwrap_or_default();
        for to in &done.hidden {
            self.notice(format!(
                "{to} has files of the guest; they are hidden while the host's folder is mounted there"
            ));
        }
        let auto = |share: &Share| {
            (self.job.wanted.machine.syncs.iter())
                .any(|folder| folder.to == share.to && folder.kind.is_automatic())
        };
        record.mounted = shares.to_vec();
        if done.lacks.contains(&ShareKind::Virtiofs) {
            record.lacks_virtiofs = Some(kernel.clone());
            record.mounted.retain(|it| it.kind != ShareKind::Virtiofs);
        } else if shares.iter().any(|it| it.kind == ShareKind::Virtiofs) {
            record.lacks_virtiofs = None;
        }
        // Recorded before anything else can fail.
        let spec = record.spec.clone();
        blocking(move || Ok(domain.set_record(&record)?)).await?;
        // A share that is not in the Machinefile any more is only kept until the next boot, so it may fail.
        let needed = |share: &Share| {
            (self.job.wanted.machine.syncs.iter())
                .any(|folder| folder.to == share.to && folder.kind.is_shared())
        };
        self.check_mounts(&done, shares, &kernel, needed)?;
        self.copy_instead(&done, &spec.shares, &kernel, auto)
            .await?;
        self.note_owners(shares).await
    }

    /// Makes the files belong to the login user in the guest. The user's ids are not known before the first
    /// login; if they are not the expected ones, this takes one more boot.
    async fn own_ids(&self, shares: &[Share]) -> Result<(), ApplyError> {
        let served: Vec<Share> = (shares.iter())
            .filter(|it| it.kind == ShareKind::Virtiofs)
            .cloned()
            .collect();
        if served.is_empty() {
            return Ok(());
        }
        let output = self.remote().run("id -u; id -g").await?;
        let mut numbers =
            (output.stdout.lines()).filter_map(|line| line.trim().parse::<u32>().ok());
        let Some(ids) = numbers.next().zip(numbers.next()) else {
            return Ok(());
        };
        let (domain, mut record) = self.record().await?;
        if record.login_ids != Some(ids) {
            record.login_ids = Some(ids);
            blocking(move || Ok(domain.set_record(&record)?)).await?;
        }
        let files = self.files();
        let fit = move || {
            served.iter().all(|share| {
                let paths = SharePaths::of(share, &files);
                let Ok(owner) = Owner::of(&share.from) else {
                    return true;
                };
                let wanted = virtiofs::arguments(share, &paths.socket(), owner, ids);
                (virtiofs::serving(&paths).iter()).all(|(_, words)| *words == wanted)
            })
        };
        if blocking(move || Ok(fit())).await? {
            return Ok(());
        }
        self.notice(format!(
            "rebooting once, so that the shared files belong to its login user, who has the ids {}:{}",
            ids.0, ids.1
        ));
        self.stop(true).await?;
        self.start().await?;
        self.reach().await
    }

    /// Fails if a share could not be mounted that the Machinefile asks for.
    fn check_mounts(
        &self,
        done: &Mounting,
        shares: &[Share],
        kernel: &str,
        needed: impl Fn(&Share) -> bool,
    ) -> Result<(), ApplyError> {
        let machine = self.name().to_string();
        let lacking =
            (shares.iter()).find(|share| done.lacks.contains(&share.kind) && needed(share));
        if let Some(share) = lacking {
            return Err(ShareError::NoFilesystem {
                machine,
                to: share.to.clone(),
                kernel: kernel.to_string(),
                kind: share.kind,
            }
            .into());
        }
        if let Some((to, said)) = done.failed.first() {
            return Err(ShareError::NotMounted {
                machine,
                to: to.clone(),
                said: said.clone(),
            }
            .into());
        }
        Ok(())
    }

    /// Copies the folders of type auto, if the guest's kernel turns out to have no virtiofs.
    async fn copy_instead(
        &self,
        done: &Mounting,
        shares: &[Share],
        kernel: &str,
        auto: impl Fn(&Share) -> bool,
    ) -> Result<(), ApplyError> {
        if !done.lacks.contains(&ShareKind::Virtiofs) {
            return Ok(());
        }
        for folder in &self.job.wanted.machine.syncs {
            let lost = (shares.iter())
                .any(|it| it.to == folder.to && it.kind == ShareKind::Virtiofs && auto(it));
            if lost {
                self.notice(format!(
                    "{} is copied by rsync to {}: its kernel {kernel} has no virtiofs",
                    folder.from.shown(),
                    folder.to
                ));
                self.sync(folder).await?;
            }
        }
        Ok(())
    }

    /// Warns if the login user does not own the files: 9p passes the host's ids through.
    async fn note_owners(&self, shares: &[Share]) -> Result<(), ApplyError> {
        let Some(share) = shares.iter().find(|it| it.kind == ShareKind::NineP) else {
            return Ok(());
        };
        let quoted = crate::host::shell::shell_quote(&share.to);
        let output = self
            .remote()
            .run(&format!("echo $(id -u) $(stat -c %u {quoted})"))
            .await?;
        let mut words = output.stdout.split_whitespace();
        if let Some((own, owner)) = words.next().zip(words.next())
            && own != owner
            && own != "0"
        {
            self.notice(format!(
                "{} belongs to uid {owner} in the guest, as on the host, but the login user has uid {own}, and may write only where everybody may; with type=\"virtiofs\" the files belong to the login user",
                share.to
            ));
        }
        Ok(())
    }
}
