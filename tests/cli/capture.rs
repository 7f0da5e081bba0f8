//! `stead kernel capture` of hosts that a script plays: what people read when one misbehaves.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::Place;

/// In place of ssh: noise, an answer, noise, an archive, as far as the files beside it say.
const SSH: &str = r#"#!/bin/sh
here=$(dirname "$0")
printf '%s\n' "$*" >"$here/arguments"
[ -e "$here/refuses" ] && cat "$here/refuses" >&2 && exit 255
IFS= read -r line
nonce=${line#nonce=}
while IFS= read -r line && [ "$line" != facts ]; do :; done
printf 'Welcome to prod!\r\n\033[1mroot\033[0m# \007\n'
sed "s/^/$nonce /" "$here/answer"
[ -e "$here/cut" ] && exit 0
printf 'you have mail\r\n%s end\r\n' "$nonce"
while IFS= read -r line; do
    [ "$line" = exit ] || continue
    printf 'more noise\n%s archive\n' "$nonce"
    cat "$here/archive"
    [ -e "$here/drops" ] && cat "$here/drops" >&2 && exit 255
    printf '\n%s status 0\n' "$nonce"
done
"#;

const ANSWER: &str = "release 6.1.0-47-amd64
version #1 SMP PREEMPT_DYNAMIC Debian 6.1.170-1
machine x86_64
host db1
cmdline BOOT_IMAGE=/vmlinuz root=UUID=0a1b2c3d-0000-1111-2222-333344445555 ro quiet
os ID=debian
os PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"
cpus 8
memory 65000000
sysctl vm/swappiness:7
tools /bin/tar
";

const FILES: &str = "image yes 8000000 /boot/vmlinuz-6.1.0-47-amd64
config yes 250000 /boot/config-6.1.0-47-amd64
system_map no 83 /boot/System.map-6.1.0-47-amd64
tree yes 92160 1134 /lib/modules/6.1.0-47-amd64
settings yes 60 /etc/modprobe.d/db.conf
";

struct Host {
    place: Place,
}

impl Host {
    fn new(answer: &[&str]) -> Self {
        let host = Host {
            place: Place::new(),
        };
        fs::create_dir(host.place.path().join("bin")).unwrap();
        host.write("ssh", SSH.as_bytes());
        let answer = answer.concat().replace("x86_64", std::env::consts::ARCH);
        host.write("answer", answer.as_bytes());
        let ssh = host.place.path().join("bin/ssh");
        fs::set_permissions(ssh, fs::Permissions::from_mode(0o755)).unwrap();
        host
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.place.path().join("bin").join(name), content).unwrap();
    }

    /// An archive of these files, cut off after `length` bytes.
    fn sends(&self, names: &[&str], length: usize) {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(2000);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, &[0x55; 2000][..]).unwrap();
        }
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(length);
        self.write("archive", &bytes);
    }

    fn capture(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        // Whatever went wrong, nothing of it is left to be booted.
        let list = self.place.run(&["kernel", "list", "--json"]);
        assert!(list.contains("--- stdout\n[]\n"), "{list}");
        let left = fs::read_dir(self.place.path().join("data/kernels"))
            .map_or(0, |entries| entries.count());
        assert_eq!(left, 0, "files are left");
        self.place.said(&output)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap();
        let bin = self.place.path().join("bin");
        let mut all = vec!["kernel", "capture", "-q"];
        all.extend(arguments);
        let mut command = self.place.stead(&all);
        command.env("PATH", format!("{}:{path}", bin.display()));
        command
    }
}

#[test]
fn nobody_is_asked_where_there_is_no_terminal() {
    let host = Host::new(&[ANSWER, FILES]);
    insta::assert_snapshot!(host.capture(&["root@prod", "--", "-p", "2222"]));
    let arguments = fs::read_to_string(host.place.path().join("bin/arguments")).unwrap();
    assert!(arguments.starts_with("-p 2222 -T "), "{arguments}");
    assert!(
        arguments.ends_with(" -- root@prod exec sh\n"),
        "{arguments}"
    );
}

