//! Folders of the host that machines see themselves, and folders that both sides edit.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, SystemTime},
};

use crate::project::{Project, is_system};

const MACHINEFILE: &str = r#"
project "shares"

machine "web" {
    box "debian-12"
    memory "512MiB"
    sync "app" to="/srv/app" type="virtiofs"
    sync "ro" to="/srv/r o" type="virtiofs" readonly=#true
    sync "auto" to="/home/stead/deep/auto" type="auto"
    sync "both" to="/srv/both" mode="two-way" { exclude "*.tmp"; }
    provision "file" run="never" { file "app/inner/key" to="/var/tmp/got/key"; }
    provision "folder" run="never" { file "app/inner" to="/var/tmp/got/inner"; }
    provision "script" run="never" { shell "app/inner/script"; }
}
"#;

/// In place of the guest's rsync, which runs as a transfer begins: a folder that it may write becomes a
/// symlink to what it may not read.
const SWAP: &str = r#"
cd /srv/app
[ -e /usr/bin/rsync.real ] || sudo mv /usr/bin/rsync /usr/bin/rsync.real
sudo tee /usr/bin/rsync >/dev/null <<'END'
#!/bin/sh
cd /srv/app && [ ! -h inner ] && mv inner aside && ln -s ../beyond inner
exec /usr/bin/rsync.real "$@"
END
sudo chmod 755 /usr/bin/rsync
"#;

/// What a program may do to a file system, each named when it does not work.
const WORK: &str = r#"
cd /srv/app
fail() { echo "FAILED: $*"; }
[ "$(cat file)" = hello ] || fail read
echo guest > byuser && sudo sh -c 'echo root > byroot; mkdir rootdir; chown 33:33 byroot' || fail write
mv byuser 'it'\''s "odd" é' || fail rename
mkdir -p d/e/f && mv d/e d/g && [ -d d/g/f ] || fail rename folder
ln -s file link && [ "$(cat link)" = hello ] || fail symlink
ln file hard && [ "$(stat -c %h file)" = 2 ] || fail hard link
chmod 755 file && [ -x file ] || fail chmod
truncate -s 100000 sparse && [ "$(stat -c %s sparse)" = 100000 ] || fail truncate
touch -d '2001-02-03 04:05:06' dated && [ "$(date -r dated +%Y)" = 2001 ] || fail times
# Shared mapping, written through: read(2) into what mmap(2) gave.
printf '%4096s' '' > mapped
printf MAPPED > source
perl -e '
    open(M, "+<", "mapped") or die; open(S, "<", "source") or die;
    my $at = syscall(9, 0, 4096, 3, 1, fileno(M), 0); die "mmap: $!" if $at == -1;
    die "read: $!" unless syscall(0, fileno(S), $at + 0, 6) == 6;
    syscall(11, $at + 0, 4096);
' && [ "$(head -c 6 mapped)" = MAPPED ] || fail mmap
flock -n lock sh -c '! flock -n lock true' || fail flock
perl -e '
    use Fcntl; open(L, ">", "locked") or die;
    my $lock = pack("s s x4 q q i x4", F_WRLCK, 0, 0, 0, 0);
    fcntl(L, F_SETLK, $lock) or die "F_SETLK: $!";
    unless (fork) { open(O, ">", "locked") or exit 2; exit(fcntl(O, F_SETLK, $lock) ? 1 : 0) }
    wait; exit($? >> 8);
' || fail fcntl
# Something real: a tree of modules of Perl's, there and back.
tree=$(dirname "$(readlink -f "$(perl -MFcntl -e 'print $INC{"Fcntl.pm"}')")")
mkdir tree && tar -C "$tree" -cf - . | tar -C tree -xf - || fail tar
diff -r "$tree" tree >/dev/null || fail compare
perl -Itree -e 'use POSIX; print "perl runs\n"' || fail run
rm -r tree || fail remove
# Nothing above the folder, by whatever way.
[ ! -e up/secret ] && [ ! -e ../secret ] || fail escape
[ "$(head -n 1 abs)" = "$(head -n 1 /etc/passwd)" ] || fail absolute link
# Read-only is the host's word.
echo x > '/srv/r o/x' 2>/dev/null && fail read-only
sudo mount -o remount,rw '/srv/r o'
sudo sh -c 'echo x > "/srv/r o/x"; rm "/srv/r o/file"' 2>/dev/null
[ ! -e '/srv/r o/x' ] && [ -e '/srv/r o/file' ] || fail read-only of the host
stat -c '%U %n' file byroot rootdir /home/stead/deep
"#;

