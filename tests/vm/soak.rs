//! What people do all day, in an order that nobody chose, on a busy host. `./dev soak` runs it.
//!
//! Each operation follows from the seed and from its number alone, so that a run can be repeated, or gone on with at
//! any operation: it then begins with machines that are up.

use std::{
    collections::BTreeMap,
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::project::{Project, each_process, variable, virsh};

/// A command that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// stead says in its own words what went wrong.
const NEVER_SAID: [&str; 3] = ["panicked", "stead itself failed", "RUST_BACKTRACE"];

/// A run, as `./dev soak` was told.
struct Told {
    seed: u64,
    /// The number of the first operation.
    from: u64,
    until: Instant,
}

impl Told {
    fn read() -> Self {
        let number = |name| variable(name).parse::<u64>().unwrap();
        Told {
            seed: number("STEAD_SOAK_SEED"),
            from: number("STEAD_SOAK_FROM"),
            until: Instant::now() + Duration::from_secs(60 * number("STEAD_SOAK_MINUTES")),
        }
    }
}

/// What is known of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Up,
    /// Off, or not made.
    Down,
    /// Somebody was killed who worked on it.
    Nothing,
}

#[derive(Clone, Debug)]
enum Work {
    Up,
    UpOne(usize),
    Exec(usize),
    Sync,
    Provision(usize),
    Restart(usize),
    Halt,
    HaltOne(usize),
    Destroy,
    DestroyOne(usize),
}

#[derive(Clone, Debug)]
enum Operation {
    Whole(Work),
    /// stead is killed after so many milliseconds.
    Killed(Work, u64),
    AtOnce(Work, Work),
    QemuDies(usize),
    NetworkDies,
    WatcherDies,
    /// Something other than stead pauses it for a while.
    Pause(usize),
}

struct Chance(fastrand::Rng);

impl Chance {
    fn of(seed: u64, number: u64) -> Self {
        let mut mixed = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The first numbers of seeds that differ little differ little, too.
        mixed.u64(..);
        Chance(mixed)
    }

    fn work(&mut self, machines: usize) -> Work {
        let which = self.0.usize(..machines);
        match self.0.u32(..100) {
            0..14 => Work::Up,
            14..22 => Work::UpOne(which),
            22..48 => Work::Exec(which),
            48..66 => Work::Sync,
            66..74 => Work::Provision(which),
            74..84 => Work::Restart(which),
            84..88 => Work::Halt,
            88..93 => Work::HaltOne(which),
            93..96 => Work::Destroy,
            _ => Work::DestroyOne(which),
        }
    }

    fn operation(&mut self, machines: usize) -> Operation {
        let which = self.0.usize(..machines);
        match self.0.u32(..100) {
            0..60 => Operation::Whole(self.work(machines)),
            60..78 => {
                // Most of what a command does is over in a moment; the rest waits for guests.
                let longest = if self.0.bool() { 1_500 } else { 60_000 };
                Operation::Killed(self.work(machines), self.0.u64(..longest))
            }
            78..86 => Operation::AtOnce(self.work(machines), self.work(machines)),
            86..90 => Operation::QemuDies(which),
            90..93 => Operation::NetworkDies,
            93..96 => Operation::WatcherDies,
            _ => Operation::Pause(which),
        }
    }
}

/// Processes that take what CPU there is.
struct Hogs(Vec<Child>);

