//! Decides by sums whether the host can satisfy new reservations. Pure.

use std::fmt::{self, Write};

use crate::{
    machinefile::{Bytes, CpuSet, HostReserve},
    report::{bytes, clean::Shown, counted},
};

use super::{capacity::Capacity, ledger::Holding};

/// A machine that is about to start, and what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartRequest {
    pub machine: String,
    /// Reserved CPUs; 0 for none.
    pub cpus: u32,
    pub pin: Option<CpuSet>,
    /// Reserved memory, including what QEMU itself needs; 0 for none.
    pub memory: Bytes,
    /// The most memory that it may use, reserved or not.
    pub uses: Bytes,
}

/// CPUs and memory that are reserved for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostShare {
    pub cpus: u32,
    pub memory: Bytes,
}

impl HostShare {
    /// As the Machinefile sets it. By default 1 CPU, unless it is the only one, and 1 GiB, or an eighth of the
    /// memory of a host with less than 8 GiB.
    pub fn by(reserve: &HostReserve, host: &Capacity) -> Self {
        HostShare {
            cpus: reserve
                .cpus
                .unwrap_or(if host.whole_cpus() > 1 { 1 } else { 0 }),
            memory: reserve
                .memory
                .unwrap_or(Bytes(Bytes::GIB.min(host.memory.0 / 8))),
        }
    }
}

/// What can still be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreserved {
    pub cpus: u32,
    /// Not yet reserved by machines.
    pub memory: Bytes,
    /// The part of it that the host can provide now without swapping.
    pub memory_now: Bytes,
}

impl Unreserved {
    pub fn of(host: &Capacity, kept: &HostShare, held: &[Holding]) -> Self {
        let cpus: u32 = held.iter().map(|holding| holding.cpus).sum();
        let memory: u64 = held.iter().map(|holding| holding.memory.0).sum();
        let coming: u64 = held
            .iter()
            .filter(|holding| !holding.runs)
            .map(|holding| holding.memory.0)
            .sum();
        let by_ledger = host.memory.0.saturating_sub(kept.memory.0 + memory);
        Unreserved {
            cpus: host.whole_cpus().saturating_sub(kept.cpus + cpus),
            memory: Bytes(by_ledger),
            memory_now: Bytes(by_ledger.min(host.available.0.saturating_sub(coming))),
        }
    }
}

/// Why machines are not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub message: String,
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Admits all machines or none. Returns a warning if the host may have to swap. `held` is what other machines
/// reserve.
pub fn admit(
    asked: &[StartRequest],
    held: &[Holding],
    host: &Capacity,
    kept: &HostShare,
) -> Result<Option<String>, Refusal> {
    let room = Unreserved::of(host, kept, held);
    let cpus: u32 = asked.iter().map(|asked| asked.cpus).sum();
    let memory: u64 = asked.iter().map(|asked| asked.memory.0).sum();
    let mut short = Vec::new();
    let mut fits = Vec::new();
    if cpus > room.cpus {
        short.push(too_many_cpus(asked, held, host, kept, room.cpus));
        fits.push(count(room.cpus));
    }
    short.extend(pins_that_clash(asked, held));
    if memory > room.memory_now.0 {
        short.push(too_much_memory(asked, held, host, kept, &room));
        fits.push(format!("{} of memory", whole(room.memory_now.0)));
    }
    if short.is_empty() {
        return Ok(warning(asked, held, host, &room));
    }
    let mut hint = String::new();
    if !fits.is_empty() {
        let _ = write!(hint, "this would fit: {}; ", fits.join(", "));
    }
    match held.first() {
        Some(holding) => {
            let _ = write!(
                hint,
                "reserve less, remove reserve=#true, or halt a machine that has reservations (`stead -C {} halt {}`); `stead resources` shows all",
                holding.root.shown(),
                holding.machine
            );
        }
        None => hint.push_str("reserve less, remove reserve=#true, or reserve less for the host with `host-reserve`; `stead resources` shows all"),
    }
    Err(Refusal {
        message: format!(
            "the host cannot satisfy the reservations, so nothing was started\n{}",
            short.join("\n")
        ),
        hint,
    })
}

fn too_many_cpus(
    asked: &[StartRequest],
    held: &[Holding],
    host: &Capacity,
    kept: &HostShare,
    left: u32,
) -> String {
    let of = |cpus: u32| match host.quota {
        Some(quota) => format!("{cpus} (a quota of {quota:.1})"),
        None => cpus.to_string(),
    };
    let mut text = format!(
        "  CPUs: {} requested, {left} left of {}, of which {} reserved for the host\n",
        asked.iter().map(|asked| asked.cpus).sum::<u32>(),
        of(host.whole_cpus()),
        if kept.cpus == 1 {
            "1 is".to_string()
        } else {
            format!("{} are", kept.cpus)
        },
    );
    for asked in asked.iter().filter(|asked| asked.cpus > 0) {
        let _ = writeln!(text, "    requested by {}: {}", asked.machine, asked.cpus);
    }
    for holding in held.iter().filter(|holding| holding.cpus > 0) {
        let _ = writeln!(
            text,
            "    reserved by {}: {}",
            holder(holding),
            holding.cpus
        );
    }
    text.trim_end().to_string()
}

