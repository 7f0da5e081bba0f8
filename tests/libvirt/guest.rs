//! Commands in a guest that is no VM: an OpenSSH server of this user's on 127.0.0.1, whose login runs another shell.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use stead::{
    guest::MachineFiles,
    host::paths::DataDir,
    machine::{Identity, Phase, Running, Signs},
};

use super::{domain_xml, mark_running, record};

/// Installed by `./dev setup`.
const SHELLS: [&str; 5] = ["sh", "bash", "zsh", "fish", "tcsh"];

/// What login files print, on both streams, without an end of the line.
const NOISE: &str = "echo Welcome; printf 'no end'; printf 'tput: no TERM' >&2";

struct Guest {
    place: tempfile::TempDir,
    sshd: Child,
}

impl Guest {
    /// A guest whose login runs these lines of `sh`, and then this shell.
    fn new(shell: &str, login: &str) -> Self {
        Guest::reached_by(shell, login, |port| port)
    }

    /// The same, with the port that leads to its SSH server's.
    fn reached_by(shell: &str, login: &str, way: impl Fn(u16) -> u16) -> Self {
        Guest::with(shell, login, way, "")
    }

    /// The same, with lines for sshd_config(5).
    fn with(shell: &str, login: &str, way: impl Fn(u16) -> u16, settings: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let data = root.join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        let identity = Identity::of("shop", &root, "web");
        let files = MachineFiles::new(&DataDir::at(&data), &identity.uuid);
        files.make_keys("web").unwrap();
        let path = root.join("login");
        let text = format!("#!/bin/sh\n{login}\nexec {shell} -c \"$SSH_ORIGINAL_COMMAND\"\n");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nForceCommand {}\n\
             StrictModes no\nUsePAM no\nPidFile none\nSubsystem sftp /usr/lib/openssh/sftp-server\nLogLevel VERBOSE\n{settings}\n",
            files.host_key().display(),
            files.client_public_key().display(),
            path.display(),
        );
        fs::write(root.join("sshd_config"), config).unwrap();
        if nix::unistd::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let sshd = Command::new("/usr/sbin/sshd")
            .args(["-D", "-f"])
            .arg(root.join("sshd_config"))
            .arg("-E")
            .arg(root.join("sshd.log"))
            .stdin(Stdio::null())
            .spawn()
            .expect("no OpenSSH server: `./dev setup` installs it (Debian: openssh-server)");
        let guest = Guest { place, sshd };
        until("sshd listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .unwrap()
            .unwrap();
        let mut record = record("web");
        record.root.clone_from(&root);
        record.phase = Phase::Created;
        record.ssh_port = way(port);
        record.login_user = user.name;
        let domain = domain_xml(&identity, Some(&record));
        fs::write(root.join("node.xml"), format!("<node>{domain}</node>")).unwrap();
        fs::create_dir(root.join("src")).unwrap();
        fs::write(root.join("src/it's a \"file\""), "of the host\n").unwrap();
        let machinefile = format!(
            "project \"shop\"\nmachine \"web\" {{ box \"debian-12\"; sync \"src\" to=\"{}\"; }}\n",
            root.join("to").display()
        );
        fs::write(root.join("Machinefile"), machinefile).unwrap();
        guest
    }

    fn root(&self) -> PathBuf {
        self.place.path().canonicalize().unwrap()
    }

    /// Words of `sh` that run stead.
    fn words(&self) -> String {
        let root = self.root();
        format!(
            "{} --connect test://{}/node.xml",
            env!("CARGO_BIN_EXE_stead"),
            root.display()
        )
    }

