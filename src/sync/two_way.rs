//! Folders that both sides may edit, synced by unison (its manual: www.cis.upenn.edu/~bcpierce/unison).
//!
//! unison's archives of a folder, its record of the last sync, are among the machine's files on the host and on the
//! machine's disk in the guest, and are deleted with the machine. Without them unison deletes nothing:
//! both sides get the files of either.
//!
//! unison trusts the other side with everything: the other side may set unison's preferences, and so make
//! it run programs, and may read and write any file by name. So the host's unison runs in a sandbox
//! (provisioners/host/shut-in) that has nothing but the folder and its archives, and no network. stead makes
//! the connection and hands it over.

mod archives;
mod error;
mod guest;
mod outcome;
mod run;
mod unison;

use std::{fs, path::PathBuf, sync::OnceLock};

use crate::{guest::Remote, host::process, machinefile::SyncFolder, report::clean::Shown};

use super::virtiofs::{Owner, no_sandbox};
use archives::Archives;
use error::io;
use guest::{prepare, server};
use run::{Run, UnisonResult};
use unison::{conflicts, is_new_enough, skipped};

pub use error::TwoWayError;
pub use outcome::Outcome;

/// Makes both sides equal. If both changed a file, both versions are kept.
///
/// `compare` are files of the host, relative to the folder, that are compared by content and not only by
/// size and time. unison reads the state that it remembers of a file only after it has sent the file, so
/// it would miss an edit of the same size made in between (seen with 2.52.1).
///
/// `say` gets what people should know while they wait.
///
/// # Errors
/// If one side is empty or gone but was not before: perhaps a disk is not mounted, and that must not
/// delete the other side's files.
pub async fn sync(
    folder: &SyncFolder,
    remote: &Remote,
    compare: &[PathBuf],
    say: &mut (dyn FnMut(String) + Send),
) -> Result<Outcome, TwoWayError> {
    if !folder.from.is_dir() {
        return Err(TwoWayError::Gone {
            from: folder.from.clone(),
        });
    }
    let (program, version) = host_unison().await?;
    can_be_shut_in()?;
    let archives = Archives::of(folder, remote)?;
    if !archives.exist() {
        say("the first sync of both ways reads all files of both sides; later ones only what changed".into());
    }
    let guest = prepare(folder, remote, &program, &version).await?;
    let host_is_empty = fs::read_dir(&folder.from)
        .map_err(io("read", &folder.from))?
        .next()
        .is_none();
    if archives.exist() && host_is_empty != guest.is_empty {
        let host = folder.from.shown();
        let there = format!("{} in {}", folder.to, remote.machine);
        let (empty, other) = match host_is_empty {
            true => (host, there),
            false => (there, host),
        };
        return Err(TwoWayError::Emptied { empty, other });
    }
    let mut outcome = Outcome::default();
    let run = Run {
        folder,
        remote,
        program: &program,
        archives: &archives,
        server: server(folder.owner.as_deref(), guest.program),
    };
    for _ in 0..2 {
        let said = match run.once(&[]).await? {
            UnisonResult::Output(said) => said,
            UnisonResult::Forgotten => {
                // The machine's disk is not the one that was synced. Without archives, unison deletes
                // nothing.
                archives.remove().map_err(io("remove", &archives.folder))?;
                archives.make(remote)?;
                match run.once(&[]).await? {
                    UnisonResult::Output(said) => said,
                    UnisonResult::Forgotten => {
                        return Err(run.failed("one side has lost its archive".into()));
                    }
                }
            }
        };
        outcome.skipped = skipped(&said);
        let conflicts = conflicts(&said);
        if conflicts.is_empty() {
            break;
        }
        // The older versions are only on one side so far: sync once more.
        outcome.conflicts.extend(conflicts);
    }
    // By now both sides have the folders that these files are in.
    for paths in compare.chunks(COMPARED_AT_ONCE) {
        if let UnisonResult::Output(said) = run.once(paths).await? {
            outcome.conflicts.extend(conflicts(&said));
        }
    }
    Ok(outcome)
}

/// How many paths one unison gets, in its arguments.
const COMPARED_AT_ONCE: usize = 500;

