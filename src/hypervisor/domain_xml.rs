//! Writes the domain XML of a machine, from its spec alone (libvirt.org/formatdomain.html).

use std::{
    io,
    path::{Path, PathBuf},
};

use quick_xml::{events::BytesText, writer::Writer};

use crate::{
    machine::{Additions, Identity, MACHINE_URI, PREFIX, Record, Running, to_xml},
    machinefile::{Accel, DiskTuning},
    network::Cable,
};

use super::{
    filesystem_xml::{self, Filesystem},
    firmware_xml, network_xml,
    tuning_xml::{self, WeightScale},
    xml::{W, empty, raw, text},
};

/// Everything that the XML depends on.
#[derive(Clone, Debug)]
pub struct DomainSpec<'a> {
    pub identity: &'a Identity,
    pub record: &'a Record,
    /// The overlays of the machine's other disks.
    pub more_disks: Vec<PathBuf>,
    /// The overlay that the machine boots from.
    pub disk: &'a Path,
    pub boot: BootFrom,
    pub seed: SeedDevice,
    /// A read-only disk with the modules of a kernel that is not the box's.
    pub modules: Option<KernelModules>,
    pub console_log: &'a Path,
    /// How the host's control groups count CPU weights.
    pub weight_scale: WeightScale,
    /// Folders of the host, one per share of the record.
    pub filesystems: Vec<Filesystem>,
    /// The folder with the sockets of the record's cards.
    pub card_sockets: PathBuf,
    /// How frames get to the record's cards. `None`: it has none.
    pub cable: Option<Cable>,
    /// The socket of the guest's agent; `None` for libvirt's default.
    pub agent_socket: Option<PathBuf>,
    /// What libvirt chose when the machine was defined before, if it said so: elements of `<os>`.
    pub firmware_files: Vec<String>,
    /// What others have added to the domain, which is kept.
    pub additions: &'a Additions,
}

#[derive(Clone, Debug)]
pub struct KernelModules {
    pub file: PathBuf,
    /// The disk's serial number, by which the guest finds it.
    pub serial: &'static str,
}

#[derive(Clone, Debug)]
pub enum BootFrom {
    /// QEMU loads the kernel.
    Kernel {
        kernel: PathBuf,
        initrd: Option<PathBuf>,
        cmdline: String,
    },
    /// The firmware starts the disk's own bootloader.
    Disk,
}

/// How the seed reaches the guest.
#[derive(Clone, Debug)]
pub enum SeedDevice {
    /// fw_cfg entries (name, file). They are files and not values, because everybody on the host can read QEMU's
    /// arguments, and a seed has secrets.
    FirmwareConfig(Vec<(String, PathBuf)>),
    /// A read-only virtio disk. It is not a SATA disk or a CD, because Debian's cloud kernel has no AHCI.
    Disk(PathBuf),
    None,
}

/// Returns the domain XML of a machine.
///
/// # Errors
/// If the record cannot be written as JSON.
pub fn domain_xml(spec: &DomainSpec<'_>) -> Result<String, String> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    write(&mut writer, spec).map_err(|error| error.to_string())?;
    String::from_utf8(writer.into_inner()).map_err(|error| error.to_string())
}

