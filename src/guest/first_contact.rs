//! The first login on a machine of a Vagrant box, which knows nobody but the key that all Vagrant
//! boxes have.

use std::process::Stdio;

use super::{
    command::{Output, shell_quote},
    error::GuestError,
    files::{MachineFiles, write_atomically},
    seed::SeedContent,
};

/// Both are published with Vagrant and secret to nobody; Vagrant 2.3.8 added the second.
const INSECURE_KEYS: [(&str, &str); 2] = [
    ("vagrant-rsa", include_str!("vagrant_keys/rsa")),
    ("vagrant-ed25519", include_str!("vagrant_keys/ed25519")),
];

/// The public half of the first, as a line of authorized_keys.
pub const INSECURE_PUBLIC_KEY: &str = include_str!("vagrant_keys/rsa.pub").trim_ascii_end();

const SCRIPT: &str = include_str!("../../provisioners/guest/first-contact");

/// Gives the machine its own keys, host name and user, logging in as `box_user`.
///
/// Whose host key answers cannot be known at this one login. It goes to a port of 127.0.0.1 that
/// QEMU forwards, and what it leaves is the host key that every later login checks.
pub async fn first_contact(
    files: &MachineFiles,
    port: u16,
    box_user: &str,
    content: &SeedContent<'_>,
) -> Result<Output, GuestError> {
    let known_hosts = files.folder().join("known_hosts.first");
    let _ = std::fs::remove_file(&known_hosts);
    let mut ssh = std::process::Command::new("ssh");
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
    ssh.arg("-o")
        .arg(format!("UserKnownHostsFile=\"{}\"", known_hosts.display()));
    // Ours, where an earlier try got half-way.
    ssh.arg("-i").arg(files.client_key());
    for (name, key) in INSECURE_KEYS {
        let file = files.folder().join(name);
        write_atomically(&file, key.as_bytes(), 0o600)?;
        ssh.arg("-i").arg(file);
    }
    ssh.args(["127.0.0.1", "sudo -n sh -s"]);
    let mut child = tokio::process::Command::from(ssh)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(GuestError::spawn("ssh", "openssh-client"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A login that fails closes it early; ssh's words say why.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, script(content).as_bytes()).await;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(GuestError::spawn("ssh", "openssh-client"))?;
    let _ = std::fs::remove_file(&known_hosts);
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The script, with what it needs to know before it: nothing of it is in any process's arguments.
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
