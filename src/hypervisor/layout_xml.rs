//! Reads the XML of an existing domain: its disks, its ports, and what others than stead have added to it.

use std::path::{Path, PathBuf};

use roxmltree::{Document, Node, NodeType};

use crate::{
    host::ports::Protocol,
    machine::{Addition, Disk, ForeignDisk, Identity, Layout, Ports},
    machinefile::{Bytes, Forward},
    report::clean::Shown,
};

use super::{
    firmware_xml,
    network_xml::{CARD_ALIAS, is_own_argument},
};

const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// Elements outside of the devices that neither stead nor libvirt adds by itself.
const LEFT_OUT: [&str; 6] = [
    "iothreads",
    "blkiotune",
    "perf",
    "pm",
    "launchSecurity",
    "idmap",
];

impl Layout {
    /// Reads libvirt's XML of a domain.
    ///
    /// # Errors
    /// If it is not XML.
    pub fn parse(xml: &str) -> Result<Self, String> {
        let document = Document::parse(xml).map_err(|error| error.to_string())?;
        let domain = document.root_element();
        let mut definition = Layout {
            cpus: text_of(domain, "vcpu").and_then(|text| text.parse().ok()),
            memory: child(domain, "memory").and_then(memory),
            ..Layout::default()
        };
        for node in elements(domain) {
            match node.tag_name().name() {
                "devices" => definition.devices(xml, node),
                "metadata" => {
                    let others = elements(node).filter(|it| !is_own_metadata(it));
                    definition.additions.metadata = others.map(|it| raw(xml, it)).collect();
                }
                "os" => {
                    let files = elements(node).filter(|it| firmware_xml::is_file(*it));
                    definition.firmware_files = files.map(|it| raw(xml, it)).collect();
                }
                "description" => definition.additions.description = node.text().map(str::to_string),
                "commandline" if node.tag_name().namespace() == Some(QEMU) => {
                    definition.arguments(node);
                }
                name if LEFT_OUT.contains(&name) => {
                    definition.additions.left_out.push(name.to_string());
                }
                _ => {}
            }
        }
        Ok(definition)
    }

    fn devices(&mut self, xml: &str, devices: Node<'_, '_>) {
        for node in elements(devices) {
            self.agent |= has_agent(node);
            let disk = (node.tag_name().name() == "disk").then(|| disk(node));
            if let Some(disk) = &disk {
                self.disks.push(disk.clone());
            } else if is_own_device(node) {
                continue;
            }
            let name = node.tag_name().name();
            let source = child(node, "source");
            let words = match &disk {
                Some(disk) => match &disk.source {
                    Some(file) => format!("disk {} ({})", disk.target, file.shown()),
                    None => format!("disk {}", disk.target),
                },
                None => {
                    let kind = (node.attribute("type").or(node.attribute("model")))
                        .or_else(|| source.and_then(|it| it.attribute("network")))
                        .map(|kind| format!(" ({kind})"));
                    format!("{name}{}", kind.unwrap_or_default())
                }
            };
            self.additions.devices.push(Addition {
                words,
                target: disk.as_ref().map(|disk| disk.target.clone()),
                file: disk.and_then(|disk| disk.source),
                is_usb_controller: name == "controller" && node.attribute("type") == Some("usb"),
                xml: without_address(xml, node),
            });
        }
    }

    fn arguments(&mut self, commandline: Node<'_, '_>) {
        let all: Vec<&str> = elements(commandline)
            .filter(|node| node.tag_name().name() == "arg")
            .filter_map(|node| node.attribute("value"))
            .collect();
        let mut n = 0;
        while let Some(argument) = all.get(n) {
            let value = all.get(n + 1).copied().unwrap_or_default();
            if *argument == "-netdev" && value.starts_with("user,id=stead0") {
                self.ports = ports(value);
                n += 2;
            } else if is_own_argument(argument, value) {
                n += 2;
            } else {
                self.additions.arguments.push((*argument).to_string());
                n += 1;
            }
        }
    }