#[test]
fn a_guest_works_on_the_hosts_own_folders() {
    let project = Project::new("shares", MACHINEFILE);
    let at = |path: &str| project.folder.join(path);
    for (path, content) in [
        ("app/file", "hello\n"),
        ("ro/file", "kept\n"),
        ("auto/file", "auto\n"),
        ("both/file", "both\n"),
        ("both/gone", "soon\n"),
        ("both/x.tmp", "stays\n"),
        ("secret", "not for the guest\n"),
        ("app/inner/key", "the project's\n"),
        ("app/inner/script", "echo the project\n"),
        ("beyond/key", "not for the guest\n"),
        ("beyond/script", "echo not for the guest\n"),
    ] {
        project.write(path, content);
    }
    std::os::unix::fs::symlink("..", at("app/up")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("app/abs")).unwrap();
    let mut owner = fs::metadata(at("app")).unwrap().uid();
    if is_system() {
        // Root serves a folder as the user whose it is.
        owner = ANOTHER;
        give_away(&project, &["app", "app/file"]);
    }
    let plan = project.ok(&["plan"]);
    for line in [
        "mount /srv/app (virtiofs), /srv/r o (virtiofs, read-only), /home/stead/deep/auto (virtiofs)",
        "sync both ways with /srv/both",
        "auto is shared by virtiofs as /home/stead/deep/auto",
    ] {
        assert!(plan.out.contains(line), "{line:?} is not in {}", plan.out);
    }
    project.ok(&["up"]).says(&["auto is shared by virtiofs"]);

    let guest = |script: &str| project.ok(&["exec", "web", "--", "sh", "-c", script]).out;
    let said = guest(WORK);
    assert!(!said.contains("FAILED"), "{said}");
    for line in [
        "perl runs",
        "stead file",
        "stead byroot",
        "stead rootdir",
        "stead /home/stead/deep",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    for path in ["byroot", "rootdir", "it's \"odd\" é", "d/g/f", "mapped"] {
        let metadata = fs::metadata(at("app").join(path)).unwrap();
        assert_eq!(metadata.uid(), owner, "{path}");
    }
    assert_eq!(fs::read_to_string(at("ro/file")).unwrap(), "kept\n");

    // An edit of the host is there at once, or when a second is over.
    fs::write(at("auto/file"), "edited\n").unwrap();
    guest("until grep -q edited ~/deep/auto/file; do sleep 0.1; done");

    a_folder_that_the_guest_swaps_leads_nowhere(&project);
    watchers_are_told(&project);
    both_sides_edit(&project);
    edits_arrive_that_come_during_a_sync(&project);
    a_side_that_is_gone_deletes_nothing(&project);
    if !is_system() {
        a_boot_by_itself_mounts_it_all(&project);
    }
    a_kernel_without_virtiofs(&project);
    whoever_serves_can_die(&project);
}

/// A user of the host who is not root.
const ANOTHER: u32 = 2345;

/// Files that root made are not that user's.
fn give_away(project: &Project, paths: &[&str]) {
    for path in paths.iter().filter(|_| is_system()) {
        let path = project.folder.join(path);
        std::os::unix::fs::chown(path, Some(ANOTHER), Some(ANOTHER)).unwrap();
    }
}

/// Prints the mask and the name of each event of inotify in /srv/app, until one is the closing of `last`.
const WATCHER: &str = r#"
perl -e '
    $| = 1;
    my $fd = syscall(253); my $at = "/srv/app";
    syscall(254, $fd, $at, 0x4 | 0x8 | 0x2) >= 0 or die $!;
    open(I, "<&=", $fd) or die; print "watching\n";
    while (sysread(I, my $all, 4096)) {
        while (length $all) {
            my ($wd, $mask, $cookie, $len) = unpack("iIII", $all);
            my $name = unpack("Z*", substr($all, 16, $len)); $all = substr($all, 16 + $len);
            print "$mask $name\n"; exit if $name eq "last" && $mask & 8;
        }
    }
' > /tmp/told 2>&1 &
until [ -s /tmp/told ]; do sleep 0.1; done; cat /tmp/told
"#;

fn a_folder_that_the_guest_swaps_leads_nowhere(project: &Project) {
    let guest = |script: &str| project.ok(&["exec", "web", "--", "sh", "-c", script]).out;
    guest(SWAP);
    let back = "cd /srv/app; rm -f inner; mv aside inner";
    for provisioner in ["file", "folder", "script"] {
        let arguments = ["provision", "web", "--only", provisioner];
        let code = i32::from(provisioner != "script");
        let said = project.run(&arguments, code);
        assert!(!said.out.contains("not for the guest"), "{}", said.out);
        let got = guest("sudo find /var/tmp/got -type f -exec cat {} + 2>/dev/null || true");
        assert!(!got.contains("not for the guest"), "{provisioner}: {got}");
        if provisioner == "script" {
            // Nothing was transferred by rsync, so nothing was swapped.
            continue;
        }
        said.says(&["was replaced by a symlink"]);
        guest(back);
    }
    guest("sudo mv /usr/bin/rsync.real /usr/bin/rsync");
}

/// One machine has what another one's share leads through by the time that this is shared; a hook plays it.
#[test]
fn a_folder_that_was_swapped_is_not_shared() {
    let project = Project::new(
        "swapped",
        r#"
project "swapped"
machine "vm" {
    box "debian-12"
    cpus 1
    memory "384MiB"
    sync "share/v" to="/srv/v" type="virtiofs"
    before "up" { host inline="mv share/v share/aside && ln -s ../beyond share/v"; }
}
"#,
    );
    project.write("share/v/file", "");
    fs::create_dir(project.folder.join("beyond")).unwrap();
    project.run(&["up"], 1).says(&[
        "share/v, or a folder above it, was replaced by a symlink",
        "nothing was shared",
    ]);
    assert_eq!(project.state("vm"), "off");
    let serving = Command::new("pgrep")
        .args(["-f", &format!("virtiofsd.*{}", project.folder.display())])
        .output()
        .unwrap();
    assert!(!serving.status.success(), "{serving:?}");
    project.ok(&["destroy", "-y"]);
}

fn watchers_are_told(project: &Project) {
    let guest = |script: &str| project.ok(&["exec", "web", "--", "sh", "-c", script]).out;
    project.write("app/edited", "before\n");
    project.write("app/last", "");
    give_away(project, &["app/edited", "app/last"]);
    guest("cat /srv/app/edited /srv/app/last");
    guest(WATCHER);
    project.write("app/edited", "after, and longer\n");
    let path = project.folder.join("app/edited");
    let before = fs::metadata(&path).unwrap();
    let script = include_str!("../../provisioners/guest/stead-events");
    let command = [
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        script,
        "stead-events",
        "/srv/app",
    ];
    let said = project.with_input(&command, b"edited\0gone\0last\0");
    assert!(said.status.success(), "{said:?}");
    let told = guest(
        "while ! grep -q '8 last' /tmp/told; do sleep 0.1; done; cat /tmp/told; cat /srv/app/edited",
    );
    for line in ["4 edited", "8 edited", "after, and longer"] {
        assert!(
            told.lines().any(|it| it == line),
            "{line:?} is not in {told}"
        );
    }
    assert!(!told.lines().any(|line| line == "2 edited"), "{told}");
    let after = fs::metadata(&path).unwrap();
    assert_eq!(
        (after.mtime(), after.mtime_nsec(), after.size()),
        (before.mtime(), before.mtime_nsec(), before.size())
    );
}

fn both_sides_edit(project: &Project) {
    let at = |path: &str| project.folder.join("both").join(path);
    let guest = |script: &str| project.ok(&["exec", "web", "--", "sh", "-c", script]).out;
    assert_eq!(
        guest("cat /srv/both/file; ls /srv/both"),
        "both\nfile\ngone\n"
    );
    // Each side on its own.
    guest("cd /srv/both; echo new > fromguest; chmod 755 fromguest; rm gone");
    project.write("both/fromhost", "new\n");
    project.ok(&["sync"]);
    assert_eq!(fs::read_to_string(at("fromguest")).unwrap(), "new\n");
    assert_ne!(fs::metadata(at("fromguest")).unwrap().mode() & 0o100, 0);
    assert!(!at("gone").exists());
    assert_eq!(guest("cat /srv/both/fromhost"), "new\n");
    // Both on the same files.
    guest("cd /srv/both; echo guest > file; rm fromhost; echo edited by guest > fromguest");
    project.write("both/file", "host\n");
    project.write("both/fromhost", "edited by host\n");
    fs::remove_file(at("fromguest")).unwrap();
    project
        .ok(&["sync"])
        .says(&["/srv/both: changed on both sides: ", "file", "fromhost"]);
    let host: Vec<String> = all_of(&project.folder.join("both")).into_values().collect();
    for folder in [host.concat(), guest("cd /srv/both; cat *")] {
        for content in ["guest\n", "host\n", "edited by host\n", "edited by guest\n"] {
            assert!(folder.contains(content), "{content:?} is lost in {folder}");
        }
    }
    assert!(!project.ok(&["sync"]).err.contains("both sides"));
}

/// Waits in the guest until a file holds the line that came in, says so, and takes the next.
const LOOK: &str = r#"
while read -r line; do
    looks=0
    until [ "$(cat /srv/both/edited 2>/dev/null)" = "$line" ]; do
        [ $((looks += 1)) -lt 5000 ] || exit 1
        sleep 0.02
    done
    echo "$line"
done
"#;

/// An edit of the host's that comes while unison works may be taken for what was sent, since that is looked
/// up afterwards: such a one looks as this does, of the same size and the same time. It would stay behind.
fn edits_arrive_that_come_during_a_sync(project: &Project) {
    let start = |arguments: &[&str]| {
        let mut command = project.stead(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ending(command.spawn().unwrap())
    };
    let watcher = start(&["sync", "--watch"]);
    let mut look = start(&["exec", "web", "--", "sh", "-c", LOOK]);
    let mut seen = BufReader::new(look.0.stdout.take().unwrap());
    let lines = look.0.stdin.as_mut().unwrap();
    let path = project.folder.join("both/edited");
    let mut edit = |line: &str, time: Option<SystemTime>| {
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
        if let Some(time) = time {
            file.set_modified(time).unwrap();
        }
        lines.write_all(line.as_bytes()).unwrap();
        let mut there = String::new();
        seen.read_line(&mut there).unwrap();
        assert_eq!(there, line, "it stayed behind");
        file.metadata().unwrap().modified().unwrap()
    };
    // What takes a while to send, so that the sync goes on when the small file is there.
    let large: Vec<u8> = (0..16u32 << 18)
        .flat_map(|n| n.wrapping_mul(0x9E37_79B9).to_le_bytes())
        .collect();
    fs::write(project.folder.join("both/large"), large).unwrap();
    let time = edit("edit 1\n", None);
    edit("edit 2\n", Some(time));
    fs::remove_file(project.folder.join("both/large")).unwrap();
    drop(watcher);
}

/// A program that ends with the test, or before, as by Ctrl-C: it ends what it has started.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let _ = self.0.wait();
    }
}

