//! The steps that make a box from a machine. Only the first uses the machine itself, and does not change it: it
//! keeps running, or stays off. The others work on a copy.

use std::{process::Stdio, sync::Arc, time::Duration};

use tokio::{
    process::Command,
    time::{Instant, timeout},
};

use crate::{
    boxes::{self, Boot, Packing, StoredBox},
    guest::{
        CLEAN_SCRIPT, INSECURE_PUBLIC_KEY, KERNEL_GONE, MachineFiles, Remote, SSH_FAILED,
        clean_command,
    },
    host::{file, lock::LockName, paths::CLOSED, process::Start, shell::shell_quote},
    hypervisor::{Copying, Domain, Pool},
    machine::{Identity, KernelSpec, Phase, Power},
    report::{Event, EventKind, clean::Shown},
    sync::Progress,
};

use super::{
    context::{images, lock},
    error::ApplyError,
    pause,
    steps::{Steps, blocking},
};

/// How long a guest may take to write data from memory to its disk.
const FLUSH_LIMIT: Duration = Duration::from_secs(120);

/// The pause between checks of a copy's progress.
const COPY_PAUSE: Duration = Duration::from_millis(200);

impl Steps<'_> {
    /// Returns the machine that this one is a copy of.
    pub(super) async fn original(&self) -> Result<Option<Identity>, ApplyError> {
        let wanted = &self.job.wanted;
        let Some(machine) = wanted.copy_of.clone() else {
            return Ok(None);
        };
        let (connection, owner) = (self.context.connection.clone(), wanted.owner.clone());
        blocking(move || Ok(Some(connection.identify(&owner, &machine)?))).await
    }

    fn original_name(&self) -> String {
        self.job.wanted.copy_of.clone().unwrap_or_default()
    }

    /// Copies the disk. If the machine is off, an overlay over its disk is enough, because nothing writes to the
    /// disk while the machine's lock is held. If it runs, the guest first writes data from memory to the disk,
    /// then libvirt copies the disk as it is at one moment.
    pub(super) async fn copy_disk(&self) -> Result<(), ApplyError> {
        let (domain, mut record) = self.record().await?;
        let original = self
            .original()
            .await?
            .ok_or_else(|| ApplyError::Internal("the machine is not a copy".into()))?;
        let overlay = self.job.wanted.identity.overlay();
        let context = Arc::clone(self.context);
        let of = original.clone();
        let source = blocking(move || {
            context
                .connection
                .lookup(&of)?
                .ok_or(ApplyError::Gone { domain: of.domain })
        })
        .await?;
        let look = source.clone();
        let power = blocking(move || Ok(look.power()?)).await?;
        if power == Power::Stopping {
            return Err(ApplyError::Stopping {
                machine: self.original_name(),
            });
        }
        let (look, machine) = (source.clone(), self.original_name());
        blocking(move || match look.state()? {
            (Power::Off, _) if look.is_saved()? => Err(ApplyError::Saved { machine }),
            (_, Some(pause)) => Err(pause::paused(
                &machine,
                &pause,
                &format!("`stead up {machine}` resumes it; then run the same command again"),
            )),
            _ => Ok(()),
        })
        .await?;
        if power == Power::Running {
            self.flush(&original).await?;
        }
        let context = Arc::clone(self.context);
        let begun = source.clone();
        let size = record.spec.disk;
        blocking(move || {
            let _held = lock(&context, LockName::Pool)?;
            let folder = images(&context)?;
            let pool = Pool::ensure(&context.connection, &folder)?;
            // The record says that the disk is not finished yet, so an existing one is half-made.
            pool.delete(&overlay)?;
            if power == Power::Off {
                let backing = folder.join(original.overlay());
                pool.create_overlay(&overlay, size, &backing, "qcow2")?;
            } else {
                begun.begin_copy(&folder.join(&overlay))?;
            }
            Ok(())
        })
        .await?;
        if power != Power::Off {
            self.follow_copy(&source).await?;
        }
        record.phase = Phase::Created;
        blocking(move || Ok(domain.set_record(&record)?)).await
    }

    /// Makes the guest write data from memory to its disk, and checks that it has the modules of its kernel.
    /// The copy could not be asked for that: without them it has no network.
    async fn flush(&self, original: &Identity) -> Result<(), ApplyError> {
        let stored = self.stored_box()?;
        let script = flush_script(booted_kernel(&stored));
        let remote = Remote {
            machine: self.original_name(),
            files: MachineFiles::new(&self.context.data, &original.uuid),
        };
        let refused = |said| ApplyError::NotFlushed {
            machine: self.original_name(),
            said,
        };
        match timeout(FLUSH_LIMIT, remote.run(&script)).await {
            Err(_) => Err(refused(None)),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) if output.status.code() == Some(KERNEL_GONE) => {
                Err(self.kernel_gone(&stored))
            }
            Ok(Ok(output)) => Err(refused(Some(output.last_words()))),
        }
    }

    fn kernel_gone(&self, stored: &StoredBox) -> ApplyError {
        ApplyError::KernelGone {
            machine: self.original_name(),
            kernel: booted_kernel(stored).unwrap_or_default().to_string(),
            name: stored.manifest.name.clone(),
        }
    }

    async fn follow_copy(&self, source: &Domain) -> Result<(), ApplyError> {
        let started = Instant::now();
        loop {
            let look = source.clone();
            match blocking(move || Ok(look.copying()?)).await? {
                Copying::Done => return Ok(()),
                Copying::Failed { message } => {
                    return Err(ApplyError::NotCopied {
                        machine: self.original_name(),
                        message,
                    });
                }
                Copying::Running { done, total } => {
                    self.progress("copy-disk", Progress::at(done, total, started.elapsed()));
                }
            }
            tokio::time::sleep(COPY_PAUSE).await;
        }
    }

    pub(super) async fn clean(&self) -> Result<(), ApplyError> {
        let stored = self.stored_box()?;
        let files = self.files();
        let command = clean_command(
            &stored.manifest.login_user,
            &files.read(&files.client_public_key())?,
            booted_kernel(&stored),
            (stored.manifest.seed.begins_with_public_key()).then_some(INSECURE_PUBLIC_KEY),
        );
        let mut said = String::new();
        let status = self
            .remote()
            .stream(
                &command,
                Some(CLEAN_SCRIPT.as_bytes()),
                &mut |stderr, line| {
                    if stderr {
                        said = line.to_string();
                        self.reporter.event(&Event::now(
                            self.name(),
                            EventKind::Output {
                                source: "clean".into(),
                                stderr,
                                line: line.to_string(),
                                folds: false,
                            },
                        ));
                    } else {
                        self.notice(line);
                    }
                },
            )
            .await?;
        let machine = self.original_name();
        match status.code() {
            Some(0) => Ok(()),
            Some(KERNEL_GONE) => Err(self.kernel_gone(&stored)),
            Some(SSH_FAILED) | None => Err(ApplyError::NotClean {
                machine,
                said: "the connection was lost".into(),
            }),
            Some(code) => Err(ApplyError::NotClean {
                machine,
                said: if said.is_empty() {
                    format!("its shell ended with exit code {code}")
                } else {
                    said
                },
            }),
        }
    }

    pub(super) async fn seal(&self) -> Result<(), ApplyError> {
        let disk = self
            .context
            .data
            .images()
            .join(self.job.wanted.identity.overlay());
        let folder = self.files().sealed();
        let made = folder.clone();
        blocking(move || {
            file::create_folder(&made, CLOSED).map_err(|source| ApplyError::Io {
                doing: format!("create {}", made.shown()),
                source,
            })
        })
        .await?;
        let command = blocking(move || Ok(boxes::flatten(&disk, &folder)?)).await?;
        let failed = |source| ApplyError::Io {
            doing: "run qemu-img".into(),
            source,
        };
        let output = Command::from(command)
            .stdin(Stdio::null())
            // Ctrl-C only goes to stead, which kills qemu-img when it interrupts the step.
            .process_group(0)
            .kill_on_drop(true)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .start()
            .map_err(failed)?
            .wait_with_output()
            .await
            .map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        Err(ApplyError::NotSealed {
            machine: self.original_name(),
            message: String::from_utf8_lossy(&output.stderr).trim().to_string(),
        })
    }

    pub(super) async fn keep(&self, packing: &Packing) -> Result<(), ApplyError> {
        let context = Arc::clone(self.context);
        let parent = self.stored_box()?;
        let packing = packing.clone();
        let folder = self.files().sealed();
        let (_, record) = self.record().await?;
        let spec = record.spec;
        let by_qemu = (spec.kernel.as_ref()).is_some_and(KernelSpec::replaces_the_boxs);
        let firmware = (!by_qemu).then_some(spec.firmware.kind);
        blocking(move || {
            Ok(boxes::keep_packed(
                &context.store,
                &parent,
                &packing,
                firmware,
                &folder,
            )?)
        })
        .await
    }
}

/// Returns the release of the kernel that a box boots, if it is not the disk's own.
fn booted_kernel(stored: &StoredBox) -> Option<&str> {
    match &stored.manifest.boot {
        Boot::Direct { kernel_release, .. } => Some(kernel_release),
        Boot::Bootloader { .. } => None,
    }
}

fn flush_script(kernel: Option<&str>) -> String {
    match kernel {
        Some(release) => {
            let modules = shell_quote(&format!("/lib/modules/{release}"));
            format!("[ -d {modules} ] || exit {KERNEL_GONE}; sync")
        }
        None => "sync".into(),
    }
}
