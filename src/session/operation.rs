//! What commands that change machines share: lock, survey, plan, apply, conclude.

use std::{path::Path, process::ExitCode, sync::Arc};

use tokio::sync::watch;

use crate::{
    apply::{Context, HOOK_OF_VARIABLE, Job, Summary, apply},
    boxes::StoredBox,
    failure::Failure,
    host::{
        interrupt,
        lock::{self, Attempt, Lock, LockName},
        runtime::runtime,
    },
    hypervisor::{LifecycleEvents, Survey},
    log,
    machine::Power,
    machinefile::Machine,
    network::Keeper,
    plan::{self, Existing, Plan, WantedMachine},
    report::{Event, EventKind, Outcome, Reporter, reporter, say},
    resources::Room,
    trust::Agreement,
};

use super::{
    Session, invocation::Invocation, leftover::Leftovers, project_runs::ProjectRuns, target::Target,
};

/// A command that acts on some machines and holds their locks.
pub struct Operation {
    pub session: Session,
    pub targets: Vec<Target>,
    /// The last survey of libvirt, made with the locks held.
    pub survey: Survey,
    pub reporter: Reporter,
    /// What the user agreed that the project does to the host. Nothing, until it is set.
    pub agreement: Agreement,
    /// The network of the project, while machines boot.
    pub network: Option<Keeper>,
    /// How many machines boot or shut down at the same time; `None`: as many as the host can carry.
    pub jobs: Option<u16>,
    /// The command that continues after an interruption.
    goes_on: String,
    /// For a `stead run`: the machine that the throwaway ones are like.
    run_of: Option<String>,
    /// Held until the command has ended.
    _locks: Vec<Lock>,
}

impl Operation {
    /// Waits for the machines' locks, and surveys the machines only then.
    pub fn begin(
        invocation: &Invocation,
        command: &'static str,
        session: Session,
        machines: Vec<Machine>,
        leftovers: Option<Leftovers<'_>>,
    ) -> Result<Self, Failure> {
        let names: Vec<String> = machines.iter().map(|m| m.name.clone()).collect();
        let named = leftovers.map_or(&[][..], |it| &it.selection.names);
        let reporter = reporter(invocation.style, &names);
        let folder = session.data.locks();
        let holder = lock::holder(&format!("`stead {command}`"));
        // Until its lock is held, a machine may get another domain: it is made or adopted meanwhile.
        let (mut locks, survey, targets) = loop {
            let wanted = session.identities(&machines, leftovers)?;
            let mut locks = Vec::new();
            for (identity, machine) in &wanted {
                locks.push(wait_for_lock(
                    &folder,
                    LockName::Machine(identity.uuid),
                    machine,
                    &holder,
                    &reporter,
                )?);
            }
            let survey = session.survey()?;
            let targets = session.targets(&survey, machines.clone(), leftovers)?;
            let held = |target: &Target| {
                let wanted_one = &target.wanted;
                wanted_one.copy_of.is_some()
                    || wanted_one.run_of.is_some()
                    || wanted.iter().any(|(it, _)| *it == wanted_one.identity)
            };
            if targets.iter().all(held) {
                break (locks, survey, targets);
            }
        };
        let mut targets = targets;
        // Skip machines that belong to a `stead run` still in progress.
        let mut busy = Vec::new();
        for target in &targets {
            let wanted = &target.wanted;
            let name = &wanted.machine.name;
            if wanted.run_of.is_none() || names.contains(name) || named.contains(name) {
                continue;
            }
            match Lock::try_acquire(&folder, LockName::Machine(wanted.identity.uuid), &holder)
                .map_err(|error| Failure::in_data(format!("lock machine {name}"), &error))?
            {
                Attempt::Held(held) => locks.push(held),
                Attempt::Busy { holder } => {
                    reporter.event(&Event::now(
                        name,
                        EventKind::Notice {
                            message: format!("skipped: {holder} is working on it"),
                        },
                    ));
                    busy.push(wanted.identity.uuid);
                }
            }
        }
        targets.retain(|target| !busy.contains(&target.wanted.identity.uuid));
        Ok(Operation {
            session,
            targets,
            survey,
            reporter,
            agreement: Agreement::default(),
            network: None,
            jobs: None,
            goes_on: format!("`stead {command}`"),
            run_of: None,
            _locks: locks,
        })
    }