    fn command(&self, program: &str) -> Command {
        let root = self.root();
        let mut command = Command::new(program);
        command
            .current_dir(&root)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", root.join("home"))
            .env("STEAD_DATA_DIR", root.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn stead(&self, arguments: &[&str]) -> Command {
        let mut words = self.words();
        words.push_str(" \"$@\"");
        let mut command = self.command("sh");
        command
            .args(["-c", &format!("exec {words}"), "sh"])
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        said(&self.stead(arguments).output().unwrap())
    }

    /// Runs a script of `sh` in which `stead` is stead.
    fn shell(&self, script: &str) -> (Option<i32>, String, String) {
        let script = format!("stead() {{ {} \"$@\"; }}\n{script}", self.words());
        said(&self.command("sh").args(["-c", &script]).output().unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root().join("sshd.log")).unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let identity = Identity::of("shop", &self.root(), "web");
        let files = MachineFiles::new(&DataDir::at(self.root().join("data")), &identity.uuid);
        let remote = stead::guest::Remote {
            machine: "web".into(),
            files,
        };
        remote.disconnect();
        let _ = remote.files.remove();
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
        if thread::panicking() {
            eprintln!("--- sshd\n{}", self.log());
        }
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("not after 30 s: {what}");
}

/// Returns a port that leads to `port`, but only after this time. Until then, it is silent, as a guest that boots.
fn late(port: u16, after: Duration) -> u16 {
    let begun = Instant::now();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let own = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let from = stream.unwrap();
            if begun.elapsed() < after {
                silent.push(from);
                continue;
            }
            silent.clear();
            let to = TcpStream::connect(("127.0.0.1", port)).unwrap();
            for (mut from, mut to) in [
                (from.try_clone().unwrap(), to.try_clone().unwrap()),
                (to, from),
            ] {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    own
}

/// Leads to `port`, but has nothing pass before `after` has gone by, as QEMU and stead-net do while a guest boots.
fn held(port: u16, after: Duration) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let own = listener.local_addr().unwrap().port();
    let begun = Instant::now();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let from = stream.unwrap();
            thread::spawn(move || {
                thread::sleep(after.saturating_sub(begun.elapsed()));
                let to = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let (mut there, mut back) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut there, &mut &to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
                let _ = std::io::copy(&mut back, &mut &from);
                let _ = from.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    own
}

/// The SSH server takes one connection at a time that is not logged in.
#[test]
fn many_that_wait_for_a_guest_ask_it_one_after_the_other() {
    let guest = Guest::with(
        "sh",
        "",
        |port| held(port, Duration::from_secs(2)),
        "MaxStartups 1:100:1",
    );
    let waiting: Vec<_> = (0..12)
        .map(|_| guest.stead(&["exec", "web", "--", "echo", "there"]))
        .chain([
            guest.stead(&["ssh", "web", "-c", "echo there"]),
            guest.stead(&["sync", "web", "--dry-run"]),
        ])
        .map(|mut stead| stead.spawn().unwrap())
        .collect();
    for stead in waiting {
        let (code, _, err) = said(&stead.wait_with_output().unwrap());
        assert_eq!(code, Some(0), "{err}\n{}", guest.log());
    }
    let log = guest.log();
    assert!(!log.contains("drop connection"), "{log}");
}

/// One that waits longer than it would by itself, for another that has the turn.
#[test]
fn whoever_has_the_turn_says_how_long_to_wait() {
    let guest = Guest::new("sh", "");
    let identity = Identity::of("shop", &guest.root(), "web");
    let files = MachineFiles::new(&DataDir::at(guest.root().join("data")), &identity.uuid);
    let turn = files.control_socket().with_extension("login");
    fs::create_dir_all(turn.parent().unwrap()).unwrap();
    let file = fs::File::create(turn).unwrap();
    file.lock().unwrap();
    let mut stead = guest.stead(&["exec", "web", "--", "true"]).spawn().unwrap();
    thread::sleep(Duration::from_secs(1));
    assert!(stead.try_wait().unwrap().is_none());
    // The fixture's own is the only one.
    assert!(guest.log().matches("Connection from").count() <= 1);
    drop(file);
    let (code, _, err) = said(&stead.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{err}");
}

/// Whatever has to reach a guest that still boots says so, and waits for it.
#[test]
fn what_waits_for_a_guest_that_boots_says_so() {
    for command in [
        "exec web -- true",
        "ssh web -c true",
        "copy Machinefile web:$PWD/copied",
        "sync web",
        "sync web --dry-run",
        "sync web --back .",
    ] {
        let guest = Guest::reached_by("sh", NOISE, |port| late(port, Duration::from_secs(5)));
        fs::create_dir(guest.root().join("to")).unwrap();
        let inner = format!("{} {command}", guest.words());
        let mut script = guest.command("script");
        script
            .args(["-qec", &inner, "/dev/null"])
            .env("SHELL", "/bin/sh");
        let (code, out, err) = said(&script.output().unwrap());
        assert_eq!(code, Some(0), "{command}: {out}{err}");
        assert!(
            out.contains("web does not answer yet; waiting for its SSH server")
                || out.contains("waiting for SSH on web"),
            "{command}: {out}{err}"
        );
    }
}

/// A connection to a guest that reboots hangs until OpenSSH gives it up, after two minutes.
#[test]
fn a_command_ends_with_a_guest_that_reboots() {
    let guest = Guest::new("sh", "");
    let identity = Identity::of("shop", &guest.root(), "web");
    let files = MachineFiles::new(&DataDir::at(guest.root().join("data")), &identity.uuid);
    let running = Running {
        kernel: Some("6.1.0".into()),
        signs: Some(Signs::default()),
        ..Running::default()
    };
    mark_running(&guest.root(), &running);
    let mut stead = guest.stead(&["exec", "web", "--", "sh", "-c", "echo begun; sleep 300"]);
    let mut stead = stead.spawn().unwrap();
    let mut begun = [0; 6];
    let mut out = stead.stdout.take().unwrap();
    out.read_exact(&mut begun).unwrap();
    let rebooted = Instant::now();
    fs::write(files.console_log(), "[  9.1] reboot: Restarting system\r\n").unwrap();
    let (code, _, err) = said(&stead.wait_with_output().unwrap());
    assert_eq!(code, Some(255), "{err}");
    assert!(
        err.contains(
            "error: lost the connection to web: its guest reboots or shuts down by itself"
        ),
        "{err}"
    );
    assert!(rebooted.elapsed() < Duration::from_secs(30));
}

/// The login shell reads nothing of stead's but `exec sh`, and what the login prints is in no value.
#[test]
fn the_login_shell_may_be_any_and_may_print() {
    let odd = "it's \"odd\" `a` $b \\ ! * ~ \u{e9}\n;";
    for shell in SHELLS {
        let note = "printf '%s\\n' \"$SSH_ORIGINAL_COMMAND\" >>\"${0%/*}/read\"";
        let guest = Guest::new(shell, &format!("{NOISE}\n{note}"));
        let (code, out, err) = guest.run(&["exec", "web", "--", "printf", "%s", odd]);
        assert_eq!((code, &*out, &*err), (Some(0), odd, ""), "{shell}");
        let (code, out, err) = guest.shell("printf 'a\\0b' | stead exec web -- cat");
        assert_eq!((code, &*out, &*err), (Some(0), "a\0b", ""), "{shell}");
        let (code, out, err) = guest.run(&["--plain", "sync", "web"]);
        assert_eq!(code, Some(0), "{shell}: {out}{err}");
        let copy = fs::read_to_string(guest.root().join("to/it's a \"file\"")).unwrap();
        assert_eq!(copy, "of the host\n", "{shell}");
        fs::write(guest.root().join("to/new"), "of the guest\n").unwrap();
        let (code, out, err) = guest.run(&["--plain", "sync", "web", "--back", "new"]);
        assert_eq!(code, Some(0), "{shell}: {out}{err}");
        assert!(guest.root().join("src/new").exists(), "{shell}: {out}{err}");
        let root = guest.root();
        let there = format!("web:{}", root.join("copied").display());
        let (code, out, err) = guest.run(&["-q", "copy", "Machinefile", &there]);
        assert_eq!((code, &*out, &*err), (Some(0), "", ""), "{shell}");
        let (code, out, err) = guest.run(&["-q", "copy", &there, "again"]);
        assert_eq!((code, &*out, &*err), (Some(0), "", ""), "{shell}");
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        assert_eq!(read("again"), read("Machinefile"), "{shell}");
        let asked = read("read");
        assert!(
            asked.lines().all(|line| line == "exec sh"),
            "{shell}: {asked}"
        );
        // At a terminal too. `script` gives one.
        let print = "printf '%s|' 'it'\\''s' '!!' 'a b'";
        let inner = format!(
            "{0} exec web -- {print}; {0} exec web -- sh -c 'echo $TERM'",
            guest.words()
        );
        let mut command = guest.command("script");
        command
            .args(["-qec", &inner, "/dev/null"])
            .env("TERM", "xterm-kitty")
            .env("SHELL", "/bin/sh");
        let (code, out, err) = said(&command.output().unwrap());
        assert_eq!(code, Some(0), "{shell}: {out}{err}");
        // People see what the login prints.
        for wanted in ["it's|!!|a b|", "xterm-256color\r\n"] {
            assert!(out.contains(wanted), "{shell}: {out:?}{err}");
        }
    }
}

/// Nothing of a script runs but by `sh`, whole.
#[test]
fn login_files_may_read_input_or_start_another_shell() {
    for before in ["read -r x", "exec zsh", "read -r x; exec bash"] {
        let guest = Guest::new("sh", before);
        let (code, out, err) = guest.shell("echo input | stead exec web -- cat");
        assert_eq!((code, &*out, &*err), (Some(0), "input\n", ""), "{before}");
    }
    let guest = Guest::new("sh", "exec script -qc sh /dev/null");
    let (code, out, err) = guest.run(&["exec", "web", "--", "true"]);
    assert_eq!((code, &*out), (Some(255), ""));
    assert!(
        err.contains("cannot log in to web: a login file starts a program that makes a terminal")
            && err.contains("put what is for people behind `[ -t 0 ] &&`"),
        "{err}"
    );
}

/// A line for the guest's shell is read by that shell.
#[test]
fn the_users_line_is_for_the_login_users_shell() {
    let guest = Guest::new("zsh", NOISE);
    let (code, out, err) = guest.run(&["ssh", "web", "-c", "echo $SHELL | tr -d '\\n'; exit 3"]);
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .unwrap()
        .unwrap();
    assert_eq!(
        (code, &*out, &*err),
        (Some(3), &*user.shell.to_string_lossy(), "")
    );
}

#[test]
fn a_login_shell_that_runs_nothing_is_named() {
    let guest = Guest::new("false", "echo This account is not available.; exit 1");
    let (code, out, err) = guest.run(&["exec", "web", "--", "true"]);
    assert_eq!((code, &*out), (Some(255), ""));
    assert!(
        err.contains(
            "error: the login shell of web ends before it runs `sh`: This account is not available."
        ),
        "{err}"
    );
}

#[test]
fn an_exit_code_says_how_the_command_ended() {
    let guest = Guest::new("sh", "");
    for (words, wanted) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["sh", "-c", "kill 0; sleep 9"], 143),
        (&["sh", "-c", "exit 255"], 254),
        (&["no-such-command"], 127),
        (&["-V"], 127),
        (&["--", "true"], 127),
    ] {
        let arguments: Vec<&str> = ["exec", "web", "--"].iter().chain(words).copied().collect();
        let (code, out, err) = guest.run(&arguments);
        assert_eq!((code, &*out), (Some(wanted), ""), "{words:?}: {err}");
        if wanted == 127 {
            assert_eq!(err, format!("{}: command not found\n", words[0]));
        }
    }
    let (code, out, err) = guest.shell("stead exec web -- yes | head -n 1");
    assert_eq!((code, &*out, &*err), (Some(0), "y\n", ""));
}

/// A command leaves what it does not read to the next reader.
#[test]
fn a_command_in_a_loop_takes_no_input_that_it_does_not_read() {
    let guest = Guest::new("sh", "");
    let body = "while read -r x; do stead exec web -- echo \"$x\"; done";
    for script in [
        format!("printf 'a\\nb\\nc\\n' | {body}"),
        format!("printf 'a\\nb\\nc\\n' >list; {body} <list"),
        format!("(echo a; sleep 0.3; echo b; sleep 0.3; echo c) | {body}"),
    ] {
        let (code, out, err) = guest.shell(&script);
        assert_eq!((code, &*out, &*err), (Some(0), "a\nb\nc\n", ""), "{script}");
    }
    // One that reads has all of it, and the next one the rest.
    for script in [
        "printf 'a\\nb\\nc\\n' | { stead exec web -- sh -c 'read x; echo $x'; stead exec web -- cat; }",
        "printf 'a\\nb\\nc\\n' >list; { stead exec web -- sh -c 'read x; echo $x'; cat; } <list",
    ] {
        let (code, out, err) = guest.shell(script);
        assert_eq!((code, &*out, &*err), (Some(0), "a\nb\nc\n", ""), "{script}");
    }
    let (code, out, err) =
        guest.shell("head -c 30000000 /dev/urandom >big; stead exec web -- cat <big | cmp - big && cat big | stead exec web -- cat | cmp - big");
    assert_eq!((code, &*out, &*err), (Some(0), "", ""));
    // Its output has an end, though something that it has started goes on.
    let (code, out, _) = guest.shell("stead exec web -- sh -c 'sleep 100 & echo $!'");
    assert_eq!(code, Some(0));
    let _ = Command::new("kill").arg(out.trim()).status();
}

fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// However the caller ends, whatever its input is.
#[test]
fn a_command_ends_with_its_caller() {
    let guest = Guest::new("sh", "");
    let script = "trap '' HUP; echo $$; sleep 1000 & echo $!; setsid sleep 1000 & echo $!; wait";
    let pipe = || Stdio::piped();
    let inputs: [(&str, &dyn Fn() -> Stdio); 3] = [
        ("none", &|| Stdio::null()),
        ("open", &pipe),
        ("closed", &pipe),
    ];
    for (name, input) in inputs {
        for (words, signal) in [
            (&["exec", "web", "--", "sh", "-c", script][..], "KILL"),
            (&["exec", "web", "--", "sh", "-c", script], "TERM"),
            (&["ssh", "web", "-c", script], "INT"),
        ] {
            let mut stead = guest.stead(words).stdin(input()).spawn().unwrap();
            if name == "closed" {
                drop(stead.stdin.take());
            }
            let mut pids = Vec::new();
            let mut out = stead.stdout.take().unwrap();
            while pids.iter().filter(|byte| **byte == b'\n').count() < 3 {
                let mut byte = [0];
                out.read_exact(&mut byte).unwrap();
                pids.push(byte[0]);
            }
            let pids = String::from_utf8(pids).unwrap();
            let pids: Vec<&str> = pids.lines().collect();
            assert!(pids.iter().all(|pid| is_running(pid)), "{name} {signal}");
            let kill = Command::new("kill")
                .args([&format!("-{signal}"), &stead.id().to_string()])
                .status();
            assert!(kill.unwrap().success());
            stead.wait().unwrap();
            until(&format!("{name} {signal}: {pids:?} have ended"), || {
                !pids.iter().any(|pid| is_running(pid))
            });
        }
    }
}

/// A job goes on without its caller, and is found again.
#[test]
fn a_job_goes_on_without_its_caller() {
    let guest = Guest::new("zsh", &format!("{NOISE}\nexport HOME=\"${{0%/*}}\""));
    let start = |script: &str| {
        let words = ["exec", "--detach", "web", "--", "sh", "-c", script];
        let (code, out, err) = guest.run(&words);
        assert_eq!((code, &*err), (Some(0), ""), "{out}");
        let job = out.strip_suffix('\n').unwrap().to_string();
        assert!(!job.contains(char::is_whitespace), "{job}");
        job
    };
    let script = "printf 'a\\0b\\n'; echo bad >&2; sleep 3; echo late; exit 7";
    let job = start(script);
    let (code, out, _) = guest.run(&["--json", "job", "list"]);
    assert_eq!(code, Some(0));
    let list: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(list["jobs"][0]["job"], *job);
    assert_eq!(list["jobs"][0]["state"], "running");
    assert_eq!(list["jobs"][0]["command"][2], *script);
    // The end of who waits is not that of the job.
    let mut waits = guest.stead(&["job", "wait", "web", &job]).spawn().unwrap();
    thread::sleep(Duration::from_millis(500));
    waits.kill().unwrap();
    waits.wait().unwrap();
    let whole = "a\0b\nbad\nlate\n";
    let (code, out, err) = guest.run(&["job", "logs", "web", &job, "--follow"]);
    assert_eq!((code, &*out, &*err), (Some(0), whole, ""));
    let (code, out, err) = guest.run(&["job", "wait", &job]);
    assert_eq!((code, &*out, &*err), (Some(7), "", ""));
    let (code, out, err) = guest.run(&["job", "logs", &job]);
    assert_eq!((code, &*out, &*err), (Some(0), whole, ""));

    let job = start("setsid sleep 1000 & echo $!; wait");
    let (code, _, err) = guest.run(&["job", "remove", "web", &job]);
    assert_eq!(code, Some(1));
    let hint = format!("hint: `stead job stop web {job}` stops it");
    assert!(
        err.contains(&format!("job {job} of web is running")) && err.contains(&hint),
        "{err}"
    );
    // People are told what it waits for.
    let inner = format!("{} job wait web {job}", guest.words());
    let mut command = guest.command("script");
    command
        .args(["-qec", &inner, "/dev/null"])
        .env("SHELL", "/bin/sh");
    let waits = command.spawn().unwrap();
    thread::sleep(Duration::from_secs(1));
    let pid = guest.run(&["job", "logs", &job]).1;
    assert!(is_running(pid.trim()), "{pid}");
    let (code, _, err) = guest.run(&["job", "stop", "web", &job]);
    assert_eq!(
        (code, err),
        (Some(0), format!("job {job} of web was stopped\n"))
    );
    assert!(!is_running(pid.trim()));
    let (code, out, _) = said(&waits.wait_with_output().unwrap());
    assert_eq!(code, Some(143));
    assert_eq!(out, format!("waiting for job {job} of web\r\n"));
    let (code, _, _) = guest.run(&["job", "remove", "web", &job]);
    assert_eq!(code, Some(0));
    let (code, out, err) = guest.run(&["job", "wait", "web", &job]);
    assert_eq!((code, &*out), (Some(255), ""));
    assert!(
        err.contains(&format!("machine web has no job {job}")),
        "{err}"
    );

    let (code, out, err) = guest.run(&["exec", "-d", "web", "--", "no-such-command"]);
    assert_eq!((code, &*out), (Some(127), ""));
    assert_eq!(err, "no-such-command: command not found\n");
    let script = "for n in $(seq 8); do stead exec -d web -- true & done; wait";
    let (code, out, err) = guest.shell(script);
    assert_eq!((code, &*err), (Some(0), ""));
    let mut names: Vec<&str> = out.lines().collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 8, "{out}");
}

/// An SSH server takes ten commands at a time by one connection, and few logins at a time.
#[test]
fn many_commands_run_at_once() {
    let guest = Guest::new("sh", NOISE);
    let script = "for n in $(seq 30); do { stead exec web -- sh -c 'sleep 2; echo $0' $n || echo failed; } & done; wait";
    let (code, out, err) = guest.shell(script);
    assert_eq!((code, &*err), (Some(0), ""));
    let mut numbers: Vec<u32> = out.lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>());
    let log = guest.log();
    assert!(!log.contains("MaxStartups"), "{log}");
    let logins = log.matches("Accepted publickey").count();
    assert!(logins <= 6, "{logins} logins:\n{log}");
}

/// stead's key is in a file.
#[test]
fn an_agent_that_does_not_answer_is_not_asked() {
    let guest = Guest::new("sh", "");
    let socket = guest.root().join("agent");
    let _agent = UnixListener::bind(&socket).unwrap();
    let mut command = guest.stead(&["exec", "web", "--", "echo", "done"]);
    let output = command.env("SSH_AUTH_SOCK", &socket).output().unwrap();
    assert_eq!(said(&output), (Some(0), "done\n".into(), String::new()));
}

/// Waits until something listens on the port.
fn connected(port: u16) -> TcpStream {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The shared connection has no agent and leads no port.
#[test]
fn options_of_ssh_are_sshs() {
    let guest = Guest::new("sh", "");
    let (code, _, err) = guest.run(&["exec", "web", "--", "true"]);
    assert_eq!(code, Some(0), "{err}");
    let socket = guest.root().join("agent");
    let _agent = UnixListener::bind(&socket).unwrap();
    // Its key is asked for, and it has none.
    thread::spawn(move || {
        while let Ok((mut stream, _)) = _agent.accept() {
            let mut asked = [0; 5];
            while stream.read_exact(&mut asked).is_ok() {
                let _ = stream.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]);
            }
        }
    });
    let mut command = guest.stead(&["ssh", "web", "--", "-A", "echo ${SSH_AUTH_SOCK:-none}"]);
    let (code, out, err) = said(&command.env("SSH_AUTH_SOCK", &socket).output().unwrap());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with('/'), "{out}{err}");
    let to = free_port();
    let listener = TcpListener::bind(("127.0.0.1", to)).unwrap();
    for option in ["-L", "-R", "-D"] {
        let port = free_port();
        let forward = match option {
            "-D" => port.to_string(),
            _ => format!("{port}:127.0.0.1:{to}"),
        };
        let mut ssh = guest
            .stead(&["ssh", "web", "--", "-N", option, &forward])
            .spawn()
            .unwrap();
        let mut stream = connected(port);
        if option == "-D" {
            // RFC 1928: no authentication, then a connection to an IPv4 address.
            stream.write_all(&[5, 1, 0]).unwrap();
            stream.read_exact(&mut [0; 2]).unwrap();
            stream.write_all(&[5, 1, 0, 1, 127, 0, 0, 1]).unwrap();
            stream.write_all(&to.to_be_bytes()).unwrap();
        }
        assert!(listener.accept().is_ok(), "{option}");
        ssh.kill().unwrap();
        ssh.wait().unwrap();
    }
    let target = format!("127.0.0.1:{to}");
    let ssh = guest.stead(&["ssh", "web", "--", "-W", &target]).spawn();
    listener
        .accept()
        .unwrap()
        .0
        .write_all(b"through\n")
        .unwrap();
    let (code, out, err) = said(&ssh.unwrap().wait_with_output().unwrap());
    assert_eq!((code, &*out), (Some(0), "through\n"), "{err}");
    let (code, out, _) = guest.run(&["ssh", "web", "--", "echo", "$((1 + 1))"]);
    assert_eq!((code, &*out), (Some(0), "2\n"));
}