fn write(writer: &mut W, spec: &DomainSpec<'_>) -> io::Result<()> {
    let machine = &spec.record.spec;
    let kvm = machine.accel == Accel::Kvm;
    writer
        .create_element("domain")
        .with_attribute(("type", if kvm { "kvm" } else { "qemu" }))
        .with_attribute(("xmlns:qemu", "http://libvirt.org/schemas/domain/qemu/1.0"))
        .write_inner_content(|w| {
            text(w, "name", &spec.identity.domain)?;
            text(w, "uuid", &spec.identity.uuid.to_string())?;
            text(
                w,
                "title",
                &format!("stead: {} in {}", spec.record.machine, spec.record.project),
            )?;
            if let Some(description) = &spec.additions.description {
                text(w, "description", description)?;
            }
            w.create_element("metadata").write_inner_content(|w| {
                metadata(w, spec.record)?;
                (spec.additions.metadata.iter()).try_for_each(|xml| raw(w, xml))
            })?;
            tuning_xml::memory(
                w,
                machine,
                filesystem_xml::needs_shared_memory(&spec.filesystems),
            )?;
            tuning_xml::vcpu(w, machine, spec.weight_scale)?;
            if let SeedDevice::FirmwareConfig(entries) = &spec.seed
                && !entries.is_empty()
            {
                w.create_element("sysinfo")
                    .with_attribute(("type", "fwcfg"))
                    .write_inner_content(|w| {
                        for (name, file) in entries {
                            w.create_element("entry")
                                .with_attribute(("name", name.as_str()))
                                .with_attribute(("file", &*file.to_string_lossy()))
                                .write_empty()?;
                        }
                        Ok(())
                    })?;
            }
            os(w, spec)?;
            w.create_element("features").write_inner_content(|w| {
                empty(w, "acpi", &[])?;
                empty(w, "apic", &[])?;
                firmware_xml::features(w, &machine.firmware)?;
                tuning_xml::features(w, machine)
            })?;
            // "maximum" is everything that TCG can emulate. The default model lacks features that current
            // distributions need (x86-64-v2 and up).
            let mode = if kvm { "host-passthrough" } else { "maximum" };
            tuning_xml::cpu(w, machine, mode)?;
            empty(w, "genid", &[])?;
            empty(w, "clock", &[("offset", "utc")])?;
            text(w, "on_poweroff", "destroy")?;
            text(w, "on_reboot", "restart")?;
            text(w, "on_crash", "destroy")?;
            w.create_element("devices")
                .write_inner_content(|w| devices(w, spec))?;
            w.create_element("qemu:commandline")
                .write_inner_content(|w| {
                    network_xml::login(w, spec.record)?;
                    network_xml::by_sockets(w, spec)?;
                    (spec.additions.arguments.iter())
                        .try_for_each(|argument| empty(w, "qemu:arg", &[("value", argument)]))
                })?;
            Ok(())
        })?;
    Ok(())
}

/// Returns a definition with nothing but what libvirt keeps files for: it is only there to be undefined.
pub(super) fn bare_xml(identity: &Identity, record: &Record) -> Result<String, String> {
    let firmware = &record.spec.firmware;
    let mut writer = Writer::new(Vec::new());
    writer
        .create_element("domain")
        .with_attribute(("type", "qemu"))
        .write_inner_content(|w| {
            text(w, "name", &identity.domain)?;
            text(w, "uuid", &identity.uuid.to_string())?;
            w.create_element("metadata")
                .write_inner_content(|w| metadata(w, record))?;
            text(w, "memory", "65536")?;
            w.create_element("os")
                .with_attributes(firmware_xml::attribute(firmware))
                .write_inner_content(|w| boot(w, &BootFrom::Disk))?;
            w.create_element("features")
                .write_inner_content(|w| empty(w, "acpi", &[]))?;
            w.create_element("devices")
                .write_inner_content(|w| firmware_xml::tpm(w, firmware))?;
            Ok(())
        })
        .map_err(|error: io::Error| error.to_string())?;
    String::from_utf8(writer.into_inner()).map_err(|error| error.to_string())
}

fn metadata(w: &mut W, record: &Record) -> io::Result<()> {
    let json = serde_json::to_string(record).map_err(io::Error::other)?;
    w.create_element(format!("{PREFIX}:machine").as_str())
        .with_attribute((format!("xmlns:{PREFIX}").as_str(), MACHINE_URI))
        .write_text_content(BytesText::new(&json))?;
    Ok(())
}

fn os(w: &mut W, spec: &DomainSpec<'_>) -> io::Result<()> {
    let firmware = &spec.record.spec.firmware;
    w.create_element("os")
        .with_attributes(firmware_xml::attribute(firmware))
        .write_inner_content(|w| {
            boot(w, &spec.boot)?;
            firmware_xml::choice(w, firmware)?;
            (spec.firmware_files.iter()).try_for_each(|xml| raw(w, xml))
        })?;
    Ok(())
}

fn boot(w: &mut W, boot: &BootFrom) -> io::Result<()> {
    w.create_element("type")
        .with_attribute(("arch", std::env::consts::ARCH))
        .with_attribute(("machine", "q35"))
        .write_text_content(BytesText::new("hvm"))?;
    match boot {
        BootFrom::Kernel {
            kernel,
            initrd,
            cmdline,
        } => {
            text(w, "kernel", &kernel.to_string_lossy())?;
            if let Some(initrd) = initrd {
                text(w, "initrd", &initrd.to_string_lossy())?;
            }
            text(w, "cmdline", cmdline)?;
        }
        BootFrom::Disk => empty(w, "boot", &[("dev", "hd")])?,
    }
    Ok(())
}

