//! `run`: runs a command in throwaway machines, one per kernel.

use serde::Serialize;
use std::{
    fs::File,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    apply::{Context, Job, apply, until_lost, until_rebooted},
    failure::Failure,
    guest::{MachineFiles, Remote, SSH_FAILED},
    host::{
        interrupt,
        runtime::{blocking, runtime},
    },
    machinefile::{Cpu, CpuLike, Kernel, KernelBoot, KernelSource, Machine},
    plan::{self, Existing, Plan},
    report::{Event, EventKind, Outcome, Reporter, clean::Shown, say, warn},
    resources::{Capacity, Room},
    session::{
        Session,
        admission::{admit, check_abilities},
        invocation::Invocation,
        locate::start_folder,
        networks,
        operation::Operation,
        prepare::{fetch_missing, need_kernels, need_shares, pin, take_missing},
    },
};

/// The command's result on one kernel.
#[derive(Clone, Debug, Serialize)]
pub struct KernelRun {
    /// The kernel as `--kernel` named it.
    pub kernel: String,
    /// As `uname -r` printed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    pub result: RunResult,
    /// The command's exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Duration of the command alone.
    pub seconds: f64,
    /// Time until the machine was ready.
    pub boot_seconds: f64,
    pub output: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunResult {
    Passed,
    Failed,
    /// The machine did not become ready.
    NoBoot,
    TimedOut,
    /// The connection broke: the guest crashed, or lost its network.
    Lost,
    Interrupted,
}

impl RunResult {
    pub fn word(self) -> &'static str {
        match self {
            RunResult::Passed => "passed",
            RunResult::Failed => "failed",
            RunResult::NoBoot => "did not boot",
            RunResult::TimedOut => "timed out",
            RunResult::Lost => "lost the machine",
            RunResult::Interrupted => "interrupted",
        }
    }
}

pub fn machine(session: &Session, name: Option<&str>) -> Result<Machine, Failure> {
    let name = session.the_machine(name)?;
    session.one(&name, "run a command in a machine like it")
}

/// Returns throwaway machines like `original`, one per kernel, each with its kernel's label. They
/// have no forwarded ports and depend on no machine. Their names have a dot, which no name in a
/// Machinefile has.
pub fn ephemeral(
    invocation: &Invocation,
    original: &Machine,
    kernels: &[String],
) -> Result<Vec<(String, Machine)>, Failure> {
    let folder = start_folder(invocation)?;
    let mut asked: Vec<(String, Option<Kernel>)> = kernels
        .iter()
        .map(|text| (text.clone(), Some(kernel(text, original, &folder))))
        .collect();
    if asked.is_empty() {
        let label = original
            .kernel
            .as_ref()
            .map_or_else(|| "box".to_string(), |kernel| kernel.source.to_string());
        asked.push((label, original.kernel.clone()));
    }
    if original
        .egress
        .as_ref()
        .is_some_and(|it| !it.host_tcp.is_empty())
    {
        say(
            invocation.style,
            &format!(
                "{}: machines of `stead run` reach no port of this computer, also not those of `host-access`",
                original.name
            ),
        );
    }
    let mut machines: Vec<(String, Machine)> = Vec::new();
    for (label, kernel) in asked {
        let name = format!("{}.{}", original.name, file_name(&label));
        if machines.iter().any(|(_, machine)| machine.name == name) {
            return Err(Failure::usage(
                format!("kernel {label} is given twice"),
                "give each kernel once",
            ));
        }
        let mut machine = original.clone();
        // Hooks refer to the original machine by its name.
        machine.hooks.clear();
        machine.name = name;
        machine.kernel = kernel;
        if is_far_from_captures(machine.cpu.as_ref(), machine.kernel.as_ref()) {
            machine.cpu = None;
            say(
                invocation.style,
                &format!(
                    "{}: {label} was not captured from a host, so the machine has this host's CPU instead of the one nearest to the captured host's",
                    machine.name
                ),
            );
        }
        machine.depends_on.clear();
        machine.forwards.clear();
        if let Some(egress) = &mut machine.egress {
            egress.host_tcp.clear();
        }
        machine.networks.clear();
        machine.bridges.clear();
        machines.push((label, machine));
    }
    Ok(machines)
}

/// Whether a machine is to have the CPU nearest to a captured host's, but its kernel comes from no capture. An `exact` CPU
/// is a demand, which then fails.
fn is_far_from_captures(cpu: Option<&Cpu>, kernel: Option<&Kernel>) -> bool {
    cpu.is_some_and(|cpu| cpu.like == CpuLike::Nearest)
        && kernel.is_some_and(|kernel| {
            matches!(
                kernel.source,
                KernelSource::Package { .. } | KernelSource::Path { .. } | KernelSource::Host
            )
        })
}