/// Other programs get the printed settings, whatever else the user's file has.
#[test]
fn the_printed_settings_work_beside_the_users_own() {
    let guest = Guest::new("sh", "");
    // It has the files then.
    let (code, _, err) = guest.run(&["exec", "web", "--", "true"]);
    assert_eq!(code, Some(0), "{err}");
    let (code, printed, err) = guest.run(&["ssh-config"]);
    assert_eq!(code, Some(0), "{err}");
    let root = guest.root();
    fs::write(root.join("shop.conf"), printed).unwrap();
    let own = format!(
        "Host *\n ProxyJump bastion.invalid\n RemoteCommand tmux\n RequestTTY force\n \
         ControlPath {0}/%C\n BindAddress 192.0.2.1\n AddressFamily inet6\n PubkeyAuthentication no\n \
         ProxyCommand false\n IdentitiesOnly no\n StrictHostKeyChecking no\n SetEnv A=b\n SendEnv LANG\n \
         ForwardAgent yes\n PermitLocalCommand yes\n LocalCommand touch {0}/local\n\
         EscapeChar none\n Compression yes\n ConnectTimeout 5\n \
         HostKeyAlias other\n User nobody\n Port 9\n Ciphers aes128-ctr\n LogLevel DEBUG3\n\
         Match exec \"test 1 = 1\"\n ProxyJump other.invalid\n RemoteCommand screen\n",
        root.display()
    );
    let own = format!("Include {}\n{own}", root.join("shop.conf").display());
    fs::write(root.join("config"), own).unwrap();
    let ssh = |config: &Path, name: &str| {
        let mut command = guest.command("ssh");
        command.arg("-F").arg(config).args([name, "echo", "there"]);
        said(&command.output().unwrap())
    };
    let there = (Some(0), "there\n".into(), String::new());
    assert_eq!(ssh(&root.join("config"), "web"), there);
    assert!(!root.join("local").exists());
    let file = |name: &str| root.join(name).display().to_string();
    let config = file("config");
    fs::write(
        root.join("batch"),
        format!("get {} {}\n", file("Machinefile"), file("by-sftp")),
    )
    .unwrap();
    let remote = format!("web:{}", file("Machinefile"));
    for (program, arguments) in [
        ("scp", vec!["-q", "-F", &config, &remote, &file("by-scp")]),
        (
            "sftp",
            vec!["-q", "-F", &config, "-b", &file("batch"), "web"],
        ),
        (
            "rsync",
            vec![
                "-e",
                &format!("ssh -F {config}"),
                &remote,
                &file("by-rsync"),
            ],
        ),
    ] {
        let (code, _, err) = said(&guest.command(program).args(&arguments).output().unwrap());
        assert_eq!(code, Some(0), "{program}: {err}");
        let copy = fs::read(root.join(format!("by-{program}"))).unwrap();
        assert_eq!(
            copy,
            fs::read(root.join("Machinefile")).unwrap(),
            "{program}"
        );
    }
    // A line in the user's file is enough, and can be taken out again.
    let dot_ssh = root.join("home/.ssh");
    fs::create_dir_all(&dot_ssh).unwrap();
    let config = dot_ssh.join("config");
    let own = "Host *\n ProxyJump bastion.invalid";
    fs::write(&config, own).unwrap();
    for _ in 0..2 {
        let (code, out, err) = guest.run(&["ssh-config", "--install"]);
        assert_eq!((code, &*out), (Some(0), ""), "{err}");
        assert_eq!(ssh(&config, "web.shop"), there);
        let text = fs::read_to_string(&config).unwrap();
        assert!(
            text.ends_with(own) && text.matches("Include").count() == 1,
            "{text}"
        );
    }
    let (code, _, err) = guest.run(&["ssh-config", "--remove"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(fs::read_to_string(&config).unwrap(), own);
}

/// At a terminal with a live line, whoever sits there sees the question and answers it; Ctrl-C ends the command.
#[test]
fn a_playbook_asks_at_the_terminal() {
    let guest = Guest::new("sh", "");
    let root = guest.root();
    let answer = root.join("answer");
    fs::write(
        root.join("Machinefile"),
        "project \"shop\"\nmachine \"web\" { box \"debian-12\"; provision \"app\" { ansible \"site.yml\"; }; }\n",
    )
    .unwrap();
    let play = format!(
        "- hosts: all\n  gather_facts: false\n  vars_prompt:\n    - name: release\n      prompt: Which release?\n      private: false\n  tasks:\n    - ansible.builtin.copy: {{ content: '{{{{ release }}}}', dest: '{}' }}\n",
        answer.display()
    );
    fs::write(root.join("site.yml"), play).unwrap();
    let running = Running {
        ready: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        kernel: Some("6.1.0".into()),
        signs: Some(Signs::default()),
        ..Running::default()
    };
    mark_running(&root, &running);
    let (code, out, err) = guest.run(&["trust", "--yes"]);
    assert_eq!(code, Some(0), "{out}{err}");
    // Nobody is there.
    let (code, out, err) = guest.run(&["--plain", "provision", "web"]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(
        err.contains("asks \"Which release?:\" for site.yml"),
        "{err}"
    );
    assert!(err.contains("`vars release=\"…\"`"), "{err}");
    assert!(!answer.exists());
    let typed = |text: &str| {
        let mut script = guest.command("script");
        let inner = format!("{} provision web", guest.words());
        let mut script = script
            .args(["-qec", &inner, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut shown, mut buffer) = (String::new(), [0; 4096]);
        let mut out = script.stdout.take().unwrap();
        while !shown.contains("Which release?: ") {
            let n = out.read(&mut buffer).unwrap();
            assert_ne!(n, 0, "{shown}");
            shown.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        let mut input = script.stdin.take().unwrap();
        // It discards what was typed before it reads.
        thread::sleep(Duration::from_millis(500));
        input.write_all(text.as_bytes()).unwrap();
        out.read_to_string(&mut shown).unwrap();
        drop(input);
        (script.wait().unwrap().code(), shown)
    };
    let (code, shown) = typed("\u{3}");
    assert_ne!(code, Some(0), "{shown}");
    assert!(!answer.exists(), "{shown}");
    let (code, shown) = typed("1.4\n");
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("web  provisioner app (site.yml) asks:\r\n"),
        "{shown}"
    );
    assert_eq!(fs::read_to_string(&answer).unwrap(), "1.4", "{shown}");
}

/// The store may have lost the box of a machine that boots.
#[test]
fn what_has_not_booted_needs_its_box() {
    let guest = Guest::new("sh", "");
    let machinefile = "project \"shop\"\nmachine \"web\" { box \"debian-12\"; provision \"it\" { shell inline=\"true\"; }; }\n";
    fs::write(guest.root().join("Machinefile"), machinefile).unwrap();
    let (code, _, err) = guest.run(&["provision", "web", "--all"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("error: web has not booted yet, and its box is not in the store any more"),
        "{err}"
    );
}