/// The files of a folder, with what is in them.
fn all_of(folder: &Path) -> BTreeMap<OsString, String> {
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    files
        .filter(|entry| entry.path().is_file())
        .map(|entry| (entry.file_name(), fs::read_to_string(entry.path()).unwrap()))
        .collect()
}

fn a_side_that_is_gone_deletes_nothing(project: &Project) {
    let both = project.folder.join("both");
    let guest = |script: &str| project.ok(&["exec", "web", "--", "sh", "-c", script]).out;
    let before = all_of(&both);
    // A disk that is not mounted in the guest.
    guest("mv /srv/both /srv/aside 2>/dev/null || sudo mv /srv/both /srv/aside");
    project
        .run(&["sync"], 1)
        .says(&["is empty", "nothing was deleted"]);
    assert_eq!(all_of(&both), before);
    guest("sudo rmdir /srv/both; sudo mv /srv/aside /srv/both");
    // One that is not there on the host.
    let aside = project.folder.join("aside");
    fs::rename(&both, &aside).unwrap();
    fs::create_dir(&both).unwrap();
    project
        .run(&["sync"], 1)
        .says(&["is empty", "nothing was deleted"]);
    assert!(guest("ls /srv/both").contains("file"));
    fs::remove_dir(&both).unwrap();
    fs::rename(&aside, &both).unwrap();
    // A disk of the guest's that was never synced, while the host remembers.
    guest("sudo rm -rf /var/lib/stead/unison /srv/both");
    project.write("both/kept", "kept\n");
    // The folder is empty there: that is told before anything is looked at closer.
    project.run(&["sync"], 1).says(&["nothing was deleted"]);
    guest(
        "mkdir -p /srv/both 2>/dev/null || sudo install -d -o stead /srv/both; echo other > /srv/both/other",
    );
    project.ok(&["sync"]);
    let after = all_of(&both);
    for (name, content) in &before {
        assert_eq!(after.get(name), Some(content), "the host lost {name:?}");
    }
    assert_eq!(after[OsStr::new("other")], "other\n");
    assert!(guest("cat /srv/both/*").contains("kept\n"));
}

