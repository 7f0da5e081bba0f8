//! Which machines boot, or shut down, at the same time. Pure: it is told what machines do, and says who may begin.
//!
//! Guests that boot all at once take several times as long each, so all become usable late, and their time limits may not be
//! enough. As many as there are CPUs are up as soon in all, and the first ones at once.

use crate::{
    machine::Spec,
    machinefile::{Accel, Bytes},
};

use super::{
    capacity::Capacity,
    ledger::{QEMU_ITSELF, translated},
};

/// How many machines may boot or shut down at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// This number, whatever the host has.
    Machines(usize),
    /// As many as these CPUs, and the memory that is free by then, can carry.
    Cpus(u32),
}

impl Room {
    pub const ALL: Room = Room::Machines(usize::MAX);

    /// As the user says, or as this host is.
    pub fn of_host(jobs: Option<u16>) -> Self {
        match (jobs, Capacity::observe()) {
            (Some(jobs), _) => Room::Machines(jobs.into()),
            (None, Ok(host)) => Room::Cpus(host.whole_cpus().max(1)),
            // Who starts reserved machines learns why it is not known.
            (None, Err(_)) => Room::ALL,
        }
    }
}

/// What a machine takes of the host while it boots or shuts down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// In halves of a CPU.
    half_cpus: u32,
    memory: u64,
}

impl Load {
    /// A boot without KVM keeps one CPU busy, whatever the number of its vCPUs, because most of it happens one after the
    /// other. With KVM it mostly waits for its disk and devices.
    pub fn of_boot(spec: &Spec) -> Self {
        let translated = translated(spec.memory, spec.tuning.memory.reserve, spec.accel);
        Load {
            half_cpus: half_cpus(spec.accel),
            memory: spec.memory.0 + QEMU_ITSELF.0 + translated.0,
        }
    }

    /// A machine that shuts down has its memory already.
    pub fn of_shutdown(accel: Accel) -> Self {
        Load {
            half_cpus: half_cpus(accel),
            memory: 0,
        }
    }

    fn and(self, other: Load) -> Load {
        Load {
            half_cpus: self.half_cpus.saturating_add(other.half_cpus),
            memory: self.memory.saturating_add(other.memory),
        }
    }
}

fn half_cpus(accel: Accel) -> u32 {
    match accel {
        Accel::Tcg => 2,
        Accel::Kvm => 1,
    }
}

/// A machine that will ask for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applicant {
    pub machine: String,
    pub load: Load,
    /// Whether it asks within moments. Its place is kept until then.
    pub is_near: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It asks later, if at all.
    Away,
    Near,
    Waiting,
    Working,
}

/// Whose turn it is.
#[derive(Clone, Debug)]
pub struct Turns {
    room: Room,
    /// Those that others need come first.
    machines: Vec<(Applicant, State)>,
}

impl Turns {
    /// `applicants`: who goes first comes first.
    pub fn new(room: Room, applicants: Vec<Applicant>) -> Self {
        let with_state = |applicant: Applicant| match applicant.is_near {
            true => (applicant, State::Near),
            false => (applicant, State::Away),
        };
        Turns {
            room,
            machines: applicants.into_iter().map(with_state).collect(),
        }
    }

    fn set(&mut self, machine: &str, state: State) {
        let found = self.machines.iter_mut().find(|it| it.0.machine == machine);
        if let Some((_, is)) = found {
            *is = state;
        }
    }

    /// The machine waits for its turn.
    pub fn ask(&mut self, machine: &str) {
        self.set(machine, State::Waiting);
    }

    /// The machine begins.
    pub fn begin(&mut self, machine: &str) {
        self.set(machine, State::Working);
    }

    /// The machine has ended its turn, or will not ask for one.
    pub fn leave(&mut self, machine: &str) {
        self.set(machine, State::Away);
    }

    /// Whose turn it is now.
    pub fn working(&self) -> Vec<String> {
        let working = self.machines.iter().filter(|it| it.1 == State::Working);
        working.map(|it| it.0.machine.clone()).collect()
    }