    /// As [`Self::begin`], for throwaway machines of a `stead run` that are like `original`.
    pub fn begin_run(
        invocation: &Invocation,
        session: Session,
        machines: Vec<Machine>,
        original: &str,
    ) -> Result<Self, Failure> {
        let mut operation = Self::begin(invocation, "run", session, machines, None)?;
        operation.run_of = Some(original.to_string());
        operation.mark_run();
        Ok(operation)
    }

    /// Sets the command that continues after an interruption, if it is not the command's bare name.
    pub fn goes_on_with(&mut self, what: &str) {
        self.goes_on = what.to_string();
    }

    fn mark_run(&mut self) {
        for target in &mut self.targets {
            target.wanted.run_of.clone_from(&self.run_of);
        }
    }

    pub fn pairs(&self) -> Vec<(WantedMachine, Existing)> {
        self.targets
            .iter()
            .map(|target| (target.wanted.clone(), target.existing.clone()))
            .collect()
    }

    /// Returns the machines as they will be once they are off, for checks before they are halted.
    pub fn pairs_if_off(&self) -> Vec<(WantedMachine, Existing)> {
        let mut pairs = self.pairs();
        for observed in pairs.iter_mut().filter_map(|(_, it)| it.observed.as_mut()) {
            observed.power = Power::Off;
            observed.running = None;
        }
        pairs
    }

    /// As [`Session::project_runs`].
    pub fn project_runs(&self) -> Result<ProjectRuns, Failure> {
        self.session.project_runs(&self.targets)
    }

    /// Surveys again after a change. Fails if the user has asked to stop meanwhile.
    pub fn survey_again(&mut self) -> Result<(), Failure> {
        if interrupt::asked() {
            return Err(Failure::Interrupted {
                goes_on: self.goes_on.clone(),
            });
        }
        let machines = self
            .targets
            .iter()
            .filter(|target| !target.leftover)
            .map(|target| target.wanted.machine.clone())
            .collect();
        self.survey = self.session.survey()?;
        self.targets = self.session.targets(&self.survey, machines, None)?;
        if self.run_of.is_some() {
            self.mark_run();
        }
        Ok(())
    }

    /// Adds copies of the machines that a killed `box pack` left.
    pub fn add_copies(&mut self) -> Result<(), Failure> {
        let names: Vec<&str> = self
            .targets
            .iter()
            .map(|target| target.wanted.machine.name.as_str())
            .collect();
        let copies: Vec<Target> = self
            .session
            .copies(&self.survey, &names)?
            .into_iter()
            .filter(|copy| !names.contains(&copy.wanted.machine.name.as_str()))
            .collect();
        self.targets.extend(copies);
        Ok(())
    }

    /// Removes such copies. A running one would keep its machine from starting.
    pub fn clear_copies(&mut self) -> Result<(), Failure> {
        let before = self.targets.len();
        self.add_copies()?;
        let copies: Vec<_> = self.pairs().split_off(before);
        if copies.is_empty() {
            return Ok(());
        }
        for (copy, _) in &copies {
            self.reporter.event(&Event::now(
                &copy.machine.name,
                EventKind::Notice {
                    message: "removing what an interrupted `stead box pack` left".into(),
                },
            ));
        }
        let summary = self.apply(plan::destroy(&copies))?;
        self.targets.truncate(before);
        if interrupt::asked() {
            Err(Failure::Interrupted {
                goes_on: self.goes_on.clone(),
            })
        } else if summary.all_done() {
            Ok(())
        } else {
            Err(Failure::Reported(1))
        }
    }

    /// Fails if a machine that the plan makes or boots has no box.
    pub fn need_boxes(&self, plan: &Plan) -> Result<(), Failure> {
        for machine in plan.machines.iter().filter(|machine| machine.boots()) {
            if let Some(target) = self
                .targets
                .iter()
                .find(|target| target.wanted.machine.name == machine.machine)
                && let Some(failure) = &target.no_box
            {
                return Err(match failure.clone() {
                    Failure::Error { message, hint } => Failure::Error {
                        message: match machine.machine.split_once('.') {
                            // No name in a Machinefile has a dot.
                            Some((name, _)) => {
                                format!("a throwaway machine like {name}: {message}")
                            }
                            None => format!("machine {}: {message}", machine.machine),
                        },
                        hint,
                    },
                    other => other,
                });
            }
        }
        Ok(())
    }

    /// Returns what steps work with.
    pub fn context(&self) -> Result<Context, Failure> {
        Ok(Context {
            network: self.network.clone(),
            project: self.session.project.clone(),
            data: self.session.data.clone(),
            connection: self.session.connection.clone(),
            store: self.session.store.clone(),
            events: LifecycleEvents::subscribe(&self.session.connection)?,
            agreement: self.agreement.clone(),
        })
    }

