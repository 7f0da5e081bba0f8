//! The user's certificate authority: which guests need another certificate, and how this computer comes to trust it.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{
    failure::Failure,
    host::{
        file,
        paths::DataDir,
        process::{self, ProgramError, run_as_root},
        shell::shell_quote,
    },
    machine::Observed,
    report::clean::Shown,
    tls::Authority,
};

use super::Session;

const SCRIPT: &str = concat!(
    include_str!("../../provisioners/trust-store"),
    include_str!("../../provisioners/trust-ca")
);

/// Where systems keep authorities that were added, the command that reads them, and whose it is. The script has them,
/// too.
const STORES: [(&str, &str, &str); 4] = [
    ("/etc/pki/trust/anchors", "update-ca-certificates", "SUSE"),
    (
        "/etc/pki/ca-trust/source/anchors",
        "update-ca-trust",
        "Fedora",
    ),
    (
        "/etc/ca-certificates/trust-source/anchors",
        "update-ca-trust",
        "Arch Linux",
    ),
    (
        "/usr/local/share/ca-certificates",
        "update-ca-certificates",
        "Debian, Ubuntu, Alpine",
    ),
];

/// The name in browsers' databases. Each user has databases, and an authority, of their own.
const NICKNAME: &str = "stead";

impl Session {
    /// Whether a machine runs on with a certificate that is old or of another authority.
    pub(super) fn needs_certificate(&self, observed: &Observed) -> bool {
        // A damaged file is reported by the step.
        let authority = Authority::find(&self.data).ok().flatten();
        let fingerprint = authority.map(|authority| authority.fingerprint());
        observed.needs_certificate(fingerprint.as_deref(), Timestamp::now())
    }
}

/// What people do by hand, in the order of their systems' names, with this computer's own first.
pub struct Manual {
    pub system: &'static str,
    pub commands: Vec<String>,
}

/// Returns the commands by which a system comes to trust the authority.
pub fn manual(data: &DataDir) -> Vec<Manual> {
    let from = shell_quote(&Authority::certificate_file(data).to_string_lossy());
    let all = STORES.iter().map(|(folder, update, system)| Manual {
        system,
        commands: vec![
            format!("sudo install -m 644 {from} {folder}/{}", file_name()),
            format!("sudo {update}"),
        ],
    });
    let own = STORES
        .iter()
        .position(|(folder, ..)| Path::new(folder).is_dir());
    let mut all: Vec<Manual> = all.collect();
    if let Some(own) = own {
        all = vec![all.remove(own)];
    }
    all
}

/// Returns the commands for the databases of browsers.
pub fn manual_browsers(data: &DataDir) -> Vec<String> {
    let from = shell_quote(&Authority::certificate_file(data).to_string_lossy());
    (browser_databases(&home()).iter())
        .map(|folder| {
            let folder = shell_quote(&database(folder).to_string_lossy());
            format!("certutil -d {folder} -A -t C,, -n {NICKNAME} -i {from}")
        })
        .collect()
}

/// Each user has an authority.
fn file_name() -> String {
    format!("stead-{}.crt", nix::unistd::geteuid())
}

fn home() -> PathBuf {
    std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default()
}

/// Has the system's store trust the certificate, or no longer if it is empty. Asks for root's rights through sudo.
pub fn change_system(certificate: &str) -> Result<(), Failure> {
    let input = file::without_name(certificate.as_bytes())
        .map_err(|error| Failure::io("write the certificate to a temporary file", &error))?;
    match run_as_root(SCRIPT, ["trust-ca", "", &file_name()], input) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::error(
            format!("the system's store of authorities has not been changed: {status}"),
            "`stead trust-ca` prints the commands, to run them by hand",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::error(
            "only root can change the system's store of authorities, and there is no sudo",
            "`stead trust-ca` prints the commands, to run them as root",
        )),
        Err(error) => Err(Failure::io("run sudo", &error)),
    }
}

/// Whether the system's store has the authority of this user, or had it.
pub fn is_in_system() -> bool {
    (STORES.iter()).any(|(folder, ..)| Path::new(folder).join(file_name()).exists())
}

/// How many databases of browsers trust the authority now, or no longer, and what failed.
#[derive(Default)]
pub struct Browsers {
    pub changed: usize,
    pub failed: Vec<String>,
}

/// Has Firefox and Chromium trust the certificate in that file; `None`: no longer. They ask no system store.
pub fn change_browsers(certificate: Option<&Path>) -> Browsers {
    change_databases(&browser_databases(&home()), certificate)
}

fn change_databases(folders: &[PathBuf], certificate: Option<&Path>) -> Browsers {
    let mut browsers = Browsers::default();
    for folder in folders {
        let certutil = |arguments: &[&str]| {
            process::Command::new("certutil", "libnss3-tools")
                .arg("-d")
                .arg(database(folder))
                .args(arguments)
        };
        // Also one of an earlier authority, which may have another subject.
        let removed = certutil(&["-D", "-n", NICKNAME]).succeed();
        let done = match (removed, certificate) {
            (Err(error @ ProgramError::NotInstalled { .. }), _) => Err(error),
            (removed, None) => {
                browsers.changed += usize::from(removed.is_ok());
                continue;
            }
            (_, Some(file)) => certutil(&["-A", "-t", "C,,", "-n", NICKNAME, "-i"])
                .arg(file)
                .succeed()
                .map(drop),
        };
        match done {
            Ok(()) => browsers.changed += 1,
            Err(error) => {
                let failure = Failure::from(error);
                let hint = match &failure {
                    Failure::Error {
                        hint: Some(hint), ..
                    } => format!("; {hint}"),
                    _ => String::new(),
                };
                (browsers.failed).push(format!("{}: {}{hint}", folder.shown(), failure.message()));
            }
        }
    }
    browsers
}

