//! A process with everything that it started, killed as a whole.

use std::{collections::BTreeSet, fs, thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How many times a killed tree is checked for processes that it started meanwhile, and the pause between.
const CHECKS: u32 = 100;
const BETWEEN_CHECKS: Duration = Duration::from_millis(5);

/// A process and everything that it started: its descendants, and the members of its process group and of the session that it
/// leads. They are killed when this is dropped, unless it is let go.
///
/// A process that left these, and whose parent ended before a check, is not found any more: that is how
/// daemons detach themselves.
#[derive(Debug)]
pub struct Tree(Option<Known>);

#[derive(Debug)]
struct Known {
    group: u32,
    members: BTreeSet<u32>,
}

impl Tree {
    /// The tree of a process that leads its group. `None`: it has ended.
    pub fn of(pid: Option<u32>) -> Self {
        Tree(pid.map(|group| Known {
            group,
            members: BTreeSet::from([group]),
        }))
    }

    /// Lets the processes that are left keep running.
    pub fn let_go(mut self) {
        self.0 = None;
    }

    /// Sends SIGTERM to all processes, and kills those that are left after `grace`.
    pub async fn end(mut self, grace: Duration) {
        let asked = tokio::time::Instant::now();
        self.signal(Signal::SIGTERM);
        while asked.elapsed() < grace && !self.living().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Dropping it kills the rest.
    }

    fn living(&mut self) -> Vec<u32> {
        match &mut self.0 {
            Some(known) => living(known),
            None => Vec::new(),
        }
    }

    /// Sends a signal to all processes. Returns whether there were any.
    fn signal(&mut self, signal: Signal) -> bool {
        let living = self.living();
        for pid in &living {
            if let Ok(pid) = i32::try_from(*pid) {
                // An error means that it has just ended.
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
        !living.is_empty()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // A process may start another one between the check and the kill.
        for _ in 0..CHECKS {
            if !self.signal(Signal::SIGKILL) {
                return;
            }
            thread::sleep(BETWEEN_CHECKS);
        }
    }
}

/// A process in /proc.
pub(super) struct Seen {
    pub pid: u32,
    parent: u32,
    group: u32,
    pub session: u32,
    /// Whether it is a zombie.
    has_ended: bool,
}

/// Returns all processes that /proc shows (proc_pid_stat(5): state, parent, group and session follow the name in
/// parentheses).
pub(super) fn processes() -> Vec<Seen> {
    let of = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut words = rest.split(' ');
        let has_ended = matches!(words.next(), Some("Z" | "X"));
        let mut number = || words.next()?.parse().ok();
        Some(Seen {
            pid,
            parent: number()?,
            group: number()?,
            session: number()?,
            has_ended,
        })
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(of).collect()
}

/// Returns the tree's running processes: children of known ones, and members of the first one's process group and session.
fn living(known: &mut Known) -> Vec<u32> {
    let processes = processes();
    loop {
        let before = known.members.len();
        for it in &processes {
            let is_of_first = it.group == known.group || it.session == known.group;
            if is_of_first || known.members.contains(&it.parent) {
                known.members.insert(it.pid);
            }
        }
        if known.members.len() == before {
            break;
        }
    }
    // Pids of ended processes may soon belong to others.
    let there: BTreeSet<u32> = processes.iter().map(|it| it.pid).collect();
    known.members.retain(|pid| there.contains(pid));
    processes
        .into_iter()
        .filter(|it| known.members.contains(&it.pid) && !it.has_ended)
        .map(|it| it.pid)
        .collect()
}
