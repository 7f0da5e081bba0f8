//! The network cards of a machine: the one by which stead logs in, and those on networks of the project.

use std::{io, path::PathBuf};

use crate::{
    machine::{NetworkCard, Record},
    machinefile::MOST_CARDS,
    network::{Cable, socket_of_qemu, tap_of},
};

use super::{
    domain_xml::DomainSpec,
    xml::{W, empty},
};

/// The slot of the first network card on the root bus; further cards have the next ones. libvirt does not know of the
/// cards, so the slots must not be those that libvirt assigns, from 0x1 up.
const NETWORK_SLOT: u8 = 0x10;

/// What the alias of a card begins with. libvirt keeps aliases that begin with `ua-`.
pub(super) const CARD_ALIAS: &str = "ua-stead";

/// Writes QEMU's user-mode network, for a machine that stead-net does not lead to. It needs no root, and opens host ports
/// on 127.0.0.1, or where a forward says so. libvirt 9 cannot express its port forwards, so these are arguments for QEMU.
pub(super) fn login(w: &mut W, record: &Record) -> io::Result<()> {
    if record.led_card().is_some() {
        return Ok(());
    }
    let ssh_port = record.ssh_port;
    // A copy starts the same services as the machine, so it must not reach anything outside.
    let restrict = match record.copy_of.is_some() || record.spec.has_closed_login() {
        true => "restrict=on,",
        false => "",
    };
    let mut netdev = format!("user,id=stead0,{restrict}hostfwd=tcp:127.0.0.1:{ssh_port}-:22");
    for forward in &record.spec.forwards {
        netdev.push_str(&format!(
            ",hostfwd={}:{}:{}-:{}",
            forward.protocol.word(),
            forward.address,
            forward.host,
            forward.guest
        ));
    }
    // An empty romfile leaves out the PXE ROM, which the firmware would run at every boot.
    // The guest of a copy may know its card by the MAC.
    let mac = (record.spec.login_card).map_or(String::new(), |mac| format!("mac={mac},"));
    let device =
        format!("virtio-net-pci,netdev=stead0,{mac}bus=pcie.0,addr={NETWORK_SLOT:#x},romfile=");
    arguments(w, &netdev, &device)
}

/// Returns the cards with their numbers. The one by which stead logs in is the first.
fn numbered_cards(record: &Record) -> impl Iterator<Item = (u8, NetworkCard)> {
    let first = u8::from(record.led_card().is_none());
    (first..).zip(record.wired_cards())
}

/// Writes the cards on networks of the project that are interfaces of the host.
pub(super) fn by_taps(w: &mut W, spec: &DomainSpec<'_>) -> io::Result<()> {
    if spec.cable != Some(Cable::Taps) {
        return Ok(());
    }
    for (n, card) in numbered_cards(spec.record) {
        w.create_element("interface")
            .with_attribute(("type", "ethernet"))
            .write_inner_content(|w| {
                empty(w, "mac", &[("address", &card.mac.to_string())])?;
                // stead makes it, and removes it.
                empty(
                    w,
                    "target",
                    &[("dev", &tap_of(card.mac)), ("managed", "no")],
                )?;
                empty(w, "model", &[("type", "virtio")])?;
                // The network takes whole frames only, with their checksums.
                w.create_element("driver").write_inner_content(|w| {
                    let off = ["csum", "gso", "tso4", "tso6", "ecn", "ufo"].map(|it| (it, "off"));
                    empty(w, "host", &off)?;
                    let guest = ["csum", "tso4", "tso6", "ecn", "ufo"].map(|it| (it, "off"));
                    empty(w, "guest", &guest)
                })?;
                place(w, &format!("{CARD_ALIAS}{n}"), NETWORK_SLOT + n)
            })?;
    }
    Ok(())
}

/// Writes the cards on bridges of the host, which libvirt connects. They have the last slots, so they keep theirs when
/// the machine is on other networks.
pub(super) fn on_bridges(w: &mut W, spec: &DomainSpec<'_>) -> io::Result<()> {
    let is_copy = spec.record.copy_of.is_some();
    let cards = (spec.record.spec.bridges.iter()).filter(|_| !is_copy);
    for (n, card) in (0..MOST_CARDS).zip(cards) {
        w.create_element("interface")
            .with_attribute(("type", "bridge"))
            .write_inner_content(|w| {
                empty(w, "mac", &[("address", &card.mac.to_string())])?;
                empty(w, "source", &[("bridge", &card.interface)])?;
                empty(w, "model", &[("type", "virtio")])?;
                let alias = format!("{CARD_ALIAS}-bridge{}", n + 1);
                place(w, &alias, NETWORK_SLOT + MOST_CARDS - n)
            })?;
    }
    Ok(())
}

/// Writes what all cards have that libvirt knows: the alias, no PXE ROM, and the slot.
fn place(w: &mut W, alias: &str, slot: u8) -> io::Result<()> {
    empty(w, "alias", &[("name", alias)])?;
    empty(w, "rom", &[("enabled", "no")])?;
    let slot = format!("{slot:#04x}");
    empty(
        w,
        "address",
        &[
            ("type", "pci"),
            ("domain", "0x0000"),
            ("bus", "0x00"),
            ("slot", &slot),
            ("function", "0x0"),
        ],
    )
}

/// Writes the cards on networks of the project. QEMU listens on a socket, and the project's network connects to it.
pub(super) fn by_sockets(w: &mut W, spec: &DomainSpec<'_>) -> io::Result<()> {
    if spec.cable != Some(Cable::Sockets) {
        return Ok(());
    }
    // In QEMU's options, a comma in a value is doubled.
    let path = |path: PathBuf| path.to_string_lossy().replace(',', ",,");
    for (n, card) in numbered_cards(spec.record) {
        let socket = path(socket_of_qemu(&spec.card_sockets, card.mac));
        let netdev = format!("stream,id=stead{n},server=on,addr.type=unix,addr.path={socket}");
        let slot = NETWORK_SLOT + n;
        let device = format!(
            "virtio-net-pci,netdev=stead{n},mac={},bus=pcie.0,addr={slot:#x},romfile=",
            card.mac
        );
        arguments(w, &netdev, &device)?;
    }
    Ok(())
}

/// Writes arguments for QEMU that make a card. libvirt cannot express these.
fn arguments(w: &mut W, netdev: &str, device: &str) -> io::Result<()> {
    for argument in ["-netdev", netdev, "-device", device] {
        empty(w, "qemu:arg", &[("value", argument)])?;
    }
    Ok(())
}

/// Whether these arguments are a part of a card on a network: `-netdev stream,id=stead1,…` or
/// `-device virtio-net-pci,netdev=stead1,…`.
pub(super) fn is_own_argument(argument: &str, value: &str) -> bool {
    let prefix = match argument {
        "-netdev" => "stream,id=stead",
        "-device" => "virtio-net-pci,netdev=stead",
        _ => return false,
    };
    value.strip_prefix(prefix).is_some_and(|rest| {
        let number = rest.split(',').next().unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}
