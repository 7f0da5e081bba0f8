//! Makes the ports on which a machine listens appear on this computer, at an address of the machine's own below
//! 127.0.0.0/8, and takes them away when they close.
//!
//! A shell in the guest says which ports those are, over ssh, and the same ssh leads connections into the guest. So a
//! guest without a connection has no ports here, and a process that is killed leaves none behind.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr},
    sync::Notify,
    task::{AbortHandle, spawn_local},
    time::{Instant, sleep, timeout},
};

use crate::{
    host::{
        ports::{HostPort, Probe, Protocol, first_for_users, has_address},
        process::Start,
        shell::shell_quote,
    },
    report::{clean::words, stdio},
};

use super::{
    Mac, Wiring,
    listeners::{self, GuestPort, GuestPorts, Listener},
    switch::Switch,
    wiring::Guest,
};

/// Returns `ssh` with a configuration.
pub type Ssh = fn(&Path) -> std::process::Command;

/// What says in the guest which ports there are.
const SCRIPT: &str = include_str!("../../provisioners/guest/stead-ports");

/// By SSH stead logs in, and the host has a port of it already. LLMNR is for neighbours on a link.
const NOT_FOR_PEOPLE: [u16; 2] = [22, 5355];

/// Whether a port on which a machine listens appears on this computer.
pub fn is_shown(port: u16) -> bool {
    !NOT_FOR_PEOPLE.contains(&port)
}

/// How long ssh may take to open or close a port.
const PATIENCE: Duration = Duration::from_secs(10);

/// When a machine that does not answer is asked again, if it sends nothing meanwhile.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// The longest pause if it does send something, and refuses logins.
const BUSY_PAUSE: Duration = Duration::from_secs(30);

/// A connection that lasted for so long was a good one.
const LASTING: Duration = Duration::from_secs(60);

/// When a port that another program of the host has is tried again.
const TAKEN_PAUSE: Duration = Duration::from_secs(10);

/// How many lines a machine may print at once, such as by its login, and then in each second. It says its ports once a
/// second at most.
const LINES: u64 = 1000;
const LINES_PER_SECOND: u64 = 5;

/// Longer words of ssh are cut, in bytes.
const LONGEST_WORDS: usize = 400;

/// The ports of all machines. Its tasks run on this thread.
pub(super) struct Ports {
    ssh: Ssh,
    switch: Switch,
    machines: RefCell<BTreeMap<String, Machine>>,
}

