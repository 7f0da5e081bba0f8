//! `network`: what the network between machines costs, beside QEMU's own pair of sockets between the same machines.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use serde_json::Value;
use stead::{
    host::paths::DataDir,
    network::{Cable, Card, Mac, Network, NetworkFiles, Wiring, ensure, stop},
};

use crate::{
    Result, Trouble, While,
    figure::{Figure, Unit},
    project::{Ground, Project},
    timing,
};

const GROUP: &str = "network";

/// `a` leaves by its network, and `c` is given another way, by QEMU's user network.
const MACHINES: &str = r#"network "back" subnet="10.77.0.0/24"
machine "a" { network "back" address="10.77.0.10"; host-access tcp=PORT; }
machine "b" { network "back" address="10.77.0.11"; }
machine "c" { network "back" address="10.77.0.12"; }"#;

/// Of the pair of sockets.
const PEER: [&str; 2] = ["10.99.0.10", "10.99.0.11"];

/// QEMU's user network, and the addresses of `c` and of this computer there.
const QEMUS: &str = "10.98.0.0/24";
const QEMUS_GUEST: &str = "10.98.0.15";
const QEMUS_HOST: &str = "10.98.0.2";

/// Samples of the figures that boot nothing.
const PAIRS: usize = 7;
const MEBIBYTES: usize = 64;
const DATAGRAMS: usize = 200;

/// Echoes datagrams, and answers a connection once it has taken all of it.
const SERVER: &str = r#"
import socket, threading
def echo():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 5001))
    while True:
        data, who = s.recvfrom(2048); s.sendto(data, who)
threading.Thread(target=echo, daemon=True).start()
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("", 5001)); s.listen()
while True:
    c, _ = s.accept()
    while c.recv(1 << 20): pass
    c.sendall(b"x"); c.close()
"#;

/// Prints the seconds for so many MiB to a host, and for so many datagrams there and back.
const CLIENT: &str = r#"
import socket, sys, time
host, size, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = bytes(1 << 20)
c = socket.create_connection((host, 5001), 30)
begin = time.monotonic()
for _ in range(size): c.sendall(data)
c.shutdown(1); c.recv(1)
print(time.monotonic() - begin)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5); u.connect((host, 5001))
u.send(b"x"); u.recv(99)
begin = time.monotonic()
for _ in range(count): u.send(b"x" * 64); u.recv(99)
print(time.monotonic() - begin)
"#;

/// Prints the seconds for so many names, and for so many pings of the same process.
const NAMES: &str = r#"
import os, socket, struct, sys, time
count = int(sys.argv[1])
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5); u.connect(("10.77.0.1", 53))
name = b"".join(bytes([len(p)]) + p for p in b"b.net.internal".split(b".")) + b"\0"
def ask(n):
    u.send(struct.pack(">HHHHHH", n, 0x100, 1, 0, 0, 0) + name + b"\0\1\0\1")
    assert u.recv(512)[-4:] == bytes([10, 77, 0, 11])