/// Returns the host's unison and its version, from `unison version 2.52.1 (ocaml 4.13.1)`.
async fn host_unison() -> Result<(PathBuf, String), TwoWayError> {
    let program = process::find("unison").ok_or(TwoWayError::NoUnison)?;
    let program = program.canonicalize().map_err(io("read", &program))?;
    let output = process::Command::new(&program, "unison")
        .arg("-version")
        .output()
        .await
        .map_err(|error| io("run", &program)(std::io::Error::other(error)))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = (said.split_whitespace().nth(2)).ok_or(TwoWayError::NoUnison)?;
    if !is_new_enough(version) {
        return Err(TwoWayError::OldUnison {
            version: version.to_string(),
        });
    }
    Ok((program, version.to_string()))
}

/// Checks, once, whether this host allows the sandbox.
fn can_be_shut_in() -> Result<(), TwoWayError> {
    static CAN: OnceLock<()> = OnceLock::new();
    if CAN.get().is_some() {
        return Ok(());
    }
    let own = Owner {
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
    };
    if let Some(lack) = no_sandbox(own) {
        return Err(TwoWayError::NoSandbox {
            why: lack.why,
            remedy: lack.remedy,
        });
    }
    let _ = CAN.set(());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::Path};

    use super::{unison::tests::folder, *};
    use crate::machinefile::SyncKind;

    /// A host and a guest in one folder. A program in place of ssh runs the guest's commands here, or the
    /// script `guest-does` in place of them.
    struct Ground {
        base: tempfile::TempDir,
    }

    /// The program in place of ssh. It records its arguments, and the script for `sh`, which is one command that ends with
    /// a line of its own.
    const SSH: &str = r#"#!/bin/sh
base=$(dirname "$(dirname "$0")")
printf '%s\n' "$@" >>"$base/arguments"
while [ "$1" != web ]; do shift; done
shift
command=$*
if [ "$command" = 'exec sh' ]; then
    command=
    while IFS= read -r line; do
        # A call, or the first line of the script.
        marked=$(printf '%s' "$line" | grep -o 'stead-[0-9a-f]*-[0-9]*' | head -n 1)
        case $marked in
        stead-*-0) mark=${marked%-0} ;;
        stead-*)
            echo "$marked" >&2
            echo "$marked"
            continue
            ;;
        esac
        command="$command$line
"
        [ "$line" != "'" ] || break
    done
    printf '%s' "$command" | sed "s/$mark/MARK/g" >>"$base/arguments"
