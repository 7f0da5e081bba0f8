//! Confined programs reach no other file, and end within their limits.

use std::{fs, os::unix::fs::MetadataExt};

use super::*;

const LIMITS: Limits = Limits {
    memory: 1 << 30,
    cpu: 60,
    file: 1 << 20,
};

/// Every sandbox that this host supports, with older versions of Landlock, as older kernels have them.
fn every_isolation() -> Vec<Isolation> {
    let mut all = Vec::new();
    if let Some(version) = landlock::version() {
        all.extend((1..=version).map(Isolation::Landlock));
    }
    if namespaces::work() {
        all.push(Isolation::Namespaces);
    }
    assert!(
        !all.is_empty(),
        "this host has neither Landlock nor namespaces"
    );
    all
}

struct Place {
    folder: tempfile::TempDir,
    given: File,
    out: File,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("given"), "what was given").unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        let open = |name| {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(folder.path().join(name))
                .unwrap()
        };
        let (given, out) = (open("given"), open("out"));
        Place { folder, given, out }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs Perl, which can make any system call. `$g` and `$o` are the handed-over files, `$d` the folder.
    fn perl(&self, isolation: Isolation, limits: Limits, script: &str) -> ConfinedOutput {
        let mut perl = Confined::by(isolation, "perl", limits).unwrap();
        let given = perl.give(&self.given, Access::Read).unwrap();
        let out = perl.give(&self.out, Access::Write).unwrap();
        let words = "my ($g, $o, $d) = @ARGV;";
        perl.arg("-e").arg(format!("{words} {script}"));
        perl.args([given, out]).arg(self.folder.path());
        perl.run(Some(&self.out)).unwrap()
    }

    #[track_caller]
    fn says(&self, isolation: Isolation, script: &str) -> String {
        let ran = self.perl(isolation, LIMITS, script);
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert_eq!(ran.ended, RunEnd::Exit(0), "{isolation:?} {said} {ran:?}");
        said
    }
}

#[test]
fn what_was_given_and_nothing_else() {
    let place = Place::new();
    for isolation in every_isolation() {
        let read = "open(F, '<', $g) or die $!; print <F>;";
        assert_eq!(place.says(isolation, read), "what was given");
        let write = "open(F, '+>', $o) or die $!; print F 'written'; close F; print 'ok'";
        assert_eq!(place.says(isolation, write), "ok", "{isolation:?}");
        assert_eq!(fs::read_to_string(place.path("out")).unwrap(), "written");
        for name in ["/etc/passwd", "/proc/1/environ", "/root", "/home", "/run"] {
            let read = format!(
                "print((open(F, '<', '{name}') && defined(<F>)) || opendir(D, '{name}') ? 'read' : 'no')"
            );
            assert_eq!(place.says(isolation, &read), "no", "{name} {isolation:?}");
        }
        for (what, script) in [
            ("read", "open(F, '<', \"$d/secret\")"),
            ("list", "opendir(D, $d)"),
            ("write", "open(F, '>>', \"$d/secret\")"),
            ("make", "open(F, '>', \"$d/new\")"),
            ("write what is to be read", "open(F, '>>', $g)"),
            ("truncate", "truncate(\"$d/secret\", 0)"),
            ("remove", "unlink(\"$d/secret\")"),
            ("rename", "rename(\"$d/secret\", \"$d/new\")"),
            ("chmod", "chmod(0777, \"$d/secret\")"),
            ("utime", "utime(0, 0, \"$d/secret\")"),
            ("link", "link(\"$d/secret\", \"$d/new\")"),
            ("run", "(system('/bin/ls') == 0)"),
            ("signal", "kill(0, getppid())"),
            ("inet", "socket(S, 2, 1, 0)"),
            ("inet6", "socket(S, 10, 2, 0)"),
            ("unix", "socket(S, 1, 1, 0)"),
        ] {
            let script = format!("print(({script}) ? 'done' : 'refused')");
            assert_eq!(
                place.says(isolation, &script),
                "refused",
                "{what} {isolation:?}"
            );
        }
        assert_eq!(fs::read_to_string(place.path("secret")).unwrap(), "secret");
        assert!(!place.path("new").exists());
    }
    let metadata = fs::metadata(place.path("secret")).unwrap();
    assert_ne!(metadata.mode() & 0o777, 0o777);
    assert_ne!(metadata.mtime(), 0);
}

#[test]
fn without_isolation_there_is_still_no_network() {
    let place = Place::new();
    let script = "print((socket(S, 2, 1, 0) || truncate(\"$d/secret\", 0)) ? 'done' : 'refused')";
    assert_eq!(place.says(Isolation::Nothing, script), "refused");
}

#[test]
fn no_word_of_the_environment_goes_along() {
    let place = Place::new();
    let said = place.says(Isolation::of_host(), "print join ' ', sort keys %ENV");
    assert_eq!(said, "LC_ALL MALLOC_ARENA_MAX PATH");
}

#[test]
fn a_name_that_leads_elsewhere_by_now() {
    for isolation in every_isolation() {
        let place = Place::new();
        fs::rename(place.path("secret"), place.path("given")).unwrap();
        let read = "open(F, '<', $g) or die $!; print <F>;";
        let mut perl = Confined::by(isolation, "perl", LIMITS).unwrap();
        let given = perl.give(&place.given, Access::Read).unwrap();
        perl.args(["-e", &format!("my $g = shift; {read}"), &given]);
        match perl.run(None) {
            // It never reads the file that has the name now.
            Ok(ran) => assert_eq!(ran.stdout, b"what was given", "{isolation:?}"),
            Err(error) => assert_eq!(isolation, Isolation::Namespaces, "{error}"),
        }
    }
}