fn too_much_memory(
    asked: &[StartRequest],
    held: &[Holding],
    host: &Capacity,
    kept: &HostShare,
    room: &Unreserved,
) -> String {
    let total: u64 = asked.iter().map(|asked| asked.memory.0).sum();
    let mut text = format!(
        "  memory: {} requested, {} left of {}, of which {} is reserved for the host\n",
        bytes(total),
        bytes(room.memory.0),
        bytes(host.memory.0),
        bytes(kept.memory.0),
    );
    if room.memory_now < room.memory {
        let _ = writeln!(
            text,
            "    only {} of it is available now: programs of the host and machines without reservations use the rest",
            bytes(room.memory_now.0)
        );
    }
    for asked in asked.iter().filter(|asked| asked.memory.0 > 0) {
        let _ = writeln!(
            text,
            "    requested by {}: {}",
            asked.machine,
            bytes(asked.memory.0)
        );
    }
    for holding in held.iter().filter(|holding| holding.memory.0 > 0) {
        let _ = writeln!(
            text,
            "    reserved by {}: {}",
            holder(holding),
            bytes(holding.memory.0)
        );
    }
    let _ = write!(text, "    (each including what QEMU itself needs)");
    text
}

fn holder(holding: &Holding) -> String {
    format!(
        "{} of project {} ({}){}",
        holding.machine,
        holding.project,
        holding.root.shown(),
        if holding.runs { "" } else { ", about to start" }
    )
}

/// Finds pins on which machines reserve more CPUs than the pin has.
fn pins_that_clash(asked: &[StartRequest], held: &[Holding]) -> Vec<String> {
    let pinned: Vec<(String, u32, &CpuSet)> = asked
        .iter()
        .filter_map(|asked| Some((asked.machine.clone(), asked.cpus, asked.pin.as_ref()?)))
        .chain(
            held.iter()
                .filter_map(|held| Some((holder(held), held.cpus, held.pin.as_ref()?))),
        )
        .filter(|(_, cpus, _)| *cpus > 0)
        .collect();
    let mut sets: Vec<&CpuSet> = pinned.iter().map(|(_, _, set)| *set).collect();
    sets.sort();
    sets.dedup();
    sets.into_iter()
        .filter_map(|set| {
            let inside: Vec<_> = pinned
                .iter()
                .filter(|(_, _, other)| other.is_subset(set))
                .collect();
            let sum: u32 = inside.iter().map(|(_, cpus, _)| cpus).sum();
            // Clashes between other machines are ignored here.
            let ours = inside
                .iter()
                .any(|(who, _, _)| asked.iter().any(|asked| asked.machine == *who));
            (ours && sum as usize > set.len()).then(|| {
                let who: Vec<String> = inside
                    .iter()
                    .map(|(who, cpus, _)| format!("{cpus} by {who}"))
                    .collect();
                format!(
                    "  pins: {sum} CPUs are reserved on {set}, which {}: {}",
                    match set.len() {
                        1 => "is 1 CPU".to_string(),
                        many => format!("are {many} CPUs"),
                    },
                    who.join(", ")
                )
            })
        })
        .collect()
}

/// Warns if the starting machines may use more memory than is free.
fn warning(
    asked: &[StartRequest],
    held: &[Holding],
    host: &Capacity,
    room: &Unreserved,
) -> Option<String> {
    let uses: u64 = asked.iter().map(|asked| asked.uses.0).sum();
    let coming: u64 = held
        .iter()
        .filter(|holding| !holding.runs)
        .map(|holding| holding.memory.0)
        .sum();
    let free = host.available.0.saturating_sub(coming);
    let reserved: u64 = asked.iter().map(|asked| asked.memory.0).sum();
    (uses > free && !asked.is_empty()).then(|| {
        format!(
            "{} may use {} of memory, but only {} is free: the host may swap or kill a machine; set `memory … reserve=#true` to reserve a machine's memory ({} can be reserved)",
            match asked {
                [one] => format!("machine {}", one.machine),
                _ => "these machines".to_string(),
            },
            bytes(uses),
            bytes(free),
            whole(room.memory_now.0.saturating_sub(reserved))
        )
    })
}

fn count(cpus: u32) -> String {
    match cpus {
        0 => "no CPU".into(),
        cpus => counted(cpus, "CPU"),
    }
}

