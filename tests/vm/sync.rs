//! Folders that machines have too: rsync, watching, fetching back, copying. One boot serves all.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::project::{Project, text};

/// Everything of a folder: kinds, modes, names, targets of links, content.
const LIST: &str = r#"cd "$1" 2>/dev/null || exit 0
export LC_ALL=C
find . -mindepth 1 \( -path ./.git -o -path ./skip \) -prune -o -printf '%y %m %P > %l\0' | sort -z
find . \( -path ./.git -o -path ./skip \) -prune -o -type f -print0 | sort -z | xargs -0 -r sha256sum"#;

struct Ground {
    project: Project,
    app: PathBuf,
}

impl Ground {
    fn path(&self, name: &str) -> PathBuf {
        self.app.join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn git(&self, words: &[&str]) {
        let output = Command::new("git")
            .arg("-C")
            .arg(&self.app)
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    fn here(&self) -> Vec<u8> {
        let output = Command::new("sh")
            .args(["-c", LIST, "sh"])
            .arg(&self.app)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        output.stdout
    }

    /// `None` while the guest cannot be asked.
    fn there(&self) -> Option<Vec<u8>> {
        let output = self
            .project
            .stead(&["exec", "web", "--", "sh", "-c", LIST, "sh", "/srv/app"])
            .output()
            .unwrap();
        output.status.success().then_some(output.stdout)
    }

    /// Waits until both sides are the same, byte for byte.
    #[track_caller]
    fn settle(&self, after: &str) {
        let deadline = Instant::now() + Duration::from_secs(900);
        let here = self.here();
        assert!(!here.is_empty());
        loop {
            let there = self.there();
            if there.as_ref() == Some(&here) {
                return;
            }
            if Instant::now() > deadline {
                let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', "\n");
                let log = fs::read_to_string(self.watcher()["log"].as_str().unwrap_or("/none"));
                panic!(
                    "{after}: the guest's folder is another one\n--- here\n{}\n--- there\n{}\n--- log\n{}",
                    show(&here),
                    show(&there.unwrap_or_default()),
                    log.unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn watcher(&self) -> serde_json::Value {
        self.project.json(&["status", "--json"])["watch"].clone()
    }

    #[track_caller]
    fn pid(&self) -> String {
        let watcher = self.watcher();
        assert_eq!(watcher["running"], true, "{watcher}");
        watcher["pid"].to_string()
    }

    fn in_guest(&self, script: &str) -> String {
        self.project.ok(&["ssh", "web", "-c", script]).out
    }
}

#[test]
fn folders_are_kept_the_same() {
    let project = Project::new(
        "sync",
        r#"
        project "sync"
        machine "web" {
            box "debian-12"
            cpus 1
            memory "512MiB"
            ready { timeout "30m"; }
            sync "app" to="/srv/app" watch=#true {
                exclude "/.git" "/skip"
            }
            sync "site" to="/srv/site" gitignore=#true owner="root" watch=#true
        }
        "#,
    );
    let app = project.folder.join("app");
    let ground = Ground { project, app };
    ground.write("src/deep/main.rs", "fn main() {}\n");
    ground.write("src/other.rs", "// other\n");
    ground.write("skip/here", "not there\n");
    ground.write("new\nline 'and' \"quotes\" $HOME", "odd\n");
    ground.write("-dash", "odd\n");
    ground.write("[a]*?", "odd\n");
    fs::write(
        ground
            .app
            .join(Path::new(std::ffi::OsStr::from_bytes(b"\xff\xfe"))),
        "no UTF-8\n",
    )
    .unwrap();
    symlink("src/other.rs", ground.path("inside")).unwrap();
    symlink("/etc/hostname", ground.path("outside")).unwrap();
    ground.project.write("site/.gitignore", "built/\n*.log\n");
    ground.project.write("site/index.html", "hello\n");
    ground.project.write("site/a.log", "stays\n");
    ground.git(&["init", "-q", "-b", "main"]);
    for n in 0..1500 {
        ground.write(&format!("many/{}/f{n}", n % 50), &format!("main {n}\n"));
    }
    ground.git(&["add", "."]);
    ground.git(&["commit", "-qm", "main"]);
    ground.git(&["checkout", "-q", "-b", "other"]);
    for n in 0..1500 {
        match n % 3 {
            0 => ground.write(&format!("many/{}/f{n}", n % 50), &format!("other {n}\n")),
            1 => fs::remove_file(ground.path(&format!("many/{}/f{n}", n % 50))).unwrap(),
            _ => ground.write(&format!("others/{}/g{n}", n % 70), "new\n"),
        }
    }
    ground.git(&["add", "."]);
    ground.git(&["commit", "-qm", "other"]);
    ground.git(&["checkout", "-q", "main"]);

    // It comes up with its folders, which are watched from then on.
    let up = ground.project.ok(&["up"]);
    up.says(&[
        "a symlink leads out of the folder",
        "outside → /etc/hostname",
        "app → /srv/app: edits are sent as you make them",
    ]);
    ground.settle("up");
    let first = ground.pid();
    assert_eq!(
        ground.in_guest("stat -c '%U:%G' /srv/site/index.html; ls -A /srv/site"),
        "root:root\n.gitignore\nindex.html\n"
    );
    ground.project.ok(&["up"]);
    assert_eq!(ground.pid(), first, "one that runs is left alone");

    // Edits of every kind.
    ground.write("src/deep/main.rs", "fn main() { edited }\n");
    ground.write("-dash", "edited\n");
    ground.write("made/so/deep/f", "new\n");
    ground.write("src/.other.rs.swp", "// saved by renaming\n");
    fs::rename(
        ground.path("src/.other.rs.swp"),
        ground.path("src/other.rs"),
    )
    .unwrap();
    fs::set_permissions(ground.path("-dash"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(ground.path("made"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("../src", ground.path("made/link")).unwrap();
    ground.settle("edits");
    fs::rename(ground.path("made"), ground.path("moved")).unwrap();
    ground.write("moved/so/deep/f", "after the move\n");
    fs::remove_dir_all(ground.path("src/deep")).unwrap();
    fs::remove_file(ground.path("[a]*?")).unwrap();
    fs::remove_file(ground.path("inside")).unwrap();
    fs::create_dir(ground.path("inside")).unwrap();
    ground.write("inside/f", "a folder in place of a link\n");
    ground.settle("renames and deletions");

    // What is left out is neither sent nor deleted.
    ground.in_guest("mkdir -p /srv/app/skip && echo made >/srv/app/skip/there && sudo mkdir /srv/site/built && sudo touch /srv/site/built/x");
    ground.write("skip/more", "");
    ground.project.write("site/index.html", "hello again\n");
    ground.git(&["checkout", "-q", "other"]);
    ground.settle("another branch");
    ground.git(&["checkout", "-q", "main"]);
    ground.settle("and back");
    ground.project.ok(&["sync"]);
    assert_eq!(
        ground.in_guest("ls /srv/app/skip /srv/site/built; cat /srv/site/index.html"),
        "/srv/app/skip:\nthere\n\n/srv/site/built:\nx\nhello again\n"
    );

    // What a sync would do is shown and not done.
    ground.in_guest("touch /srv/app/stray");
    let shown = ground.project.ok(&["sync", "--dry-run"]).out;
    assert!(shown.contains("delete  stray"), "{shown}");
    assert!(ground.in_guest("ls /srv/app").contains("stray"));

    // What the guest made comes back, and takes nothing away.
    ground.in_guest("mkdir /srv/app/gen && echo generated >/srv/app/gen/code && echo other >/srv/app/src/other.rs");
    let back = ground.project.run(&["sync", "--back", "app"], 1);
    assert!(back.out.contains("fetched gen/code"), "{}", back.out);
    back.says(&["skipped src/other.rs", "there is no other copy of it"]);
    assert_eq!(
        fs::read_to_string(ground.path("gen/code")).unwrap(),
        "generated\n"
    );
    assert_eq!(
        fs::read_to_string(ground.path("src/other.rs")).unwrap(),
        "// saved by renaming\n"
    );
    ground
        .project
        .ok(&["sync", "--back", "/srv/app/src/other.rs", "--force"]);
    assert_eq!(
        fs::read_to_string(ground.path("src/other.rs")).unwrap(),
        "other\n"
    );
    fs::remove_file(ground.path("stray")).unwrap();
    ground.settle("what was fetched");

    // Copies both ways, by pattern, with odd names.
    ground.in_guest("mkdir -p logs && echo 1 >logs/1.log && echo 2 >logs/2.log && touch logs/else");
    fs::create_dir(ground.project.folder.join("logs")).unwrap();
    ground.project.ok(&["copy", "web:logs/*.log", "logs"]);
    assert_eq!(
        fs::read_dir(ground.project.folder.join("logs"))
            .unwrap()
            .count(),
        2
    );
    ground.project.write("odd: name", "x");
    ground.project.ok(&["copy", "odd: name", "logs", "web:"]);
    assert_eq!(
        ground.in_guest("cat 'odd: name'; ls logs"),
        "x1.log\n2.log\nelse\n"
    );
    ground
        .project
        .ok(&["copy", "web:odd: name", "web:logs/copied"]);
    ground
        .project
        .run(&["copy", "odd: name", "web:/etc/x"], 1)
        .says(&["Permission denied", "sudo mv"]);
    ground
        .project
        .run(&["copy", "no such", "web:"], 1)
        .says(&["there is no file no such on the host"]);
    let pipe = ground.project.folder.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    ground
        .project
        .run(&["copy", "pipe", "web:"], 1)
        .says(&["pipe is a pipe, a socket or a device, which cannot be copied"]);
    ground
        .project
        .run(&["copy", "web:no-such", "."], 1)
        .says(&["No such file"]);

    // A guest that lost its rsync gets one.
    ground.in_guest(
        "sudo mv /usr/bin/rsync /usr/bin/rsync.away; printf '#!/bin/sh\\nmv /usr/bin/rsync.away /usr/bin/rsync\\n' | sudo tee /usr/local/sbin/apt-get >/dev/null; sudo chmod 755 /usr/local/sbin/apt-get",
    );
    ground
        .project
        .ok(&["sync"])
        .says(&["the guest has no rsync; installing it there"]);

    // The guest reboots by itself, and edits go on.
    ground.project.reboot("web", || {
        ground.write("src/while-away", "made while it was away\n");
        fs::remove_file(ground.path("-dash")).unwrap();
    });
    ground.settle("a reboot");
    assert_eq!(ground.pid(), first);

    // And by stead.
    ground.project.ok(&["restart"]);
    ground.write("src/after", "made after a restart\n");
    ground.settle("a restart");
    assert_eq!(ground.pid(), first);

    // A watcher that was killed is missed, and started again.
    let killed = Command::new("kill").args(["-9", &first]).status().unwrap();
    assert!(killed.success());
    let deadline = Instant::now() + Duration::from_secs(10);
    while ground.watcher()["running"] == true && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = ground.project.ok(&["status"]).out;
    assert!(status.contains("its folders are not watched"), "{status}");
    assert!(
        status.contains("run `stead up web` to watch them"),
        "{status}"
    );
    ground.write("src/unwatched", "made while nobody watched\n");
    ground
        .project
        .ok(&["up"])
        .says(&["edits are sent as you make them"]);
    let second = ground.pid();
    assert_ne!(second, first);
    ground.settle("a new watcher");
    let machinefile = fs::read_to_string(ground.project.folder.join("Machinefile")).unwrap();
    ground.project.write(
        "Machinefile",
        &machinefile.replace("\"/.git\" \"/skip\"", "\"/.git\" \"/skip\" \"none\""),
    );
    ground.project.ok(&["up"]);
    assert_ne!(
        ground.pid(),
        second,
        "it watches what the Machinefile says now"
    );

    // It ends with the last machine.
    ground.project.ok(&["halt"]);
    assert_eq!(ground.watcher(), serde_json::Value::Null);
    ground.project.ok(&["destroy", "-y"]);
    ground.project.assert_gone("web");
}
