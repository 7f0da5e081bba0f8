//! Machines that reach each other by name, on a network that needs no root.

mod edits;
mod neighbours;
mod takeover;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::project::{Project, archive, is_system, own_data, text, variable};

/// `BOX`: on qemu:///session the box that cloud-init sets up, which has another network service.
const MACHINEFILE: &str = r#"
project "nets"
defaults { cpus 1; memory "384MiB"; ready { timeout "900s"; }; }
network "back" subnet="10.77.0.0/24"
machine "db" {
    box "debian-12"
    network "back" address="10.77.0.10" aliases="postgres"
    host-access tcp=PORT
    provision "hosts" { shell inline="echo 10.9.9.9 mine >>/etc/hosts"; }
    forward 18481 to=22
}
machine "web" {
    box "BOX"
    network "back"
    egress { allow "192.0.2.0/24" "*.example.org"; }
    forward 18482 to=22
    provision "own" { shell inline="getent hosts web.nets.internal && getent hosts postgres"; }
}
"#;

/// Echoes datagrams, and takes a connection of which it prints the digest.
const SERVER: &str = r#"
import hashlib, socket, threading
def echo():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 5000))
    while True:
        data, who = s.recvfrom(4096)
        s.sendto(data, who)
threading.Thread(target=echo, daemon=True).start()
s = socket.socket(); s.bind(("", 5000)); s.listen()
print("listening", flush=True)
c, _ = s.accept()
h = hashlib.sha256()
while data := c.recv(1 << 16): h.update(data)
print(h.hexdigest())
"#;

/// Sends a datagram as long as one packet that may not be split, and so many MiB.
const CLIENT: &str = r#"
import hashlib, os, socket, sys
host = sys.argv[1]
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5)
u.setsockopt(socket.IPPROTO_IP, 10, 2)
u.connect((host, 5000))
for _ in range(20):
    try:
        u.send(bytes(1472))
        assert len(u.recv(4096)) == 1472
        break
    except (TimeoutError, ConnectionRefusedError): pass
else: sys.exit("no echo")
c = socket.create_connection((host, 5000), 10)
h = hashlib.sha256()
for _ in range(int(sys.argv[2]) * 16):
    data = os.urandom(1 << 10) * 64
    c.sendall(data); h.update(data)
c.close()
print(h.hexdigest())
"#;

/// Prints what becomes of connections.
const REACH: &str = r#"
import socket, sys
for to in sys.argv[1:]:
    host, port = to.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), 20) as it: said = it.recv(100).decode()
    except socket.gaierror: said = "no such name"
    except OSError as error: said = error.strerror or str(error)
    print(to, said)
"#;

fn in_guest(project: &Project, machine: &str, script: &str) -> String {
    project
        .ok(&["exec", machine, "--", "sh", "-euc", script])
        .out
}

/// Both know each other by name and by address, and pass so many MiB on undamaged.
fn reach_each_other(project: &Project, size: u32) {
    let address = |machine: &str| {
        let networks = project.field(machine, "networks");
        networks[0]["address"].as_str().unwrap().to_string()
    };
    assert_eq!(address("db"), "10.77.0.10");
    for (from, to) in [("web", "db"), ("db", "web")] {
        let it = address(to);
        let said = in_guest(
            project,
            from,
            &format!(
                "getent ahostsv4 {to}; getent ahostsv4 {to}.nets.internal; getent hosts {it}; ! getent hosts nosuch"
            ),
        );
        assert_eq!(said.matches(&it).count(), 7, "{said}");
        assert!(said.contains(&format!("{to}.nets.internal")), "{said}");
    }
    // By the authorities that the guest trusts.
    let verify = "openssl verify -verify_hostname postgres.nets.internal -verify_ip 10.77.0.10 /etc/stead/tls/cert.pem; sudo stat -c %a /etc/stead/tls/key.pem";
    assert_eq!(
        in_guest(project, "db", verify),
        "/etc/stead/tls/cert.pem: OK\n600\n"
    );
    let server = project
        .stead(&[
            "exec", "web", "--", "timeout", "900", "python3", "-c", SERVER,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let sent = project
        .ok(&[
            "exec",
            "db",
            "--",
            "python3",
            "-c",
            CLIENT,
            "web",
            &size.to_string(),
        ])
        .out;
    let got = server.wait_with_output().unwrap();
    assert!(got.status.success(), "{}", text(&got));
    let got = String::from_utf8_lossy(&got.stdout).into_owned();
    assert_eq!(got, format!("listening\n{sent}"));
}

/// A service of this computer's 127.0.0.1, which greets whoever connects.
fn greeter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"hello");
        }
    });
    port
}