    /// Whether a machine that asks may begin. Nobody overtakes one that comes before, even if it needs less. `free`: the
    /// memory that the host can give now.
    pub fn may_begin(&self, machine: &str, free: Option<Bytes>) -> bool {
        let working = self.machines.iter().filter(|it| it.1 == State::Working);
        let (mut count, mut load) = (0, Load::default());
        for (applicant, _) in working {
            (count, load) = (count + 1, load.and(applicant.load));
        }
        for (applicant, state) in &self.machines {
            if !matches!(state, State::Near | State::Waiting) {
                continue;
            }
            (count, load) = (count + 1, load.and(applicant.load));
            if !self.has_room(count, load, free) {
                return false;
            }
            if applicant.machine == machine {
                return *state == State::Waiting;
            }
        }
        // It is unknown, so nothing says what it needs.
        true
    }

    /// One always has room, because it would wait for nothing.
    fn has_room(&self, count: usize, load: Load, free: Option<Bytes>) -> bool {
        match self.room {
            Room::Machines(most) => count <= most,
            Room::Cpus(cpus) => {
                let fits = free.is_none_or(|free| load.memory <= free.0);
                count <= 1 || (load.half_cpus <= cpus.saturating_mul(2) && fits)
            }
        }
    }

    /// Returns who goes together, and who after them, if all take equally long. `after`: whom a machine waits for anyway.
    pub fn rounds(
        mut self,
        after: impl Fn(&str) -> Vec<String>,
        free: Option<Bytes>,
    ) -> Vec<Vec<String>> {
        let mut left: Vec<String> = (self.machines.iter())
            .map(|it| it.0.machine.clone())
            .collect();
        for machine in &left {
            self.leave(machine);
        }
        let mut rounds = Vec::new();
        while !left.is_empty() {
            let can = |machine: &&String| !after(machine).iter().any(|it| left.contains(it));
            let ready: Vec<String> = left.iter().filter(can).cloned().collect();
            for machine in &ready {
                self.ask(machine);
            }
            for machine in &ready {
                if self.may_begin(machine, free) {
                    self.begin(machine);
                }
            }
            let round = self.working();
            // They wait for each other, which no Machinefile allows.
            if round.is_empty() {
                break;
            }
            for machine in &ready {
                self.leave(machine);
            }
            left.retain(|machine| !round.contains(machine));
            rounds.push(round);
        }
        rounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = Bytes::MIB;

    fn load(accel: Accel, mib: u64) -> Load {
        Load {
            half_cpus: half_cpus(accel),
            memory: mib * MIB,
        }
    }

    fn turns(room: Room, machines: &[&str], load: Load) -> Turns {
        let applicant = |machine: &&str| Applicant {
            machine: (*machine).to_string(),
            load,
            is_near: false,
        };
        Turns::new(room, machines.iter().map(applicant).collect())
    }

    fn ask(turns: &mut Turns, machines: &[&str]) {
        machines.iter().for_each(|machine| turns.ask(machine));
    }

    /// Has all that wait begin, as far as they may. Returns who works then.
    fn let_in(turns: &mut Turns, free: Option<Bytes>) -> Vec<String> {
        let waiting: Vec<String> = (turns.machines.iter())
            .filter(|it| it.1 == State::Waiting)
            .map(|it| it.0.machine.clone())
            .collect();
        for machine in &waiting {
            if turns.may_begin(machine, free) {
                turns.begin(machine);
            }
        }
        turns.working()
    }

    #[test]
    fn as_many_boot_as_there_are_cpus_and_twice_as_many_with_kvm() {
        let of = |room, accel| {
            let mut turns = turns(room, &["a", "b", "c", "d", "e"], load(accel, 1));
            ask(&mut turns, &["a", "b", "c", "d", "e"]);
            let_in(&mut turns, None).len()
        };
        assert_eq!(of(Room::Cpus(2), Accel::Tcg), 2);
        assert_eq!(of(Room::Cpus(2), Accel::Kvm), 4);
        assert_eq!(of(Room::Cpus(1), Accel::Tcg), 1);
        assert_eq!(of(Room::Machines(3), Accel::Tcg), 3);
        assert_eq!(of(Room::ALL, Accel::Tcg), 5);
    }

    #[test]
    fn the_next_one_begins_when_one_has_ended() {
        let mut turns = turns(Room::Cpus(2), &["a", "b", "c"], load(Accel::Tcg, 1));
        ask(&mut turns, &["c", "b", "a"]);
        assert_eq!(let_in(&mut turns, None), ["a", "b"]);
        turns.leave("b");
        assert_eq!(let_in(&mut turns, None), ["a", "c"]);
    }

    #[test]
    fn a_place_is_kept_for_who_comes_within_moments() {
        let mut turns = turns(Room::Cpus(1), &["db", "web"], load(Accel::Tcg, 1));
        turns.set("db", State::Near);
        turns.ask("web");
        assert_eq!(let_in(&mut turns, None), [""; 0]);
        turns.ask("db");
        assert_eq!(let_in(&mut turns, None), ["db"]);
        // One that fails before it asks keeps nobody waiting, nor does one that has yet to run a hook.
        turns.leave("db");
        assert_eq!(let_in(&mut turns, None), ["web"]);
    }

    #[test]
    fn with_little_memory_they_boot_one_by_one() {
        let mut turns = turns(Room::Cpus(4), &["a", "b", "c"], load(Accel::Tcg, 600));
        ask(&mut turns, &["a", "b", "c"]);
        let free = |mib| Some(Bytes(mib * MIB));
        assert_eq!(let_in(&mut turns.clone(), free(1300)), ["a", "b"]);
        // Whether one more fits is admission's to say.
        assert_eq!(let_in(&mut turns, free(100)), ["a"]);
        // What is said on the command line counts, whatever the memory.
        turns.room = Room::Machines(2);
        assert_eq!(let_in(&mut turns, free(100)), ["a", "b"]);
    }

    #[test]
    fn nobody_overtakes_a_larger_machine() {
        let mut turns = turns(Room::Cpus(4), &["a", "big", "c"], load(Accel::Tcg, 100));
        turns.machines[1].0.load = load(Accel::Tcg, 5000);
        ask(&mut turns, &["a", "big", "c"]);
        assert_eq!(let_in(&mut turns, Some(Bytes(1000 * MIB))), ["a"]);
    }

    #[test]
    fn a_machine_that_boots_already_counts() {
        let mut turns = turns(Room::Cpus(2), &["a", "b", "c"], load(Accel::Tcg, 1));
        turns.begin("a");
        turns.begin("b");
        turns.ask("c");
        assert_eq!(let_in(&mut turns, None), ["a", "b"]);
    }

    #[test]
    fn rounds_keep_the_order_of_dependencies() {
        let names = ["db", "cache", "web-1", "web-2", "web-3"];
        let after = |name: &str| match name.starts_with("web") {
            true => vec!["db".to_string(), "off".to_string()],
            false => Vec::new(),
        };
        let of = |room| {
            let rounds = turns(room, &names, load(Accel::Tcg, 1)).rounds(after, None);
            let words: Vec<String> = rounds.iter().map(|it| it.join(" ")).collect();
            words.join(", ")
        };
        assert_eq!(of(Room::Cpus(2)), "db cache, web-1 web-2, web-3");
        assert_eq!(of(Room::Machines(1)), "db, cache, web-1, web-2, web-3");
        assert_eq!(of(Room::ALL), "db cache, web-1 web-2 web-3");
        let each_other = |name: &str| vec![if name == "a" { "b" } else { "a" }.to_string()];
        let none = turns(Room::ALL, &["a", "b"], load(Accel::Tcg, 1)).rounds(each_other, None);
        assert!(none.is_empty());
    }
}
