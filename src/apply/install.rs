//! The step that installs a kernel in the guest and boots it. Each part checks what is left to do first, because
//! an earlier run may have been interrupted anywhere.

use std::{collections::VecDeque, path::Path};

use tokio::time::Instant;

use crate::{
    fetch::Fetcher,
    guest::{
        BootSetup, INSTALL_SCRIPT, InstallTodo, KernelToInstall, Loader, PackageTools, SSH_FAILED,
        install_command, parse_boot_setup, receive_command,
    },
    kernel::{KernelError, KernelStore, Provenance},
    machine::KernelSpec,
    packages::{Family, PinnedFile, PinnedPackage, fetch_files},
    report::{Event, EventKind, bytes},
    sync::Progress,
};

use super::{
    error::ApplyError,
    steps::{Steps, blocking},
};

/// The step's name in the plan.
const STEP: &str = "kernel:install";

/// How many of the last lines an error shows.
const LAST_LINES: usize = 8;

impl Steps<'_> {
    pub(super) async fn install_kernel(&self) -> Result<(), ApplyError> {
        let (_, record) = self.record().await?;
        let Some(kernel) = record.spec.kernel.filter(|kernel| kernel.installed) else {
            return Err(ApplyError::Internal(
                "a step installs a kernel, but the machine has none to install".into(),
            ));
        };
        let (release, pinned) = self.pinned(&kernel).await?;
        let wanted = KernelToInstall {
            release: &release,
            packages: pinned
                .files
                .iter()
                .map(|file| (file.package.clone(), file.version.clone()))
                .collect(),
            cmdline: &kernel.cmdline,
            replaces: kernel.replaces,
        };
        let mut setup = self.read_boot_setup(&release, &pinned).await?;
        let todo = wanted.todo(&setup);
        if todo == InstallTodo::Nothing {
            return Ok(());
        }
        if todo == InstallTodo::Install {
            self.notice(format!(
                "installing kernel {release}; {} is running now",
                setup.running
            ));
            self.install_packages(&release, &pinned, &setup).await?;
            setup = self.read_boot_setup(&release, &pinned).await?;
        }
        if todo >= InstallTodo::Set {
            self.set_bootloader(&wanted, &setup).await?;
        }
        self.notice(format!("rebooting into kernel {release}"));
        self.stop(true).await?;
        self.start().await?;
        self.reach().await?;
        let running = self.read_boot_setup(&release, &pinned).await?.running;
        if running == release {
            Ok(())
        } else {
            Err(ApplyError::OtherKernel {
                machine: self.name().to_string(),
                wanted: release,
                running,
            })
        }
    }

    /// Returns the release of a kernel, and the package that it was imported from.
    async fn pinned(&self, kernel: &KernelSpec) -> Result<(String, PinnedPackage), ApplyError> {
        let store = KernelStore::open(&self.context.data);
        let gone = ApplyError::NoKernel {
            machine: self.name().to_string(),
            kernel: kernel.source.clone(),
        };
        let Some(digest) = kernel.digest.clone() else {
            return Err(gone);
        };
        let found = blocking(move || Ok(store.get(&digest)?)).await?;
        let manifest = found.ok_or(gone)?.manifest;
        match manifest.from {
            Provenance::Package(pinned) => Ok((manifest.release, pinned)),
            _ => Err(ApplyError::Internal(format!(
                "kernel {} is to be installed, but does not come from a package",
                manifest.release
            ))),
        }
    }

    async fn read_boot_setup(
        &self,
        release: &str,
        pinned: &PinnedPackage,
    ) -> Result<BootSetup, ApplyError> {
        let packages = pinned.files.iter().map(|file| file.package.as_str());
        let mut said = String::new();
        self.in_guest(
            "inspect the kernels of",
            release,
            &install_command(["look", release].into_iter().chain(packages)),
            false,
            &mut |line| {
                said.push_str(line);
                said.push('\n');
            },
        )
        .await?;
        Ok(parse_boot_setup(&said))
    }

    async fn install_packages(
        &self,
        release: &str,
        pinned: &PinnedPackage,
        setup: &BootSetup,
    ) -> Result<(), ApplyError> {
        let family = pinned.family().map_err(KernelError::Package)?;
        let tools = match family {
            Family::Deb => PackageTools::Deb,
            Family::Rpm => PackageTools::Rpm,
        };
        let family = family.extension();
        if setup.tools != Some(tools) {
            return Err(self.not_installed(
                "install its packages in",
                release,
                format!("the guest has no tools to install .{family} packages"),
            ));
        }
        if setup.loader.is_none() {
            return Err(self.no_loader(release));
        }
        let files: Vec<(&str, &PinnedFile)> = (pinned.needs.iter().map(|file| ("need", file)))
            .chain(pinned.files.iter().map(|file| ("part", file)))
            .collect();
        let missing: Vec<PinnedFile> = files
            .iter()
            .map(|(_, file)| (*file).clone())
            .filter(|file| !setup.files.contains(&file.sha256))
            .collect();
        if !missing.is_empty() {
            let fetcher = Fetcher::new().map_err(KernelError::Network)?;
            let started = Instant::now();
            let store = KernelStore::open(&self.context.data);
            let into = blocking(move || Ok(store.work_folder()?)).await?;
            let got = fetch_files(
                &fetcher,
                &self.context.data.downloads(),
                pinned,
                &missing,
                into,
                &|done, total| self.progress(STEP, Progress::at(done, total, started.elapsed())),
            )
            .await
            .map_err(KernelError::Package)?;
            for (file, path) in &got.files {
                self.send(release, file, path, family).await?;
            }
        }
        let mut words = vec!["install", release];
        for (role, file) in &files {
            words.extend([*role, &file.package, &file.version, &file.sha256]);
        }
        self.in_guest(
            "install its packages in",
            release,
            &install_command(words),
            true,
            &mut |_| {},
        )
        .await
    }

    /// Copies a package into the guest, which keeps it only if its checksum is right.
    async fn send(
        &self,
        release: &str,
        file: &PinnedFile,
        path: &Path,
        family: &str,
    ) -> Result<(), ApplyError> {
        let started = Instant::now();
        let mut last = None;
        let mut sent = |done| {
            let now = Progress::at(done, file.size, started.elapsed());
            // One line per percent is enough.
            if last != Some(now.percent) {
                last = Some(now.percent);
                self.progress(STEP, now);
            }
        };
        let command = receive_command(&file.sha256, family);
        let output = self.remote().send(&command, path, &mut sent).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(self.not_installed(
            &format!("copy package {} ({}) to", file.package, bytes(file.size)),
            release,
            output.last_words(),
        ))
    }

    async fn set_bootloader(
        &self,
        wanted: &KernelToInstall<'_>,
        setup: &BootSetup,
    ) -> Result<(), ApplyError> {
        let release = wanted.release;
        let Some(loader) = setup.loader else {
            return Err(self.no_loader(release));
        };
        let Some(text) = wanted.state(setup) else {
            return Err(self.not_installed(
                "make it the default of",
                release,
                "/boot/grub/grub.cfg has no entry for it, and none that stead can copy".into(),
            ));
        };
        let options = wanted.options();
        let menu;
        let words: &[&str] = match loader {
            Loader::Grub => &["grub", text.trim_end()],
            Loader::Menu => {
                menu = KernelToInstall::menu(setup, &text);
                &["menu", menu.trim_end()]
            }
            Loader::Grubby => &[
                "grubby",
                text.trim_end(),
                release,
                &options,
                if wanted.replaces { "yes" } else { "no" },
            ],
        };
        self.in_guest(
            "make it the default of",
            release,
            &install_command(words.iter().copied()),
            true,
            &mut |_| {},
        )
        .await
    }

    /// Runs the script. Each line of its output goes to `each`, and with `shown` also to people.
    async fn in_guest(
        &self,
        doing: &str,
        release: &str,
        command: &str,
        shown: bool,
        each: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), ApplyError> {
        let mut last: VecDeque<String> = VecDeque::new();
        let status = self
            .remote()
            .stream(
                command,
                Some(INSTALL_SCRIPT.as_bytes()),
                &mut |stderr, line| {
                    if !line.trim().is_empty() && !line.starts_with("stead-kernel ") {
                        if last.len() == LAST_LINES {
                            last.pop_front();
                        }
                        last.push_back(line.to_string());
                    }
                    tracing::info!(target: "stead::output", "kernel | {line}");
                    if shown {
                        self.reporter.event(&Event::now(
                            self.name(),
                            EventKind::Output {
                                source: "kernel".into(),
                                stderr,
                                line: line.to_string(),
                                folds: true,
                            },
                        ));
                    }
                    each(line);
                },
            )
            .await?;
        let said = match status.code() {
            Some(0) => return Ok(()),
            Some(SSH_FAILED) | None => "the connection was lost".to_string(),
            Some(code) if last.is_empty() => format!("its shell ended with exit code {code}"),
            Some(_) => Vec::from(last).join("\n"),
        };
        Err(self.not_installed(doing, release, said))
    }

    fn no_loader(&self, release: &str) -> ApplyError {
        self.not_installed(
            "make it the default of",
            release,
            "it has neither /boot/grub/grub.cfg nor grubby".into(),
        )
    }

    fn not_installed(&self, doing: &str, release: &str, said: String) -> ApplyError {
        ApplyError::KernelNotInstalled {
            machine: self.name().to_string(),
            kernel: release.to_string(),
            doing: doing.to_string(),
            said,
        }
    }
}