fi
command=$(printf '%s' "$command" | sed "s|/var/lib/stead|$base/guest-lib|g; s|PATH=/usr/local/sbin|PATH=$base/sudo:/usr/local/sbin|")
export command base mark
[ ! -e "$base/guest-does" ] || exec sh "$base/guest-does"
exec sh -c "$command"
"#;

    impl Ground {
        fn new() -> Self {
            let base = tempfile::tempdir().unwrap();
            let ground = Ground { base };
            for folder in ["bin", "sudo", "host", "guest", "guest-lib", "data"] {
                fs::create_dir(ground.path(folder)).unwrap();
            }
            ground.program("bin/ssh", SSH);
            // For `sudo -n COMMAND`: everything belongs to one user here.
            ground.program("sudo/sudo", "#!/bin/sh\nshift\nexec \"$@\"\n");
            fs::write(ground.path("secret"), "of the host\n").unwrap();
            fs::write(ground.path("host/f"), "from the host\n").unwrap();
            fs::write(ground.path("guest/g"), "from the guest\n").unwrap();
            ground
        }

        fn path(&self, name: &str) -> PathBuf {
            self.base.path().canonicalize().unwrap().join(name)
        }

        fn program(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }

        /// Syncs in a process of its own, with another PATH, and returns the outcome.
        fn sync(&self) -> String {
            self.run("two-way")
        }

        fn run(&self, way: &str) -> String {
            let path = std::env::var("PATH").unwrap();
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "sync::two_way::tests::in_its_own_process"])
                .args(["--ignored", "--nocapture"])
                .env("STEAD_TEST_GROUND", self.path(""))
                .env("STEAD_TEST_WAY", way)
                .env("SECRET_OF_MINE", "secret of mine")
                .env("PATH", format!("{}:{path}", self.path("bin").display()))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let said = said
                .split_once("OUTCOME ")
                .map(|(_, said)| said.to_string());
            said.unwrap_or_else(|| panic!("{output:?}"))
        }
    }

    #[ignore = "a part of other tests"]
    #[tokio::test]
    async fn in_its_own_process() {
        let Some(base) = std::env::var_os("STEAD_TEST_GROUND").map(PathBuf::from) else {
            return;
        };
        let mut folder = folder();
        folder.from = base.join("host");
        folder.to = base.join("guest").to_str().unwrap().to_string();
        folder.exclude.clear();
        let data = crate::host::paths::DataDir::at(base.join("data"));
        let remote = Remote {
            machine: "web".into(),
            files: crate::guest::MachineFiles::new(&data, &uuid::Uuid::nil()),
        };
        match std::env::var("STEAD_TEST_WAY").as_deref() {
            Ok("copy") => {
                folder.kind = SyncKind::Rsync;
                let ended = crate::sync::sync_folder(&folder, &remote, &mut |_| {}).await;
                println!("OUTCOME {:?}", ended.map_err(|error| error.to_string()));
            }
            _ => println!("OUTCOME {:?}", sync(&folder, &remote, &[], &mut drop).await),
        }
    }

    #[test]
    fn both_sides_get_what_either_has() {
        let ground = Ground::new();
        assert!(ground.sync().starts_with("Ok("), "{}", ground.sync());
        assert!(ground.path("host/g").exists() && ground.path("guest/f").exists());
        fs::remove_file(ground.path("host/g")).unwrap();
        fs::write(ground.path("guest/f"), "edited by the guest\n").unwrap();
        let said = ground.sync();
        assert!(said.starts_with("Ok("), "{said}");
        assert!(!ground.path("guest/g").exists());
        let edited = fs::read_to_string(ground.path("host/f")).unwrap();
        assert_eq!(edited, "edited by the guest\n");
    }

    #[test]
    fn what_is_neither_file_nor_folder_is_told_of() {
        let ground = Ground::new();
        for pipe in ["host/here", "guest/there"] {
            nix::unistd::mkfifo(&ground.path(pipe), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        // Each time: it is the caller who says it once.
        for _ in 0..2 {
            let said = ground.sync();
            assert!(said.contains(r#"skipped: ["here", "there"]"#), "{said}");
        }
        assert!(ground.path("guest/f").exists());
    }

    /// Whatever the guest answers, each command is one of stead's own.
    #[test]
    fn no_word_of_a_guest_is_part_of_a_command() {
        let ground = Ground::new();
        let mark = ground.path("ran");
        let answer = |words: &str| {
            let lie = words.replace("MARK", &mark.display().to_string());
            let script = format!(
                "case $command in *-server*) exec sh -c \"$command\" ;; esac\nsh -c \"$command\" | grep -v unison\ncat <<'EOF'\n{lie}\nEOF\n"
            );
            fs::write(ground.path("guest-does"), script).unwrap();
            let _ = fs::remove_file(ground.path("arguments"));
            let said = ground.sync();
            (said, fs::read_to_string(ground.path("arguments")).unwrap())
        };
        let (said, wanted) = answer("unison path");
        assert!(said.starts_with("Ok("), "{said}");
        for lie in [
            "run -oControlPath=none -oProxyCommand=id>MARK x\nunison path",
            "unison path -oProxyCommand=id>MARK\nunison path",
            "unison path\nunison path;id>MARK",
            "unison path\nrun id>MARK\nempty;id>MARK",
        ] {
            let (said, arguments) = answer(lie);
            assert!(said.starts_with("Ok("), "{lie}: {said}");
            assert_eq!(arguments, wanted, "{lie}");
            assert!(!mark.exists(), "{lie}");
        }
    }

    #[test]
    fn the_protocol_with_ocamls_own_values_is_not_spoken() {
        for header in ["Unison 2.51 with OCaml >= 4.01.2", "Unison 2.48", "hello"] {
            let ground = Ground::new();
            let script = format!(
                "case $command in *-server*) echo $mark-0 >&2; echo $mark-0; echo '{header}'; exec cat >/dev/null ;; esac\nexec sh -c \"$command\"\n"
            );
            fs::write(ground.path("guest-does"), script).unwrap();
            let said = ground.sync();
            assert!(
                said.contains("does not speak the protocol of unison 2.52"),
                "{header}: {said}"
            );
        }
    }

    /// A unison that does what a guest may make it do: run programs, and use every file by its name.
    #[test]
    fn the_hosts_unison_has_the_folder_and_nothing_else() {
        let ground = Ground::new();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listening = std::os::unix::net::UnixListener::bind(ground.path("socket")).unwrap();
        let attack = format!(
            r#"#!/bin/bash
[ "$1" != -version ] || {{ echo 'unison version 2.52.1 (ocaml 4.13.1)'; exit; }}
exec 5>"{base}/host/report"
ls -a / "{base}" >&5 2>&1
env >&5
cat "{base}/secret" /etc/passwd /proc/1/environ >&5 2>/dev/null
echo x >"{base}/written"
chmod 777 "{base}/secret"
chmod 4755 /usr/bin/env
echo x >/usr/bin/stead-evil
(echo hello >/dev/tcp/127.0.0.1/{port})
kill -9 {pid}
mknod "{base}/host/disk" b 8 0 && echo DEVICE >&5
mount -t tmpfs x /usr && echo MOUNTED >&5
ls -d "{base}/socket" >&5
echo done >&5
"#,
            base = ground.path("").display().to_string().trim_end_matches('/'),
            port = socket.local_addr().unwrap().port(),
            pid = std::process::id(),
        );
        ground.program("bin/unison", &attack);
        let before = fs::metadata("/usr/bin/env").unwrap().permissions();
        // The guest has the same version, but does not sync.
        fs::write(
            ground.path("guest-does"),
            "echo $mark-0 >&2; echo $mark-0\ncase $command in *-server*) echo 'Unison RPC'; exec cat >/dev/null ;; esac\necho 'unison path'\necho filled\n",
        )
        .unwrap();
        let said = ground.sync();
        let report = fs::read_to_string(ground.path("host/report")).unwrap();
        assert!(report.ends_with("done\n"), "{report}\n{said}");
        for word in [
            "of the host",
            "root:",
            "secret of mine",
            "DEVICE",
            "MOUNTED",
            "socket",
            "home\n",
        ] {
            assert!(!report.contains(word), "{word:?} is in:\n{report}");
        }
        assert!(!ground.path("written").exists());
        let mode = fs::metadata(ground.path("secret"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(fs::metadata("/usr/bin/env").unwrap().permissions(), before);
        assert!(!Path::new("/usr/bin/stead-evil").exists());
        socket.set_nonblocking(true).unwrap();
        assert!(socket.accept().is_err(), "it reached the host's network");
        drop(listening);
    }

    /// A guest that has a folder above it by virtiofs can do this.
    #[test]
    fn a_folder_that_was_swapped_for_a_link_is_not_synced() {
        let ground = Ground::new();
        fs::create_dir(ground.path("private")).unwrap();
        fs::write(ground.path("private/key"), "").unwrap();
        fs::rename(ground.path("host"), ground.path("aside")).unwrap();
        std::os::unix::fs::symlink("private", ground.base.path().join("host")).unwrap();
        let said = ground.sync();
        assert!(said.contains("replaced by a symlink"), "{said}");
        assert!(!ground.path("guest/key").exists() && !ground.path("private/g").exists());
    }

    #[test]
    fn the_first_copy_takes_nothing_away_that_is_not_its_own() {
        let ground = Ground::new();
        let said = ground.run("copy");
        assert!(said.contains("stead did not make "), "{said}");
        assert!(said.contains("does not have: g"), "{said}");
        assert!(ground.path("guest/g").exists() && !ground.path("guest/f").exists());
        fs::remove_file(ground.path("guest/g")).unwrap();
        assert!(ground.run("copy").starts_with("Ok("));
        assert!(ground.path("guest/f").exists());
        // From now on the folder is stead's, for another host too: one with a box that was packed from
        // this machine.
        fs::remove_dir_all(ground.path("data")).unwrap();
        fs::write(ground.path("guest/built"), "").unwrap();
        let said = ground.run("copy");
        assert!(said.starts_with("Ok("), "{said}");
        assert!(!ground.path("guest/built").exists());
        // A folder that is suddenly empty.
        fs::remove_file(ground.path("host/f")).unwrap();
        let said = ground.run("copy");
        assert!(said.contains("nothing was deleted"), "{said}");
        assert!(ground.path("guest/f").exists());
    }
}
