//! Writes the configuration by which OpenSSH reaches a machine.

use std::path::Path;

use crate::{host::process::own_program, machine::Record};

use super::{
    error::GuestError,
    files::{MachineFiles, make_control_folder, write_atomically},
};
use crate::host::shell::shell_quote;

/// How to reach one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    /// The machine's name, which is its `Host` for ssh.
    pub machine: String,
    pub project: String,
    /// The domain's name, which is its name in known_hosts, whatever the port.
    pub domain: String,
    pub user: String,
    /// On 127.0.0.1.
    pub port: u16,
    /// The libvirt that runs the machine, if the network of the project leads to it: `stead dial` starts that again.
    pub led_by: Option<String>,
}

/// Returns a configuration for OpenSSH (ssh_config(5)) with the hosts `target.machine` and the domain. Host
/// keys are always checked: the key was made before the machine's first boot.
pub fn ssh_config(target: &SshTarget, files: &MachineFiles) -> String {
    let names = [&*target.machine, &target.domain];
    config_of(&names, target, files) + NOT_FOR_THE_GUEST
}

/// Runs `stead dial` by this very program, or by the stead in PATH if the program does not exist any more: a
/// removed build must not keep anybody from a machine. ssh has closed stderr by then, so the message goes to
/// ssh's own.
const DIAL: &str = r#"if [ -x "$0" ]; then exec "$0" dial "$@"; fi; if command -v stead >/dev/null; then exec stead dial "$@"; fi; echo "error: $0, the stead that wrote this configuration, does not exist any more, and there is no stead in PATH; run any stead command on the project to write it again" >>/proc/$PPID/fd/2; exit 1"#;

/// Returns the options by which stead's own ssh gets its connections from `stead dial`. They are not for other
/// programs that read ssh_config: few support ProxyUseFdpass, and this program may be removed one day.
fn dialled(program: &Path, target: &SshTarget) -> String {
    let word = |text: &str| shell_quote(text).replace('%', "%%");
    let led = target.led_by.as_ref().map(|connection| {
        let (domain, connection) = (word(&target.domain), word(connection));
        format!(" --domain {domain} --connect {connection}")
    });
    format!(
        "\x20 ProxyCommand sh -c {} {} {} %p{}\n\
         \x20 ProxyUseFdpass yes\n",
        word(DIAL),
        word(&program.to_string_lossy()),
        word(&target.machine),
        led.unwrap_or_default(),
    )
}

/// The address of every machine.
const ADDRESS: &str = "127.0.0.1";

/// Turns off the options that a `Host *` of the user's may turn on for other hosts, and that would give a
/// guest the user's agent, display, Kerberos tickets, a network, commands on the host or passwords, or would
/// turn off the check of its host key. The first value of an option counts (ssh_config(5)), so these do if
/// the file is included first. Values of `SendEnv` and `RemoteForward` add up, so they cannot be turned off
/// here.
const NOT_THE_GUESTS: &str = "\x20 AddKeysToAgent no\n\
     \x20 ForwardAgent no\n\
     \x20 ForwardX11 no\n\
     \x20 ForwardX11Trusted no\n\
     \x20 GSSAPIDelegateCredentials no\n\
     \x20 PasswordAuthentication no\n\
     \x20 KbdInteractiveAuthentication no\n\
     \x20 HostbasedAuthentication no\n\
     \x20 PermitLocalCommand no\n\
     \x20 Tunnel no\n\
     \x20 VerifyHostKeyDNS no\n\
     \x20 NoHostAuthenticationForLocalhost no\n";

