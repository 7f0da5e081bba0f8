//! Domains as stead defined them, and with what others have changed.

use super::*;
use crate::machine::Additions;

const SNAPSHOT: &str = include_str!("snapshot.xml");

fn identity() -> Identity {
    Identity {
        uuid: uuid::Uuid::nil(),
        domain: "stead-a-b-abc123".into(),
    }
}

/// The XML that libvirt 9.0 writes for a domain that stead defined.
fn own() -> String {
    SNAPSHOT
        .replace(
            "<source file='/data/images/stead-a-b-abc123.s1'/>",
            "<source file='/data/images/stead-a-b-abc123.qcow2'/>",
        )
        .replace(
            "<backingStore type='file'>
        <format type='qcow2'/>
        <source file='/data/images/stead-a-b-abc123.qcow2'/>
      </backingStore>",
            "",
        )
}

fn is_own(path: &Path) -> bool {
    is_overlay(path, &identity(), Path::new("/data/images"))
}

#[test]
fn a_machine_as_stead_made_it_has_nothing_foreign() {
    let definition = Layout::parse(&own()).unwrap();
    let images = Path::new("/data/images");
    assert_eq!(definition.foreign_disk(&identity(), images), None);
    assert_eq!(definition.cpus, Some(2));
    assert_eq!(definition.memory, Some(Bytes(64 * Bytes::MIB)));
    assert_eq!(
        definition.ports,
        Some(Ports {
            ssh: 45671,
            forwards: vec![Forward::tcp(8080, 80)],
            restricted: false,
        })
    );
    let definition = definition.own_disks_left_out(&is_own);
    assert_eq!(definition.additions, Additions::default());
}

#[test]
fn firmware_that_libvirt_chose_is_seen_and_a_tpm_of_others() {
    let parse = |from: &str, to: &str| {
        let xml = own();
        assert!(xml.contains(from));
        let definition = Layout::parse(&xml.replacen(from, to, 1)).unwrap();
        definition.own_disks_left_out(&is_own)
    };
    let files = ["<loader secure='no'>/a</loader>", "<nvram>/b</nvram>"];
    let os = |attribute: &str| format!("<os{attribute}>{}", files.concat());
    assert_eq!(parse("<os>", &os(" firmware='efi'")).firmware_files, files);
    // Somebody chose these by hand.
    assert_eq!(parse("<os>", &os("")).firmware_files, [""; 0]);
    let tpm = |alias: &str| {
        let tpm = format!("<tpm model='tpm-crb'><backend type='emulator'/>{alias}</tpm></devices>");
        parse("</devices>", &tpm).additions.devices.len()
    };
    assert_eq!(tpm("<alias name='ua-stead-tpm'/>"), 0);
    assert_eq!(tpm("<alias name='tpm0'/>"), 1);
}

#[test]
fn an_agent_that_has_opened_its_channel_is_seen() {
    assert!(!Layout::parse(&own()).unwrap().agent);
    let name = "name='org.qemu.guest_agent.0'";
    for (state, wanted) in [("connected", true), ("disconnected", false)] {
        let xml = own().replace(name, &format!("{name} state='{state}'"));
        assert_eq!(Layout::parse(&xml).unwrap().agent, wanted, "{state}");
    }
}

#[test]
fn a_snapshot_over_the_own_disk_is_seen() {
    let definition = Layout::parse(SNAPSHOT).unwrap();
    let images = Path::new("/data/images");
    assert_eq!(
        definition.foreign_disk(&identity(), images),
        Some(ForeignDisk {
            target: "vda".into(),
            source: Some("/data/images/stead-a-b-abc123.s1".into()),
            over_own: true,
        })
    );
    // It is not a device to keep beside the own disk.
    let definition = definition.own_disks_left_out(&is_own);
    assert_eq!(definition.additions, Additions::default());
}

#[test]
fn a_disk_that_was_moved_elsewhere_is_seen() {
    let moved = own().replace("/data/images/stead-a-b-abc123.qcow2", "/mnt/copy.qcow2");
    let found = Layout::parse(&moved)
        .unwrap()
        .foreign_disk(&identity(), Path::new("/data/images"))
        .unwrap();
    assert!(!found.over_own);
    assert_eq!(found.source, Some("/mnt/copy.qcow2".into()));
    assert_eq!(found.other_data_folder(&identity()), None);
    let elsewhere = own().replace("/data/images/", "/home/b/stead/images/");
    let found = Layout::parse(&elsewhere)
        .unwrap()
        .foreign_disk(&identity(), Path::new("/data/images"))
        .unwrap();
    assert_eq!(
        found.other_data_folder(&identity()),
        Some(Path::new("/home/b/stead"))
    );
}

