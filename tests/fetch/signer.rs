//! Makes signatures with gpg, as distributions do.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
};

/// An OpenPGP key in gpg's keyring.
pub(crate) struct Signer {
    pub home: PathBuf,
    pub armoured: String,
    pub fingerprint: String,
}

impl Signer {
    /// Creates a key with its keyring in this new folder.
    pub(crate) fn new(home: &Path) -> Self {
        Self::made_at(home, None)
    }

    /// The same, created at another time, in gpg's notation.
    pub(crate) fn made_at(home: &Path, time: Option<&str>) -> Self {
        fs::DirBuilder::new().mode(0o700).create(home).unwrap();
        let mut signer = Signer {
            home: home.to_path_buf(),
            armoured: String::new(),
            fingerprint: String::new(),
        };
        let faked = time.map_or(vec![], |time| vec!["--faked-system-time", time]);
        let make = [
            "--passphrase",
            "",
            "--quick-gen-key",
            "test <test@example.org>",
            "ed25519",
            "sign",
            "never",
        ];
        signer.gpg(&[&faked[..], &make].concat());
        signer.armoured = String::from_utf8(signer.gpg(&["--armor", "--export"])).unwrap();
        let listing = String::from_utf8(signer.gpg(&["--list-keys", "--with-colons"])).unwrap();
        let line = listing
            .lines()
            .find(|line| line.starts_with("fpr"))
            .unwrap();
        signer.fingerprint = line.split(':').nth(9).unwrap().to_string();
        signer
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("gpg")
            .args(["--batch", "--quiet", "--homedir"])
            .arg(&self.home)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    /// The public key, with an expiry date that its owner set at some time.
    #[allow(dead_code, reason = "tests/fetch alone needs it")]
    pub(crate) fn ending(&self, at: &str, until: &str) -> String {
        self.gpg(&[
            "--faked-system-time",
            at,
            "--passphrase",
            "",
            "--quick-set-expire",
            &self.fingerprint,
            until,
        ]);
        String::from_utf8(self.gpg(&["--armor", "--export"])).unwrap()
    }

    pub(crate) fn sign(&self, how: &str, bytes: &[u8]) -> Vec<u8> {
        let file = self.home.join("to-sign");
        fs::write(&file, bytes).unwrap();
        self.gpg(&[how, "--output", "-", file.to_str().unwrap()])
    }

    /// Its node in a catalogue, under the name "test".
    pub(crate) fn node(&self) -> String {
        format!(
            "key \"test\" fingerprint=\"{}\" \"\"\"\n{}\n\"\"\"\n",
            self.fingerprint,
            self.armoured.trim()
        )
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // gpg starts an agent, which would stay behind.
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(&self.home)
            .args(["--kill", "gpg-agent"])
            .output();
    }
}
