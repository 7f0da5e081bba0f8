//! Metadata, Vagrantfiles and listings of Vagrant's boxes.

use super::*;
use crate::boxes::catalogue::Requirement;

#[test]
fn disks_of_both_versions() {
    let v1 = br#"{"provider":"libvirt","format":"qcow2","virtual_size":10}"#;
    assert_eq!(disks(v1).unwrap(), ["box.img"]);
    let v2 = br#"{"provider":"libvirt","architecture":"amd64","disks":[{"path":"disk1.img","name":"root"},{"path":"disk2.img","format":"raw"}]}"#;
    assert_eq!(disks(v2).unwrap(), ["disk1.img", "disk2.img"]);
    for (bad, why) in [
        (r#"{"provider":"virtualbox"}"#, "for virtualbox"),
        (r#"{}"#, "no provider"),
        (r#"["#, "cannot be read"),
        (r#"{"provider":"libvirt","format":"vmdk"}"#, "vmdk"),
        (r#"{"provider":"libvirt","disks":[{}]}"#, "has no path"),
        (
            r#"{"provider":"libvirt","disks":[{"path":"../x"}]}"#,
            "the file name \"../x\" is not valid",
        ),
        (
            r#"{"provider":"libvirt","disks":[{"path":"a"},{"path":"a"}]}"#,
            "listed twice",
        ),
    ] {
        let error = disks(bad.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn literals_of_a_vagrantfile_and_nothing_else() {
    let text = r#"
Vagrant.configure("2") do |config|
  config.ssh.username = "core" # the image's own
  config.ssh.password = ENV['X']
  config.vm.provider :libvirt do |libvirt|
    libvirt.loader = '/usr/share/OVMF/OVMF_CODE.fd'
    libvirt.driver = "kvm"
  end
end
"#;
    let settings = Settings::parse(text);
    assert_eq!(settings.login_user.as_deref(), Some("core"));
    assert_eq!(
        settings.loader.as_deref(),
        Some("/usr/share/OVMF/OVMF_CODE.fd")
    );
    for line in [
        "config.ssh.username = name",
        "config.ssh.username = \"a#{b}\"",
        "config.ssh.username = \"a\" + b",
        "# config.ssh.username = \"a\"",
        "config.ssh.username == \"a\"",
        "config.ssh.username = \"\"",
        "config.ssh.username = \"",
        "ssh.username = 'a'",
    ] {
        assert_eq!(Settings::parse(line), Settings::default(), "{line}");
    }
}

#[test]
fn a_listing_is_chosen_from() {
    let listing = Listing::parse(
        br#"{"name":"team/base","versions":[
            {"version":"1.9.0","providers":[{"name":"libvirt","url":"https://e.org/1.9.0"}]},
            {"version":"1.10.0","providers":[
                {"name":"virtualbox","url":"https://e.org/vb"},
                {"name":"libvirt","url":"https://e.org/arm","architecture":"arm64","default_architecture":true},
                {"name":"libvirt","url":"https://e.org/1.10.0","architecture":"amd64",
                 "checksum_type":"sha256","checksum":"1111111111111111111111111111111111111111111111111111111111111111"}]},
            {"version":"1.11.0","status":"revoked","providers":[{"name":"libvirt","url":"https://e.org/no"}]},
            {"version":"2.0.0","providers":[{"name":"virtualbox","url":"https://e.org/vb"}]},
            {"version":"next","providers":[]}]}"#,
    )
    .unwrap();
    let choose = |requirement: &str, arch: &str| {
        listing.choose(&Requirement::parse(requirement).unwrap(), arch)
    };
    let newest = choose("", "x86_64").unwrap();
    assert_eq!(
        (newest.version.as_str(), newest.url.as_str()),
        ("1.10.0", "https://e.org/1.10.0")
    );
    assert!(newest.expected.is_some());
    assert_eq!(choose("1.9", "x86_64").unwrap().version, "1.9.0");
    assert_eq!(choose("", "aarch64").unwrap().url, "https://e.org/arm");
    let none = choose("3", "x86_64").unwrap_err();
    assert!(none.contains("1.10.0, 1.9.0"), "{none}");
    assert!(
        choose("", "s390x")
            .unwrap_err()
            .contains("no version for libvirt on s390x")
    );
    assert!(Listing::parse(b"{}").is_none() && Listing::parse(b"\x00").is_none());
}