    /// Removes stead's own disks from the additions. `is_own`: whether stead made a file.
    pub fn own_disks_left_out(mut self, is_own: &dyn Fn(&Path) -> bool) -> Self {
        let disks = &self.disks;
        self.additions.devices.retain(|device| {
            let Some(disk) = (device.target.as_ref())
                .and_then(|it| disks.iter().find(|disk| disk.target == *it))
            else {
                return true;
            };
            let own = |path: &PathBuf| is_own(path);
            !(disk.source.iter().any(own) || disk.backing.iter().any(own))
        });
        self
    }

    /// Returns the disk that the machine boots from, if it is not its own overlay in `images`.
    pub fn foreign_disk(&self, identity: &Identity, images: &Path) -> Option<ForeignDisk> {
        let is_own = |path: &PathBuf| is_overlay(path, identity, images);
        if self.disks.is_empty() {
            return None;
        }
        // libvirt puts a snapshot in the same folder by default; its XML may not name the file below it.
        let is_snapshot = |path: &PathBuf| is_beside(path, identity, images) && !is_own(path);
        let over = (self.disks.iter()).find(|disk| {
            let source = disk.source.as_ref();
            source.is_some_and(is_snapshot)
                || disk.backing.iter().any(is_own) && !source.is_some_and(is_own)
        });
        if let Some(disk) = over {
            return Some(ForeignDisk {
                target: disk.target.clone(),
                source: disk.source.clone(),
                over_own: true,
            });
        }
        let first = images.join(identity.overlay());
        if (self.disks.iter()).any(|disk| {
            (disk.source.as_ref()).is_some_and(|it| same_file_name(it, &first) && is_own(it))
        }) {
            return None;
        }
        let boots =
            (self.disks.iter().find(|disk| disk.target == "vda")).or_else(|| self.disks.first())?;
        Some(ForeignDisk {
            target: boots.target.clone(),
            source: boots.source.clone(),
            over_own: false,
        })
    }
}

fn same_file_name(a: &Path, b: &Path) -> bool {
    a.file_name() == b.file_name()
}

/// Whether a file is an overlay that stead made for the machine, whichever path leads to its folder.
fn is_overlay(path: &Path, identity: &Identity, images: &Path) -> bool {
    let named =
        (path.file_name()).is_some_and(|name| identity.has_overlay(&name.to_string_lossy()));
    named && is_beside(path, identity, images)
}

/// Whether a file is in stead's pool and has a name that only the machine's files have.
fn is_beside(path: &Path, identity: &Identity, images: &Path) -> bool {
    let named = (path.file_name()).is_some_and(|name| identity.owns(&name.to_string_lossy()));
    named
        && path
            .parent()
            .is_some_and(|folder| is_same_folder(folder, images))
}

fn is_same_folder(a: &Path, b: &Path) -> bool {
    a == b
        || match (a.canonicalize(), b.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        }
}

impl ForeignDisk {
    /// Returns the other data folder, if this is the machine's own disk in one.
    pub fn other_data_folder(&self, identity: &Identity) -> Option<&Path> {
        let source = self.source.as_deref()?;
        let named =
            (source.file_name()).is_some_and(|name| identity.has_overlay(&name.to_string_lossy()));
        let images = source.parent()?;
        (named && images.file_name().is_some_and(|name| name == "images"))
            .then(|| images.parent())
            .flatten()
    }
}

fn elements<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(Node::is_element)
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    elements(node).find(|it| it.tag_name().name() == name)
}

fn text_of<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name)?.text().map(str::trim)
}

fn memory(node: Node<'_, '_>) -> Option<Bytes> {
    let number: u64 = node.text()?.trim().parse().ok()?;
    let unit = match node.attribute("unit") {
        None | Some("KiB" | "k") => Bytes::KIB,
        Some("b" | "bytes") => 1,
        Some("MiB" | "M") => Bytes::MIB,
        Some("GiB" | "G") => Bytes::GIB,
        Some(_) => return None,
    };
    number.checked_mul(unit).map(Bytes)
}

fn disk(node: Node<'_, '_>) -> Disk {
    let file = |node: Node<'_, '_>| {
        let source = child(node, "source")?;
        let place = ["file", "dev", "dir", "name"]
            .iter()
            .find_map(|name| source.attribute(*name))?;
        Some(PathBuf::from(place))
    };
    let mut backing = Vec::new();
    let mut below = child(node, "backingStore");
    while let Some(store) = below {
        backing.extend(file(store));
        below = child(store, "backingStore");
    }
    Disk {
        target: child(node, "target")
            .and_then(|target| target.attribute("dev"))
            .unwrap_or_default()
            .to_string(),
        source: file(node),
        readonly: child(node, "readonly").is_some(),
        backing,
    }
}