#[test]
fn a_folder_that_was_given() {
    let place = Place::new();
    for isolation in every_isolation() {
        let folder = place.path("folder");
        fs::create_dir_all(&folder).unwrap();
        let open = File::open(&folder).unwrap();
        let mut perl = Confined::by(isolation, "perl", LIMITS).unwrap();
        let given = perl.give(&open, Access::Folder).unwrap();
        let script = "my $g = shift; mkdir(\"$g/a\") or die $!; open(F, '>', \"$g/a/b\") or die $!; \
            print F 'x'; close F; rename(\"$g/a/b\", \"$g/c\") or die $!; rmdir(\"$g/a\") or die $!; \
            print(open(F, '<', \"$g/../secret\") ? 'read' : 'no')";
        perl.args(["-e", script, &given]);
        let ran = perl.run(Some(&open)).unwrap();
        // The first version of Landlock does not allow moving files to another folder.
        if isolation == Isolation::Landlock(1) {
            fs::remove_dir_all(&folder).unwrap();
            continue;
        }
        assert_eq!(
            (ran.ended, ran.stdout.as_slice()),
            (RunEnd::Exit(0), &b"no"[..]),
            "{isolation:?} {ran:?}"
        );
        assert_eq!(fs::read_to_string(folder.join("c")).unwrap(), "x");
        fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
fn limits_end_it() {
    let place = Place::new();
    let limits = Limits { cpu: 1, ..LIMITS };
    for isolation in every_isolation()
        .into_iter()
        .rev()
        .take(1)
        .chain([Isolation::Nothing])
    {
        let ran = place.perl(isolation, limits, "1 while 1");
        assert_eq!(ran.ended, RunEnd::OutOfTime { seconds: 1 }, "{ran:?}");
        assert!(ran.why("perl", &[]).contains("after 1 s"));
        let ran = place.perl(
            isolation,
            LIMITS,
            "$SIG{XFSZ} = 'DEFAULT'; open(F, '>', $o); print F 'x' x (1 << 21); close F",
        );
        assert_eq!(ran.ended, RunEnd::TooLarge { bytes: 1 << 20 }, "{ran:?}");
        let ran = place.perl(
            isolation,
            LIMITS,
            "my $x = 'x' x (2 << 30); print length $x",
        );
        assert_ne!(ran.ended, RunEnd::Exit(0));
        assert!(ran.stdout.is_empty());
    }
    // Its output is limited too.
    let ran = place.perl(
        Isolation::of_host(),
        LIMITS,
        "print 'x' x 1000 for 1 .. 10000",
    );
    assert_eq!((ran.ended, ran.stdout.len()), (RunEnd::Exit(0), 1 << 20));
}

#[test]
fn its_words_are_shown_with_other_names() {
    let place = Place::new();
    let ran = place.perl(
        Isolation::of_host(),
        LIMITS,
        "print STDERR \"no \\e[31m$g\\n\"; exit 3",
    );
    assert_eq!(ran.ended, RunEnd::Exit(3));
    let path = ["/proc/self/fd/", "/given/"];
    let said = ran.why("perl", &[]);
    assert!(
        path.iter().any(|path| said.contains(path)) && !said.contains('\x1b'),
        "{said}"
    );
    assert!(
        Confined::new("no-such-program", LIMITS)
            .map(|_| ())
            .is_err()
    );
}

/// What it confines is a process of its own: this test, started again.
#[test]
fn one_that_passes_traffic_on_can_only_connect() {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    const AGAIN: &str = "STEAD_TEST_TRAFFIC_ONLY";
    if let Some(port) = std::env::var_os(AGAIN) {
        let port: u16 = port.to_str().unwrap().parse().unwrap();
        let peer = (Ipv4Addr::LOCALHOST, port);
        let kept = File::open("/proc/self/status").unwrap();
        let only = TrafficOnly {
            files: 64,
            memory: 4 << 30,
            log: 1 << 20,
        };
        only.confine().unwrap();
        let refused = [
            ("open", File::open("/etc/passwd").is_err()),
            ("list", fs::read_dir("/").is_err()),
            (
                "make",
                File::options()
                    .create(true)
                    .append(true)
                    .open("/tmp/x")
                    .is_err(),
            ),
            ("run", Command::new("/bin/true").status().is_err()),
            ("thread", std::thread::Builder::new().spawn(|| ()).is_err()),
            (
                "kill",
                nix::sys::signal::kill(nix::unistd::getppid(), None).is_err(),
            ),
            ("unix", UnixDatagram::unbound().is_err()),
            ("pair", UnixStream::pair().is_err()),
            (
                "inet6",
                TcpStream::connect((Ipv6Addr::LOCALHOST, port)).is_err(),
            ),
            (
                "listen",
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).is_err(),
            ),
            ("bind", UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_err()),
            (
                "root",
                !nix::unistd::geteuid().is_root() || nix::unistd::setuid(0.into()).is_err(),
            ),
        ];
        let allowed = TcpStream::connect(peer).is_ok();
        let open: Vec<_> = (0..99)
            .map_while(|_| TcpStream::connect(peer).ok())
            .collect();
        let files = open.len();
        drop(kept);
        let failed = refused.map(|(what, is)| if is { "" } else { what });
        let said = format!("\n{allowed} {} {:?}\n", files < 64, failed.concat());
        crate::report::stdio::data(&said).unwrap();
        std::process::exit(0);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("host::confine::tests::one_that_passes_traffic_on_can_only_connect")
        .env(AGAIN, port.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.ends_with("\ntrue true \"\"\n"), "{said} {ran:?}");
}
