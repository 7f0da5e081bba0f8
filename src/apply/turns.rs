//! Has machines boot and shut down in turn: as many at a time as the host can carry.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    machine::Spec,
    machinefile::{Accel, Bytes},
    plan::{MachinePlan, Step, most_needed_first},
    resources::{Applicant, Capacity, Load, Room, Turns},
};

/// What a step has to do with its machine's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// It waits for the turn, if the machine does not have it.
    Begins,
    /// It takes the turn, because the guest boots already.
    Takes,
    /// It leaves it as it is.
    Keeps,
    /// It ends it. Other machines may be needed, which wait for theirs.
    Ends,
}

fn part(step: &Step) -> Part {
    match step {
        Step::Start | Step::Restore | Step::Stop { graceful: true } => Part::Begins,
        Step::Reach => Part::Takes,
        Step::Box
        | Step::Define { .. }
        | Step::Persist
        | Step::Disk
        | Step::Seed
        | Step::Resume
        | Step::Tune { .. }
        | Step::Certificate
        | Step::InstallKernel { .. }
        | Step::Mount { .. }
        | Step::Sync { .. }
        | Step::CopyDisk
        | Step::Clean => Part::Keeps,
        Step::Provision { .. }
        | Step::Hook { .. }
        | Step::Ready
        | Step::Retire
        | Step::Stop { graceful: false }
        | Step::DeleteDisk
        | Step::RemoveFiles
        | Step::Undefine
        | Step::Seal
        | Step::Keep { .. } => Part::Ends,
    }
}

/// Returns what a machine will ask for; `None`: it never asks. `spec`: as it exists or is wanted.
fn load(machine: &MachinePlan, spec: Option<&Spec>) -> Option<Load> {
    let step =
        (machine.steps.iter()).find(|step| matches!(part(step), Part::Begins | Part::Takes))?;
    let defined = machine.steps.iter().find_map(|step| match step {
        Step::Define { spec, .. } => Some(&**spec),
        _ => None,
    });
    let spec = defined.or(spec);
    Some(match (step, spec) {
        (Step::Start | Step::Restore | Step::Reach, Some(spec)) => Load::of_boot(spec),
        (_, spec) => Load::of_shutdown(spec.map_or(Accel::Tcg, |spec| spec.accel)),
    })
}

/// Returns the turns of a plan. `spec_of` gives what is known of a machine that the plan does not define.
pub(super) fn turns<'a>(
    room: Room,
    machines: &[MachinePlan],
    spec_of: impl Fn(&str) -> Option<&'a Spec>,
) -> Turns {
    let is_listed = |name: &String| machines.iter().any(|it| it.machine == *name);
    let applicant = |machine: &MachinePlan| {
        let mut before = (machine.steps.iter()).take_while(|step| part(step) != Part::Begins);
        Some(Applicant {
            load: load(machine, spec_of(&machine.machine))?,
            // A hook may take minutes.
            is_near: !machine.after.iter().any(is_listed)
                && !before.any(|step| part(step) == Part::Ends),
            machine: machine.machine.clone(),
        })
    };
    let ordered = most_needed_first(machines).into_iter();
    Turns::new(room, ordered.filter_map(applicant).collect())
}

/// Returns which machines of a plan boot together, and which after them, if all take equally long. Nothing if none waits
/// but for those that it depends on.
pub fn rounds<'a>(
    room: Room,
    machines: &[MachinePlan],
    spec_of: impl Fn(&str) -> Option<&'a Spec>,
    free: Option<Bytes>,
) -> Vec<Vec<String>> {
    let after = |name: &str| {
        let machine = machines.iter().find(|it| it.machine == name);
        machine.map_or_else(Vec::new, |it| it.after.clone())
    };
    let of = |room| turns(room, machines, &spec_of).rounds(after, free);
    let (rounds, freely) = (of(room), of(Room::ALL));
    match rounds == freely {
        true => Vec::new(),
        false => rounds,
    }
}

/// The turns of all machines of a run.
pub(super) struct Queue {
    turns: Mutex<Turns>,
    changed: Notify,
    /// The memory that the host can give now.
    free: fn() -> Option<Bytes>,
}

/// The memory that this host can give now; `None` if it does not say.
pub fn free_memory() -> Option<Bytes> {
    Some(Capacity::observe().ok()?.available)
}

impl Queue {
    pub(super) fn new(turns: Turns, free: fn() -> Option<Bytes>) -> Arc<Self> {
        Arc::new(Queue {
            turns: Mutex::new(turns),
            changed: Notify::new(),
            free,
        })
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, machine: &str) {
        self.turns().leave(machine);
        self.changed.notify_waiters();
    }

    /// Waits until it is the machine's turn. `tell` gets those whose turn it is before, once.
    async fn wait(&self, machine: &str, tell: impl Fn(Vec<String>)) {
        let mut told = false;
        self.turns().ask(machine);
        // One with a worse place may wait for its answer only.
        self.changed.notify_waiters();
        loop {
            // Before the look, so that no change is missed.
            let changed = self.changed.notified();
            let busy = {
                let mut turns = self.turns();
                if turns.may_begin(machine, (self.free)()) {
                    turns.begin(machine);
                    None
                } else {
                    Some(turns.working())
                }
            };
            match busy {
                None => break,
                // Those that come before are about to begin.
                Some(busy) if busy.is_empty() => {}
                Some(busy) if !told => {
                    tell(busy);
                    told = true;
                }
                Some(_) => {}
            }
            changed.await;
        }
        // There may be room for the next one too.
        self.changed.notify_waiters();
    }
}