/// Turns off what a `Host *` of the user's may set to get to other hosts, and that keeps ssh from a guest on this one, or
/// from running a command there. OpenSSH 8.4 knows all of it.
///
/// A connection that is shared has no agent for a later `ssh -A`, and leads no port for a later `ssh -L`, without a word.
const NOT_FOR_THE_GUEST: &str = "\x20 ControlMaster no\n\
     \x20 ControlPath none\n\
     \x20 ProxyCommand none\n\
     \x20 RemoteCommand none\n\
     \x20 RequestTTY auto\n\
     \x20 AddressFamily inet\n\
     \x20 BindAddress 127.0.0.1\n\
     \x20 CanonicalizeHostname no\n\
     \x20 ExitOnForwardFailure no\n\
     \x20 PKCS11Provider none\n\
     \x20 PubkeyAuthentication yes\n\
     \x20 PubkeyAcceptedKeyTypes ssh-ed25519\n\
     \x20 VisualHostKey no\n";

/// Returns the options of stead's own ssh alone: it shares a connection, and asks no agent, which may not answer, because
/// the key is a file.
fn own_options(files: &MachineFiles) -> String {
    format!(
        "\x20 ControlMaster auto\n\
         \x20 ControlPath {}\n\
         \x20 ControlPersist 600\n\
         \x20 IdentityAgent none\n",
        quoted(&files.control_socket().to_string_lossy())
    )
}

fn config_of(names: &[&str], target: &SshTarget, files: &MachineFiles) -> String {
    let path = |path: &Path| quoted(&path.to_string_lossy());
    format!(
        "Host {names}\n\
         \x20 HostName {ADDRESS}\n\
         \x20 Port {port}\n\
         \x20 User {user}\n\
         \x20 IdentityFile {key}\n\
         \x20 IdentitiesOnly yes\n\
         \x20 PreferredAuthentications publickey\n\
         \x20 HostKeyAlias {domain}\n\
         \x20 HostKeyAlgorithms ssh-ed25519\n\
         \x20 UserKnownHostsFile {known_hosts}\n\
         \x20 GlobalKnownHostsFile none\n\
         \x20 StrictHostKeyChecking yes\n\
         \x20 UpdateHostKeys no\n\
         \x20 ServerAliveInterval 15\n\
         \x20 ServerAliveCountMax 8\n\
         \x20 LogLevel ERROR\n\
         {NOT_THE_GUESTS}",
        names = names.join(" "),
        domain = target.domain,
        port = target.port,
        user = target.user,
        key = path(&files.client_key()),
        known_hosts = path(&files.known_hosts()),
    )
}

impl SshTarget {
    /// How to reach the machine of this record, given the name of its domain and the URI of its libvirt.
    pub fn of(record: &Record, domain: &str, uri: &str) -> Self {
        SshTarget {
            machine: record.machine.clone(),
            project: record.project.clone(),
            domain: domain.to_string(),
            user: record.login_user.clone(),
            port: record.ssh_port,
            led_by: record.led_by(uri),
        }
    }

    /// Returns the configuration for other programs of the user's. A machine's name alone may be that of another host of
    /// theirs, or of another project's machine.
    fn for_others(&self, files: &MachineFiles) -> String {
        let name = format!("{}.{}", self.machine, self.project);
        config_of(&[&name, &self.domain], self, files) + NOT_FOR_THE_GUEST
    }

    /// Writes known_hosts of the machine and its configurations of OpenSSH, unless they are up to date.
    pub fn write(&self, files: &MachineFiles) -> Result<(), GuestError> {
        make_control_folder(files.control_socket())?;
        let key = files.read(&files.host_public_key())?;
        let mut words = key.split_whitespace();
        let (kind, key) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let known = format!("{} {kind} {key}\n", self.domain);
        write_atomically(&files.known_hosts(), known.as_bytes(), 0o600)?;
        // The address is a host name too, for programs that are given address, port and this file.
        let names = [&*self.machine, &*self.domain, ADDRESS];
        let mut config = config_of(&names, self, files) + &own_options(files);
        let program =
            own_program().map_err(GuestError::file("find", Path::new("/proc/self/exe")))?;
        config.push_str(&dialled(&program, self));
        write_atomically(&files.ssh_config(), config.as_bytes(), 0o600)?;
        let others = self.for_others(files);
        write_atomically(&files.for_others(), others.as_bytes(), 0o600)
    }
}