fn devices(w: &mut W, spec: &DomainSpec<'_>) -> io::Result<()> {
    disk(
        w,
        spec.disk,
        "qcow2",
        "vda",
        Some(&spec.record.spec.tuning.disk),
        None,
    )?;
    if let SeedDevice::Disk(seed) = &spec.seed {
        disk(w, seed, "raw", "vdb", None, None)?;
    }
    let first = if matches!(spec.seed, SeedDevice::Disk(_)) {
        b'c'
    } else {
        b'b'
    };
    let taken: Vec<&str> = (spec.additions.devices.iter())
        .filter_map(|device| device.target.as_deref())
        .collect();
    let mut letters = (first..=b'z')
        .map(char::from)
        .filter(|letter| !taken.contains(&&*format!("vd{letter}")));
    for (file, letter) in spec.more_disks.iter().zip(&mut letters) {
        let target = format!("vd{letter}");
        disk(
            w,
            file,
            "qcow2",
            &target,
            Some(&DiskTuning::default()),
            None,
        )?;
    }
    // This disk is last, so that it does not change the names of the others.
    if let Some((modules, letter)) = spec.modules.as_ref().zip(letters.next()) {
        let target = format!("vd{letter}");
        disk(w, &modules.file, "raw", &target, None, Some(modules.serial))?;
    }
    for filesystem in &spec.filesystems {
        filesystem_xml::filesystem(w, filesystem)?;
    }
    network_xml::by_taps(w, spec)?;
    network_xml::on_bridges(w, spec)?;
    if !(spec.additions.devices.iter()).any(|device| device.is_usb_controller) {
        empty(w, "controller", &[("type", "usb"), ("model", "none")])?;
    }
    for device in &spec.additions.devices {
        raw(w, &device.xml)?;
    }
    w.create_element("serial")
        .with_attribute(("type", "pty"))
        .write_inner_content(|w| {
            empty(
                w,
                "log",
                &[
                    ("file", &*spec.console_log.to_string_lossy()),
                    ("append", "on"),
                ],
            )?;
            empty(w, "target", &[("port", "0")])
        })?;
    w.create_element("console")
        .with_attribute(("type", "pty"))
        .write_inner_content(|w| empty(w, "target", &[("type", "serial"), ("port", "0")]))?;
    w.create_element("channel")
        .with_attribute(("type", "unix"))
        .write_inner_content(|w| {
            if let Some(socket) = &spec.agent_socket {
                let path = socket.to_string_lossy();
                empty(w, "source", &[("mode", "bind"), ("path", &*path)])?;
            }
            empty(
                w,
                "target",
                &[("type", "virtio"), ("name", "org.qemu.guest_agent.0")],
            )
        })?;
    w.create_element("rng")
        .with_attribute(("model", "virtio"))
        .write_inner_content(|w| {
            w.create_element("backend")
                .with_attribute(("model", "random"))
                .write_text_content(BytesText::new("/dev/urandom"))?;
            Ok(())
        })?;
    firmware_xml::tpm(w, &spec.record.spec.firmware)?;
    empty(w, "memballoon", &[("model", "virtio")])
}

/// Writes a disk. A disk without tuning is read-only.
fn disk(
    w: &mut W,
    file: &Path,
    format: &str,
    target: &str,
    tuning: Option<&DiskTuning>,
    serial: Option<&str>,
) -> io::Result<()> {
    w.create_element("disk")
        .with_attribute(("type", "file"))
        .with_attribute(("device", "disk"))
        .write_inner_content(|w| {
            match tuning {
                // Without discard: space that the guest frees must stay allocated on the host.
                None
                | Some(DiskTuning {
                    preallocate: true, ..
                }) => empty(w, "driver", &[("name", "qemu"), ("type", format)])?,
                Some(_) => empty(
                    w,
                    "driver",
                    &[("name", "qemu"), ("type", format), ("discard", "unmap")],
                )?,
            }
            empty(w, "source", &[("file", &*file.to_string_lossy())])?;
            empty(w, "target", &[("dev", target), ("bus", "virtio")])?;
            match tuning {
                None => empty(w, "readonly", &[])?,
                Some(tuning) => tuning_xml::disk(w, tuning)?,
            }
            if let Some(serial) = serial {
                text(w, "serial", serial)?;
            }
            Ok(())
        })?;
    Ok(())
}

