//! What each step does. A killed run may have done a step's work already, in part or completely.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::{
    boxes::{DiskFormat, FileRole, SeedKind},
    guest::{
        KERNELS_SCRIPT, Kernels, MachineFiles, Remote, SSH_FAILED, SeedContent, SshTarget,
        WaitResult, end_marker_script, first_contact, hopeless, last_line, outcome_script,
        parse_kernels, seed_errors, tail, wait_for_banner, write_seed,
    },
    host::{
        file,
        lock::{Lock, LockName, holder},
        ports,
    },
    hypervisor::{Ask, Domain, Lifecycle, Pool, Runtime},
    machine::{Identity, Phase, Power, Record, Running, Spec},
    machinefile::{Bytes, HookRuns},
    plan::{PhaseKept, Step},
    report::{Event, EventKind, Reporter, clean::Shown, elapsed},
    sync::virtiofs,
};

use super::{
    context::{Context, Job},
    define::{define, port_taken},
    error::ApplyError,
    pause::{self, AGAIN, LOOK, WhenOff},
    preallocate, share, tune,
};

/// How long a guest may take to shut down, each time it is asked.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(90);

/// How many times another program may take QEMU's port before stead gives up.
const START_TRIES: usize = 5;

pub(super) struct Steps<'a> {
    pub context: &'a Arc<Context>,
    pub job: &'a Job,
    pub reporter: &'a Reporter,
}

impl Step {
    /// Returns what the step does if the machine turns off meanwhile; `None` if it does not need an answer from
    /// the guest.
    pub(super) fn needs_guest(&self) -> Option<WhenOff> {
        let needs = match self {
            // It reboots the machine itself.
            Step::InstallKernel { .. } => return Some(WhenOff::Goes),

            Step::Reach
            | Step::Mount { .. }
            | Step::Sync { .. }
            | Step::Provision { .. }
            | Step::Ready
            | Step::Clean => true,
            Step::Hook { hook, left_out, .. } => {
                matches!(hook.runs, HookRuns::Guest(_)) && !left_out
            }
            _ => false,
        };
        needs.then_some(WhenOff::Lost)
    }

    /// Whether Ctrl-C may interrupt the step.
    pub(super) fn may_be_given_up(&self) -> bool {
        matches!(
            self,
            Step::Reach
                | Step::InstallKernel { .. }
                | Step::Mount { .. }
                | Step::Sync { .. }
                | Step::Provision { .. }
                | Step::Hook { .. }
                | Step::Ready
                | Step::Stop { .. }
                | Step::Resume
                | Step::CopyDisk
                | Step::Clean
                | Step::Seal
        )
    }
}

/// Runs a blocking call of libvirt or the file system in a thread for such work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApplyError> + Send + 'static,
) -> Result<T, ApplyError> {
    tokio::task::spawn_blocking(work).await?
}