fn a_boot_by_itself_mounts_it_all(project: &Project) {
    project.reboot("web", || {});
    let said = project
        .ok(&[
            "exec",
            "web",
            "--",
            "sh",
            "-c",
            "until systemctl is-active -q local-fs.target; do sleep 0.2; done; cat /srv/app/file ~/deep/auto/file '/srv/r o/file'",
        ])
        .out;
    assert_eq!(said, "hello\nedited\nkept\n");
}

fn a_kernel_without_virtiofs(project: &Project) {
    let guest = |script: &str| project.ok(&["exec", "web", "--", "sh", "-c", script]).out;
    let module = "/lib/modules/$(uname -r)/kernel/fs/fuse/virtiofs.ko*";
    guest(&format!(
        "cd /; sudo umount /srv/app '/srv/r o' /home/stead/deep/auto; sudo rmmod virtiofs; sudo mv {module} /root; sudo depmod"
    ));
    project.run(&["sync"], 1).says(&[
        "cannot mount /srv/app in machine web: its kernel 6.",
        "has no virtiofs",
    ]);
    let machinefile = MACHINEFILE
        .replace("sync \"app\"", "// sync \"app\"")
        .replace("sync \"ro\"", "// sync \"ro\"");
    project.write("Machinefile", &machinefile);
    project.ok(&["sync"]).says(&[
        "auto is copied by rsync to /home/stead/deep/auto",
        "has no virtiofs",
    ]);
    assert_eq!(guest("cat ~/deep/auto/file"), "edited\n");
    let status = project.ok(&["status"]);
    assert!(
        status.out.contains("auto is copied by rsync"),
        "{}",
        status.out
    );
    project.write("Machinefile", MACHINEFILE);
    guest(
        "sudo sh -c 'mv /root/virtiofs.ko* /lib/modules/*/kernel/fs/fuse/; depmod'; rm -r ~/deep/auto/*",
    );
    project.ok(&["sync"]);
    assert_eq!(guest("cat ~/deep/auto/file"), "edited\n");
}

