//! Gives a guest its certificate.

const SCRIPT: &str = concat!(
    include_str!("../../provisioners/trust-store"),
    include_str!("../../provisioners/guest/stead-tls")
);

/// Returns the command that installs a certificate, and has the guest trust the authority that signed it. It reads
/// [`certificate_input`].
pub fn certificate_command() -> String {
    let script = crate::host::shell::shell_quote(SCRIPT);
    format!("sudo -n sh -c {script} stead-tls ''")
}

/// Returns what [`certificate_command`] reads. It has the key.
pub fn certificate_input(certificate: &str, key: &str, authority: &str) -> String {
    format!("{certificate}{key}{authority}")
}

/// What the command says.
#[derive(Debug, PartialEq, Eq)]
pub struct CertificateAnswer {
    /// Whether the guest has the certificate.
    pub is_there: bool,
    /// What people should know.
    pub notes: Vec<String>,
}

/// Reads the command's output. Other lines are ignored.
pub fn certificate_answer(output: &str) -> CertificateAnswer {
    let lines = || output.lines().map(str::trim_end);
    CertificateAnswer {
        is_there: lines().any(|line| line == "stead-tls done"),
        notes: lines()
            .filter_map(|line| line.strip_prefix("stead-tls note "))
            // It says three things at most.
            .take(3)
            .map(str::to_string)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
        path::{Path, PathBuf},
        time::Duration,
    };

    use super::*;
    use crate::{
        host::{paths::DataDir, process::Command},
        tls::{Authority, Leaf, Names},
    };

    /// The root folder of a guest.
    struct Guest(tempfile::TempDir);

    impl Guest {
        fn new(folders: &[&str]) -> Self {
            let root = tempfile::tempdir().unwrap();
            for folder in folders {
                fs::create_dir_all(root.path().join(folder)).unwrap();
            }
            Guest(root)
        }

        fn debian() -> Self {
            let guest = Self::new(&["etc/ssl/certs", "usr/local/share", "usr/sbin"]);
            guest.program("usr/sbin/update-ca-certificates", "full");
            fs::write(guest.at(BUNDLE), "others\n").unwrap();
            guest
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn text(&self, path: &str) -> String {
            fs::read_to_string(self.at(path)).unwrap_or_default()
        }

        /// A program that notes that it ran.
        fn program(&self, path: &str, word: &str) {
            let path = self.at(path);
            let log = self.at("log");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = format!("#!/bin/sh\necho {word} >>{}\n", log.display());
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn give(&self, input: &str) -> CertificateAnswer {
            let output = Command::new("sh", "dash")
                .args(["-c", SCRIPT, "stead-tls"])
                .arg(self.0.path())
                .input(input)
                .succeed();
            certificate_answer(&String::from_utf8_lossy(&output.unwrap().stdout))
        }

        fn waits_for(&self, word: &str) {
            while !self.text("log").contains(word) || self.at(TLS).join(".updating").exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
    const ANCHOR: &str = "usr/local/share/ca-certificates/stead-ca.crt";
    const TLS: &str = "etc/stead/tls";

    fn fine() -> CertificateAnswer {
        CertificateAnswer {
            is_there: true,
            notes: Vec::new(),
        }
    }

    struct Given {
        authority: Authority,
        leaf: Leaf,
    }

    impl Given {
        fn new(names: &[&str]) -> Vec<Self> {
            let data = tempfile::tempdir().unwrap();
            let now = jiff::Timestamp::now();
            let authority = || Authority::get(&DataDir::at(data.path()), now).unwrap();
            (names.iter())
                .map(|name| Given {
                    authority: authority(),
                    leaf: Leaf::get(
                        &data.path().join(name),
                        &Names::new((*name).into(), [], []),
                        &authority(),
                        now,
                    )
                    .unwrap(),
                })
                .collect()
        }

        fn one() -> Self {
            Self::new(&["a.internal"]).remove(0)
        }

        fn input(&self) -> String {
            certificate_input(
                self.leaf.certificate(),
                self.leaf.key(),
                self.authority.certificate(),
            )
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_guest_gets_its_certificate_once() {
        let guest = Guest::debian();
        let [first, second] = &Given::new(&["a.internal", "b.internal"])[..] else {
            panic!();
        };
        guest.program("etc/stead/tls/renewed", "renewed");
        assert_eq!(guest.give(&first.input()), fine());
        let tls = guest.at(TLS);
        let file = |name: &str| fs::read_to_string(tls.join(name)).unwrap();
        assert_eq!(file("cert.pem"), first.leaf.certificate());
        assert_eq!(file("key.pem"), first.leaf.key());
        assert_eq!(file("ca.pem"), first.authority.certificate());
        assert_eq!(guest.text(ANCHOR), first.authority.certificate());
        assert_eq!(mode(&tls.join("cert.pem")), 0o644);
        assert_eq!(mode(&tls.join("key.pem")), 0o600);
        assert_eq!(guest.text("log"), "renewed\n");
        let bundle = format!("others\n{}", first.authority.certificate());
        assert_eq!(guest.text(BUNDLE), bundle);
        // Again, as after each boot: nothing is written.
        let inode = |name: &str| fs::metadata(tls.join(name)).unwrap().ino();
        let before = inode("cert.pem");
        assert_eq!(guest.give(&first.input()), fine());
        assert_eq!(inode("cert.pem"), before);
        assert_eq!(guest.text(BUNDLE), bundle);
        assert_eq!(guest.text("log"), "renewed\n");
        // Another one of the same authority.
        assert_eq!(guest.give(&second.input()), fine());
        assert_eq!(file("cert.pem"), second.leaf.certificate());
        assert_eq!(guest.text(BUNDLE), bundle);
        assert_eq!(guest.text("log"), "renewed\nrenewed\n");
        let names = fs::read_dir(&tls).unwrap().count();
        assert_eq!(names, 4, "something unfinished is left");
    }

    /// Programs that read the folder find it by its hash.
    #[test]
    fn openssl_finds_the_authority_in_the_folder() {
        let guest = Guest::debian();
        let given = Given::one();
        assert_eq!(guest.give(&given.input()), fine());
        let certs = guest.at("etc/ssl/certs");
        // The link leads to where the file is in a guest.
        fs::remove_file(certs.join("stead-ca.pem")).unwrap();
        std::os::unix::fs::symlink(guest.at(ANCHOR), certs.join("stead-ca.pem")).unwrap();
        let verified = Command::new("openssl", "openssl")
            .args(["verify", "-no-CAfile", "-no-CAstore", "-CApath"])
            .arg(&certs)
            .arg(guest.at("etc/stead/tls/cert.pem"))
            .succeed();
        assert!(verified.is_ok(), "{verified:?}");
    }

    #[test]
    fn what_is_left_is_done_later() {
        let guest = Guest::debian();
        let (first, other) = (Given::one(), Given::one());
        guest.program("etc/ca-certificates/update.d/jks", "hook");
        guest.give(&first.input());
        guest.waits_for("hook");
        assert_eq!(guest.text("log"), "hook\n");
        // Another authority takes its place.
        fs::remove_file(guest.at("log")).unwrap();
        assert_eq!(guest.give(&other.input()), fine());
        guest.waits_for("hook");
        let bundle = format!("others\n{}", other.authority.certificate());
        assert_eq!(guest.text(BUNDLE), bundle);
        assert_eq!(guest.text(ANCHOR), other.authority.certificate());
        assert_eq!(guest.text("log"), "hook\n");
    }

    #[test]
    fn each_distribution_is_told_in_its_way() {
        for (anchors, update, bundle) in [
            (
                "etc/pki/trust/anchors",
                "usr/sbin/update-ca-certificates",
                "var/lib/ca-certificates/ca-bundle.pem",
            ),
            (
                "etc/pki/ca-trust/source/anchors",
                "usr/bin/update-ca-trust",
                "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            ),
            (
                "etc/ca-certificates/trust-source/anchors",
                "usr/bin/update-ca-trust",
                "etc/ca-certificates/extracted/tls-ca-bundle.pem",
            ),
        ] {
            let guest = Guest::new(&[anchors]);
            guest.program(update, "full");
            fs::create_dir_all(guest.at(bundle).parent().unwrap()).unwrap();
            fs::write(guest.at(bundle), "others\n").unwrap();
            let given = Given::one();
            assert_eq!(guest.give(&given.input()), fine(), "{anchors}");
            let authority = given.authority.certificate();
            assert_eq!(guest.text(&format!("{anchors}/stead-ca.crt")), authority);
            assert!(guest.text(bundle).contains(authority), "{anchors}");
            guest.waits_for("full");
            assert_eq!(guest.give(&given.input()), fine(), "{anchors}");
            assert_eq!(guest.text("log"), "full\n");
        }
    }

    #[test]
    fn a_guest_without_a_trust_store_says_what_it_lacks() {
        let guest = Guest::new(&["usr/local/share"]);
        let given = Given::one();
        let answer = guest.give(&given.input());
        assert!(answer.is_there);
        assert!(
            answer.notes[0].contains("has no update-ca-certificates; install the package"),
            "{answer:?}"
        );
        // Where it is found when somebody does.
        assert_eq!(guest.text(ANCHOR), given.authority.certificate());
        // A system of another kind.
        let answer = Guest::new(&[]).give(&given.input());
        assert!(answer.is_there && answer.notes.len() == 1, "{answer:?}");
    }

    #[test]
    fn a_service_that_cannot_be_told_is_reported() {
        let guest = Guest::debian();
        let given = Given::one();
        guest.program(
            "etc/stead/tls/renewed",
            "told; echo no such service; exit 5",
        );
        let answer = guest.give(&given.input());
        assert!(answer.is_there);
        assert_eq!(
            answer.notes,
            ["/etc/stead/tls/renewed failed with exit code 5: no such service"]
        );
        assert_eq!(guest.give(&given.input()), fine());
    }

    #[test]
    fn a_guest_says_a_few_words_only() {
        let many = "stead-tls note x\r\n".repeat(1000);
        let answer = certificate_answer(&format!("Welcome!\n{many}"));
        assert!(!answer.is_there);
        assert_eq!(answer.notes, ["x", "x", "x"]);
    }
}