impl Steps<'_> {
    pub async fn run(&self, step: &Step) -> Result<(), ApplyError> {
        match step {
            Step::Box => self.check_box().await,
            Step::Define { spec, phase } => self.define(spec, *phase).await,
            Step::Disk => self.make_disk().await,
            Step::Seed => self.seed().await,
            Step::Start => self.start().await,
            Step::Restore => self.restore().await,
            Step::Resume => self.resume().await,
            Step::Tune { spec, .. } => self.tune(spec).await,
            Step::Reach => self.reach().await,
            Step::InstallKernel { .. } => self.install_kernel().await,
            Step::Mount { shares } => self.mount(shares).await,
            Step::Sync { folder } => self.sync(folder).await,
            Step::Provision { name, .. } => self.provision(name).await,
            Step::Hook { hook, left_out, .. } => self.hook(step, hook, *left_out).await,
            Step::Ready => self.ready().await,
            Step::Retire => self.retire().await,
            Step::Stop { graceful } => self.stop(*graceful).await,
            Step::DeleteDisk => self.delete_disk().await,
            Step::RemoveFiles => self.remove_files().await,
            Step::Undefine => self.undefine().await,
            Step::CopyDisk => self.copy_disk().await,
            Step::Clean => self.clean().await,
            Step::Seal => self.seal().await,
            Step::Keep { packing } => self.keep(packing).await,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.job.plan.machine
    }

    pub(super) fn files(&self) -> MachineFiles {
        self.job.files(&self.context.data)
    }

    pub(super) fn remote(&self) -> Remote {
        self.job.remote(&self.context.data)
    }

    pub(super) fn notice(&self, message: impl Into<String>) {
        self.reporter.event(&Event::now(
            self.name(),
            EventKind::Notice {
                message: message.into(),
            },
        ));
    }

    pub(super) fn stored_box(&self) -> Result<crate::boxes::StoredBox, ApplyError> {
        self.job
            .stored_box
            .clone()
            .ok_or_else(|| ApplyError::Internal("the job has no box".into()))
    }

    async fn domain(&self) -> Result<Domain, ApplyError> {
        let connection = self.context.connection.clone();
        let identity = self.job.wanted.identity.clone();
        blocking(move || {
            connection.lookup(&identity)?.ok_or(ApplyError::Gone {
                domain: identity.domain,
            })
        })
        .await
    }

    pub(super) async fn record(&self) -> Result<(Domain, Record), ApplyError> {
        let domain = self.domain().await?;
        blocking(move || {
            let record = domain.record()?.ok_or_else(|| ApplyError::Gone {
                domain: domain.name().to_string(),
            })?;
            Ok((domain, record))
        })
        .await
    }

    async fn check_box(&self) -> Result<(), ApplyError> {
        let stored = self.stored_box()?;
        if stored.manifest.seed != SeedKind::CloudInit
            && self.job.wanted.machine.user_data.is_some()
        {
            return Err(ApplyError::NoCloudInit {
                name: stored.manifest.name.clone(),
            });
        }
        let context = Arc::clone(self.context);
        blocking(move || {
            context.store.ensure_intact(&stored)?;
            Ok(context.store.mark_used(&stored)?)
        })
        .await
    }

    async fn define(&self, spec: &Spec, phase: PhaseKept) -> Result<(), ApplyError> {
        let context = Arc::clone(self.context);
        let wanted = self.job.wanted.clone();
        let stored = self.stored_box()?;
        let spec = spec.clone();
        let files = self.files();
        blocking(move || define(&context, &wanted, &stored, spec, phase, &files, None)).await
    }

    async fn make_disk(&self) -> Result<(), ApplyError> {
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

    /// Writes the seed. A copy keeps its machine's keys and instance id, so that stead can log in, and cloud-init
    /// does not take it for a new machine.
    async fn seed(&self) -> Result<(), ApplyError> {
        let stored = self.stored_box()?;
        let record = self.renew_keys(stored.manifest.seed).await?;
        let wanted = self.job.wanted.clone();
        let files = self.files();
        let original = self.original().await?;
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
            target(&wanted.machine.name, domain, &record).write(&files)?;
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
        if was_up && seed == SeedKind::Vagrant {
            return Err(ApplyError::KeysLost {
                machine: self.name().to_string(),
                folder: self.files().folder().shown(),
            });
        }
        if was_up {
            self.notice(match seed {
                SeedKind::CloudInit => "its keys were lost: it gets new ones at this boot, which cloud-init treats as its first (so it runs user-data again)",
                _ => "its keys were lost: it gets new ones at this boot",
            });
        }
        record.new_keys += 1;
        blocking(move || {
            domain.set_record(&record)?;
            Ok(record)
        })
        .await
    }

    pub(super) async fn start(&self) -> Result<(), ApplyError> {
        let context = Arc::clone(self.context);
        let wanted = self.job.wanted.clone();
        let stored = self.stored_box()?;
        let files = self.files();
        let (mut domain, mut record) = self.record().await?;
        let moved = blocking(move || {
            let mut moved = None;
            let mut started = false;
            for _ in 0..START_TRIES {
                if domain.power()? != Power::Off {
                    started = true;
                    break;
                }
                files.set_console_log_aside()?;
                tune::before_start(&record.machine, &record.spec)?;
                share::before_start(&context, &record, &files)?;
                let runtime = Runtime::here(&context.connection);
                files.note_runtime(&serde_json::to_string(&runtime).map_err(|error| {
                    ApplyError::Internal(format!("cannot write JSON: {error}"))
                })?)?;
                match domain.start() {
                    Ok(()) => {
                        tune::after_start(&record.machine, &record.spec, &domain)?;
                        started = true;
                        break;
                    }
                    Err(error) if error.is_port_taken() => {
                        // Another program has taken the port since it was chosen. The user must free a
                        // forwarded port; stead can change the SSH port.
                        for forward in &record.spec.forwards {
                            if !ports::is_free(forward.host) {
                                return Err(port_taken(&context, forward.host, &wanted));
                            }
                        }
                        let busy = record.ssh_port;
                        define(
                            &context,
                            &wanted,
                            &stored,
                            record.spec.clone(),
                            PhaseKept::Created,
                            &files,
                            Some(busy),
                        )?;
                        let again =
                            context
                                .connection
                                .lookup(&wanted.identity)?
                                .ok_or_else(|| ApplyError::Gone {
                                    domain: wanted.identity.domain.clone(),
                                })?;
                        domain = again;
                        record = domain.record()?.unwrap_or(record);
                        target(&wanted.machine.name, &wanted.identity.domain, &record)
                            .write(&files)?;
                        moved = Some((busy, record.ssh_port));
                    }
                    Err(error) => {
                        share::after_failure(&record, &files);
                        return Err(share::explained(error, &context, &record));
                    }
                }
            }
            if !started {
                return Err(ApplyError::PortsLost { tries: START_TRIES });
            }
            domain.set_running(&Running::default())?;
            Ok(moved)
        })
        .await?;
        if let Some((busy, port)) = moved {
            self.notice(format!(
                "another program uses port {busy}; SSH is on port {port} now"
            ));
        }
        Ok(())
    }

    pub(super) async fn reach(&self) -> Result<(), ApplyError> {
        let mut events = self.context.events.receiver();
        let (domain, record) = self.record().await?;
        let stopped = || ApplyError::Stopped {
            machine: self.name().to_string(),
        };
        // Subscribed before this check, so that no stop is missed.
        if blocking(move || Ok(domain.power()?)).await? == Power::Off {
            return Err(stopped());
        }
        let files = self.files();
        target(self.name(), &self.job.wanted.identity.domain, &record).write(&files)?;
        let limit = self.job.wanted.machine.ready.timeout;
        let deadline = Instant::now() + limit;
        let uuid = self.job.wanted.identity.uuid;
        let unreachable = |said| ApplyError::Unreachable {
            machine: self.name().to_string(),
            limit,
            said,
        };
        let stop = async {
            loop {
                match events.recv().await {
                    Ok((who, Lifecycle::Stopped { .. })) if who == uuid => return,
                    // Some events were missed; the next one counts again.
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => {
                        std::future::pending::<()>().await;
                    }
                }
            }
        };
        let mut agent = self.context.events.receiver();
        let awake = async move {
            loop {
                match agent.recv().await {
                    Ok((who, Lifecycle::AgentConnected)) if who == uuid => return,
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => {
                        std::future::pending::<()>().await;
                    }
                }
            }
        };
        let login = async {
            if wait_for_banner(record.ssh_port, limit, awake).await == WaitResult::TimedOut {
                return Err(unreachable(None));
            }
            self.log_in(&record, deadline)
                .await
                .map_err(|error| match error {
                    LogIn::TimedOut(said) => unreachable(said),
                    LogIn::Failed(error) => error,
                })
        };
        let kernels = tokio::select! {
            ended = login => ended?,
            () = stop => return Err(stopped()),
            sign = self.watch_console() => return Err(ApplyError::Hopeless {
                machine: self.name().to_string(),
                sign,
            }),
        };
        self.note_kernels(kernels).await
    }

    /// Records which kernel runs, and checks that it is the expected one.
    async fn note_kernels(&self, kernels: Kernels) -> Result<(), ApplyError> {
        let (domain, mut record) = self.record().await?;
        if let (Some(wanted), Some(running)) = (
            // A kernel that is installed in the guest is checked by the step that installs it.
            (record
                .spec
                .kernel
                .as_ref()
                .filter(|kernel| !kernel.installed))
            .and_then(|kernel| kernel.release.clone()),
            &kernels.running,
        ) && wanted != *running
        {
            return Err(ApplyError::OtherKernel {
                machine: self.name().to_string(),
                wanted,
                running: running.clone(),
            });
        }
        blocking(move || {
            if record.first_kernels.is_empty() && !kernels.installed.is_empty() {
                record.first_kernels = kernels.installed.clone();
                domain.set_record(&record)?;
            }
            Ok(domain.set_running(&Running {
                ready: None,
                kernel: kernels.running,
                installed_kernels: kernels.installed,
                owes_after_up: false,
            })?)
        })
        .await
    }

    /// Logs in and waits until the seed has been applied. sshd may refuse users at first (pam_nologin(8)), so this
    /// retries until the deadline.
    async fn log_in(&self, record: &Record, deadline: Instant) -> Result<Kernels, LogIn> {
        let manifest = self.stored_box().map_err(LogIn::Failed)?.manifest;
        let kind = manifest.seed;
        let script = format!(
            "{}\n{}\n{KERNELS_SCRIPT}",
            end_marker_script(kind),
            outcome_script(kind)
        );
        let remote = self.remote();
        let mut pause = Duration::from_millis(100);
        let mut said = None;
        loop {
            match timeout_at(deadline, remote.run(&script)).await {
                Err(_) => return Err(LogIn::TimedOut(said)),
                Ok(Err(error)) => return Err(LogIn::Failed(error.into())),
                Ok(Ok(output)) if output.status.success() => {
                    for error in seed_errors(&output.stdout) {
                        self.notice(format!(
                            "cloud-init reports an error: {error}; `stead ssh {} -c 'sudo cat /var/log/cloud-init-output.log'` shows more",
                            self.name()
                        ));
                    }
                    return Ok(parse_kernels(&output.stdout));
                }
                Ok(Ok(output)) => said = Some(output.last_words()),
            }
            if kind == SeedKind::Vagrant {
                let contact = self.make_own(record, &manifest.login_user);
                match timeout_at(deadline, contact).await {
                    Err(_) => return Err(LogIn::TimedOut(said)),
                    Ok(Err(error)) => return Err(LogIn::Failed(error)),
                    Ok(Ok(None)) => continue,
                    Ok(Ok(words)) => said = words,
                }
            }
            if Instant::now() + pause > deadline {
                return Err(LogIn::TimedOut(said));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Gives a machine from a Vagrant box its keys. Returns the output if that failed.
    async fn make_own(
        &self,
        record: &Record,
        box_user: &str,
    ) -> Result<Option<String>, ApplyError> {
        let files = self.files();
        let wanted = &self.job.wanted;
        let content = seed_content(wanted, &wanted.identity, record, &files)?;
        let connection = &self.context.connection;
        let qemu = match connection.uri().is_session() {
            true => Some(nix::unistd::geteuid().as_raw()),
            false => connection.qemu_ids().map(|(user, _)| user),
        };
        let port = record.ssh_port;
        let output = first_contact(self.name(), &files, port, qemu, box_user, &content).await?;
        Ok((!output.status.success()).then(|| output.last_words()))
    }

    /// Reports the console's last line whenever it changes. Ends, with that line, if it shows that the guest will
    /// never boot, so that nobody has to wait for the time-out.
    async fn watch_console(&self) -> String {
        let log = self.files().console_log();
        let mut shown = String::new();
        let mut ticks = interval(Duration::from_millis(250));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if let Some(line) = last_line(&log)
                && line != shown
            {
                self.reporter.event(&Event::now(
                    self.name(),
                    EventKind::Console { line: line.clone() },
                ));
                if let Some(sign) = hopeless(&tail(&log, 4)) {
                    return sign;
                }
                shown = line;
            }
        }
    }

    async fn ready(&self) -> Result<(), ApplyError> {
        let ready = &self.job.wanted.machine.ready;
        let limit = ready.timeout;
        let deadline = Instant::now() + limit;
        let remote = self.remote();
        for port in &ready.tcp {
            // Listening sockets of the guest, from proc(5): port in hex, state 0A.
            let script = format!(
                "until grep -qsE ': [0-9A-F]+:{port:04X} [0-9A-F]+:[0-9A-F]+ 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done"
            );
            self.check(&remote, &script, deadline, || {
                format!("nothing listens on port {port} in the guest")
            })
            .await?;
        }
        for command in &ready.exec {
            let word = crate::host::shell::shell_quote(command);
            let script = format!("until sh -c {word}; do sleep 0.2; done");
            self.check(&remote, &script, deadline, || {
                format!("`{command}` does not succeed")
            })
            .await?;
        }
        let domain = self.domain().await?;
        let owes_after_up = self.last_after_up().is_some();
        blocking(move || {
            let running = domain.running()?.unwrap_or_default();
            Ok(domain.set_running(&Running {
                ready: Some(Timestamp::now()),
                owes_after_up,
                ..running
            })?)
        })
        .await
    }

    async fn check(
        &self,
        remote: &Remote,
        script: &str,
        deadline: Instant,
        what: impl Fn() -> String,
    ) -> Result<(), ApplyError> {
        let mut last = None;
        let ended = timeout_at(
            deadline,
            remote.stream(script, None, &mut |_, line| last = Some(line.to_string())),
        )
        .await;
        let limit = self.job.wanted.machine.ready.timeout;
        let machine = self.name().to_string();
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) if status.code() == Some(SSH_FAILED) => {
                Err(ApplyError::Stopped { machine })
            }
            Ok(Err(error)) => Err(error.into()),
            _ => Err(ApplyError::NotReady {
                machine,
                what: match last {
                    Some(line) => format!("{} (its last output: {line})", what()),
                    None => what(),
                },
                limit,
            }),
        }
    }

    async fn retire(&self) -> Result<(), ApplyError> {
        let (domain, mut record) = self.record().await?;
        blocking(move || {
            record.phase = Phase::Destroying;
            Ok(domain.set_record(&record)?)
        })
        .await
    }

    pub(super) async fn stop(&self, graceful: bool) -> Result<(), ApplyError> {
        let events = self.context.events.receiver();
        let remote = self.remote();
        let disconnect = remote.clone();
        blocking(move || {
            disconnect.disconnect();
            Ok(())
        })
        .await?;
        let domain = self.domain().await?;
        if graceful {
            self.resume_to_ask(&domain).await?;
            let asked = domain.clone();
            let agent = blocking(move || Ok(asked.agent_answers(Duration::from_secs(2)))).await?;
            let ways: &[Ask] = if agent {
                &[Ask::Agent, Ask::Acpi]
            } else {
                &[Ask::Acpi]
            };
            for (n, way) in ways.iter().enumerate() {
                let begun = Instant::now();
                let asked = domain.clone();
                let way = *way;
                let sent = blocking(move || {
                    if asked.power()? == Power::Off {
                        return Ok(());
                    }
                    match asked.shut_down(way) {
                        // The agent's answer is often lost, because the guest shuts down.
                        Err(_) if way == Ask::Agent => Ok(()),
                        other => Ok(other?),
                    }
                })
                .await;
                // A guest that could not be asked is not powered off.
                if let Err(error) = sent
                    && self.still_runs(&domain).await?
                {
                    return Err(ApplyError::NotAsked {
                        machine: self.name().to_string(),
                        message: error.to_string(),
                    });
                }
                let off = self.wait_until_off(&domain, events.resubscribe(), SHUTDOWN_LIMIT);
                if off.await? {
                    return Ok(());
                }
                self.notice(format!(
                    "the guest did not shut down within {} after {}; {}",
                    elapsed(begun.elapsed()),
                    match way {
                        Ask::Agent => "a request to its agent",
                        Ask::Acpi => "a press of its power button",
                    },
                    if n + 1 < ways.len() {
                        "pressing its power button"
                    } else {
                        "powering it off"
                    }
                ));
            }
        }
        let off = domain.clone();
        blocking(move || Ok(off.power_off()?)).await
    }

    async fn still_runs(&self, domain: &Domain) -> Result<bool, ApplyError> {
        let look = domain.clone();
        Ok(blocking(move || Ok(look.power()?)).await? != Power::Off)
    }

    /// Resumes a paused guest, because it cannot hear a request to shut down.
    async fn resume_to_ask(&self, domain: &Domain) -> Result<(), ApplyError> {
        let look = domain.clone();
        if blocking(move || Ok(look.power()?)).await? == Power::Paused {
            self.resume().await?;
        }
        Ok(())
    }

    /// Returns `false` if it is not off within `limit`.
    ///
    /// # Errors
    /// If it gets paused meanwhile, so that it cannot shut down.
    async fn wait_until_off(
        &self,
        domain: &Domain,
        mut events: tokio::sync::broadcast::Receiver<(uuid::Uuid, Lifecycle)>,
        limit: Duration,
    ) -> Result<bool, ApplyError> {
        let deadline = Instant::now() + limit;
        let uuid = self.job.wanted.identity.uuid;
        loop {
            let look = domain.clone();
            match blocking(move || Ok(look.state()?)).await? {
                (Power::Off, _) => return Ok(true),
                (Power::Paused, Some(pause)) if !pause.passes() => {
                    return Err(pause::paused(self.name(), &pause, AGAIN));
                }
                _ => {}
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            // An event only wakes this up; the state counts, even if an event was missed.
            let next = deadline.min(Instant::now() + LOOK);
            loop {
                match timeout_at(next, events.recv()).await {
                    Err(_) => break,
                    Ok(Ok((who, Lifecycle::Stopped { .. } | Lifecycle::Suspended)))
                        if who == uuid =>
                    {
                        break;
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) => {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        break;
                    }
                }
            }
        }
    }

    async fn delete_disk(&self) -> Result<(), ApplyError> {
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
            let mut overlays: Vec<String> = (std::fs::read_dir(&folder).into_iter())
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

    async fn remove_files(&self) -> Result<(), ApplyError> {
        let remote = self.remote();
        blocking(move || {
            remote.disconnect();
            // The machine is off, so nothing needs these processes.
            virtiofs::end_all(&remote.files);
            Ok(remote.files.remove()?)
        })
        .await
    }

    async fn undefine(&self) -> Result<(), ApplyError> {
        let context = Arc::clone(self.context);
        let identity = self.job.wanted.identity.clone();
        blocking(move || {
            if let Some(domain) = context.connection.lookup(&identity)? {
                domain.undefine()?;
            }
            let _held = lock(&context, LockName::Pool)?;
            if let Some(pool) = Pool::lookup(&context.connection, &images(&context)?)? {
                pool.forget_if_unused()?;
            }
            Ok(())
        })
        .await
    }
}

enum LogIn {
    TimedOut(Option<String>),
    Failed(ApplyError),
}

fn seed_content<'a>(
    wanted: &'a crate::plan::WantedMachine,
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
    })
}

