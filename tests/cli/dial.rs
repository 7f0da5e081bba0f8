//! OpenSSH gets its connections from `stead dial`.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// ssh, with a configuration as stead writes it, to a port of this host.
fn ssh(folder: &tempfile::TempDir, port: u16) -> Command {
    ssh_of(folder, port, "")
}

fn ssh_of(folder: &tempfile::TempDir, port: u16, more: &str) -> Command {
    let config: PathBuf = folder.path().join("ssh_config");
    let stead = env!("CARGO_BIN_EXE_stead");
    let text = format!(
        "Host web\n  HostName 127.0.0.1\n  Port {port}\n  LogLevel ERROR\n  ControlMaster auto\n  \
         ControlPath {}\n  ControlPersist 600\n  ProxyCommand '{stead}' dial web %p{more}\n  ProxyUseFdpass yes\n",
        folder.path().join("control").display()
    );
    fs::write(&config, text).unwrap();
    let mut ssh = Command::new("ssh");
    ssh.arg("-F")
        .arg(config)
        .args(["-o", "BatchMode=yes", "web", "true"]);
    ssh.stdin(Stdio::null());
    ssh
}

#[test]
fn why_there_is_none_is_said_where_ssh_speaks() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let output = ssh(&folder, port).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{said}");
    assert!(
        said.contains(&format!(
            "error: web cannot be reached: 127.0.0.1:{port}: Connection refused"
        )),
        "{said}"
    );
}

/// A program of somebody else's on the port, as of whoever takes it while the machine is away.
#[test]
fn who_is_not_qemu_is_not_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let impostor = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        connection.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        let mut said = Vec::new();
        let _ = connection.read_to_end(&mut said);
        said
    });
    let own = fs::metadata(folder.path()).unwrap().uid();
    let output = ssh_of(&folder, port, &format!(" --of {}", own + 1))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{said}");
    assert!(
        said.contains(&format!("user {own} listens there")),
        "{said}"
    );
    assert_eq!(impostor.join().unwrap(), b"", "it was told something");
}

#[test]
fn it_ends_with_an_ssh_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut ssh = ssh(&folder, silent.local_addr().unwrap().port())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _waits = silent.accept().unwrap();
    let pid = ssh.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let dial = Path::new("/proc").join(children.trim());
    assert!(
        fs::read(dial.join("cmdline"))
            .unwrap()
            .starts_with(env!("CARGO_BIN_EXE_stead").as_bytes())
    );
    ssh.kill().unwrap();
    ssh.wait().unwrap();
    // By itself it would go on for two minutes.
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::read(dial.join("cmdline")).is_ok_and(|words| !words.is_empty()) {
        assert!(Instant::now() < deadline, "it goes on without ssh");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn people_are_told_what_it_is_for() {
    let output = Command::new(env!("CARGO_BIN_EXE_stead"))
        .args(["dial", "web", "22"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("hint: `stead ssh web`"), "{said}");
}
