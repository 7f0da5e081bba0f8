//! The first login to a machine from a Vagrant box, which accepts only the key that all Vagrant boxes
//! have.

use std::{path::Path, process::Stdio};

use tokio::io::AsyncWriteExt;

use crate::host::{process::own_program, shell::shell_quote};

use super::{
    command::gather,
    error::GuestError,
    files::{MachineFiles, write_atomically},
    login::{Begun, LOGIN, Opening, begin},
    output::Output,
    seed::SeedContent,
    ssh::{ssh, start},
};

/// Both are published with Vagrant, so they are not secret; Vagrant 2.3.8 added the second.
const INSECURE_KEYS: [(&str, &str); 2] = [
    ("vagrant-rsa", include_str!("vagrant_keys/rsa")),
    ("vagrant-ed25519", include_str!("vagrant_keys/ed25519")),
];

/// The first key's public key, as a line of authorized_keys.
pub const INSECURE_PUBLIC_KEY: &str = include_str!("vagrant_keys/rsa.pub").trim_ascii_end();

const SCRIPT: &str = include_str!("../../provisioners/guest/first-contact");

/// Logs in as `box_user` and gives the machine its own keys, host name and user.
///
/// At this one login the host key cannot be checked, and the machine's own private host key is sent. So the
/// other end of the connection must be a program of `qemu`, the uid that QEMU runs as: another user who
/// took the port meanwhile gets nothing. From then on the machine has the host key that every later login
/// checks.
pub async fn first_contact(
    machine: &str,
    files: &MachineFiles,
    port: u16,
    qemu: Option<u32>,
    box_user: &str,
    content: &SeedContent<'_>,
) -> Result<Output, GuestError> {
    let known_hosts = files.folder().join("known_hosts.first");
    let _ = std::fs::remove_file(&known_hosts);
    let mut ssh = ssh();
    ssh.args(["-F", "none", "-T", "-p", &port.to_string(), "-l", box_user]);
    for option in [
        "BatchMode=yes",
        "ConnectTimeout=10",
        "IdentitiesOnly=yes",
        "LogLevel=ERROR",
        "PreferredAuthentications=publickey",
        "StrictHostKeyChecking=accept-new",
        "GlobalKnownHostsFile=none",
    ] {
        ssh.args(["-o", option]);
    }
    ssh.arg("-o").arg(format!(
        "UserKnownHostsFile=\"{}\"",
        known_hosts.to_string_lossy()
    ));
    let program = own_program().map_err(GuestError::file("find", Path::new("/proc/self/exe")))?;
    ssh.arg("-o")
        .arg(proxy_command(&program, machine, qemu))
        .args(["-o", "ProxyUseFdpass=yes"]);
    // stead's key, in case an earlier try got half-way.
    ssh.arg("-i").arg(files.client_key());
    for (name, key) in INSECURE_KEYS {
        let file = files.folder().join(name);
        write_atomically(&file, key.as_bytes(), 0o600)?;
        ssh.arg("-i").arg(file);
    }
    ssh.args(["127.0.0.1", LOGIN]);
    let mut child = start(ssh, Stdio::piped())?;
    let opening = Opening::new("exec sudo -n sh -s")?;
    // Nobody tells when it is connected, and the caller has a time-out.
    let begun = begin(machine, &mut child, &opening, || false).await;
    if !matches!(begun, Ok(Begun::Runs { .. })) {
        let _ = std::fs::remove_file(&known_hosts);
    }
    if let Begun::Not(output) = begun? {
        return Ok(output);
    }
    let stdin = child.stdin.take();
    let script = script(content);
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A login that fails closes the pipe early; ssh's output shows why.
            let _ = stdin.write_all(script.as_bytes()).await;
        }
    };
    let output = gather(machine, child, feed).await;
    let _ = std::fs::remove_file(&known_hosts);
    output
}

/// Returns the option by which ssh gets its connection.
fn proxy_command(program: &Path, machine: &str, qemu: Option<u32>) -> String {
    let of = qemu.map_or(String::new(), |user| format!(" --of {user}"));
    format!(
        "ProxyCommand={} dial {} %p{of}",
        shell_quote(&program.to_string_lossy()).replace('%', "%%"),
        shell_quote(machine).replace('%', "%%"),
    )
}

/// Returns the script, with its values as assignments before it, so that they are in no process's
/// arguments.
fn script(content: &SeedContent<'_>) -> String {
    let values = [
        ("hostname", content.hostname),
        ("user", content.user),
        ("authorized_key", content.authorized_key.trim()),
        ("host_key", content.host_key.trim()),
        ("host_public_key", content.host_public_key.trim()),
    ];
    let mut text: String = values
        .iter()
        .map(|(name, value)| format!("{name}={}\n", shell_quote(value)))
        .collect();
    text.push_str(SCRIPT);
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_stranger_who_is_logged_in_is_seen() {
        let start = SCRIPT.find("alone() {").unwrap();
        let end = start + SCRIPT[start..].find("\n}\n").unwrap() + 3;
        let mut stranger = Command::new("bash")
            .args(["-c", "exec -a 'sshd: vagrant@notty' sleep 60"])
            .spawn()
            .unwrap();
        let command = format!("/proc/{}/cmdline", stranger.id());
        while !std::fs::read(&command).unwrap().starts_with(b"sshd: ") {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let output = Command::new("sh")
            .args(["-c", &format!("{}\nalone", &SCRIPT[start..end])])
            .output()
            .unwrap();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("somebody else is logged in"), "{said}");
    }

    #[test]
    fn the_connection_is_one_to_qemu() {
        assert_eq!(
            proxy_command(Path::new("/home/it's 100%/stead"), "web", Some(64055)),
            "ProxyCommand='/home/it'\\''s 100%%/stead' dial web %p --of 64055"
        );
    }
}