/// Names a database as certutil(1) does.
fn database(folder: &Path) -> OsString {
    let mut name = OsString::from("sql:");
    name.push(folder);
    name
}

/// Returns the folders of NSS databases: Chromium's and those of Firefox's profiles, as packages, Snap and Flatpak have
/// them.
fn browser_databases(home: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = [".pki/nssdb", "snap/chromium/current/.pki/nssdb"]
        .map(|folder| home.join(folder))
        .into();
    for folder in [
        ".mozilla/firefox",
        "snap/firefox/common/.mozilla/firefox",
        ".var/app/org.mozilla.firefox/.mozilla/firefox",
    ] {
        let profiles = fs::read_dir(home.join(folder)).into_iter().flatten();
        found.extend(profiles.flatten().map(|profile| profile.path()));
    }
    found.retain(|folder| folder.join("cert9.db").is_file());
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Runs the script on a root folder.
    fn change(root: &Path, certificate: &str) -> Result<(), String> {
        let said = process::Command::new("sh", "dash")
            .args(["-c", SCRIPT, "trust-ca"])
            .arg(root)
            .arg("stead-1000.crt")
            .input(certificate)
            .succeed();
        said.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn the_store_of_each_system_has_it_and_has_it_no_longer() {
        for (folder, update, system) in STORES {
            let root = tempfile::tempdir().unwrap();
            let at = |path: &str| root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(at(folder)).unwrap();
            let said = change(root.path(), "x").unwrap_err();
            assert!(
                said.contains("install the package ca-certificates"),
                "{said}"
            );
            let place = if update == "update-ca-trust" {
                "usr/bin"
            } else {
                "usr/sbin"
            };
            fs::create_dir_all(at(place)).unwrap();
            let program = at(place).join(update);
            let log = at("log");
            fs::write(
                &program,
                format!("#!/bin/sh\necho ran >>{}\n", log.display()),
            )
            .unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            let file = at(folder).join("stead-1000.crt");
            for _ in 0..2 {
                change(root.path(), "-----BEGIN CERTIFICATE-----\nx\n").unwrap();
                let text = fs::read_to_string(&file).unwrap();
                assert_eq!(text, "-----BEGIN CERTIFICATE-----\nx\n", "{system}");
            }
            for _ in 0..2 {
                change(root.path(), "").unwrap();
                assert!(!file.exists(), "{system}");
            }
            assert_eq!(fs::read_to_string(&log).unwrap(), "ran\n".repeat(4));
            assert_eq!(fs::read_dir(at(folder)).unwrap().count(), 0);
        }
    }

    #[test]
    fn browsers_are_found_by_their_databases() {
        let home = tempfile::tempdir().unwrap();
        let all = [
            ".mozilla/firefox/1.default",
            ".mozilla/firefox/2.work",
            ".pki/nssdb",
            "snap/firefox/common/.mozilla/firefox/3.default",
        ];
        for folder in all {
            fs::create_dir_all(home.path().join(folder)).unwrap();
            fs::write(home.path().join(folder).join("cert9.db"), "").unwrap();
        }
        fs::create_dir_all(home.path().join(".mozilla/firefox/Crash Reports")).unwrap();
        assert_eq!(
            browser_databases(home.path()),
            all.map(|it| home.path().join(it))
        );
    }

    /// certutil is not always there.
    #[test]
    fn a_browser_trusts_it_and_no_longer() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("nssdb");
        fs::create_dir(&folder).unwrap();
        let new = process::Command::new("certutil", "libnss3-tools")
            .args(["-N", "--empty-password", "-d"])
            .arg(database(&folder))
            .succeed();
        if new.is_err() {
            return;
        }
        let data = DataDir::at(place.path().join("data"));
        let list = || {
            let listed = process::Command::new("certutil", "libnss3-tools")
                .args(["-L", "-d"])
                .arg(database(&folder))
                .succeed();
            String::from_utf8_lossy(&listed.unwrap().stdout).into_owned()
        };
        // Twice, and another authority.
        for n in 0..3 {
            if n == 2 {
                fs::remove_dir_all(data.authority()).unwrap();
            }
            Authority::get(&data, Timestamp::now()).unwrap();
            let file = Authority::certificate_file(&data);
            let done = change_databases(std::slice::from_ref(&folder), Some(&file));
            assert_eq!((done.changed, done.failed), (1, Vec::new()));
            assert_eq!(list().matches(NICKNAME).count(), 1, "{}", list());
        }
        let done = change_databases(std::slice::from_ref(&folder), None);
        assert_eq!((done.changed, list().contains(NICKNAME)), (1, false));
        assert_eq!(
            change_databases(std::slice::from_ref(&folder), None).changed,
            0
        );
    }
}