/// Returns the element that marks a live domain.
pub(super) fn running_xml(running: &Running) -> Result<String, String> {
    to_xml("running", running)
}

/// Returns the element that records a machine, for `virDomainSetMetadata`.
pub(super) fn record_xml(record: &Record) -> Result<String, String> {
    to_xml("machine", record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::ports::Protocol,
        machine::{
            Addition, BridgeCard, FirmwareSpec, Layout, NetworkCard, Phase, ShareKind, Spec,
            sample_record,
        },
        machinefile::{Bytes, CpuTuning, Firmware, Forward, MemoryTuning, Topology, Tuning},
    };

    fn record(accel: Accel) -> Record {
        Record {
            root: "/home/é & co/shop".into(),
            file: None,
            phase: Phase::Creating,
            spec: Spec {
                disk: Bytes(10 * Bytes::GIB),
                accel,
                ..sample_record().spec
            },
            failed: Default::default(),
            ..sample_record()
        }
    }

    /// A machine with as little as can be.
    fn plain<'a>(
        identity: &'a Identity,
        record: &'a Record,
        additions: &'a Additions,
    ) -> DomainSpec<'a> {
        DomainSpec {
            identity,
            record,
            more_disks: Vec::new(),
            disk: Path::new("/data/images/disk.qcow2"),
            boot: BootFrom::Disk,
            seed: SeedDevice::None,
            modules: None,
            console_log: Path::new("/data/machines/1/console.log"),
            weight_scale: WeightScale::Shares,
            filesystems: Vec::new(),
            card_sockets: PathBuf::new(),
            cable: Some(Cable::Sockets),
            agent_socket: None,
            firmware_files: Vec::new(),
            additions,
        }
    }

    fn web() -> Identity {
        Identity::of("shop", Path::new("/shop"), "web")
    }

    fn part(xml: &str, from: &str, to: &str) -> String {
        let start = xml.find(from).unwrap();
        let end = start + xml[start..].find(to).unwrap();
        xml[start..end].to_string()
    }

    fn xml(accel: Accel, boot: BootFrom, seed: SeedDevice) -> String {
        let identity = Identity::of("shop", Path::new("/home/é & co/shop"), "web");
        domain_xml(&DomainSpec {
            disk: Path::new("/data/images/disk & <one>.qcow2"),
            boot,
            seed,
            ..plain(&identity, &record(accel), &Additions::default())
        })
        .unwrap()
    }

    #[test]
    fn a_machine_that_boots_directly() {
        insta::assert_snapshot!(xml(
            Accel::Tcg,
            BootFrom::Kernel {
                kernel: "/data/images/kernel-00".into(),
                initrd: Some("/data/images/initrd-00".into()),
                cmdline: "root=/dev/vda quiet=\"<yes>\" console=ttyS0".into(),
            },
            SeedDevice::FirmwareConfig(vec![(
                "opt/io.systemd.credentials/stead.hostname".into(),
                "/data/machines/1/credentials/stead.hostname".into(),
            )]),
        ));
    }

    #[test]
    fn libvirt_chooses_the_firmware() {
        let identity = web();
        let xml = |firmware, boot, files: &[&str]| {
            let mut record = record(Accel::Tcg);
            record.spec.firmware = firmware;
            domain_xml(&DomainSpec {
                boot,
                firmware_files: files.iter().map(|it| (*it).to_string()).collect(),
                ..plain(&identity, &record, &Additions::default())
            })
            .unwrap()
        };
        let with = |secure_boot, tpm| FirmwareSpec {
            kind: Firmware::Uefi,
            secure_boot,
            tpm,
        };
        let flat = |xml: &str, from, to| -> String {
            part(xml, from, to).lines().map(str::trim).collect()
        };
        let plain = xml(with(false, false), BootFrom::Disk, &[]);
        assert_eq!(
            flat(&plain, "<os", "<features"),
            "<os firmware=\"efi\"><type arch=\"x86_64\" machine=\"q35\">hvm</type><boot dev=\"hd\"/>\
             <firmware><feature enabled=\"no\" name=\"secure-boot\"/></firmware></os>"
        );
        assert!(!plain.contains("tpm") && !plain.contains("smm"), "{plain}");
        let secure = xml(with(true, true), BootFrom::Disk, &["<loader>a</loader>"]);
        assert_eq!(
            flat(&secure, "<firmware>", "<tcg"),
            "<firmware><feature enabled=\"yes\" name=\"secure-boot\"/><feature enabled=\"yes\" name=\"enrolled-keys\"/></firmware>\
             <loader>a</loader></os><features><acpi/><apic/><smm state=\"on\"/>"
        );
        assert_eq!(
            flat(&secure, "<tpm", "<memballoon"),
            "<tpm model=\"tpm-crb\"><backend type=\"emulator\" version=\"2.0\"/><alias name=\"ua-stead-tpm\"/></tpm>"
        );
        let bios = FirmwareSpec {
            tpm: true,
            ..FirmwareSpec::default()
        };
        let bios = xml(bios, BootFrom::Disk, &[]);
        assert!(
            bios.contains("<os>") && !bios.contains("<firmware>"),
            "{bios}"
        );
        assert!(bios.contains("<tpm model=\"tpm-crb\">"), "{bios}");
    }

    #[test]
    fn a_machine_with_folders_of_the_host() {
        let mut record = record(Accel::Tcg);
        let xml = |record: &Record| {
            let filesystem = |kind, source: &str, tag: &str, readonly| Filesystem {
                kind,
                source: source.into(),
                tag: tag.into(),
                readonly,
            };
            domain_xml(&DomainSpec {
                filesystems: vec![
                    filesystem(
                        ShareKind::Virtiofs,
                        "/run/user/1000/stead/0123456789ab.01234567/socket",
                        "stead-01234567",
                        true,
                    ),
                    filesystem(ShareKind::NineP, "/home/é & co/app", "stead-89abcdef", true),
                ],
                ..plain(&web(), record, &Additions::default())
            })
            .unwrap()
        };
        let text = xml(&record);
        insta::assert_snapshot!(format!(
            "{}\n{}",
            part(&text, "<memoryBacking>", "<vcpu"),
            part(&text, "<filesystem", "<controller")
        ));
        record.spec.tuning.memory = MemoryTuning {
            reserve: true,
            hugepages: Some(Bytes(2 * Bytes::MIB)),
            max: None,
        };
        insta::assert_snapshot!(part(&xml(&record), "<memoryBacking>", "<vcpu"));
    }

    #[test]
    fn a_copy_reaches_nobody() {
        let record = Record {
            copy_of: Some("web".into()),
            ..record(Accel::Tcg)
        };
        let xml = domain_xml(&DomainSpec {
            disk: Path::new("/data/images/copy.qcow2"),
            seed: SeedDevice::Disk("/data/machines/1/seed.img".into()),
            modules: Some(KernelModules {
                file: "/data/images/modules-00.squashfs".into(),
                serial: "stead-modules",
            }),
            ..plain(
                &Identity::of("shop", Path::new("/shop"), "web.pack"),
                &record,
                &Additions::default(),
            )
        })
        .unwrap();
        assert!(
            xml.contains("user,id=stead0,restrict=on,hostfwd=tcp:127.0.0.1:22022-:22"),
            "{xml}"
        );
    }

    /// Additions of others are the same in the new definition.
    #[test]
    fn what_others_put_in_is_kept() {
        let disk = "<disk type='file' device='disk'><source file='/srv/a&amp;b.img'/><target dev='vdb' bus='virtio'/></disk>";
        let additions = Additions {
            devices: vec![Addition {
                words: "disk vdb (/srv/a&b.img)".into(),
                target: Some("vdb".into()),
                file: Some("/srv/a&b.img".into()),
                is_usb_controller: false,
                xml: disk.into(),
            }],
            arguments: vec!["-boot".into(), "menu=on".into()],
            metadata: vec!["<mine:x xmlns:mine='urn:mine'>1</mine:x>".into()],
            description: Some("mine & yours".into()),
            left_out: Vec::new(),
        };
        let record = record(Accel::Tcg);
        let xml = domain_xml(&DomainSpec {
            modules: Some(KernelModules {
                file: "/data/images/modules-00.squashfs".into(),
                serial: "stead-modules",
            }),
            agent_socket: Some("/tmp/stead-1000/0123456789ab.agent".into()),
            ..plain(&web(), &record, &additions)
        })
        .unwrap();
        assert!(
            xml.contains("<target dev=\"vdc\" bus=\"virtio\"/>"),
            "{xml}"
        );
        assert!(
            xml.contains("<source mode=\"bind\" path=\"/tmp/stead-1000/0123456789ab.agent\"/>"),
            "{xml}"
        );
        let is_own = |path: &Path| path.starts_with("/data");
        let again = Layout::parse(&xml).unwrap().own_disks_left_out(&is_own);
        assert_eq!(again.additions, additions);
    }

    #[test]
    fn a_machine_has_its_cards_on_networks() {
        let mut record = record(Accel::Tcg);
        record.spec.cards = vec![NetworkCard {
            network: "back".into(),
            subnet: "10.77.0.0/24".parse().unwrap(),
            mac: "52:54:00:0a:0b:0c".parse().unwrap(),
            address: [10, 77, 0, 10].into(),
            aliases: Vec::new(),
        }];
        let of = |record: &Record, cable| {
            domain_xml(&DomainSpec {
                card_sockets: "/run/user/1,0/stead/net".into(),
                cable: Some(cable),
                ..plain(&web(), record, &Additions::default())
            })
            .unwrap()
        };
        let (sockets, taps) = (of(&record, Cable::Sockets), of(&record, Cable::Taps));
        insta::assert_snapshot!(format!(
            "{}\n{}",
            part(&sockets, "<qemu:commandline>", "</domain>"),
            part(&taps, "<interface", "<serial")
        ));
        assert!(!sockets.contains("<interface") && !taps.contains("stream,"));
        // They are stead's own, and not what others have added.
        for xml in [&sockets, &taps] {
            let layout = Layout::parse(xml).unwrap();
            let layout = layout.own_disks_left_out(&|path| path.starts_with("/data"));
            assert_eq!(layout.additions, Additions::default());
        }
        // A copy starts the same services, and must not reach anything.
        record.copy_of = Some("web".into());
        for cable in [Cable::Sockets, Cable::Taps] {
            let xml = of(&record, cable);
            assert!(
                !xml.contains("<interface") && !xml.contains("stream,"),
                "{xml}"
            );
        }
    }

    #[test]
    fn cards_on_bridges_are_libvirts_and_keep_their_slots() {
        let mut record = record(Accel::Tcg);
        let card = |network: &str, interface: &str, last: u8| BridgeCard {
            network: network.into(),
            interface: interface.into(),
            mac: crate::network::Mac([0x52, 0x54, 0, 0, 1, last]),
        };
        record.spec.bridges = vec![card("lan", "br0", 1), card("dmz", "br1", 2)];
        // Root's libvirt can have them, also without networks of stead's.
        let xml = xml_of(&record);
        insta::assert_snapshot!(part(&xml, "<interface", "<controller"));
        let layout = Layout::parse(&xml).unwrap();
        let layout = layout.own_disks_left_out(&|path| path.starts_with("/data"));
        assert_eq!(layout.additions, Additions::default());
        record.copy_of = Some("web".into());
        assert!(!xml_of(&record).contains("<interface"));
    }

    #[test]
    fn a_machine_without_internet_keeps_its_forwards() {
        let mut record = record(Accel::Tcg);
        assert!(!xml_of(&record).contains("restrict"));
        record.spec.internet = false;
        let xml = xml_of(&record);
        let netdev = "user,id=stead0,restrict=on,hostfwd=tcp:127.0.0.1:22022-:22,hostfwd=tcp:127.0.0.1:8080-:80";
        assert!(xml.contains(netdev), "{xml}");
        // What leaves a guarded machine does not leave by this card.
        record.spec.internet = true;
        record.spec.egress = Some(Default::default());
        assert_eq!(xml_of(&record).matches(netdev).count(), 1);
    }

    /// QEMU 7.2 takes these (`-netdev user,…`).
    #[test]
    fn forwards_have_their_protocol_and_address() {
        let mut record = record(Accel::Tcg);
        record.spec.forwards = vec![
            Forward {
                protocol: Protocol::Udp,
                ..Forward::tcp(5353, 53)
            },
            Forward {
                address: [0, 0, 0, 0].into(),
                auto_correct: true,
                ..Forward::tcp(8080, 80).moved_to(8081)
            },
        ];
        let xml = xml_of(&record);
        let netdev = "user,id=stead0,hostfwd=tcp:127.0.0.1:22022-:22,hostfwd=udp:127.0.0.1:5353-:53,hostfwd=tcp:0.0.0.0:8081-:80\"";
        assert!(xml.contains(netdev), "{xml}");
        let layout = Layout::parse(&xml).unwrap();
        let live = layout.ports.unwrap().forwards;
        assert!(
            live.len() == 2
                && live
                    .iter()
                    .zip(&record.spec.forwards)
                    .all(|(a, b)| a.is_like(b))
        );
    }

    /// Another port than the Machinefile's is in the running domain; which one was declared is in the record.
    #[test]
    fn forwards_that_got_other_ports_are_recognised_in_the_running_domain() {
        let declared = [
            Forward {
                auto_correct: true,
                ..Forward::tcp(8080, 80)
            },
            Forward {
                protocol: Protocol::Udp,
                auto_correct: true,
                address: [0, 0, 0, 0].into(),
                ..Forward::tcp(5353, 53)
            },
        ];
        let mut running = record(Accel::Tcg);
        running.spec.forwards = vec![declared[0].moved_to(8082), declared[1].moved_to(5354)];
        let layout = |record: &Record| Layout::parse(&xml_of(record)).unwrap();
        let mut seen = running.clone();
        seen.take_over(&layout(&running));
        assert_eq!(seen.spec, running.spec);
        let as_declared: Vec<Forward> = (seen.spec.forwards.iter())
            .map(Forward::as_declared)
            .collect();
        assert_eq!(as_declared, declared);
        // The domain counts, if the record says something else.
        let mut other = running.clone();
        other.spec.forwards[1] = Forward::tcp(5354, 53);
        seen.take_over(&layout(&other));
        assert_eq!(seen.spec.forwards, other.spec.forwards);
    }

    #[test]
    fn a_machine_with_everything_kept_for_it() {
        let mut record = record(Accel::Tcg);
        record.spec.tuning = Tuning {
            cpu: CpuTuning {
                reserve: true,
                pin: Some("2-3".parse().unwrap()),
                shares: None,
                quota: Some(250),
                topology: Some(Topology {
                    sockets: 1,
                    cores: 1,
                    threads: 2,
                }),
                model: Some("Skylake-Client".into()),
            },
            memory: MemoryTuning {
                reserve: true,
                hugepages: Some(Bytes(2 * Bytes::MIB)),
                max: None,
            },
            disk: DiskTuning {
                preallocate: true,
                iops: Some(500),
                throughput: Some(Bytes(100 * Bytes::MIB)),
            },
        };
        insta::assert_snapshot!(xml_of(&record));
    }

    #[test]
    fn a_machine_whose_memory_can_grow() {
        let mut record = record(Accel::Kvm);
        record.spec.tuning.memory.max = Some(Bytes(4 * Bytes::GIB));
        record.spec.tuning.cpu.shares = Some(512);
        let xml = xml_of(&record);
        for part in [
            "<memory unit=\"KiB\">4194304</memory>",
            "<currentMemory unit=\"KiB\">1048576</currentMemory>",
            "<shares>512</shares>",
        ] {
            assert!(xml.contains(part), "{part} is not in {xml}");
        }
        assert!(!xml.contains("partition"), "{xml}");
    }

    fn xml_of(record: &Record) -> String {
        domain_xml(&DomainSpec {
            more_disks: vec!["/data/images/second.qcow2".into()],
            ..plain(&web(), record, &Additions::default())
        })
        .unwrap()
    }

    #[test]
    fn a_machine_that_boots_by_its_bootloader() {
        insta::assert_snapshot!(xml(
            Accel::Kvm,
            BootFrom::Disk,
            SeedDevice::Disk("/data/machines/1/seed.img".into()),
        ));
    }
}