/// The virtiofsds of this project's machines, with their words.
fn servers(project: &Project) -> Vec<(i32, Vec<OsString>)> {
    let folder = project.folder.as_os_str().as_bytes().to_vec();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<OsString> = line
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| OsStr::from_bytes(word).to_os_string())
            .collect();
        let is_one = |word: &OsString| {
            word.as_bytes()
                .strip_prefix(b"--shared-dir=")
                .is_some_and(|shared| shared.starts_with(&folder))
        };
        if words.iter().any(is_one) {
            found.push((pid, words));
        }
    }
    found
}

fn whoever_serves_can_die(project: &Project) {
    let status = project.ok(&["status"]);
    assert!(!status.out.contains("cut off"), "{}", status.out);
    let serving = servers(project);
    assert_eq!(serving.len(), 6, "two processes for each of three folders");
    for (pid, _) in &serving {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
    }
    let status = project.ok(&["status"]);
    assert!(
        status.out.contains("/srv/app is cut off from the host"),
        "{}",
        status.out
    );
    project.ok(&["halt", "--force"]);
    // What a stead that was killed right before QEMU started would leave.
    let words = &serving[0].1;
    let socket = words
        .iter()
        .find_map(|word| {
            word.to_str()?
                .strip_prefix("--socket-path=")
                .map(PathBuf::from)
        })
        .unwrap();
    let _ = fs::remove_file(&socket);
    let mut left = Command::new(&words[0])
        .args(&words[1..])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !socket.exists() {
        sleep(Duration::from_millis(10));
    }
    // Whoever starts next ends it, and so does who removes the machine.
    project.ok(&["destroy", "-y"]);
    assert!(!left.wait().unwrap().success(), "it was ended");
    if is_system() {
        return;
    }
    // A machine made anew has an empty folder, and takes what the host has.
    let before = all_of(&project.folder.join("both"));
    project.ok(&["up"]);
    assert_eq!(all_of(&project.folder.join("both")), before);
    let there = project.ok(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "cat /srv/both/kept /srv/app/file",
    ]);
    assert_eq!(there.out, "kept\nhello\n");
    project.ok(&["destroy", "-y"]);
    project.assert_gone("web");
    assert!(servers(project).is_empty(), "a virtiofsd is left");
}