ask(0)
begin = time.monotonic()
for n in range(count): ask(n)
print(time.monotonic() - begin)
r = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); r.settimeout(5)
def ping(n):
    body = struct.pack(">BBHHH", 8, 0, 0, 7, n) + b"x" * 56
    total = sum(struct.unpack(">%dH" % (len(body) // 2), body))
    total = (total >> 16) + (total & 0xffff); total += total >> 16
    r.sendto(body[:2] + struct.pack(">H", ~total & 0xffff) + body[4:], ("10.77.0.1", 0))
    while r.recv(2048)[20] != 0: pass
ping(0)
begin = time.monotonic()
for n in range(count): ping(n)
print(time.monotonic() - begin)
"#;

/// Prints the seconds for so many MiB from this computer, and for so many small answers, each by its own connection.
const FETCH: &str = r#"
import socket, struct, sys, time
host, size, count = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])
buffer = memoryview(bytearray(1 << 20))
def fetch(wanted):
    c = socket.create_connection(host, 30)
    c.sendall(struct.pack(">Q", wanted))
    got = 0
    while n := c.recv_into(buffer): got += n
    assert got == wanted, got
for size, count in [(size << 20, 1), (100, count)]:
    fetch(100)
    begin = time.monotonic()
    for _ in range(count): fetch(size)
    print(time.monotonic() - begin)
"#;

/// Of the way out.
const FETCHES: usize = 5;
const FETCHED_MEBIBYTES: usize = 1024;
const ANSWERS: usize = 800;

/// Writes the seconds between two answers that are far apart, for ever.
const STEADY: &str = r#"
import socket, time
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(0.02); u.connect(("10.77.0.11", 5001))
last = None
while True:
    try:
        u.send(b"x"); u.recv(99)
        now = time.monotonic()
        if last and now - last > 0.05:
            with open("/run/gaps", "a") as gaps: print(now - last, file=gaps)
        last = now; time.sleep(0.01)
    except OSError: pass
"#;

pub(crate) fn measure(runs: usize) -> Result<Vec<Figure>> {
    let ground = Ground::new()?;
    let mut figures = Vec::new();
    // What was measured is there even if the next figure cannot be.
    let mut add = |figure: Figure| {
        eprintln!("figures: {figure}");
        figures.push(figure);
    };
    add(memory(&ground)?);
    // A single pair says little, and takes minutes.
    if runs > 1 {
        add(boots(&ground, runs)?);
    }
    let port = serve()?;
    let project = ground.project("net", &MACHINES.replace("PORT", &port.to_string()))?;
    project.seconds(["trust", "--yes"])?;
    project.seconds(["up"])?;
    add(at_rest(&project)?);
    further_cards(&project)?;
    way_out(&project, port)?.into_iter().for_each(&mut add);
    add(ports(&project)?);
    for machine in ["a", "b"] {
        let unit = ["sudo", "systemd-run", "--quiet", "--unit=serves"];
        exec(
            &project,
            machine,
            &[&unit[..], &["python3", "-c", SERVER]].concat(),
        )?;
    }
    against_the_pair(&project)?.into_iter().for_each(&mut add);
    add(names(&project)?);
    add(revived(&project)?);
    Ok(figures)
}

fn exec(project: &Project<'_>, machine: &str, words: &[&str]) -> Result<String> {
    timing::output(&mut project.stead([&["exec", machine, "--"], words].concat()))
}

fn numbers(text: &str) -> Result<Vec<f64>> {
    (text.lines())
        .map(|line| line.trim().parse::<f64>().during(format!("read {line:?}")))
        .collect()
}

fn boots(ground: &Ground, runs: usize) -> Result<Figure> {
    let with = ground.project("with", "machine \"web\" count=2")?;
    let without = ground.project("without", "machine \"web\" count=2 { network none=#true; }")?;
    with.seconds(["status"])?;
    let once = |project: &Project<'_>| {
        let took = project.seconds(["up"])?;
        project.destroy()?;
        Ok(took)
    };
    let mut pairs = Vec::new();
    for run in 0..runs {
        eprintln!("figures: boots, run {} of {runs}", run + 1);
        pairs.push(match run % 2 {
            0 => {
                let first = once(&with)?;
                (first, once(&without)?)
            }
            _ => {
                let first = once(&without)?;
                (once(&with)?, first)
            }
        });
    }
    Figure::ratio(
        GROUP,
        "cold up of two with a network over without",
        &pairs,
        1.05,
    )
}

fn memory(ground: &Ground) -> Result<Figure> {
    let data = DataDir::at(ground.path().join("memory"));
    let files = NetworkFiles::of(&data, "bec000", Cable::Sockets);
    let cards = (1..=10)
        .map(|n| Card {
            machine: format!("web-{n}"),
            mac: Mac([0x52, 0x54, 0, 0, 0, n]),
            address: Ipv4Addr::new(10, 77, 0, n + 1),
            aliases: Vec::new(),
            internet: true,
            egress: None,
        })
        .collect();
    let wiring = Wiring {
        domain: "net.internal".into(),
        networks: vec![Network {
            name: "back".into(),
            subnet: "10.77.0.0/24".parse().during("read a subnet")?,
            cards,
        }],
        guests: Vec::new(),
        ways_in: Vec::new(),
        starting: Vec::new(),
        links: None,
    };
    let stead = std::env::var_os("STEAD_BIN").map(std::path::PathBuf::from);
    let program = stead.unwrap_or_default().with_file_name("stead-net");
    ensure(&files, &wiring, &mut Command::new(program)).during("start stead-net")?;
    let state = files.read().map(|state| state.process.pid);
    let resident = state.and_then(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse::<f64>().ok()
    });
    stop(&files).during("end stead-net")?;
    let resident = resident.ok_or_else(|| Trouble("stead-net has no memory".into()))?;
    let samples = vec![resident / 1024.0];
    Figure::of(
        GROUP,
        "memory of ten machines' network",
        Unit::Mebibytes,
        samples,
        10.0,
    )
}

/// The process id of the project's network.
fn process(project: &Project<'_>) -> Result<String> {
    let folder = project.data().join("networks");
    let files = fs::read_dir(&folder).during(folder.display())?;
    for file in files.flatten() {
        let state = fs::read(file.path()).ok();
        let state: Option<Value> = state.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(pid) = state
            .as_ref()
            .and_then(|state| state["process"]["pid"].as_u64())
        {
            return Ok(pid.to_string());
        }
    }
    Err(Trouble("no network runs".into()))
}

