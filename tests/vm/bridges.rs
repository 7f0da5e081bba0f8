//! Machines with cards on bridges of the host, which root's libvirt alone can give them.

use std::{
    fs,
    io::Read,
    net::{IpAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::project::{Project, is_system, text, virsh};

const MACHINEFILE: &str = r#"
project "lan"
network "lan" bridge="brlan"
network "silent" bridge="brsilent"
machine "pc" {
    box "debian-12"
    cpus 1
    memory "384MiB"
    ready { timeout "900s"; }
    network "lan"
    network "silent"
}
"#;

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Two bridges in the namespace of the tests, of which one has a DHCP server, as a LAN has.
struct Lan {
    server: Child,
    leases: PathBuf,
}

impl Lan {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let leases = folder.join("leases");
        for line in [
            "link add brlan type bridge",
            "link add brsilent type bridge",
            "addr add 192.168.77.1/24 dev brlan",
            "link set brlan up",
            "link set brsilent up",
        ] {
            ip(line);
        }
        let mut server = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--user=root",
                "--port=0",
                "--interface=brlan",
                "--except-interface=lo",
                "--bind-interfaces",
                "--dhcp-authoritative",
                "--dhcp-range=192.168.77.50,192.168.77.99,255.255.255.0,1h",
                "--dhcp-option=option:dns-server,192.168.77.1",
                "--pid-file=",
            ])
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        assert!(server.try_wait().unwrap().is_none());
        Lan { server, leases }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        for bridge in ["brlan", "brsilent"] {
            let _ = Command::new("ip").args(["link", "delete", bridge]).output();
        }
    }
}

#[test]
fn a_machine_is_in_the_lan() {
    let project = Project::new("lan", MACHINEFILE);
    if !is_system() {
        let said = project.run(&["up"], 2);
        said.says(&[
            "Machinefile:3:22",
            "network \"lan\" needs qemu:///system",
            "the project uses qemu:///session",
        ]);
        assert_eq!(project.state("pc"), "absent");
        return;
    }
    // Before there are any, and for what is no bridge.
    let said = project.run(&["up"], 2);
    said.says(&["Machinefile:3:22", "this computer has no bridge brlan"]);
    let lan = Lan::new(project.folder.join("dhcp"));
    project.write("Machinefile", &MACHINEFILE.replace("brsilent", "lo"));
    let said = project.run(&["up"], 2);
    said.says(&[
        "Machinefile:4:25",
        "lo is an interface of this computer, and not a bridge",
        "brlan, brsilent",
    ]);
    project.write("Machinefile", MACHINEFILE);
    let said = project.stead_without_trust(&["trust", "--revoke"]).output();
    assert!(said.unwrap().status.success());
    let said = project.stead_without_trust(&["up"]).output().unwrap();
    assert!(
        text(&said).contains("a card on the bridge brlan"),
        "{}",
        text(&said)
    );
    assert_eq!(project.state("pc"), "absent");

    // Nobody answers on the other bridge, and it is ready all the same.
    let said = project.ok(&["up"]);
    let no_answer = "its card on network silent (bridge brsilent, MAC 52:54:00:";
    let all = format!("{}{}", said.out, said.err);
    assert!(all.contains(no_answer), "{all}");
    assert!(all.contains("no DHCP server has answered"), "{all}");

    let bridges = project.field("pc", "bridges");
    assert_eq!(bridges[0]["bridge"], "brlan");
    assert_eq!(bridges[1]["addresses"].as_array().unwrap().len(), 0);
    let mac = bridges[0]["mac"].as_str().unwrap();
    let address = bridges[0]["addresses"][0].as_str().unwrap();
    assert!(address.starts_with("192.168.77."), "{bridges}");
    let leases = fs::read_to_string(&lan.leases).unwrap();
    assert!(leases.contains(&format!("{mac} {address} ")), "{leases}");
    let table = project.ok(&["status"]).out;
    assert!(table.contains(&format!("{address} (brlan)")), "{table}");
    assert!(
        project
            .field("pc", "networks")
            .as_array()
            .unwrap()
            .is_empty()
    );

    // Computers of the LAN reach it.
    let to = (address.parse::<IpAddr>().unwrap(), 22);
    let mut stream = TcpStream::connect_timeout(&to.into(), Duration::from_secs(60)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut banner = [0; 4];
    stream.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"SSH-");

    // It reaches them, and all else by its login card, whose name server it asks.
    let script = "ip -4 route get 192.168.77.1; ip -4 route get 192.0.2.1; cat /etc/resolv.conf; ls /etc/systemd/network";
    let guest = project.ok(&["exec", "pc", "--", "sh", "-euc", script]).out;
    assert!(guest.contains("192.0.2.1 via 10.0.2.1 "), "{guest}");
    assert!(guest.contains("nameserver 10.0.2.1"), "{guest}");
    assert!(!guest.contains("nameserver 192.168.77"), "{guest}");

    // libvirt's own view, and a plan for another bridge.
    let xml = virsh(&["dumpxml", &project.domain("pc")]);
    assert!(xml.contains("<source bridge='brlan'/>"), "{xml}");
    project.write(
        "Machinefile",
        &MACHINEFILE.replace("    network \"silent\"\n", ""),
    );
    let plan = project.ok(&["plan"]).out;
    assert!(
        plan.contains("network is lan on bridge brlan, silent on bridge brsilent, wanted lan on bridge brlan; `stead restart pc` applies it"),
        "{plan}"
    );

    project.ok(&["destroy", "-y"]);
    project.assert_gone("pc");
    // libvirt takes its interfaces away a moment later.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ip("-oneline link show master brlan").is_empty() {
        assert!(Instant::now() < deadline, "a card is left on the bridge");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(ip("-oneline addr show dev brlan").contains("192.168.77.1"));
}