/// Rounds down, so that it fits.
fn whole(size: u64) -> String {
    format!("{} MiB", size / Bytes::MIB)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Identity;

    fn host() -> Capacity {
        Capacity {
            cpus: (0..8).collect(),
            quota: None,
            memory: Bytes(16 * Bytes::GIB),
            available: Bytes(14 * Bytes::GIB),
        }
    }

    fn kept() -> HostShare {
        HostShare::by(&HostReserve::default(), &host())
    }

    fn asked(machine: &str, cpus: u32, gib: u64) -> StartRequest {
        StartRequest {
            machine: machine.into(),
            cpus,
            pin: None,
            memory: Bytes(gib * Bytes::GIB),
            uses: Bytes(gib * Bytes::GIB),
        }
    }

    fn held(machine: &str, cpus: u32, gib: u64, runs: bool) -> Holding {
        let root = std::path::Path::new("/srv/other");
        Holding {
            identity: Identity::of("other", root, machine),
            project: "other".into(),
            machine: machine.into(),
            root: root.into(),
            cpus,
            pin: None,
            memory: Bytes(gib * Bytes::GIB),
            runs,
        }
    }

    #[test]
    fn what_fits_is_admitted_to_the_last_cpu_and_byte() {
        // 8 CPUs less 1, 16 GiB less 1, of which 14 are free.
        let exactly = [asked("a", 3, 4), asked("b", 4, 10)];
        assert_eq!(admit(&exactly, &[], &host(), &kept()), Ok(None));
        let cpus = [asked("a", 3, 4), asked("b", 5, 1)];
        assert!(admit(&cpus, &[], &host(), &kept()).is_err());
        let memory = [asked("a", 3, 4), asked("b", 4, 11)];
        assert!(admit(&memory, &[], &host(), &kept()).is_err());
    }

    #[test]
    fn what_is_about_to_start_is_taken_from_what_is_free() {
        let asked = [asked("a", 0, 8)];
        let runs = [held("db", 0, 7, true)];
        assert!(admit(&asked, &runs, &host(), &kept()).is_ok());
        // Its 7 GiB will be taken from the 14 GiB that are free.
        let starts = [held("db", 0, 7, false)];
        assert!(admit(&asked, &starts, &host(), &kept()).is_err());
    }

    #[test]
    fn a_refusal_has_the_sums() {
        let refusal = admit(
            &[asked("web", 4, 6), asked("db", 2, 4)],
            &[held("cache", 3, 5, true), held("queue", 0, 1, false)],
            &host(),
            &kept(),
        )
        .unwrap_err();
        insta::assert_snapshot!(format!("{refusal}\n\nhint: {}", refusal.hint));
    }

    #[test]
    fn reserved_cpus_cannot_share_a_pin() {
        let pinned = |machine: &str, cpus, pin: &str| StartRequest {
            pin: Some(pin.parse().unwrap()),
            ..asked(machine, cpus, 1)
        };
        let fits = [pinned("a", 1, "2-3"), pinned("b", 1, "2-3")];
        assert_eq!(admit(&fits, &[], &host(), &kept()), Ok(None));
        let clash = [
            pinned("a", 1, "2"),
            pinned("b", 2, "2-3"),
            pinned("c", 1, "4"),
        ];
        let refusal = admit(&clash, &[], &host(), &kept()).unwrap_err();
        assert!(
            refusal
                .message
                .contains("pins: 3 CPUs are reserved on 2-3, which are 2 CPUs: 1 by a, 2 by b"),
            "{refusal}"
        );
    }

    #[test]
    fn machines_without_reservations_only_warn() {
        let mut large = asked("a", 0, 0);
        large.uses = Bytes(15 * Bytes::GIB);
        let warning = admit(&[large], &[], &host(), &kept()).unwrap().unwrap();
        assert!(warning.contains("the host may swap"), "{warning}");
        assert_eq!(admit(&[], &[], &host(), &kept()), Ok(None));
    }

    #[test]
    fn the_host_keeps_what_it_is_told_to() {
        let reserve = HostReserve {
            cpus: Some(0),
            memory: Some(Bytes(8 * Bytes::GIB)),
        };
        let kept = HostShare::by(&reserve, &host());
        assert_eq!(Unreserved::of(&host(), &kept, &[]).cpus, 8);
        assert_eq!(
            Unreserved::of(&host(), &kept, &[]).memory,
            Bytes(8 * Bytes::GIB)
        );
        let one = Capacity {
            cpus: [0].into_iter().collect(),
            memory: Bytes(4 * Bytes::GIB),
            ..host()
        };
        let kept = HostShare::by(&HostReserve::default(), &one);
        assert_eq!(kept.cpus, 0);
        assert_eq!(kept.memory, Bytes(Bytes::GIB / 2));
    }
}
