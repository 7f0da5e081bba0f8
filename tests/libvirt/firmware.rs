//! What libvirt makes of firmware: its QEMU driver in this process, in a folder of its own (libvirt.org/drvqemu.html,
//! "Embedded driver"). Each QEMU that it starts ends at once: nothing boots.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use stead::{
    hypervisor::{
        BootFrom, Connection, DomainSpec, LifecycleEvents, SeedDevice, WeightScale, choose_uri,
        domain_xml,
    },
    machine::{Additions, FirmwareSpec, FirmwareState, Identity, Record},
    machinefile::{Accel, Bytes, Firmware},
    network::Cable,
};

use super::{alone, connect, record};

/// As root, the driver would use the host's log daemon and other users.
const SETTINGS: &str = "stdio_handler = \"file\"\nsecurity_driver = \"none\"\ncgroup_controllers = []\nnamespaces = []\n\
     remember_owner = 0\nuser = \"+0\"\ngroup = \"+0\"\nswtpm_user = \"root\"\nswtpm_group = \"root\"\n";

struct Host {
    connection: Connection,
    identity: Identity,
    /// Their subscription drives libvirt's event loop, without which the driver does not run.
    _events: LifecycleEvents,
    /// Removed last: the driver is in it.
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let events = LifecycleEvents::subscribe(&connect()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("etc")).unwrap();
        if nix::unistd::geteuid().is_root() {
            fs::write(root.join("etc/qemu.conf"), SETTINGS).unwrap();
        }
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(root.join("disk.qcow2"))
            .arg("1M")
            .status();
        assert!(made.unwrap().success());
        let uri = format!("qemu:///embed?root={}", root.display());
        Host {
            connection: Connection::open(&choose_uri(Some(&uri), None, false)).unwrap(),
            identity: Identity::of("shop", Path::new("/srv/shop"), "web"),
            folder,
            _events: events,
        }
    }

    fn record(&self, firmware: FirmwareSpec, state: FirmwareState) -> Record {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut record = record("web");
        record.spec.memory = Bytes(128 * Bytes::MIB);
        record.spec.firmware = firmware;
        record.firmware = state;
        record.ssh_port = port.local_addr().unwrap().port();
        record
    }

    /// Defines the machine as stead does.
    fn define(&self, record: &Record, boot: BootFrom) -> stead::hypervisor::Domain {
        let root = self.folder.path();
        let xml = domain_xml(&DomainSpec {
            identity: &self.identity,
            record,
            more_disks: Vec::new(),
            disk: &root.join("disk.qcow2"),
            boot,
            seed: SeedDevice::None,
            modules: None,
            console_log: &root.join("console.log"),
            weight_scale: WeightScale::Shares,
            filesystems: Vec::new(),
            card_sockets: PathBuf::new(),
            cable: Some(Cable::Sockets),
            agent_socket: None,
            firmware_files: Vec::new(),
            additions: &Additions::default(),
        })
        .unwrap();
        self.connection.define(&self.identity, &xml).unwrap()
    }

    /// The files below the driver's folder of which the path has the machine's name or UUID.
    fn kept(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().join("lib")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                let words = path.to_string_lossy().into_owned();
                if path.is_dir() {
                    folders.push(path);
                } else if words.contains("nvram") || words.contains("tpm") {
                    found.push(path);
                }
            }
        }
        found
    }

    fn variables(&self) -> PathBuf {
        let name = format!("{}_VARS.fd", self.identity.domain);
        let found = self.kept().into_iter().find(|it| it.ends_with(&name));
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.kept()))
    }
}

/// A byte that the firmware leaves alone: the last one.
fn mark(file: &Path) -> u8 {
    let bytes = fs::read(file).unwrap();
    bytes[bytes.len() - 1]
}

fn set_mark(file: &Path, mark: u8) {
    let opened = fs::File::options().write(true).open(file).unwrap();
    let end = opened.metadata().unwrap().len() - 1;
    opened.write_all_at(&[mark], end).unwrap();
}

#[test]
fn variables_and_a_tpm_last_as_long_as_the_machine() {
    let _alone = alone();
    let host = Host::new();
    let abilities = host.connection.firmware_abilities(Accel::Tcg).unwrap();
    let all = FirmwareSpec {
        kind: Firmware::Uefi,
        secure_boot: true,
        tpm: true,
    };
    assert_eq!(
        abilities.lack(&all),
        None,
        "`./dev setup` installs it (Debian: ovmf, swtpm, swtpm-tools)"
    );
    let uefi = FirmwareSpec {
        secure_boot: false,
        tpm: false,
        ..all
    };
    let state = FirmwareState::default().defined(&FirmwareSpec::default(), &uefi);
    let uefi = host.record(uefi, state);
    let domain = host.define(&uefi, BootFrom::Disk);
    // Of a machine that somebody undefined and left this behind.
    domain.start().unwrap();
    domain.power_off().unwrap();
    let variables = host.variables();
    let fresh = mark(&variables);
    set_mark(&variables, fresh ^ 1);
    assert!(uefi.firmware.fresh);
    domain.start_with_new_variables().unwrap();
    domain.power_off().unwrap();
    assert_eq!(mark(&variables), fresh);

    // Its own outlast the next starts and definitions.
    set_mark(&variables, fresh ^ 1);
    let domain = host.define(&uefi, BootFrom::Disk);
    domain.start().unwrap();
    domain.power_off().unwrap();
    assert_eq!(mark(&variables), fresh ^ 1);

    // With keys, and a TPM.
    let state = uefi.firmware.defined(&uefi.spec.firmware, &all);
    let secure = host.record(all, state);
    let domain = host.define(&secure, BootFrom::Disk);
    domain.start_with_new_variables().unwrap();
    domain.power_off().unwrap();
    assert!(host.kept().len() > 1, "{:?}", host.kept());

    // With a BIOS and no TPM, they stay, and go with the machine.
    let bios = FirmwareSpec::default();
    let bios = host.record(bios, state.defined(&all, &bios));
    let domain = host.define(&bios, BootFrom::Disk);
    domain.start().unwrap();
    domain.power_off().unwrap();
    assert!(host.kept().len() > 1, "{:?}", host.kept());
    host.connection.undefine(&host.identity).unwrap();
    assert_eq!(host.kept(), [""; 0].map(PathBuf::from));
    assert!(host.connection.observe(&host.identity).unwrap().is_none());
    host.connection.undefine(&host.identity).unwrap();

    // libvirt takes UEFI for a kernel that QEMU loads, too.
    let direct = BootFrom::Kernel {
        kernel: "/boot/vmlinuz".into(),
        initrd: None,
        cmdline: "quiet".into(),
    };
    host.define(&uefi, direct);
    host.connection.undefine(&host.identity).unwrap();
}