/// A machine's place among the others of a run. It has left when this is dropped.
pub(super) struct Place {
    queue: Arc<Queue>,
    machine: String,
    has_turn: bool,
    /// How long it has waited for its turns.
    pub waited: Duration,
}

impl Place {
    pub(super) fn of(queue: &Arc<Queue>, machine: &str) -> Self {
        Place {
            queue: Arc::clone(queue),
            machine: machine.to_string(),
            has_turn: false,
            waited: Duration::ZERO,
        }
    }

    /// Runs before each step: waits for the machine's turn, or ends it. `tell` as [`Queue::wait`].
    pub(super) async fn before(&mut self, step: &Step, tell: impl Fn(Vec<String>)) {
        match part(step) {
            Part::Begins if !self.has_turn => {
                let began = Instant::now();
                self.queue.wait(&self.machine, tell).await;
                self.waited += began.elapsed();
                self.has_turn = true;
            }
            Part::Takes if !self.has_turn => {
                self.queue.turns().begin(&self.machine);
                self.has_turn = true;
            }
            Part::Ends if self.has_turn => self.leave(),
            _ => {}
        }
    }

    /// Ends its turn, or says that it will not ask for one.
    pub(super) fn leave(&mut self) {
        self.queue.leave(&self.machine);
        self.has_turn = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::JoinSet;

    use super::*;

    fn plan(name: &str, after: &[&str], steps: Vec<Step>) -> MachinePlan {
        MachinePlan {
            machine: name.into(),
            after: after.iter().map(ToString::to_string).collect(),
            steps,
            drift: Vec::new(),
            stale: Vec::new(),
        }
    }

    fn boot() -> Vec<Step> {
        vec![Step::Box, Step::Start, Step::Reach, Step::Ready]
    }

    /// Runs the plans' steps, each for a moment, and returns what happens, in order.
    async fn run(room: Room, plans: Vec<MachinePlan>) -> Vec<String> {
        let queue = Queue::new(turns(room, &plans, |_| None), || None);
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut tasks = JoinSet::new();
        for plan in plans.into_iter().rev() {
            let (queue, said) = (Arc::clone(&queue), Arc::clone(&said));
            tasks.spawn(async move {
                let mut place = Place::of(&queue, &plan.machine);
                let say = |what: String| {
                    said.lock()
                        .unwrap()
                        .push(format!("{} {what}", plan.machine));
                };
                for step in &plan.steps {
                    let tell = |busy: Vec<String>| say(format!("after {}", busy.join(" ")));
                    place.before(step, tell).await;
                    say(step.id());
                    tokio::time::sleep(Duration::from_millis(40)).await;
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        let said = said.lock().unwrap();
        said.clone()
    }

    #[tokio::test]
    async fn one_boots_after_the_other_and_those_that_others_need_come_first() {
        let plans = vec![
            plan("web", &[], boot()),
            plan("db", &[], boot()),
            plan("job", &["db"], vec![Step::Ready]),
        ];
        let said = run(Room::Machines(1), plans).await;
        let said: Vec<&str> = (said.iter().map(String::as_str))
            .filter(|it| !it.starts_with("job") && !it.ends_with("box"))
            .collect();
        assert_eq!(
            said,
            [
                "db start",
                "web after db",
                "db reach",
                "db ready",
                "web start",
                "web reach",
                "web ready"
            ]
        );
    }

    #[tokio::test]
    async fn a_guest_that_boots_already_takes_a_turn() {
        let plans = vec![
            plan("web", &[], vec![Step::Start, Step::Reach, Step::Ready]),
            plan("db", &[], vec![Step::Reach, Step::Ready]),
        ];
        let said = run(Room::Machines(1), plans).await;
        let at = |what: &str| said.iter().position(|it| it == what).unwrap();
        assert!(at("web after db") < at("db ready"), "{said:?}");
        assert!(at("db ready") < at("web start"), "{said:?}");
    }

    #[test]
    fn what_may_need_other_machines_ends_the_turn() {
        use crate::plan::ProvisionReason;
        let provision = Step::Provision {
            name: "app".into(),
            reason: ProvisionReason::NeverRan,
        };
        let parts = [Step::Start, Step::Reach, provision, Step::Ready].map(|step| part(&step));
        assert_eq!(parts, [Part::Begins, Part::Takes, Part::Ends, Part::Ends]);
        let halt = [true, false].map(|graceful| part(&Step::Stop { graceful }));
        assert_eq!(halt, [Part::Begins, Part::Ends]);
    }

    #[test]
    fn rounds_are_of_those_that_boot() {
        let of = |jobs, plans: &[MachinePlan]| {
            let rounds = rounds(Room::Machines(jobs), plans, |_| None, None);
            let words: Vec<String> = rounds.iter().map(|it| it.join(" ")).collect();
            words.join(", ")
        };
        let plans = [
            plan("web-1", &["db", "up"], boot()),
            plan("web-2", &["db", "up"], boot()),
            plan("db", &[], boot()),
            plan("up", &[], vec![Step::Ready]),
        ];
        assert_eq!(of(1, &plans), "db, web-1, web-2");
        // That they wait for db is said already.
        assert_eq!(of(2, &plans), "");
    }
}