/// ssh stays connected for several questions, and is in the log like programs that only answer one.
#[test]
fn the_log_has_the_connection_and_not_what_went_over_it() {
    let host = Host::new(&[ANSWER, FILES]);
    let output = host
        .command(&["root@prod", "--", "-p", "2222"])
        .env("STEAD_LOG", "host=debug")
        .env("SECRET", "hunter2")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let line = said.lines().find(|line| line.contains("run: ssh "));
    let line = line.unwrap_or_else(|| panic!("no ssh: {said}"));
    assert!(line.contains("run: ssh -p 2222 -T "), "{line}");
    assert!(line.ends_with(" -- root@prod 'exec sh'"), "{line}");
    assert!(
        !said.contains("hunter2") && !said.contains("nonce="),
        "{said}"
    );
}

#[test]
fn a_connection_that_breaks_off() {
    let host = Host::new(&[ANSWER, FILES]);
    host.sends(
        &[
            "boot/vmlinuz-6.1.0-47-amd64",
            "lib/modules/6.1.0-47-amd64/a.ko",
        ],
        4000,
    );
    host.write("drops", b"Connection to prod closed by remote host.\r\n");
    insta::assert_snapshot!(host.capture(&["prod", "-y"]));
}

#[test]
fn an_answer_that_breaks_off() {
    let host = Host::new(&[ANSWER, FILES]);
    host.write("cut", b"");
    insta::assert_snapshot!(host.capture(&["prod", "-y"]));
}

#[test]
fn a_host_that_lets_nobody_in() {
    let host = Host::new(&[ANSWER]);
    host.write("refuses", b"root@prod: Permission denied (publickey).\r\n");
    insta::assert_snapshot!(host.capture(&["root@prod"]));
}

#[test]
fn names_that_were_not_asked_for() {
    let host = Host::new(&[ANSWER, FILES]);
    host.sends(
        &["boot/vmlinuz-6.1.0-47-amd64", "etc/\u{1b}[2Jshadow"],
        usize::MAX,
    );
    insta::assert_snapshot!(host.capture(&["prod", "-y"]));
}

#[test]
fn an_archive_that_is_none() {
    let host = Host::new(&[ANSWER, FILES]);
    host.write("archive", &[b'x'; 4096]);
    insta::assert_snapshot!(host.capture(&["prod", "-y"]));
}

#[test]
fn an_image_that_is_only_roots() {
    let host = Host::new(&[
        ANSWER,
        &FILES.replace("image yes", "image no"),
        "package dpkg linux-image-6.1.0-47-amd64 6.1.170-1 amd64\n",
    ]);
    insta::assert_snapshot!(host.capture(&["prod", "--full", "-y"]));
    // Without --full the facts are offered; nobody answers here.
    let said = host.capture(&["prod"]);
    assert!(
        said.starts_with("exit 1") && !said.contains("warning"),
        "{said}"
    );
}

#[test]
fn a_kernel_of_no_package() {
    let host = Host::new(&[ANSWER, FILES]);
    insta::assert_snapshot!(host.capture(&["prod", "--facts"]));
}

#[test]
fn a_host_of_another_kind() {
    let host = Host::new(&[&ANSWER.replace("x86_64", "s390x")]);
    let said = host.capture(&["prod"]);
    assert!(
        said.starts_with("exit 1") && said.contains("prod is s390x"),
        "{said}"
    );
    let said = host.capture(&["prod", "--name", "a/b"]);
    assert!(
        said.starts_with("exit 2") && said.contains("the name \"a/b\" is not valid"),
        "{said}"
    );
    let said = host.capture(&["", "-y"]);
    assert!(
        said.starts_with("exit 2") && said.contains("is not a host"),
        "{said}"
    );
}