/// The machines reach what they name, and nothing else of this computer.
fn reach_what_they_name(project: &Project, named: u16) {
    let other = greeter();
    let reach = |machine: &str, to: &[&str]| -> Vec<String> {
        let said = project.ok(&[&["exec", machine, "--", "python3", "-c", REACH], to].concat());
        said.out.lines().map(ToString::to_string).collect()
    };
    let (named, unnamed) = (
        format!("host.internal:{named}"),
        format!("host.internal:{other}"),
    );
    // What was this computer to guests of QEMU's own network.
    let qemus = format!("10.0.2.2:{other}");
    let own = (nix::ifaddrs::getifaddrs().unwrap())
        .filter_map(|it| Some(it.address?.as_sockaddr_in()?.ip()))
        .find(|address| !address.is_loopback());
    assert_eq!(
        reach("db", &[&named, &unnamed]),
        [
            format!("{named} hello"),
            format!("{unnamed} Connection refused"),
        ]
    );
    let said = reach("db", &[&qemus]);
    assert!(!said[0].ends_with(" hello"), "{said:?}");
    // The computer of the tests on qemu:///system has none.
    if let Some(own) = own {
        let own = format!("{own}:{other}");
        assert_eq!(reach("db", &[&own]), [format!("{own} No route to host")]);
    }
    assert_eq!(
        reach(
            "web",
            &[&named, "198.51.100.9:80", "nosuch.test:80", "db:1"]
        ),
        [
            format!("{named} no such name"),
            "198.51.100.9:80 No route to host".to_string(),
            "nosuch.test:80 no such name".to_string(),
            "db:1 Connection refused".to_string(),
        ]
    );
    let links = project.ok(&["link"]).out;
    for refused in ["198.51.100.9:80", "nosuch.test"] {
        assert!(links.contains(&format!("web      {refused}")), "{links}");
    }
    assert!(
        project
            .ok(&["status"])
            .out
            .contains("to reach what it may not")
    );
}

/// Waits until a port of db is at its own address of this computer and answers, or is gone.
fn until_served(project: &Project, port: u16, served: bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let answers = || {
        let Ok(mut stream) = TcpStream::connect(("127.77.0.10", port)) else {
            return false;
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut said = String::new();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_string(&mut said).is_ok()
            && said.contains(" 200 OK")
    };
    loop {
        let ports = project.ok(&["port"]).out;
        let listed = ports.contains(&format!("127.77.0.10:{port}"));
        if listed == served && answers() == served {
            return;
        }
        assert!(Instant::now() < deadline, "{ports}");
        sleep(Duration::from_millis(200));
    }
}

/// What db serves is on this computer too, while it serves it.
fn ports_are_on_the_host(project: &Project, port: u16) {
    let unit = format!("serves-{port}");
    let serve = |address: &str| {
        in_guest(
            project,
            "db",
            &format!(
                "sudo systemd-run --quiet --unit={unit} python3 -m http.server --bind {address} {port}"
            ),
        );
    };
    let end = || in_guest(project, "db", &format!("sudo systemctl stop {unit}"));
    serve("0.0.0.0");
    until_served(project, port, true);
    let listed = project.ok(&["port", "db"]).out;
    assert!(
        listed.contains(&format!("127.77.0.10:{port}  {port}")),
        "{listed}"
    );
    let port_word = port.to_string();
    assert_eq!(
        project.ok(&["url", "db", &port_word]).out,
        format!("http://127.77.0.10:{port}\n")
    );
    end();
    until_served(project, port, false);
    let said = project.run(&["url", "db", &port_word], 1).err;
    assert!(said.contains("nothing listens on it there"), "{said}");
    // One that only the guest itself would reach.
    serve("127.0.0.1");
    until_served(project, port, true);
    end();
}

fn state_file(project: &Project) -> PathBuf {
    let folder = project.data.join("networks");
    let entries = fs::read_dir(&folder).unwrap().flatten().map(|it| it.path());
    let files: Vec<PathBuf> = (entries.filter(|it| it.extension().is_some_and(|it| it == "json")))
        .filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("control")))
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// The interfaces of the cards of root's machines, and their bridge. Other tests have others meanwhile. `state`: the file
/// of the network, such as `stead-net-1a2b3c-system.json`.
fn interfaces(state: &Path) -> Vec<String> {
    let name = state.file_name().unwrap().to_str().unwrap();
    let bridge = format!("stbr{}", name.split(['-', '.']).nth(2).unwrap());
    let ip = |arguments: &[&str]| {
        let output = Command::new("ip").args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // `7: st525400123456: <BROADCAST,…`
        let names = said.lines().filter_map(|line| line.split(": ").nth(1));
        names.map(ToString::to_string).collect::<Vec<_>>()
    };
    let mut all = ip(&["-o", "link", "show", "dev", &bridge]);
    if !all.is_empty() {
        all.extend(ip(&["-o", "link", "show", "master", &bridge]));
    }
    all
}

