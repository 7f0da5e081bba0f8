//! The steps that make and delete a machine's disk, and remove its domain.

use std::{fs, path::Path, sync::Arc};

use crate::{
    boxes::{DiskFormat, FileRole},
    host::{file, lock::LockName},
    hypervisor::Pool,
    machine::{Phase, Power},
    machinefile::Bytes,
    report::clean::Shown,
};

use super::{
    context::{images, lock},
    error::ApplyError,
    preallocate,
    steps::{Steps, blocking},
};

impl Steps<'_> {
    pub(super) async fn make_disk(&self) -> Result<(), ApplyError> {
        let (domain, mut record) = self.record().await?;
        let context = Arc::clone(self.context);
        let stored = self.stored_box()?;
        let identity = self.job.wanted.identity.clone();
        blocking(move || {
            let _held = lock(&context, LockName::Pool)?;
            let pool = Pool::ensure(&context.connection, &images(&context)?)?;
            for (n, disk) in (1..).zip(stored.manifest.disks()) {
                let overlay = identity.overlay_of(n);
                // The record says that the disk is not finished yet, so an existing one is half-made.
                pool.delete(&overlay)?;
                let backing = context.store.file(&disk.file, FileRole::Disk(disk.format));
                let format = match disk.format {
                    DiskFormat::Qcow2 => "qcow2",
                    DiskFormat::Raw => "raw",
                };
                let size = match n {
                    1 => record.spec.disk,
                    _ => Bytes(disk.virtual_size),
                };
                let path = pool.path_of(&overlay);
                if n == 1 && record.spec.tuning.disk.preallocate {
                    preallocate::create(&path, size, &backing, format, &record.machine)?;
                } else {
                    pool.create_overlay(&overlay, size, &backing, format)?;
                }
                // Synced before the record says that the machine has a disk.
                file::sync(&path).map_err(|source| ApplyError::Io {
                    doing: format!("sync {}", path.shown()),
                    source,
                })?;
            }
            record.phase = Phase::Created;
            domain.set_record(&record)?;
            Ok(())
        })
        .await
    }

    pub(super) async fn delete_disk(&self) -> Result<(), ApplyError> {
        let context = Arc::clone(self.context);
        let identity = self.job.wanted.identity.clone();
        let overlay = identity.overlay();
        let original = self.original().await?;
        blocking(move || {
            let folder = images(&context)?;
            // libvirt may still be making a copy that a killed run started.
            if let Some(original) = original
                && let Some(domain) = context.connection.lookup(&original)?
                && domain.power()? != Power::Off
            {
                domain.abort_copy(&folder.join(&overlay))?;
            }
            if is_written_to(&folder.join(&overlay)) {
                return Err(ApplyError::DiskInUse {
                    disk: folder.join(&overlay).shown(),
                });
            }
            let _held = lock(&context, LockName::Pool)?;
            let mut overlays: Vec<String> = (fs::read_dir(&folder).into_iter())
                .flatten()
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| identity.owns(name))
                .collect();
            if overlays.is_empty() && Pool::lookup(&context.connection, &folder)?.is_none() {
                return Ok(());
            }
            // The overlay that shows that the machine has a disk is deleted last.
            overlays.sort_by_key(|name| *name == overlay);
            let pool = Pool::ensure(&context.connection, &folder)?;
            for overlay in overlays {
                pool.delete(&overlay)?;
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn undefine(&self) -> Result<(), ApplyError> {
        let context = Arc::clone(self.context);
        let identity = self.job.wanted.identity.clone();
        blocking(move || {
            context.connection.undefine(&identity)?;
            let _held = lock(&context, LockName::Pool)?;
            if let Some(pool) = Pool::lookup(&context.connection, &images(&context)?)? {
                pool.forget_if_unused()?;
            }
            Ok(())
        })
        .await
    }
}

/// Whether any QEMU on this host has the image open for writing: it locks the bytes from 100 on of an open image
/// (block/file-posix.c), one per permission. A file that cannot be checked, for example because it does not
/// exist, counts as free.
fn is_written_to(image: &Path) -> bool {
    use nix::{
        fcntl::{FcntlArg, fcntl},
        libc,
    };
    const MAY_WRITE: libc::off_t = 101;
    let Ok(file) = fs::File::open(image) else {
        return false;
    };
    let mut found = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: MAY_WRITE,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found)).is_ok()
        && found.l_type != libc::F_UNLCK as libc::c_short
}