struct Machine {
    guest: Guest,
    macs: Vec<Mac>,
    shown: Rc<RefCell<GuestPorts>>,
    reached: Rc<Notify>,
    /// Told when this computer's addresses may have changed.
    changed: Rc<Notify>,
    task: AbortHandle,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ports {
    pub(super) fn new(ssh: Ssh, switch: Switch) -> Self {
        Ports {
            ssh,
            switch,
            machines: RefCell::default(),
        }
    }

    /// Follows the machines that the wiring says. Those that are the same keep their ports.
    pub(super) fn rewire(&self, wiring: &Wiring, sockets: &Path) {
        let mut machines = self.machines.borrow_mut();
        let mut before = std::mem::take(&mut *machines);
        for guest in &wiring.guests {
            let macs = wiring.macs_of(&guest.machine);
            let machine = match before.remove(&guest.machine) {
                Some(mut known) if known.guest.is_same(guest) && known.macs == macs => {
                    if guest.is_reached && !known.guest.is_reached {
                        known.reached.notify_one();
                    }
                    known.guest.is_reached |= guest.is_reached;
                    known.changed.notify_one();
                    known
                }
                _ => self.follow(guest, macs, sockets),
            };
            machines.insert(guest.machine.clone(), machine);
        }
    }

    /// Begins with a machine that has booted.
    pub(super) fn reached(&self, name: &str) {
        if let Some(machine) = self.machines.borrow_mut().get_mut(name) {
            machine.guest.is_reached = true;
            machine.reached.notify_one();
        }
    }

    pub(super) fn shown(&self) -> BTreeMap<String, GuestPorts> {
        let machines = self.machines.borrow();
        (machines.iter())
            .map(|(name, machine)| (name.clone(), machine.shown.borrow().clone()))
            .collect()
    }

    fn follow(&self, guest: &Guest, macs: Vec<Mac>, sockets: &Path) -> Machine {
        let (shown, reached) = (Rc::default(), Rc::new(Notify::new()));
        let changed = Rc::new(Notify::new());
        let task = spawn_local(keep(
            Login {
                ssh: self.ssh,
                guest: guest.clone(),
                folder: sockets.parent().unwrap_or(sockets).to_path_buf(),
                macs: macs.clone(),
                changed: Rc::clone(&changed),
            },
            self.switch.clone(),
            Rc::clone(&shown),
            Rc::clone(&reached),
        ));
        Machine {
            guest: guest.clone(),
            macs,
            shown,
            reached,
            changed,
            task: task.abort_handle(),
        }
    }
}

/// What it takes to ask a machine.
struct Login {
    ssh: Ssh,
    guest: Guest,
    /// For the sockets of ssh. It is not the network's own, whose path is too long for ssh (`host::socket_folder`).
    folder: PathBuf,
    macs: Vec<Mac>,
    changed: Rc<Notify>,
}

/// Keeps the ports of a machine, for ever.
async fn keep(login: Login, switch: Switch, shown: Rc<RefCell<GuestPorts>>, reached: Rc<Notify>) {
    if !login.guest.is_reached {
        reached.notified().await;
    }
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let said = login.ask(&shown).await;
        *shown.borrow_mut() = GuestPorts::default();
        if began.elapsed() > LASTING {
            pause = FIRST_PAUSE;
        }
        stdio::talk(&format!("{}: {said}\n", login.guest.machine));
        // A guest that boots again asks for its address.
        let heard = async {
            sleep(pause.min(BUSY_PAUSE)).await;
            switch.heard(&login.macs).await;
        };
        tokio::select! {
            () = heard => {}
            () = reached.notified() => {}
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Login {
    /// The name of ssh's socket, and the start of all such names of the machine.
    fn socket(&self) -> io::Result<(PathBuf, String)> {
        let mac = self.macs.first().copied().unwrap_or(Mac([0; 6]));
        let start = format!("p{}", &mac.word()[4..]);
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("{start}{}", hex::encode(random));
        Ok((self.folder.join(name), start))
    }

    /// Keeps the ports of the machine as it says, until its connection ends. Returns why that was.
    async fn ask(&self, shown: &RefCell<GuestPorts>) -> String {
        match self.session(shown).await {
            Ok(said) => said,
            Err(error) => format!("cannot ask for its ports: {error}"),
        }
    }

    async fn session(&self, shown: &RefCell<GuestPorts>) -> io::Result<String> {
        let (socket, start) = self.socket()?;
        let _left = Left {
            folder: &self.folder,
            start: &start,
        };
        let mut ssh = tokio::process::Command::from((self.ssh)(&self.guest.ssh_config));
        ssh.args(["-T", "-o", "BatchMode=yes", "-o", "ControlMaster=yes"])
            .args(["-o", "ControlPersist=no", "-S"])
            .arg(&socket)
            // What the login shell reads is this word alone.
            .args(["--", &self.guest.machine, "exec sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = ssh.start()?;
        let words = spawn_local(last_words(child.stderr.take()));
        let said = self.follow(&mut child, &socket, shown).await;
        // It may run on when the guest has said something odd.
        let _ = child.start_kill();
        let _ = child.wait().await;
        match words.await {
            Ok(words) if !words.is_empty() => Ok(words),
            _ => said,
        }
    }

    /// Reads what the guest says, for as long as it says it.
    async fn follow(
        &self,
        child: &mut Child,
        socket: &Path,
        shown: &RefCell<GuestPorts>,
    ) -> io::Result<String> {
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        // Bash waits without a program that does (see the script). A shell reads all of this command before it runs it.
        let script = shell_quote(SCRIPT);
        let run = format!(
            "if command -v bash >/dev/null; then exec bash -c {script}; else exec sh -c {script}; fi\n"
        );
        input.write_all(run.as_bytes()).await?;
        let mut open = Open {
            login: self,
            socket,
            ports: BTreeMap::new(),
        };
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        let (began, mut lines) = (Instant::now(), 0);
        loop {
            let retry = match open.has_taken() {
                true => Some(Instant::now() + TAKEN_PAUSE),
                false => None,
            };
            let mut newest = None;
            tokio::select! {
                read = next_line(&mut output, &mut line) => {
                    let mut is_line = read?;
                    // Only what it said last counts.
                    loop {
                        if !is_line {
                            return Ok(match shown.borrow().known {
                                true => "its connection has ended".into(),
                                false => "it does not say which ports it has".into(),
                            });
                        }
                        lines += 1;
                        if lines > LINES + LINES_PER_SECOND * began.elapsed().as_secs() {
                            return Ok("it prints lines without end".into());
                        }
                        // Others are words that a login prints.
                        newest = listeners::read(&String::from_utf8_lossy(&line)).or(newest);
                        line.clear();
                        let more = timeout(Duration::ZERO, next_line(&mut output, &mut line));
                        match more.await {
                            Ok(read) => is_line = read?,
                            Err(_) => break,
                        }
                    }
                    if newest.is_none() {
                        continue;
                    }
                }
                () = until(retry) => {}
                () = self.changed.notified() => {}
            }
            let start = Instant::now();
            let found = newest.unwrap_or_else(|| open.found());
            open.become_these(found).await;
            *shown.borrow_mut() = open.shown();
            // A guest whose ports come and go all the time gets no more than a tenth of a CPU.
            sleep(start.elapsed() * 9).await;
        }
    }
}

/// Reads on until a line is whole; returns false at the end, or if there is no end of the line. Reading may be broken
/// off and gone on with.
async fn next_line(
    output: &mut (impl tokio::io::AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<bool> {
    let room = listeners::LONGEST.saturating_sub(line.len() as u64);
    output.take(room).read_until(b'\n', line).await?;
    Ok(line.last() == Some(&b'\n'))
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// The last words of ssh, once it has closed stderr.
async fn last_words(stderr: Option<ChildStderr>) -> String {
    let Some(mut stderr) = stderr else {
        return String::new();
    };
    let mut said = Vec::new();
    let mut part = [0; 512];
    while let Ok(length @ 1..) = stderr.read(&mut part).await {
        said.extend_from_slice(&part[..length]);
        let more = said.len().saturating_sub(LONGEST_WORDS);
        said.drain(..more);
    }
    words(String::from_utf8_lossy(&said).trim())
}

/// Removes the sockets that ssh has left.
struct Left<'a> {
    folder: &'a Path,
    start: &'a str,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(self.start) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The ports that are open now.
struct Open<'a> {
    login: &'a Login,
    /// The socket of the ssh that has them.
    socket: &'a Path,
    ports: BTreeMap<u16, Way>,
}

/// A port, and what became of it.
struct Way {
    listener: Listener,
    at: Vec<Ipv4Addr>,
    missing: Option<(bool, String)>,
}

impl Open<'_> {
    /// Whether there is one that the host may have free later.
    fn has_taken(&self) -> bool {
        (self.ports.values()).any(|way| way.missing.as_ref().is_some_and(|(taken, _)| *taken))
    }

    fn shown(&self) -> GuestPorts {
        let ports = (self.ports.iter())
            .map(|(port, way)| GuestPort {
                port: *port,
                addresses: way.at.clone(),
                is_local: way.listener.is_local,
                missing: way.missing.as_ref().map(|(_, why)| why.clone()),
            })
            .collect();
        GuestPorts { known: true, ports }
    }

    /// What the guest said last.
    fn found(&self) -> BTreeMap<u16, Listener> {
        (self.ports.iter())
            .map(|(port, way)| (*port, way.listener))
            .collect()
    }

    async fn become_these(&mut self, mut found: BTreeMap<u16, Listener>) {
        found.retain(|port, _| is_shown(*port));
        let closed: Vec<u16> = (self.ports.iter())
            .filter(|(port, way)| {
                let now = found.get(port).map(|it| it.reached_at);
                now != Some(way.listener.reached_at)
            })
            .map(|(port, _)| *port)
            .collect();
        for port in closed {
            if let Some(way) = self.ports.remove(&port) {
                for at in way.at {
                    let to = way.listener.reached_at;
                    let _ = self.tell("cancel", at, port, to).await;
                }
            }
        }
        for (port, listener) in found {
            let reached_at = listener.reached_at;
            let mut way = self.ports.remove(&port).unwrap_or(Way {
                listener,
                at: Vec::new(),
                missing: None,
            });
            way.listener = listener;
            way.missing = None;
            let guest = &self.login.guest;
            let further = guest
                .addresses
                .iter()
                .copied()
                .filter(|at| has_address(*at));
            let wanted: Vec<Ipv4Addr> = [guest.host_address].into_iter().chain(further).collect();
            // This computer may have had an address for a while.
            let gone: Vec<Ipv4Addr> = way.at.extract_if(.., |at| !wanted.contains(at)).collect();
            for at in gone {
                let _ = self.tell("cancel", at, port, reached_at).await;
            }
            for at in wanted {
                if way.at.contains(&at) {
                    continue;
                }
                match self.open(at, port, reached_at).await {
                    Ok(()) => way.at.push(at),
                    Err(why) => way.missing = Some(why),
                }
            }
            self.ports.insert(port, way);
        }
    }

    /// Opens a port. Returns whether another program has it, and why it cannot be opened.
    async fn open(&self, at: Ipv4Addr, port: u16, to: IpAddr) -> Result<(), (bool, String)> {
        // A guest may not take those of sshd, even where root runs stead.
        let first = first_for_users().unwrap_or(1024);
        if port < first {
            return Err((
                false,
                format!("ports below {first} are kept for the host's own services"),
            ));
        }
        let wanted = HostPort {
            protocol: Protocol::Tcp,
            address: at,
            port,
        };
        // ssh does not say why it cannot.
        match wanted.probe() {
            Probe::Free => {}
            Probe::Taken => {
                return Err((
                    true,
                    format!("another program has port {port} at {at}, or at all addresses"),
                ));
            }
            Probe::ForRoot | Probe::NoAddress => {
                return Err((false, format!("this computer cannot open {wanted}")));
            }
            Probe::Refused(code) => {
                let said = io::Error::from_raw_os_error(code);
                return Err((false, format!("this computer cannot open {wanted}: {said}")));
            }
        }
        match self.tell("forward", at, port, to).await {
            Ok(()) => Ok(()),
            Err(error) => Err((true, format!("ssh: {error}"))),
        }
    }

    /// Has ssh open or close a port.
    async fn tell(&self, what: &str, at: Ipv4Addr, port: u16, to: IpAddr) -> io::Result<()> {
        let forward = format!(
            "{}:{}",
            SocketAddr::from((at, port)),
            SocketAddr::from((to, port))
        );
        let guest = &self.login.guest;
        let mut ssh = tokio::process::Command::from((self.login.ssh)(&guest.ssh_config));
        ssh.args(["-o", "BatchMode=yes", "-S"])
            .arg(self.socket)
            .args(["-O", what, "-L", &forward, "--", &guest.machine])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = ssh.start()?;
        let ended = timeout(PATIENCE, async {
            let said = last_words(child.stderr.take()).await;
            child.wait().await.map(|status| (status.success(), said))
        });
        match ended.await {
            Ok(Ok((true, _))) => Ok(()),
            Ok(Ok((false, said))) => Err(io::Error::other(said)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