#[test]
fn what_others_put_in_is_found_and_loses_its_place() {
    let edited = own()
        .replace(
            "<input type='mouse' bus='ps2'/>",
            "<disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/srv/data.img'/>
      <target dev='vdb' bus='virtio'/>
      <address type='pci' domain='0x0000' bus='0x05' slot='0x00' function='0x0'/>
    </disk>
    <input type='mouse' bus='ps2'/>
    <hostdev mode='subsystem' type='usb'>
      <source>
        <address bus='1' device='2'/>
      </source>
      <alias name='hostdev0'/>
      <address type='usb' bus='0' port='1'/>
    </hostdev>",
        )
        .replace("model='none'", "model='qemu-xhci'")
        .replace(
            "<qemu:arg value='-netdev'/>",
            "<qemu:arg value='-boot'/><qemu:arg value='menu=on'/><qemu:arg value='-netdev'/>",
        )
        .replace(
            "<memory unit",
            "<description>mine &amp; yours</description><iothreads>2</iothreads><memory unit",
        );
    let found = Layout::parse(&edited)
        .unwrap()
        .own_disks_left_out(&is_own)
        .additions;
    let words: Vec<&str> = found.devices.iter().map(|it| it.words.as_str()).collect();
    assert_eq!(
        words,
        [
            "controller (usb)",
            "disk vdb (/srv/data.img)",
            "hostdev (usb)"
        ]
    );
    assert!(
        found.devices[1]
            .xml
            .ends_with("bus='virtio'/>\n    </disk>")
    );
    assert!(!found.devices[1].xml.contains("<address"));
    // The address on the host is kept.
    assert!(
        found.devices[2]
            .xml
            .contains("<address bus='1' device='2'/>")
    );
    assert!(!found.devices[2].xml.contains("port='1'"));
    assert!(found.devices[0].is_usb_controller);
    assert_eq!(found.arguments, ["-boot", "menu=on"]);
    assert_eq!(found.description.as_deref(), Some("mine & yours"));
    assert_eq!(found.left_out, ["iothreads"]);
}

#[test]
fn what_is_no_xml_is_an_error() {
    assert!(Layout::parse("<domain").is_err());
    assert_eq!(Layout::parse("<domain/>").unwrap(), Layout::default());
}

/// An older libvirt, or an edit by hand, does not name the files below.
#[test]
fn a_snapshot_without_a_chain_is_known_by_its_place() {
    let short = own().replace(
        "/data/images/stead-a-b-abc123.qcow2",
        "/data/images/stead-a-b-abc123.s2",
    );
    let found = Layout::parse(&short)
        .unwrap()
        .foreign_disk(&identity(), Path::new("/data/images"))
        .unwrap();
    assert!(found.over_own);
}

/// A running domain whose forwards are these.
fn with_forwards(forwards: &str) -> Layout {
    let xml = own().replace("hostfwd=tcp:127.0.0.1:8080-:80", forwards);
    assert!(xml.contains(forwards), "{xml}");
    Layout::parse(&xml).unwrap()
}

#[test]
fn every_field_of_a_forward_is_read_back() {
    let layout = with_forwards(
        "restrict=on,hostfwd=udp:127.0.0.1:5353-:53,hostfwd=tcp:0.0.0.0:8082-:80,hostfwd=udp:192.0.2.7:514-:514",
    );
    let ports = layout.ports.unwrap();
    assert_eq!((ports.ssh, ports.restricted), (45671, true));
    assert_eq!(
        ports.forwards,
        [
            Forward {
                protocol: Protocol::Udp,
                ..Forward::tcp(5353, 53)
            },
            Forward {
                address: [0, 0, 0, 0].into(),
                ..Forward::tcp(8082, 80)
            },
            Forward {
                protocol: Protocol::Udp,
                address: [192, 0, 2, 7].into(),
                ..Forward::tcp(514, 514)
            },
        ]
    );
    // What stead does not write is no forward, and harms nothing.
    for odd in [
        "hostfwd=tcp::8080-:80",
        "hostfwd=sctp:127.0.0.1:1-:1",
        "hostfwd=tcp:127.0.0.1:x-:80",
        "hostfwd=tcp:127.0.0.1:99999-:80",
        "hostfwd=unix:/run/x-:80",
    ] {
        assert_eq!(with_forwards(odd).ports.unwrap().forwards, [], "{odd}");
    }
}
