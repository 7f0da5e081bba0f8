//! Cards of machines whose QEMU runs as another user: interfaces of the host (tap), which libvirt gives to QEMU.
//!
//! They are ports of a bridge that is down. So the kernel drops every frame that a guest sends, and only the program's
//! socket sees it: no guest reaches the host's own addresses by such an interface.

use std::time::Duration;

use nix::net::if_::{InterfaceFlags, if_nametoindex};
use serde::Deserialize;

use crate::host::process::{Command, Limits, ProgramError};

use super::Mac;

/// The name of a card's interface: at most 15 bytes.
pub fn tap_of(mac: Mac) -> String {
    format!("st{}", mac.word())
}

/// The bridge of a project, by its 6 hex digits.
pub(super) fn bridge_of(project: &str) -> String {
    format!("stbr{project}")
}

/// Whether an interface has the name of the bridge of a project.
pub fn is_own_bridge(interface: &str) -> bool {
    (interface.strip_prefix("stbr"))
        .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|it| it.is_ascii_hexdigit()))
}

/// Returns the bridges of this computer that are not stead's.
///
/// # Errors
/// If the program `ip` cannot list them.
pub fn bridges() -> Result<Vec<String>, ProgramError> {
    let said = ip(&["-json", "link", "show", "type", "bridge"], String::new())?;
    let mut names = names_of(&said)?;
    names.retain(|name| !is_own_bridge(name));
    Ok(names)
}

// Interfaces are asked for by system calls and not in /sys, which may show those of another network namespace.
pub fn exists(interface: &str) -> bool {
    if_nametoindex(interface).is_ok()
}

/// Whether a QEMU has the card.
pub(super) fn is_taken(mac: Mac) -> bool {
    let tap = tap_of(mac);
    nix::ifaddrs::getifaddrs().is_ok_and(|mut all| {
        all.any(|it| it.interface_name == tap && it.flags.contains(InterfaceFlags::IFF_RUNNING))
    })
}

/// The interfaces of a bridge.
fn members(bridge: &str) -> Result<Vec<String>, ProgramError> {
    if !exists(bridge) {
        return Ok(Vec::new());
    }
    let said = ip(&["-json", "link", "show", "master", bridge], String::new())?;
    names_of(&said)
}

/// The names in what `ip -json link` prints: nothing at all if there are none, or empty objects for others.
///
/// # Errors
/// It is something else. It must not count as no names: members of a bridge would be forgotten.
fn names_of(said: &[u8]) -> Result<Vec<String>, ProgramError> {
    #[derive(Deserialize)]
    struct Link {
        ifname: Option<String>,
    }
    if said.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let links: Vec<Link> =
        serde_json::from_slice(said).map_err(|error| ProgramError::Unreadable {
            program: "ip -json link".into(),
            why: error.to_string(),
        })?;
    Ok(links.into_iter().filter_map(|link| link.ifname).collect())
}

/// Makes the interfaces of these cards that are missing, and removes others of the project.
pub(super) fn make(project: &str, macs: &[Mac]) -> Result<(), ProgramError> {
    let bridge = bridge_of(project);
    let mut lines = Vec::new();
    if !exists(&bridge) {
        lines.push(format!("link add name {bridge} type bridge"));
        lines.push(format!("link set dev {bridge} addrgenmode none"));
    }
    let wanted: Vec<String> = macs.iter().map(|mac| tap_of(*mac)).collect();
    for tap in members(&bridge)?.iter().filter(|tap| !wanted.contains(tap)) {
        lines.push(format!("link delete dev {tap}"));
    }
    for tap in &wanted {
        if !exists(tap) {
            lines.push(format!("tuntap add dev {tap} mode tap"));
        }
        lines.push(format!(
            "link set dev {tap} addrgenmode none master {bridge} up"
        ));
    }
    batch(&lines)
}

/// Removes all interfaces of the project.
pub(super) fn remove(project: &str) -> Result<(), ProgramError> {
    let bridge = bridge_of(project);
    if !exists(&bridge) {
        return Ok(());
    }
    let mut lines: Vec<String> = (members(&bridge)?.iter())
        .map(|tap| format!("link delete dev {tap}"))
        .collect();
    lines.push(format!("link delete dev {bridge}"));
    batch(&lines)
}

fn batch(lines: &[String]) -> Result<(), ProgramError> {
    ip(&["-batch", "-"], format!("{}\n", lines.join("\n"))).map(drop)
}

fn ip(arguments: &[&str], input: String) -> Result<Vec<u8>, ProgramError> {
    let said = Command::new("ip", "iproute2")
        .args(arguments.iter().copied())
        .input(input)
        .limits(Limits::ANSWER.within(Duration::from_secs(20)))
        .succeed()?;
    Ok(said.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_projects_bridges_are_steads_own() {
        assert!(is_own_bridge(&bridge_of("0a1b2c")));
        for other in ["br0", "stbr", "stbr0a1b2", "stbr0a1b2g", "stbr0a1b2c0"] {
            assert!(!is_own_bridge(other), "{other}");
        }
    }

    #[test]
    fn names_of_interfaces_are_read() {
        let said = br#"[{"ifindex":2,"ifname":"br0","flags":["UP"]},{"ifname":"virbr0"}]"#;
        assert_eq!(names_of(said).unwrap(), ["br0", "virbr0"]);
        assert_eq!(
            names_of(b"[{},{\"ifname\":\"br0\"},{}]\n").unwrap(),
            ["br0"]
        );
        for none in [&b""[..], b"\n", b"[]\n", b"[{},{}]"] {
            assert_eq!(names_of(none).unwrap(), [""; 0]);
        }
        for other in [&b"1: lo: <UP>"[..], b"{}", b"[{\"ifname\":1}]"] {
            let error = names_of(other).unwrap_err().to_string();
            assert!(
                error.starts_with("stead cannot read what `ip -json link` printed"),
                "{error}"
            );
        }
    }
}