fn at_rest(project: &Project<'_>) -> Result<Figure> {
    const SECONDS: u64 = 20;
    let pid = process(project)?;
    // In ticks of 10 ms (proc_pid_stat(5)).
    let used = || -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).during("read of stead-net")?;
        let fields: Vec<&str> = text
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |n: usize| fields.get(n).and_then(|it| it.parse::<f64>().ok());
        Ok(ticks(11).unwrap_or_default() + ticks(12).unwrap_or_default())
    };
    sleep(Duration::from_secs(5));
    let before = used()?;
    sleep(Duration::from_secs(SECONDS));
    let share = (used()? - before) / SECONDS as f64;
    Figure::of(
        GROUP,
        "CPU of the process at rest",
        Unit::Percent,
        vec![share],
        0.1,
    )
}

/// A command that a machine runs, which ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a Python program in a machine. Each of its lines comes with the time at which it came.
fn start(
    project: &Project<'_>,
    machine: &str,
    program: &str,
) -> Result<(Running, mpsc::Receiver<Instant>)> {
    let mut child = project
        .stead(["exec", machine, "--", "python3", "-c", program])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .during("start a program in a machine")?;
    let (say, said) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        spawn(move || {
            for _ in BufReader::new(output)
                .lines()
                .map_while(std::io::Result::ok)
            {
                let _ = say.send(Instant::now());
            }
        });
    }
    Ok((Running(child), said))
}

/// From the moment at which something listens to the first connection on the host.
fn ports(project: &Project<'_>) -> Result<Figure> {
    let mut samples = Vec::new();
    for n in 0..10 {
        let port = 6100 + n;
        let program = format!(
            "import socket, time\ns = socket.socket(); s.bind(('', {port})); s.listen()\nprint('x', flush=True); time.sleep(60)"
        );
        let (_running, lines) = start(project, "a", &program)?;
        let began = lines.recv().during("wait for a program in a machine")?;
        while TcpStream::connect(("127.77.0.10", port)).is_err() {
            if began.elapsed() > Duration::from_secs(30) {
                return Err(Trouble(format!("port {port} does not appear")));
            }
            sleep(Duration::from_millis(5));
        }
        samples.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Figure::of(
        GROUP,
        "a port that opens is on the host",
        Unit::Milliseconds,
        samples,
        1000.0,
    )
}

/// Serves as many bytes as a connection asks for, at a port of 127.0.0.1.
fn serve() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").during("listen")?;
    let port = listener.local_addr().during("listen")?.port();
    spawn(move || {
        for mut stream in listener.incoming().flatten() {
            spawn(move || {
                let mut wanted = [0; 8];
                if stream.read_exact(&mut wanted).is_ok() {
                    let mut zeros = std::io::repeat(0).take(u64::from_be_bytes(wanted));
                    let _ = std::io::copy(&mut zeros, &mut stream);
                }
            });
        }
    });
    Ok(port)
}

fn way_out(project: &Project<'_>, port: u16) -> Result<Vec<Figure>> {
    let (port, size) = (port.to_string(), FETCHED_MEBIBYTES.to_string());
    let count = ANSWERS.to_string();
    // Both by an address: the name server has a figure of its own.
    let once = |machine: &str, host: &str| -> Result<Vec<f64>> {
        let program = ["python3", "-c", FETCH, host, &port, &size, &count];
        numbers(&exec(project, machine, &program)?)
    };
    let mut samples: [Vec<(f64, f64)>; 2] = Default::default();
    for n in 0..FETCHES {
        let (ours, qemus) = match n % 2 {
            0 => {
                let first = once("a", "10.77.0.1")?;
                (first, once("c", QEMUS_HOST)?)
            }
            _ => {
                let first = once("c", QEMUS_HOST)?;
                (once("a", "10.77.0.1")?, first)
            }
        };
        for (n, pairs) in samples.iter_mut().enumerate() {
            pairs.push((ours[n], qemus[n]));
        }
    }
    let [large, small] = samples;
    // 0.9 of QEMU's throughput is 1.11 of its time.
    Ok(vec![
        Figure::ratio(GROUP, "1 GiB by the way out over QEMU's own", &large, 1.11)?,
        Figure::ratio(
            GROUP,
            "800 small answers by the way out over QEMU's own",
            &small,
            1.11,
        )?,
    ])
}

/// Gives each machine a further card, on the port of PCI Express that is left: two on a pair of sockets of QEMU's, and
/// one on QEMU's user network.
fn further_cards(project: &Project<'_>) -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").during("find a free port")?;
    let port = listener.local_addr().during("find a free port")?.port();
    drop(listener);
    for (n, (machine, how)) in ["a", "b"].iter().zip(["listen", "connect"]).enumerate() {
        let netdev = format!("socket,id=peer,{how}=127.0.0.1:{port}");
        further_card(project, (n, machine), "peer", &netdev, PEER[n])?;
    }
    let netdev = format!("user,id=own,net={QEMUS}");
    further_card(project, (2, "c"), "own", &netdev, QEMUS_GUEST)
}

