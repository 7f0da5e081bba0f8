//! A process with everything that it started, ended as one.

use std::{collections::BTreeSet, fs, thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How often a killed tree is looked at again for what it started meanwhile, and how long between.
const LOOKS: u32 = 100;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// A process and everything that it started: its descendants, and whoever is in its process group.
/// Killed when this is dropped, unless it is let go.
///
/// What left the group and whose parent ended before anybody looked is not found any more: that is
/// how daemons leave.
#[derive(Debug)]
pub struct Tree(Option<Known>);

#[derive(Debug)]
struct Known {
    group: u32,
    members: BTreeSet<u32>,
}

impl Tree {
    /// Of a process that leads its group. `None`: it has ended.
    pub fn of(pid: Option<u32>) -> Self {
        Tree(pid.map(|group| Known {
            group,
            members: BTreeSet::from([group]),
        }))
    }

    /// What is left of it may go on.
    pub fn let_go(mut self) {
        self.0 = None;
    }

    /// Asks all of it to end, and kills what is left after `grace`.
    pub async fn end(mut self, grace: Duration) {
        let asked = tokio::time::Instant::now();
        self.signal(Signal::SIGTERM);
        while asked.elapsed() < grace && !self.living().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Dropped, it kills the rest.
    }

    fn living(&mut self) -> Vec<u32> {
        match &mut self.0 {
            Some(known) => living(known),
            None => Vec::new(),
        }
    }

    /// Whether there was anybody to signal.
    fn signal(&mut self, signal: Signal) -> bool {
        let living = self.living();
        for pid in &living {
            if let Ok(pid) = i32::try_from(*pid) {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
        !living.is_empty()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // What is killed may have started something after it was looked at.
        for _ in 0..LOOKS {
            if !self.signal(Signal::SIGKILL) {
                return;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }
}

/// Those of the tree that run: children of those that are known, and members of the first one's
/// process group (proc_pid_stat(5): state, parent and group follow the name in parentheses).
fn living(known: &mut Known) -> Vec<u32> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((_, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        let mut words = rest.split(' ');
        let state = words.next().unwrap_or_default().to_string();
        let mut number = || words.next().and_then(|word| word.parse::<u32>().ok());
        if let (Some(parent), Some(group)) = (number(), number()) {
            processes.push((pid, parent, group, state));
        }
    }
    loop {
        let before = known.members.len();
        for (pid, parent, group, _) in &processes {
            if known.members.contains(parent) || *group == known.group {
                known.members.insert(*pid);
            }
        }
        if known.members.len() == before {
            break;
        }
    }
    // Numbers of those that ended may be others' soon.
    let there: BTreeSet<u32> = processes.iter().map(|(pid, ..)| *pid).collect();
    known.members.retain(|pid| there.contains(pid));
    processes
        .into_iter()
        .filter(|(pid, _, _, state)| {
            known.members.contains(pid) && !matches!(state.as_str(), "Z" | "X")
        })
        .map(|(pid, ..)| pid)
        .collect()
}