/// Returns the kernel that `--kernel TEXT` means.
fn kernel(text: &str, original: &Machine, folder: &Path) -> Kernel {
    let source = match text {
        "box" => KernelSource::Box,
        "host" => KernelSource::Host,
        _ if text.contains('/') => KernelSource::Path {
            image: folder.join(text),
            modules: None,
            config: None,
        },
        _ if is_package(text) => {
            let (name, version) = match text.split_once('=') {
                Some((name, version)) => (name, Some(version.to_string())),
                None => (text, None),
            };
            KernelSource::Package {
                name: name.to_string(),
                version,
                distribution: None,
                from: None,
                key: None,
            }
        }
        _ => KernelSource::Capture {
            name: text.to_string(),
        },
    };
    Kernel {
        source,
        cmdline: original
            .kernel
            .as_ref()
            .and_then(|kernel| kernel.cmdline.clone()),
        boot: KernelBoot::Direct,
        at: format!("--kernel {text}"),
    }
}

/// Whether a name looks like that of a distribution's kernel package.
fn is_package(text: &str) -> bool {
    [
        "linux-image",
        "linux-modules",
        "kernel-",
        "linux-generic",
        "linux-virtual",
    ]
    .iter()
    .any(|start| text.starts_with(start))
        || text == "kernel"
}

/// Returns a kernel's label as part of a machine's and of a file's name.
fn file_name(label: &str) -> String {
    let plain: String = label
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_+".contains(c) {
                c
            } else if c == '.' {
                '.'
            } else {
                '-'
            }
        })
        .collect();
    let plain = plain.trim_matches(['-', '.']);
    // The end of a path is more telling than its start.
    let start = plain.len().saturating_sub(60);
    plain[start..].trim_matches(['-', '.']).to_string()
}

/// Returns how many such machines the host has CPUs and memory for, at least 1.
pub fn at_once(machine: &Machine, wanted: usize) -> Result<usize, Failure> {
    let host = Capacity::observe()
        .map_err(|error| Failure::io("read the host's CPUs and memory", &error))?;
    let by_cpus = host.whole_cpus() / machine.cpus.max(1);
    // Some is left for other work on the host.
    let by_memory = host.available.0 / 10 * 8 / machine.memory.0.max(1);
    let fits = u64::from(by_cpus).min(by_memory);
    Ok(usize::try_from(fits)
        .unwrap_or(usize::MAX)
        .clamp(1, wanted.max(1)))
}

/// Gets boxes and kernels, and removes the remains of a killed run.
pub fn prepare(operation: &mut Operation) -> Result<(), Failure> {
    let left: Vec<_> = operation
        .pairs()
        .into_iter()
        .filter(|(_, existing)| existing.observed.is_some() || existing.disk)
        .collect();
    if !left.is_empty() {
        for (wanted, _) in &left {
            operation.reporter.event(&Event::now(
                &wanted.machine.name,
                EventKind::Notice {
                    message: "removing what an interrupted `stead run` left".into(),
                },
            ));
        }
        if !operation.apply(plan::destroy(&left))?.all_done() {
            return Err(Failure::Reported(1));
        }
        operation.survey_again()?;
    }
    let names: Vec<String> = (operation.targets.iter())
        .map(|target| target.wanted.machine.name.clone())
        .collect();
    if fetch_missing(operation, &names)? {
        operation.survey_again()?;
    }
    if take_missing(operation, &names)? {
        operation.survey_again()?;
    }
    pin(operation)?;
    let plan = plan::up(&operation.pairs());
    operation.need_boxes(&plan)?;
    need_kernels(operation, &plan)?;
    need_shares(operation, &plan)?;
    check_abilities(&operation.session, &operation.targets, &plan)?;
    networks::start_runs(operation)
}

/// What to run, and how.
pub struct Order {
    pub script: String,
    pub timeout: Option<Duration>,
    pub folder: PathBuf,
    pub alone: bool,
    /// Reports the removal of machines.
    pub quiet: Reporter,
}