const AGENT: &str = "org.qemu.guest_agent.0";

/// Whether this is the channel of the guest's agent, and a program in the guest has opened it. Only the definition of a
/// running domain says that.
fn has_agent(device: Node<'_, '_>) -> bool {
    let target = child(device, "target").filter(|_| device.tag_name().name() == "channel");
    target.is_some_and(|target| {
        target.attribute("name") == Some(AGENT) && target.attribute("state") == Some("connected")
    })
}

/// Whether stead writes this device, or libvirt adds it by itself. This is not for disks, which are recognised by
/// their files.
fn is_own_device(node: Node<'_, '_>) -> bool {
    let attribute = |name: &str| node.attribute(name).unwrap_or_default();
    let of = |element: &str, name: &str| {
        child(node, element)
            .and_then(|it| it.attribute(name))
            .unwrap_or_default()
            .to_string()
    };
    match node.tag_name().name() {
        "emulator" | "memballoon" => true,
        "controller" => match attribute("type") {
            "pci" | "sata" | "virtio-serial" | "ide" | "fdc" => true,
            "usb" => attribute("model") == "none",
            _ => false,
        },
        "serial" => of("target", "port") == "0",
        "console" => of("target", "type") == "serial" && of("target", "port") == "0",
        "channel" => of("target", "name") == AGENT,
        "rng" => {
            of("backend", "model") == "random" && {
                let before = node.prev_siblings().skip(1);
                !before
                    .filter(Node::is_element)
                    .any(|it| it.tag_name().name() == "rng")
            }
        }
        "tpm" => firmware_xml::is_own_tpm(node),
        "input" => attribute("bus") == "ps2",
        "audio" => attribute("type") == "none",
        "watchdog" => attribute("model") == "itco",
        "interface" => of("alias", "name").starts_with(CARD_ALIAS),
        "filesystem" => of("target", "dir").starts_with("stead-"),
        _ => false,
    }
}

fn is_own_metadata(node: &Node<'_, '_>) -> bool {
    (node.tag_name().namespace()).is_some_and(|it| it.starts_with("urn:stead:"))
}

fn raw(xml: &str, node: Node<'_, '_>) -> String {
    xml.get(node.range()).unwrap_or_default().to_string()
}

/// Returns an element without the address that libvirt gave it in the machine, because another device may need
/// that address in the new definition.
fn without_address(xml: &str, node: Node<'_, '_>) -> String {
    let range = node.range();
    let mut text = String::new();
    let mut from = range.start;
    for part in node.children() {
        if part.node_type() == NodeType::Element
            && matches!(part.tag_name().name(), "address" | "alias")
        {
            let gap = part.range();
            text.push_str(xml.get(from..gap.start).unwrap_or_default().trim_end());
            from = gap.end;
        }
    }
    text.push_str(xml.get(from..range.end).unwrap_or_default());
    text
}

/// Reads the ports of `user,id=stead0,hostfwd=tcp:127.0.0.1:27408-:22,…`. SSH's is the first.
fn ports(netdev: &str) -> Option<Ports> {
    let mut forwards = netdev
        .split(',')
        .filter_map(|part| forward(part.strip_prefix("hostfwd=")?));
    let ssh = forwards.next()?.host;
    Some(Ports {
        ssh,
        forwards: forwards.collect(),
        restricted: netdev.split(',').any(|part| part == "restrict=on"),
    })
}

/// Reads a rule such as `udp:0.0.0.0:5353-:53`.
fn forward(rule: &str) -> Option<Forward> {
    let (host, guest) = rule.split_once("-:")?;
    let (protocol, host) = host.split_once(':')?;
    let (address, host) = host.split_once(':')?;
    let protocol = [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .find(|it| it.word() == protocol)?;
    Some(Forward {
        protocol,
        address: address.parse().ok()?,
        ..Forward::tcp(host.parse().ok()?, guest.parse().ok()?)
    })
}

#[cfg(test)]
mod tests;