    /// Applies a plan. Blocks until it is done, has failed, or was interrupted.
    pub fn apply(&self, plan: Plan) -> Result<Summary, Failure> {
        let listening = interrupt::listen();
        self.apply_until(plan, listening.asked())
    }

    /// Applies a plan that removes what this command made, even after Ctrl-C, so that nothing is left
    /// behind. As everywhere, a second Ctrl-C ends the process at once.
    pub fn clear_away(&self, plan: Plan) -> Result<Summary, Failure> {
        let _listening = interrupt::listen();
        let (_sender, never) = watch::channel(false);
        self.apply_until(plan, never)
    }

    fn apply_until(
        &self,
        plan: Plan,
        interrupted: watch::Receiver<bool>,
    ) -> Result<Summary, Failure> {
        if plan.machines.iter().all(|machine| machine.is_empty()) {
            let mut summary = Summary::default();
            for machine in plan.machines {
                summary.outcomes.insert(machine.machine, Outcome::Done);
            }
            return Ok(summary);
        }
        log::keep();
        let context = Arc::new(self.context()?);
        let runs = plan.runs;
        let jobs = plan
            .machines
            .into_iter()
            .filter_map(|machine| {
                let target = self
                    .targets
                    .iter()
                    .find(|target| target.wanted.machine.name == machine.machine)?;
                let stored_box: Option<StoredBox> = target.stored_box.clone();
                Some(Job {
                    plan: machine,
                    wanted: target.wanted.clone(),
                    stored_box,
                })
            })
            .collect();
        let runtime = runtime()?;
        let room = Room::of_host(self.jobs);
        let work = apply(context, jobs, runs, room, &self.reporter, interrupted);
        let summary = runtime.block_on(work);
        if interrupt::asked() {
            // Do not wait for a thread that waits for another command's lock.
            runtime.shutdown_background();
        }
        self.reporter.finish();
        Ok(summary)
    }

    /// Returns the exit code. Reports what is unfinished and how to continue.
    pub fn conclude(&self, invocation: &Invocation, summary: &Summary) -> ExitCode {
        let interrupted = summary.of(Outcome::Interrupted);
        if !interrupted.is_empty() {
            say(
                invocation.style,
                &format!(
                    "interrupted: {} not finished; nothing is lost, and {} continues from here",
                    interrupted.join(", "),
                    self.goes_on
                ),
            );
            return ExitCode::from(130);
        }
        if summary.all_done() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        }
    }
}

/// Runs `work` until it ends or Ctrl-C stops it, together with everything that it started.
pub fn until_interrupted<T, E: Into<Failure>>(
    goes_on: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    let runtime = runtime()?;
    let listening = interrupt::listen();
    let mut asked = listening.asked();
    runtime.block_on(async {
        tokio::select! {
            ended = work => ended.map_err(Into::into),
            _ = asked.wait_for(|asked| *asked) => Err(Failure::Interrupted {
                goes_on: goes_on.to_string(),
            }),
        }
    })
}

fn wait_for_lock(
    folder: &Path,
    lock: LockName<'_>,
    machine: &str,
    holder: &str,
    reporter: &Reporter,
) -> Result<Lock, Failure> {
    loop {
        match Lock::try_acquire(folder, lock, holder)
            .map_err(|error| Failure::in_data(format!("lock machine {machine}"), &error))?
        {
            Attempt::Held(held) => return Ok(held),
            Attempt::Busy { holder } => {
                not_in_its_hook(&holder, machine)?;
                reporter.event(&Event::now(
                    machine,
                    EventKind::Waiting {
                        for_whom: lock::with_state(&holder),
                    },
                ));
                lock::wait(folder, lock)
                    .map_err(|error| Failure::io(format!("wait for machine {machine}"), &error))?;
            }
        }
    }
}

/// Fails in a hook of the command that holds the lock, which would wait for itself for ever.
fn not_in_its_hook(holder: &str, machine: &str) -> Result<(), Failure> {
    match std::env::var(HOOK_OF_VARIABLE) {
        Ok(pid) if holder.ends_with(&format!("(pid {pid})")) => Err(Failure::error(
            format!("machine {machine} is locked by {holder}, which runs this as a hook"),
            "in a hook, use commands that change no machine, such as `stead ssh`, `exec`, `copy` and `status`; `up` itself does what `sync` and `provision` do",
        )),
        _ => Ok(()),
    }
}