fn process(project: &Project) -> i32 {
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(state_file(project)).unwrap()).unwrap();
    i32::try_from(state["process"]["pid"].as_i64().unwrap()).unwrap()
}

#[test]
fn machines_reach_each_other_by_name() {
    let second = match is_system() {
        true => "debian-12",
        false => "debian-12-cloud",
    };
    let named = greeter();
    let machinefile = (MACHINEFILE.replace("BOX", second)).replace("PORT", &named.to_string());
    let project = Project::with_data("nets", &machinefile, &own_data("nets-data"));
    for recipe in ["debian-12", second] {
        project.ok(&["box", "add", archive(recipe).to_str().unwrap()]);
    }
    project.ok(&["trust", "--yes"]);
    project.ok(&["up"]);
    reach_each_other(&project, 32);
    reach_what_they_name(&project, named);
    ports_are_on_the_host(&project, 8601);
    let hosts = project.ok(&["hosts"]).out;
    assert!(
        hosts.starts_with("127.77.0.10 db.nets.internal postgres.nets.internal\n127.77.0."),
        "{hosts}"
    );

    // The program is killed: the next command starts it again.
    let before = process(&project);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(before),
        nix::sys::signal::SIGKILL,
    )
    .unwrap();
    project.ok(&["status"]);
    let process = process(&project);
    assert_ne!(process, before);

    let hosts = in_guest(
        &project,
        "db",
        "cat /etc/hosts; sudo networkctl renew enp0s16",
    );
    assert!(hosts.contains("10.9.9.9 mine"), "{hosts}");
    ports_are_on_the_host(&project, 8602);

    // Two machines that run change places in one step.
    let (one, other) = ("forward 18481", "forward 18482");
    let swapped = machinefile.replace(one, "forward X").replace(other, one);
    let machinefile = swapped.replace("forward X", other);
    project.write("Machinefile", &machinefile);
    project.ok(&["up"]);
    for (machine, port) in [("db", 18482), ("web", 18481)] {
        let forwards = project.field(machine, "forwards");
        assert_eq!(forwards, serde_json::json!([format!("{port}→22")]));
        let mut start = [0; 4];
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"SSH-");
    }

    // An edited network is seen, and takes a boot.
    project.write(
        "Machinefile",
        &machinefile.replace("10.77.0.10", "10.77.0.20"),
    );
    let plan = project.ok(&["plan"]).out;
    assert!(
        plan.contains("network is back 10.77.0.10 of 10.77.0.0/24 (postgres), wanted back 10.77.0.20 of 10.77.0.0/24 (postgres); `stead restart db` applies it"),
        "{plan}"
    );

    let state = state_file(&project);
    project.ok(&["destroy", "-y"]);
    assert!(!state.exists());
    // It may be a moment until it has ended, and until somebody has asked for its status.
    let runs = || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while runs() {
        assert!(
            Instant::now() < deadline,
            "the program of the network runs on"
        );
        sleep(Duration::from_millis(100));
    }
    let left = interfaces(&state);
    assert!(left.is_empty(), "{left:?}");
    project.assert_gone("db");
}

