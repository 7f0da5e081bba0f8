//! The built-in catalogue, invalid catalogues, versions, and signatures.

use std::collections::BTreeSet;

use super::*;

const DIGITS: &str = "1111111111111111111111111111111111111111111111111111111111111111";

fn malformed(text: &str) -> String {
    Catalogue::parse(text, "test").unwrap_err().to_string()
}

#[test]
fn the_built_in_catalogue_is_complete() {
    let catalogue = Catalogue::embedded().unwrap();
    let names: Vec<&str> = catalogue.boxes().map(|(name, _)| name).collect();
    for name in [
        "debian",
        "ubuntu",
        "fedora",
        "almalinux",
        "rocky",
        "centos-stream",
        "opensuse",
        "alpine",
        "archlinux",
    ] {
        assert!(names.contains(&name), "{name} is missing");
        assert!(Catalogue::embedded_mentions(name), "{name}");
    }
    assert!(!Catalogue::embedded_mentions("debian-12"));
    for reference in [
        "debian/11",
        "debian/12",
        "debian/13",
        "ubuntu/22.04",
        "ubuntu/24.04",
        "ubuntu/26.04",
        "fedora",
        "almalinux/9",
        "rocky/9",
        "centos-stream/10",
        "opensuse/15",
        "alpine/3.22",
        "archlinux",
    ] {
        let found = catalogue.find(reference, "x86_64").unwrap().unwrap();
        assert!(!found.entry.login_user.is_empty());
    }
    let mut seen = BTreeSet::new();
    for (name, entry) in catalogue.boxes() {
        assert!(!entry.releases.is_empty(), "{name}");
        for release in &entry.releases {
            assert!(!release.images.is_empty(), "{name} {}", release.version);
            for image in release.images.values() {
                for url in &image.urls {
                    assert_eq!(url.scheme(), "https");
                    assert!(seen.insert(url.to_string()), "{url} occurs twice");
                }
            }
        }
    }
    // Distributions that sign their images are checked by signature.
    let signed = |reference: &str| {
        let found = catalogue.find(reference, "x86_64").unwrap().unwrap();
        found.image.is_signed()
    };
    assert!(signed("ubuntu") && signed("fedora/43") && signed("fedora/44") && signed("opensuse"));
}

#[test]
fn what_a_reference_finds() {
    let text = format!(
        r#"version 1
box "linux" login-user="me" {{
    release "1.9" {{ image "x86_64" sha256="{DIGITS}" {{ url "https://e.org/1.9"; }}; }}
    release "2.1" {{ image "aarch64" sha256="{DIGITS}" {{ url "https://e.org/2.1"; }}; }}
    release "1.10" {{ image "x86_64" sha256="{DIGITS}" {{ url "https://e.org/1.10"; }}; }}
}}
"#
    );
    let catalogue = Catalogue::parse(&text, "test").unwrap();
    let found = |reference: &str, arch: &str| {
        catalogue
            .find(reference, arch)
            .unwrap()
            .map(|found| found.release.version.to_string())
            .map_err(|error| error.to_string())
    };
    assert_eq!(found("linux", "x86_64").unwrap(), "1.10");
    assert_eq!(found("linux", "aarch64").unwrap(), "2.1");
    assert_eq!(found("linux/1.9", "x86_64").unwrap(), "1.9");
    assert_eq!(found("linux >=1.2, <1.10", "x86_64").unwrap(), "1.9");
    assert!(found("linux/2", "x86_64").is_err());
    assert!(found("linux/two", "x86_64").is_err());
    assert!(found("linux", "s390x").is_err());
    assert!(catalogue.find("other/1", "x86_64").is_none());
    assert!(catalogue.find("linux-1", "x86_64").is_none());

    let mut embedded = Catalogue::embedded().unwrap();
    let boxes = embedded.boxes().count();
    embedded.override_with(catalogue);
    assert_eq!(embedded.boxes().count(), boxes + 1);
}

