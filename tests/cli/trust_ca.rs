//! `stead trust-ca`: what it shows. What it does is tested beside the script that does it.

use std::fs;

use super::Place;

#[test]
fn the_authority_and_its_limits_are_shown() {
    let place = Place::new();
    for folder in [".mozilla/firefox/1.default", ".pki/nssdb"] {
        let folder = place.path().join("home").join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cert9.db"), "").unwrap();
    }
    let output = place.stead(&["trust-ca", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let fingerprint = json["fingerprint"].as_str().unwrap();
    let path = json["path"].as_str().unwrap();
    let text = fs::read_to_string(path).unwrap();
    assert!(text.starts_with("-----BEGIN CERTIFICATE-----\n"), "{text}");
    assert!(!text.contains("PRIVATE"));
    // The same one each time, in words too.
    let said = place.run(&["trust-ca"]);
    assert!(said.contains(fingerprint), "{said}");
    for part in [
        "stead, ",
        "names below .internal",
        "127.0.0.0/8; for nothing else",
        "sudo install -m 644 <folder>/data/authority/ca.pem /",
        "sql:<folder>/home/.mozilla/firefox/1.default -A -t C,, -n stead -i <folder>/data/authority/ca.pem",
        "sql:<folder>/home/.pki/nssdb -A",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let year = &json["not_after"].as_str().unwrap()[..10];
    assert!(said.contains(&format!("valid until  {year}\n")), "{said}");
}

/// Without sudo, and without an authority.
#[test]
fn what_was_not_installed_is_not_removed() {
    let place = Place::new();
    assert_eq!(
        place.run(&["trust-ca", "--remove"]),
        "exit 0\n--- stdout\n--- stderr\nthis computer does not trust the authority\n"
    );
    assert!(!place.path().join("data/authority/ca.pem").exists());
}