/// What debian-12 is tried with in every run, on boxes with other network services, after a boot and with much data.
#[test]
#[ignore = "needs the box of boxes/debian-13, and minutes: ./dev test --full"]
fn machines_of_other_boxes_reach_each_other() {
    let named = greeter();
    let machinefile = (MACHINEFILE.replace("BOX", "debian-12-cloud"))
        .replace("box \"debian-12\"", "box \"debian-13\"")
        .replace("PORT", &named.to_string());
    let project = Project::with_data("nets", &machinefile, &own_data("nets-other-data"));
    for recipe in ["debian-13", "debian-12-cloud"] {
        project.ok(&["box", "add", archive(recipe).to_str().unwrap()]);
    }
    project.ok(&["trust", "--yes"]);
    project.ok(&["up"]);
    reach_each_other(&project, 32);
    reach_what_they_name(&project, named);
    // A guest reboots by itself, and keeps what its provisioner wrote.
    project.reboot("db", || ());
    let hosts = in_guest(&project, "db", "cat /etc/hosts");
    assert!(hosts.contains("10.9.9.9 mine"), "{hosts}");
    reach_each_other(&project, 32);
    ports_are_on_the_host(&project, 8604);
    project.ok(&["halt"]);
    project.ok(&["up"]);
    reach_each_other(&project, 1024);
    ports_are_on_the_host(&project, 8603);
    project.ok(&["destroy", "-y"]);
    project.assert_gone("db");
}

/// The leader of `examples/cluster` is cut off: the others go on, and all are the same again afterwards.
#[test]
#[ignore = "installs packages from Debian's servers in three guests: ./dev test --full"]
fn a_cluster_goes_on_without_its_leader() {
    let example = PathBuf::from(variable("STEAD_TEST_REPO")).join("examples/cluster");
    let read = |name: &str| fs::read_to_string(example.join(name)).unwrap();
    let project = Project::new("cluster", &read("Machinefile"));
    project.write("provision/etcd.sh", &read("provision/etcd.sh"));
    project.ok(&["up"]);
    let etcdctl = |machine: &str, words: &[&str]| {
        let all = [
            &["exec", machine, "--", "etcdctl", "--command-timeout=60s"],
            words,
        ];
        project.ok(&all.concat()).out
    };
    // Endpoint, id, version, size, whether it leads, …
    let leader_among = |machine: &str, members: &[&str]| {
        let endpoints: Vec<String> = (members.iter())
            .map(|member| format!("http://{member}:2379"))
            .collect();
        let endpoints = format!("--endpoints={}", endpoints.join(","));
        let status = etcdctl(machine, &[&endpoints, "endpoint", "status"]);
        let line = status.lines().find(|line| line.contains(", true, "));
        let line = line.unwrap_or_else(|| panic!("no leader: {status}"));
        let name = (members.iter()).find(|member| line.contains(**member));
        (*name.unwrap()).to_string()
    };
    let members = ["etcd-1", "etcd-2", "etcd-3"];
    let healthy = etcdctl("etcd-1", &["member", "list"]);
    assert_eq!(healthy.matches(", started, ").count(), 3, "{healthy}");
    let leader = leader_among("etcd-1", &members);
    let others: Vec<&str> = (members.into_iter())
        .filter(|member| **member != *leader)
        .collect();

    project.ok(&["link", "cut", &leader]);
    for n in 0..3 {
        let key = format!("key-{n}");
        // Until they have another leader, this fails.
        let deadline = Instant::now() + Duration::from_secs(300);
        let put = ["exec", others[0], "--", "etcdctl", "put", &key, "during it"];
        while !project.stead(&put).output().unwrap().status.success() {
            assert!(Instant::now() < deadline, "the others take no {key}");
            sleep(Duration::from_secs(1));
        }
    }
    assert_ne!(leader_among(others[0], &others), leader);
    let alone = ["exec", &leader, "--", "etcdctl", "--command-timeout=5s"];
    project.run(&[&alone[..], &["get", "key-0"]].concat(), 1);

    project.ok(&["link", "restore"]);
    let revision = |machine: &str| {
        let got = etcdctl(machine, &["get", "key-2", "--write-out=json"]);
        let got: serde_json::Value = serde_json::from_str(&got).unwrap();
        assert_eq!(got["count"], 1, "{got}");
        got["header"]["revision"].as_i64().unwrap()
    };
    let first = revision(others[0]);
    // A read is answered once the member has caught up with its leader.
    assert_eq!(revision(&leader), first);
    assert_eq!(revision(others[1]), first);
    project.ok(&["destroy", "-y"]);
}