pub(super) fn target(machine: &str, domain: &str, record: &Record) -> SshTarget {
    SshTarget {
        machine: machine.to_string(),
        domain: domain.to_string(),
        user: record.login_user.clone(),
        port: record.ssh_port,
    }
}

/// Whether any QEMU on this host has the image open for writing: it locks the bytes from 100 on of an open image
/// (block/file-posix.c), one per permission. A file that cannot be checked, for example because it does not
/// exist, counts as free.
fn is_written_to(image: &std::path::Path) -> bool {
    use nix::{
        fcntl::{FcntlArg, fcntl},
        libc,
    };
    const MAY_WRITE: libc::off_t = 101;
    let Ok(file) = std::fs::File::open(image) else {
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

/// Takes a lock that is held only briefly: for choosing ports, or for creating and removing the pool.
pub(super) fn lock(context: &Context, name: LockName<'_>) -> Result<Lock, ApplyError> {
    Lock::acquire(&context.data.locks(), name, &holder("stead")).map_err(|source| ApplyError::Io {
        doing: format!("lock {name} in {}", context.data.locks().shown()),
        source,
    })
}

/// Returns the pool's folder, and makes it if it is missing.
pub(super) fn images(context: &Context) -> Result<std::path::PathBuf, ApplyError> {
    let folder = context.data.images();
    std::fs::create_dir_all(&folder).map_err(|source| ApplyError::Io {
        doing: format!("create {}", folder.shown()),
        source,
    })?;
    Ok(folder)
}