impl Hogs {
    fn new(count: usize) -> Self {
        let hog = |_| {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .stdin(Stdio::null())
                .spawn()
                .unwrap()
        };
        Hogs((0..count).map(hog).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}

struct Ground {
    project: Project,
    machines: Vec<String>,
    known: Vec<Known>,
    /// What each machine's folder has for sure; `None`: not known.
    sent: Vec<Option<String>>,
    /// What is in the project's folder.
    here: String,
    /// What is done, and how it is done again.
    now: String,
}

/// A command that runs. Its output is read meanwhile.
struct Running {
    child: Child,
    words: String,
    begun: Instant,
    output: std::thread::JoinHandle<String>,
}

struct Ended {
    words: String,
    status: ExitStatus,
    output: String,
}

impl Ground {
    fn new(name: &str, machines: usize, memory: &str) -> Self {
        let names: Vec<String> = (1..=machines).map(|n| format!("m{n}")).collect();
        let nodes: String = (names.iter())
            .map(|name| {
                format!(
                    "machine \"{name}\" {{\n    box \"debian-12\"\n    cpus 1\n    memory \"{memory}\"\n    \
                     sync \"files\" to=\"/srv/files\" watch=#true\n    \
                     provision \"counts\" {{ shell inline=\"echo ran >>/var/tmp/ran\"; }}\n    \
                     ready {{ timeout \"20m\"; }}\n}}\n"
                )
            })
            .collect();
        let project = Project::new(name, &format!("project \"{name}\"\n{nodes}"));
        project.write("files/number", "0\n");
        Ground {
            project,
            known: vec![Known::Down; names.len()],
            sent: vec![None; names.len()],
            machines: names,
            here: "0\n".into(),
            now: String::new(),
        }
    }

    fn words(&self, work: &Work) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let name = |which: &usize| self.machines[*which].as_str();
        match work {
            Work::Up => words(&["up"]),
            Work::UpOne(which) => words(&["up", name(which)]),
            Work::Exec(which) => words(&["exec", name(which), "--", "cat", "/srv/files/number"]),
            Work::Sync => words(&["sync"]),
            Work::Provision(which) => words(&["provision", name(which)]),
            Work::Restart(which) => words(&["restart", name(which)]),
            Work::Halt => words(&["halt"]),
            Work::HaltOne(which) => words(&["halt", name(which)]),
            Work::Destroy => words(&["destroy", "-y"]),
            Work::DestroyOne(which) => words(&["destroy", "-y", name(which)]),
        }
    }

    fn start(&self, words: &[String]) -> Running {
        let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut child = self
            .project
            .stead(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let output = std::thread::spawn(move || {
            let errors = std::thread::spawn(move || {
                let mut text = Vec::new();
                let _ = err.read_to_end(&mut text);
                text
            });
            let mut text = Vec::new();
            let _ = out.read_to_end(&mut text);
            let errors = errors.join().unwrap();
            let [out, err] = [text, errors].map(|it| String::from_utf8_lossy(&it).into_owned());
            format!("{out}\n--- stderr\n{err}")
        });
        Running {
            child,
            words: words.join(" "),
            begun: Instant::now(),
            output,
        }
    }

    /// Waits for the end, which comes in time and with words of stead's own.
    fn end(&self, mut running: Running) -> Ended {
        let status = loop {
            if let Some(status) = running.child.try_wait().unwrap() {
                break status;
            }
            if running.begun.elapsed() > LONGEST {
                let _ = running.child.kill();
                let output = running.output.join().unwrap();
                self.fail(&format!("`stead {}` hangs:\n{output}", running.words));
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let ended = Ended {
            words: running.words,
            status,
            output: running.output.join().unwrap(),
        };
        if let Some(said) = NEVER_SAID.iter().find(|it| ended.output.contains(**it)) {
            self.fail(&format!(
                "`stead {}` says {said}:\n{}",
                ended.words, ended.output
            ));
        }
        ended
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{}: {what}\nknown: {:?}", self.now, self.known)
    }

    fn must(&self, ended: &Ended, code: i32) {
        if ended.status.code() != Some(code) {
            self.fail(&format!(
                "`stead {}` ends with {} and not with {code}:\n{}",
                ended.words, ended.status, ended.output
            ));
        }
    }

    /// Checks the end of a command which nobody disturbed, and notes what is known after it.
    fn note(&mut self, work: &Work, ended: &Ended) {
        let all = 0..self.machines.len();
        match work {
            Work::Up => {
                self.must(ended, 0);
                self.known.fill(Known::Up);
                // `up` sends the folder to a machine that it boots; a watcher sends the rest.
                all.for_each(|at| self.sent[at] = None);
            }
            Work::UpOne(at) => {
                self.must(ended, 0);
                self.known[*at] = Known::Up;
                self.sent[*at] = None;
            }
            Work::Exec(at) => match self.known[*at] {
                Known::Up => {
                    self.must(ended, 0);
                    let begins = self.sent[*at].as_ref();
                    if begins.is_some_and(|it| !ended.output.starts_with(it.as_str())) {
                        self.fail(&format!(
                            "{:?} was sent to {}, which has:\n{}",
                            self.sent[*at], self.machines[*at], ended.output
                        ));
                    }
                }
                Known::Down => self.must(ended, 1),
                Known::Nothing => {}
            },
            Work::Sync => {
                if self.known.iter().all(|it| *it == Known::Up) {
                    self.must(ended, 0);
                    self.sent.fill(Some(self.here.clone()));
                }
            }
            Work::Provision(at) => {
                if self.known[*at] == Known::Up {
                    self.must(ended, 0);
                }
            }
            Work::Restart(at) => {
                if self.known[*at] == Known::Up {
                    self.must(ended, 0);
                }
                if ended.status.success() {
                    self.known[*at] = Known::Up;
                }
            }
            Work::Halt | Work::Destroy => {
                self.must(ended, 0);
                self.known.fill(Known::Down);
            }
            Work::HaltOne(at) | Work::DestroyOne(at) => {
                self.must(ended, 0);
                self.known[*at] = Known::Down;
            }
        }
    }

    /// Which machines a command works on, other than by looking.
    fn touched(&self, work: &Work) -> Vec<usize> {
        match work {
            Work::Up | Work::Halt | Work::Destroy | Work::Sync => {
                (0..self.machines.len()).collect()
            }
            Work::UpOne(at)
            | Work::Provision(at)
            | Work::Restart(at)
            | Work::HaltOne(at)
            | Work::DestroyOne(at) => vec![*at],
            Work::Exec(_) => Vec::new(),
        }
    }

    fn forget(&mut self, work: &Work) {
        for at in self.touched(work) {
            if !matches!(work, Work::Sync | Work::Provision(_)) {
                self.known[at] = Known::Nothing;
            }
            self.sent[at] = None;
        }
    }

    fn edit(&mut self, number: u64) {
        self.here = format!("{number}\n");
        self.project.write("files/number", &self.here);
        // A watcher may be sending it.
        self.sent.fill(None);
    }

    fn run(&mut self, number: u64, operation: &Operation) {
        match operation {
            Operation::Whole(work) => {
                if matches!(work, Work::Sync) {
                    self.edit(number);
                }
                let ended = self.end(self.start(&self.words(work)));
                self.note(work, &ended);
            }
            Operation::Killed(work, after) => {
                let mut running = self.start(&self.words(work));
                std::thread::sleep(Duration::from_millis(*after));
                let _ = running.child.kill();
                self.end(running);
                self.forget(work);
            }
            Operation::AtOnce(one, other) => {
                let (first, second) =
                    (self.start(&self.words(one)), self.start(&self.words(other)));
                self.end(first);
                self.end(second);
                self.forget(one);
                self.forget(other);
            }
            Operation::QemuDies(at) => {
                let guest = format!("guest={},", self.project.domain(&self.machines[*at]));
                if kill_by(|line| line.contains("qemu-system") && line.contains(&guest)) {
                    self.known[*at] = Known::Down;
                }
                self.sent[*at] = None;
            }
            Operation::NetworkDies => {
                kill_by(|line| line.contains("/stead-net\0") || line.ends_with("/stead-net"));
            }
            Operation::WatcherDies => {
                kill_by(|line| line.contains("/stead-watch\0"));
            }
            Operation::Pause(at) if self.known[*at] == Known::Up => {
                let domain = self.project.domain(&self.machines[*at]);
                virsh(&["suspend", &domain]);
                std::thread::sleep(Duration::from_secs(4));
                virsh(&["resume", &domain]);
            }
            Operation::Pause(_) => {}
        }
        self.look();
    }

    /// Whatever has happened, what only looks works, and no machine has two QEMUs.
    fn look(&self) {
        for words in [&["status", "--json"][..], &["plan"], &["list"]] {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            let ended = self.end(self.start(&words));
            self.must(&ended, 0);
        }
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        each_process(|_, line| {
            let guest = line
                .split_once("guest=")
                .and_then(|(_, rest)| rest.split_once(','));
            if let Some((guest, _)) = guest.filter(|_| line.contains("qemu-system")) {
                *count.entry(guest.to_string()).or_default() += 1;
            }
        });
        if let Some((guest, _)) = count.iter().find(|(_, count)| **count > 1) {
            self.fail(&format!("{guest} has two QEMUs"));
        }
    }

    /// What was killed and left converges, and can be taken away.
    fn finish(&mut self) {
        let ended = self.end(self.start(&["up".into()]));
        self.note(&Work::Up, &ended);
        self.edit(u64::MAX);
        for work in [Work::Sync, Work::Exec(0), Work::Destroy] {
            let ended = self.end(self.start(&self.words(&work)));
            self.note(&work, &ended);
        }
        for machine in &self.machines {
            self.project.assert_gone(machine);
        }
    }
}

/// Kills the processes of this user whose command lines are such. Returns whether there were any.
fn kill_by(is_one: impl Fn(&str) -> bool) -> bool {
    let mut found = false;
    each_process(|pid, line| {
        let pid = nix::unistd::Pid::from_raw(pid);
        if is_one(line) && nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok() {
            found = true;
        }
    });
    found
}

fn soak(name: &str, machines: usize, memory: &str, operations: u64) {
    let told = Told::read();
    let mut ground = Ground::new(name, machines, memory);
    let mut from = 0;
    if told.from > 0 {
        from = told.from;
        let ended = ground.end(ground.start(&["up".into()]));
        ground.note(&Work::Up, &ended);
    }
    for number in from..operations {
        if Instant::now() > told.until {
            println!("{name}: the time is up after operation {number} of {operations}");
            break;
        }
        let operation = Chance::of(told.seed, number).operation(machines);
        ground.now = format!(
            "{name}, operation {number}, {operation:?} (again: ./dev soak --seed {} --from {number} {name})",
            told.seed
        );
        println!("{number}: {operation:?}");
        let begun = Instant::now();
        ground.run(number, &operation);
        println!(
            "{number}: {} s, {:?}",
            begun.elapsed().as_secs(),
            ground.known
        );
    }
    ground.now = format!("{name}, at the end");
    ground.finish();
}

#[ignore = "takes hours: ./dev soak runs it"]
#[test]
fn two_machines_beside_hogs() {
    let _hogs = Hogs::new(4);
    soak("two", 2, "384MiB", 150);
}

#[ignore = "takes hours: ./dev soak runs it"]
#[test]
fn six_small_machines() {
    soak("six", 6, "256MiB", 30);
}