pub fn run_all(
    operation: Arc<Operation>,
    labels: &[String],
    jobs: usize,
    order: Arc<Order>,
) -> Result<Vec<KernelRun>, Failure> {
    let context = Arc::new(operation.context()?);
    let runtime = runtime()?;
    let listening = interrupt::listen();
    let ran = runtime.block_on(async {
        let permits = Arc::new(Semaphore::new(jobs));
        // Each machine has a task of its own, so that none delays another's output or time limit.
        let mut tasks = JoinSet::new();
        for (n, (target, label)) in operation.targets.iter().zip(labels).enumerate() {
            let one = One {
                context: Arc::clone(&context),
                operation: Arc::clone(&operation),
                wanted: target.wanted.clone(),
                stored_box: target.stored_box.clone(),
                reporter: Arc::clone(&operation.reporter),
                order: Arc::clone(&order),
                label: label.clone(),
            };
            let (permits, interrupted) = (Arc::clone(&permits), listening.asked());
            tasks.spawn(async move {
                // The semaphore is never closed.
                let _permit = permits.acquire().await.ok();
                (n, one.run(interrupted).await)
            });
        }
        let mut ran = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            ran.push(ended.unwrap_or_else(|error| (usize::MAX, Err(own_failure(&error)))));
        }
        // In the order of the arguments.
        ran.sort_by_key(|(n, _)| *n);
        ran.into_iter().map(|(_, result)| result).collect()
    });
    operation.reporter.finish();
    if let Err(failure) = networks::keep(&operation) {
        warn(&failure.message());
    }
    ran
}

fn own_failure(error: &tokio::task::JoinError) -> Failure {
    Failure::error(format!("stead itself failed: {error}"), crate::report::BUG)
}

/// The run on one machine, from its creation to its removal.
struct One {
    context: Arc<Context>,
    operation: Arc<Operation>,
    wanted: plan::WantedMachine,
    stored_box: Option<crate::boxes::StoredBox>,
    reporter: Reporter,
    order: Arc<Order>,
    label: String,
}

impl One {
    async fn run(&self, interrupted: watch::Receiver<bool>) -> Result<KernelRun, Failure> {
        let output = self
            .order
            .folder
            .join(format!("{}.log", file_name(&self.label)));
        let mut ran = KernelRun {
            kernel: self.label.clone(),
            release: None,
            result: RunResult::Interrupted,
            exit: None,
            seconds: 0.0,
            boot_seconds: 0.0,
            output,
        };
        if *interrupted.borrow() {
            return Ok(ran);
        }
        let up = plan::up(&[(self.wanted.clone(), Existing::default())]);
        // Admitted one by one: earlier machines have released their reservations.
        let up = {
            let operation = Arc::clone(&self.operation);
            blocking(move || admit(&operation, &up).map(|()| up))
                .await
                .map_err(|error| own_failure(&error))??
        };
        let started = Instant::now();
        let outcome = self.apply(up, &self.reporter, interrupted.clone()).await;
        ran.boot_seconds = started.elapsed().as_secs_f64();
        match outcome {
            Outcome::Done => {
                let (context, identity) = (Arc::clone(&self.context), self.wanted.identity.clone());
                let observed = blocking(move || context.connection.observe(&identity)).await;
                if let Ok(Ok(Some(observed))) = observed {
                    ran.release = observed.running.and_then(|running| running.kernel);
                }
                self.command(&mut ran, interrupted).await?;
            }
            Outcome::Interrupted => {}
            Outcome::Failed | Outcome::Skipped => ran.result = RunResult::NoBoot,
        }
        self.remove().await?;
        Ok(ran)
    }