/// The primary of `examples/failover` is cut off: it confirms no more writes, also when it comes back by mistake, and
/// the standby takes its place.
#[test]
#[ignore = "installs packages from Debian's servers in two guests: ./dev test --full"]
fn a_database_fails_over() {
    let example = PathBuf::from(variable("STEAD_TEST_REPO")).join("examples/failover");
    let read = |name: &str| fs::read_to_string(example.join(name)).unwrap();
    let project = Project::new("failover", &read("Machinefile"));
    for name in ["provision/postgres.sh", "failover.sh", "rejoin.sh"] {
        project.write(name, &read(name));
    }
    let script = |name: &str| {
        let stead = PathBuf::from(variable("STEAD_BIN"));
        let path = format!("{}:{}", stead.parent().unwrap().display(), variable("PATH"));
        let output = Command::new("sh")
            .args([name, "db-1", "db-2"])
            .current_dir(&project.folder)
            .env("PATH", path)
            .env("STEAD_DATA_DIR", &project.data)
            .env_remove("LIBVIRT_DEFAULT_URI")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", text(&output));
    };
    let psql = |machine: &str, seconds: &str, statement: &str| {
        let client = ["timeout", seconds, "psql", "-Atqc", statement];
        let all = [
            &["exec", machine, "--", "sudo", "-iu", "postgres"],
            &client[..],
        ];
        project.stead(&all.concat()).output().unwrap()
    };
    let sql = |machine: &str, statement: &str| {
        let output = psql(machine, "300", statement);
        assert!(output.status.success(), "{machine}: {}", text(&output));
    };
    // timeout(1) exits with 124 if the client still waited.
    let waits = |machine: &str, statement: &str| {
        let output = psql(machine, "20", statement);
        assert_eq!(output.status.code(), Some(124), "{}", text(&output));
    };
    // A standby has a row on its disk before it shows it.
    let shows = |machine: &str, rows: &str| {
        let all = "SELECT string_agg(word, ' ' ORDER BY word) FROM words";
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            let output = psql(machine, "300", all);
            if String::from_utf8_lossy(&output.stdout).trim() == rows {
                break;
            }
            assert!(Instant::now() < deadline, "{machine}: {}", text(&output));
            sleep(Duration::from_secs(1));
        }
    };

    project.ok(&["up"]);
    sql("db-1", "CREATE TABLE words (word text)");
    sql("db-1", "INSERT INTO words VALUES ('before')");
    shows("db-2", "before");

    project.ok(&["link", "cut", "db-1"]);
    waits("db-1", "INSERT INTO words VALUES ('cut-off')");
    script("failover.sh");
    assert_eq!(project.state("db-1"), "off");
    sql("db-2", "INSERT INTO words VALUES ('new')");
    shows("db-2", "before new");

    project.ok(&["link", "restore"]);
    project.ok(&["up", "db-1"]);
    waits("db-1", "INSERT INTO words VALUES ('old')");
    shows("db-2", "before new");

    script("rejoin.sh");
    shows("db-1", "before new");
    let refused = text(&psql("db-1", "300", "INSERT INTO words VALUES ('old')"));
    assert!(refused.contains("read-only transaction"), "{refused}");
    // The primary waits for its standby again.
    sql("db-2", "INSERT INTO words VALUES ('together')");
    shows("db-1", "before new together");
    project.ok(&["link", "cut", "db-1"]);
    waits("db-2", "INSERT INTO words VALUES ('alone')");
    project.ok(&["destroy", "-y"]);
}