/// Quotes a value for ssh_config(5), percent signs included (they start tokens).
pub fn quoted(value: &str) -> String {
    let escaped = value
        .replace('%', "%%")
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::paths::DataDir;

    fn web() -> SshTarget {
        SshTarget {
            machine: "web".into(),
            project: "shop".into(),
            domain: "stead-shop-web-abc123".into(),
            user: "stead".into(),
            port: 22022,
            led_by: None,
        }
    }

    #[test]
    fn paths_with_spaces_and_percents_are_quoted() {
        let files = MachineFiles::new(&DataDir::at("/home/é a/100%"), &uuid::Uuid::nil());
        let target = web();
        let config = ssh_config(&target, &files);
        assert!(config.contains("IdentityFile \"/home/é a/100%%/machines/"));
        assert!(config.contains("StrictHostKeyChecking yes"));
        assert!(config.contains("Port 22022"));
        assert!(config.starts_with("Host web stead-shop-web-abc123\n"));
    }

    /// Asks OpenSSH itself, with a configuration that turns on everything for every host.
    #[test]
    fn what_a_user_turns_on_for_every_host_is_off_for_a_guest() {
        let place = tempfile::tempdir().unwrap();
        let files = MachineFiles::new(&DataDir::at(place.path()), &uuid::Uuid::nil());
        let target = web();
        let own = place.path().join("own");
        std::fs::write(&own, ssh_config(&target, &files)).unwrap();
        let all = place.path().join("config");
        let text = format!(
            "Include {}\nHost *\n ForwardAgent yes\n ForwardX11 yes\n ForwardX11Trusted yes\n \
             AddKeysToAgent yes\n PermitLocalCommand yes\n LocalCommand id\n \
             Tunnel yes\n NoHostAuthenticationForLocalhost yes\n VerifyHostKeyDNS yes\n \
             StrictHostKeyChecking no\n UpdateHostKeys yes\n PasswordAuthentication yes\n \
             KbdInteractiveAuthentication yes\n HostbasedAuthentication yes\n \
             PreferredAuthentications password\n ProxyJump bastion\n RemoteCommand tmux\n \
             RequestTTY force\n ControlPath /elsewhere/%C\n AddressFamily inet6\n BindAddress 10.0.0.1\n \
             CanonicalizeHostname always\n ExitOnForwardFailure yes\n PKCS11Provider /nowhere.so\n \
             PubkeyAuthentication no\n PubkeyAcceptedAlgorithms ssh-rsa\n VisualHostKey yes\n \
             IdentityFile /nowhere/other\n ControlMaster auto\n",
            own.display()
        );
        std::fs::write(&all, text).unwrap();
        let output = std::process::Command::new("ssh")
            .args(["-G", "-F"])
            .arg(&all)
            .arg("web")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        for line in [
            "forwardagent no",
            "forwardx11 no",
            "forwardx11trusted no",
            "addkeystoagent false",
            "permitlocalcommand no",
            "tunnel false",
            "nohostauthenticationforlocalhost no",
            "verifyhostkeydns false",
            "stricthostkeychecking true",
            "updatehostkeys false",
            "passwordauthentication no",
            "kbdinteractiveauthentication no",
            "hostbasedauthentication no",
            "preferredauthentications publickey",
            "controlmaster false",
            "requesttty auto",
            "addressfamily inet",
            "bindaddress 127.0.0.1",
            "canonicalizehostname false",
            "exitonforwardfailure no",
            "pubkeyauthentication true",
            "pubkeyacceptedalgorithms ssh-ed25519",
            "visualhostkey no",
            "identitiesonly yes",
        ] {
            assert!(
                said.lines().any(|it| it == line),
                "{line} is not in:\n{said}"
            );
        }
        for word in ["bastion", "tmux", "/elsewhere", "/nowhere.so"] {
            assert!(!said.contains(word), "{word} is in:\n{said}");
        }
        // Others are offered after it.
        let own_key = format!("identityfile {}", files.client_key().display());
        let key = said.lines().find(|line| line.starts_with("identityfile"));
        assert_eq!(key, Some(&*own_key));
    }

    /// An agent that does not answer would be waited for.
    #[test]
    fn steads_own_ssh_asks_no_agent() {
        let place = tempfile::tempdir().unwrap();
        let files = MachineFiles::new(&DataDir::at(place.path()), &uuid::Uuid::nil());
        std::fs::create_dir_all(files.folder()).unwrap();
        std::fs::write(files.host_public_key(), "ssh-ed25519 AAAA x\n").unwrap();
        web().write(&files).unwrap();
        let output = std::process::Command::new("ssh")
            .args(["-G", "-F"])
            .arg(files.ssh_config())
            .arg("web")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("\nidentityagent none\n"), "{said}");
        assert!(said.contains("\nproxycommand sh -c"), "{said}");
    }

    #[test]
    fn the_file_of_one_machine_is_for_its_address_too() {
        let place = tempfile::tempdir().unwrap();
        let files = MachineFiles::new(&DataDir::at(place.path()), &uuid::Uuid::nil());
        std::fs::create_dir_all(files.folder()).unwrap();
        std::fs::write(files.host_public_key(), "ssh-ed25519 AAAA x\n").unwrap();
        let target = web();
        target.write(&files).unwrap();
        let config = std::fs::read_to_string(files.ssh_config()).unwrap();
        assert!(config.starts_with("Host web stead-shop-web-abc123 127.0.0.1\n"));
        let others = std::fs::read_to_string(files.for_others()).unwrap();
        assert!(others.starts_with("Host web.shop stead-shop-web-abc123\n"));
        let program = own_program().unwrap();
        let program = program.to_str().unwrap();
        assert!(config.contains(&format!("' {program} web %p\n")));
        let program = Path::new("/home/it's 100%/stead");
        let plain = dialled(program, &target);
        assert!(
            plain.ends_with(" '/home/it'\\''s 100%%/stead' web %p\n  ProxyUseFdpass yes\n"),
            "{plain}"
        );
        let led = SshTarget {
            led_by: Some("qemu:///session".into()),
            ..target
        };
        let led = dialled(program, &led);
        let more = " web %p --domain stead-shop-web-abc123 --connect qemu:///session\n  ProxyUseFdpass yes\n";
        assert!(led.ends_with(more), "{led}");
    }

    /// Runs it like ssh runs a ProxyCommand: by a shell, with `exec` before it.
    #[test]
    fn a_stead_that_is_gone_is_stood_in_for_by_that_of_path() {
        use std::{os::unix::fs::PermissionsExt, process::Command};
        let place = tempfile::tempdir().unwrap();
        let gone = place.path().join("gone/stead");
        let said = |path: &Path| {
            let target = web();
            let line = dialled(&gone, &target).replace("%p", "22022");
            let line = line.lines().next().unwrap().to_string();
            let command = line.trim().strip_prefix("ProxyCommand ").unwrap();
            let output = Command::new("sh")
                .args(["-c", &format!("exec {command}")])
                .env("PATH", format!("{}:/usr/bin:/bin", path.display()))
                .output()
                .unwrap();
            (
                output.status.code(),
                String::from_utf8_lossy(&output.stdout).into_owned(),
            )
        };
        assert_eq!(said(Path::new("/nowhere")), (Some(1), String::new()));
        let other = place.path().join("stead");
        std::fs::write(&other, "#!/bin/sh\necho other \"$@\"\n").unwrap();
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            said(place.path()),
            (Some(0), "other dial web 22022\n".into())
        );
    }
}