    async fn apply(
        &self,
        plan: Plan,
        reporter: &Reporter,
        interrupted: watch::Receiver<bool>,
    ) -> Outcome {
        let jobs = plan
            .machines
            .into_iter()
            .map(|plan| Job {
                plan,
                wanted: self.wanted.clone(),
                stored_box: self.stored_box.clone(),
            })
            .collect();
        let summary = apply(
            Arc::clone(&self.context),
            jobs,
            Vec::new(),
            // `--jobs` says how many there are at a time, for as long as they exist.
            Room::ALL,
            reporter,
            interrupted,
        )
        .await;
        let all = summary.outcomes.into_values();
        all.reduce(|a, b| if a == Outcome::Done { b } else { a })
            .unwrap_or(Outcome::Done)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "output arrives in parts, and an incomplete one is worth keeping"
    )]
    async fn command(
        &self,
        ran: &mut KernelRun,
        mut interrupted: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let name = &self.wanted.machine.name;
        let file = File::create(&ran.output)
            .map_err(|error| Failure::io(format!("write {}", ran.output.shown()), &error))?;
        let file = Mutex::new(file);
        let remote = Remote {
            machine: name.clone(),
            files: MachineFiles::new(&self.context.data, &self.wanted.identity.uuid),
        };
        let mut each = |stderr: bool, line: &str| {
            if let Ok(mut file) = file.lock() {
                // On a full disk the file ends early; the command's result still counts.
                let _ = writeln!(file, "{line}");
            }
            if self.order.alone {
                self.reporter.event(&Event::now(
                    name,
                    EventKind::Output {
                        source: "run".into(),
                        stderr,
                        line: line.to_string(),
                        folds: false,
                    },
                ));
            }
        };
        self.reporter.event(&Event::now(
            name,
            EventKind::StepStarted {
                step: "run".into(),
                doing: "running the command".into(),
            },
        ));
        let started = Instant::now();
        let command = remote.stream_typed(&self.order.script, &mut each);
        let limit = async {
            match self.order.timeout {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let asked = async { drop(interrupted.wait_for(|flag| *flag).await) };
        tokio::select! {
            status = command => {
                let status = status?;
                ran.exit = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
                ran.result = match status.code() {
                    Some(0) => RunResult::Passed,
                    Some(SSH_FAILED) if !self.is_up().await => RunResult::Lost,
                    _ => RunResult::Failed,
                };
            }
            error = until_lost(&self.context, &self.wanted.identity, name) => {
                self.reporter.event(&Event::now(
                    name,
                    EventKind::Notice {
                        message: error.to_string(),
                    },
                ));
                ran.result = RunResult::Lost;
            }
            () = until_rebooted(self.context.events.receiver(), self.wanted.identity.uuid) => {
                self.reporter.event(&Event::now(
                    name,
                    EventKind::Notice {
                        message: "the guest rebooted while the command ran".into(),
                    },
                ));
                ran.result = RunResult::Lost;
            }
            () = limit => ran.result = RunResult::TimedOut,
            () = asked => ran.result = RunResult::Interrupted,
        }
        ran.seconds = started.elapsed().as_secs_f64();
        self.reporter.event(&Event::now(
            name,
            EventKind::StepDone {
                step: "run".into(),
                done: "ran the command".into(),
                seconds: ran.seconds,
            },
        ));
        Ok(())
    }

    async fn is_up(&self) -> bool {
        let (context, identity) = (Arc::clone(&self.context), self.wanted.identity.clone());
        let remote = Remote {
            machine: self.wanted.machine.name.clone(),
            files: MachineFiles::new(&self.context.data, &self.wanted.identity.uuid),
        };
        let observed = blocking(move || context.connection.observe(&identity)).await;
        // A command may exit with 255 itself, which is also ssh's exit code for a lost connection.
        matches!(observed, Ok(Ok(Some(observed))) if observed.is_up())
            && matches!(remote.run("true").await, Ok(output) if output.status.success())
    }

    /// Removes the machine, whatever the result.
    async fn remove(&self) -> Result<(), Failure> {
        let (context, identity) = (Arc::clone(&self.context), self.wanted.identity.clone());
        let existing = blocking(move || {
            let observed = context.connection.observe(&identity)?;
            let disk = context.data.images().join(identity.overlay()).exists();
            Ok::<_, crate::hypervisor::HypervisorError>(Existing {
                observed,
                disk,
                needs_certificate: false,
            })
        })
        .await
        .map_err(|error| own_failure(&error))??;
        let plan = plan::destroy(&[(self.wanted.clone(), existing)]);
        // Ctrl-C must not leave machines behind.
        let (_sender, never) = watch::channel(false);
        match self.apply(plan, &self.order.quiet, never).await {
            Outcome::Done => Ok(()),
            _ => Err(Failure::error(
                format!("cannot remove machine {}", self.wanted.machine.name),
                "remove it with `stead destroy` and its name",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_machines_and_files_are_plain() {
        assert_eq!(
            file_name("linux-image-6.1.0-47-amd64"),
            "linux-image-6.1.0-47-amd64"
        );
        assert_eq!(file_name("../linux/arch/x86"), "linux-arch-x86");
        assert_eq!(file_name("a=1:2"), "a-1-2");
        assert!(file_name(&"x/".repeat(99)).len() <= 60);
    }

    #[test]
    fn only_a_capture_has_a_cpu_to_be_near_to() {
        let far = |source: KernelSource, like: CpuLike| {
            let cpu = Cpu {
                like,
                at: "Machinefile:3:5".into(),
            };
            let kernel = Kernel {
                source,
                cmdline: None,
                boot: KernelBoot::Direct,
                at: "--kernel x".into(),
            };
            is_far_from_captures(Some(&cpu), Some(&kernel))
        };
        let package = KernelSource::Package {
            name: "linux-image-amd64".into(),
            version: None,
            distribution: None,
            from: None,
            key: None,
        };
        assert!(far(package.clone(), CpuLike::Nearest));
        assert!(far(KernelSource::Host, CpuLike::Nearest));
        assert!(!far(package, CpuLike::Exact));
        let name = "prod-db".into();
        assert!(!far(KernelSource::Capture { name }, CpuLike::Nearest));
    }

    #[test]
    fn packages_are_told_from_names_in_the_store() {
        for package in ["linux-image-cloud-amd64", "kernel-core", "kernel"] {
            assert!(is_package(package), "{package}");
        }
        for name in ["6.1.0-47-amd64", "prod-db", "a77ab294907f"] {
            assert!(!is_package(name), "{name}");
        }
    }
}