#[test]
fn invalid_catalogues_are_reported_with_the_line() {
    let image = |inside: &str| {
        malformed(&format!(
            "version 1\nbox \"a\" login-user=\"b\" {{\n release \"1\" {{\n  image \"x86_64\" {inside}\n }}\n}}\n"
        ))
    };
    for (found, wanted) in [
        (malformed(""), "it has no version"),
        (malformed("version 9"), "its version is 9"),
        (malformed("version 1\nbux"), "test:2: unknown node \"bux\""),
        (malformed("version 1\nbox \"a\""), "no login-user"),
        (
            malformed("version 1\nbox \"a/b\" login-user=\"x\""),
            "test:2: the name \"a/b\" is not valid",
        ),
        (
            malformed("version 1\nbox \"a\" login-user=\"{{x}}\" { }"),
            "test:2: login-user \"{{x}}\" is not a valid user name",
        ),
        (
            malformed("version 1\nbox {"),
            "test:2: this `{` is not closed: write `}` where `box` ends",
        ),
        (
            malformed("<!DOCTYPE html>\n<html>"),
            "test:1: this looks like a web page, not like KDL",
        ),
        (image("{}"), "needs a url"),
        (image("{ url \"https://e.org/a\"; }"), "needs a sha256"),
        (image("{ url \"http://e.org/a\"; }"), "not an https: URL"),
        (
            image("{ url \"http://u:catpw66@e.org/x?sig=SIG77\"; }"),
            "\"http://e.org/x?…\" is not an https: URL",
        ),
        (
            image("{ url \"https//u:catpw66@e.org/x?sig=SIG77\"; }"),
            "\"https//e.org/x?…\" is not a URL",
        ),
        (
            image("sha256=\"12\" { url \"https://e.org/a\"; }"),
            "is not a sha256",
        ),
        (image("md5=\"12\""), "no property \"md5\""),
        (
            image("{ url \"https://e.org/a\"; checksums \"https://e.org/b\" key=\"k\"; }"),
            "test:4: key \"k\" is not defined above this line",
        ),
        (
            image(
                "{ url \"https://e.org/a\"; checksums \"https://e.org/b\" signature=\"https://e.org/c\"; }",
            ),
            "needs the key",
        ),
    ] {
        assert!(found.contains(wanted), "{found}");
    }
    let key = EMBEDDED.split("key \"").nth(1).unwrap();
    let key = format!("version 1\nkey \"{}", key.split("key \"").next().unwrap());
    Catalogue::parse(&key, "test").unwrap();
    let other = key.replacen("fingerprint=\"", "fingerprint=\"0", 1);
    assert!(malformed(&other).contains("has the fingerprint"));
}

#[test]
fn signatures() {
    use crate::fetch::{verify_clearsigned, verify_detached};
    // Made with gpg: an ed25519 key that signs with a subkey, and somebody else's key.
    let key = PublicKey::parse(include_str!("testdata/key.asc")).unwrap();
    let other = PublicKey::parse(include_str!("testdata/other.asc")).unwrap();
    let sums = include_bytes!("testdata/SHA256SUMS");
    let binary = include_bytes!("testdata/SHA256SUMS.gpg");
    let armoured = include_bytes!("testdata/SHA256SUMS.asc");
    let clear = include_bytes!("testdata/CHECKSUM");
    for signature in [binary.as_slice(), armoured] {
        verify_detached(&key, sums, signature).unwrap();
        assert!(verify_detached(&other, sums, signature).is_err());
        assert!(verify_detached(&key, b"something else", signature).is_err());
        assert!(verify_detached(&key, sums, &signature[..signature.len() / 2]).is_err());
    }
    assert!(verify_detached(&key, sums, b"").is_err());
    let text = verify_clearsigned(&key, clear).unwrap();
    assert!(text.contains("SHA256 (a.img)"), "{text}");
    // Text before or after the signed part is not signed.
    let around = [b"SHA256 (evil.img) = 00\n".as_slice(), clear, b"more\n"].concat();
    if let Ok(text) = verify_clearsigned(&key, &around) {
        assert!(!text.contains("evil"), "{text}");
    }
    assert!(verify_clearsigned(&other, clear).is_err());
    assert!(verify_clearsigned(&key, sums).is_err());
    let altered = String::from_utf8(clear.to_vec())
        .unwrap()
        .replacen("a.img", "b.img", 1);
    assert!(verify_clearsigned(&key, altered.as_bytes()).is_err());
}