fn further_card(
    project: &Project<'_>,
    (n, machine): (usize, &str),
    id: &str,
    netdev: &str,
    address: &str,
) -> Result<()> {
    let status = timing::output(&mut project.stead(["status", "--json"]))?;
    let status: Value = serde_json::from_str(&status).during("read the status")?;
    let domain = status["machines"][n]["domain"].as_str().unwrap_or_default();
    let mac = format!("52:54:00:99:00:{n:02x}");
    let known = format!(
        "sudo mkdir -p /run/systemd/network && printf '[Match]\\nMACAddress={mac}\\n[Network]\\nAddress={address}/24\\n' | \
         sudo tee /run/systemd/network/00-further.network && sudo networkctl reload"
    );
    exec(project, machine, &["sh", "-c", &known])?;
    for command in [
        format!("netdev_add {netdev}"),
        format!("device_add virtio-net-pci,netdev={id},id={id}card,mac={mac},bus=pci.5,romfile="),
    ] {
        let said = timing::output(Command::new("virsh").args([
            "--quiet",
            "--connect",
            "qemu:///session",
            "qemu-monitor-command",
            "--hmp",
            domain,
            &command,
        ]))?;
        if !said.trim().is_empty() {
            return Err(Trouble(format!("{command}: {said}")));
        }
    }
    let here = format!(
        "for i in $(seq 100); do ip address | grep -q {address}/ && exit; sleep 0.2; done; exit 1"
    );
    exec(project, machine, &["sh", "-c", &here]).map(drop)
}

fn against_the_pair(project: &Project<'_>) -> Result<Vec<Figure>> {
    let (size, count) = (MEBIBYTES.to_string(), DATAGRAMS.to_string());
    let mut samples: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    let once = |from: &str, host: &str| -> Result<Vec<f64>> {
        numbers(&exec(
            project,
            from,
            &["python3", "-c", CLIENT, host, &size, &count],
        )?)
    };
    for n in 0..PAIRS {
        for (way, from, ours, theirs) in [
            ("TCP from a to b", "a", "10.77.0.11", PEER[1]),
            ("TCP from b to a", "b", "10.77.0.10", PEER[0]),
        ] {
            let (mine, other) = match n % 2 {
                0 => {
                    let first = once(from, ours)?;
                    (first, once(from, theirs)?)
                }
                _ => {
                    let first = once(from, theirs)?;
                    (once(from, ours)?, first)
                }
            };
            samples.entry(way).or_default().push((mine[0], other[0]));
            samples
                .entry("round trip")
                .or_default()
                .push((mine[1], other[1]));
        }
    }
    (samples.iter())
        .map(|(name, pairs)| {
            // 0.85 of the pair's throughput is 1.18 of its time.
            let goal = if *name == "round trip" { 1.3 } else { 1.18 };
            Figure::ratio(
                GROUP,
                &format!("{name} over QEMU's socket pair"),
                pairs,
                goal,
            )
        })
        .collect()
}

fn names(project: &Project<'_>) -> Result<Figure> {
    let count = DATAGRAMS.to_string();
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let said = numbers(&exec(
            project,
            "a",
            &["sudo", "python3", "-c", NAMES, &count],
        )?)?;
        pairs.push((said[0], said[1]));
    }
    Figure::ratio(GROUP, "a name over a ping of the same process", &pairs, 1.3)
}

/// From the kill of the process, which the next command starts again, to the next answer between machines: the kill ends
/// connections from this computer to guests, so a guest measures it.
fn revived(project: &Project<'_>) -> Result<Figure> {
    let unit = ["sudo", "systemd-run", "--quiet", "--unit=steady"];
    exec(
        project,
        "a",
        &[&unit[..], &["python3", "-c", STEADY]].concat(),
    )?;
    let mut samples = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        exec(project, "a", &["sudo", "sh", "-c", ":>/run/gaps"])?;
        let pid = process(project)?;
        timing::output(Command::new("kill").args(["-9", &pid]))?;
        project.seconds(["status"])?;
        let longest = loop {
            let gaps = numbers(&exec(project, "a", &["cat", "/run/gaps"])?)?;
            if let Some(longest) = gaps.into_iter().reduce(f64::max) {
                break longest;
            }
            if began.elapsed() > Duration::from_secs(60) {
                return Err(Trouble("a kill of stead-net is not noticed".into()));
            }
        };
        samples.push(longest * 1000.0);
    }
    Figure::of(
        GROUP,
        "from a kill and the next command to an answer",
        Unit::Milliseconds,
        samples,
        1000.0,
    )
}
