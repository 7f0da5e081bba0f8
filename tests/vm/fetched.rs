//! A box of a catalogue, from a URL, pinned by the lock file.

use std::{fs, path::Path, process::Output};

use serde_json::Value;
use sha2::{Digest, Sha256, Sha512};

use crate::{
    project::{Project, data, own_data, stead_in, text},
    server::{Manner, Server},
    signer::Signer,
};

/// The disk of the box debian-12-cloud, which is what public cloud images are.
fn cloud_image() -> Vec<u8> {
    let output = stead_in(Path::new("/"), data())
        .args(["--json", "box", "show", "debian-12-cloud"])
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sha256 = shown["manifest"]["disk"]["file"]["sha256"]
        .as_str()
        .unwrap();
    fs::read(data().join(format!("images/box-{sha256}.qcow2"))).unwrap()
}

fn up(project: &Project, server: &Server, arguments: &[&str]) -> Output {
    project
        .stead(&["up"])
        .args(arguments)
        .env("SSL_CERT_FILE", server.certificate())
        .output()
        .unwrap()
}

#[test]
#[ignore = "takes minutes; tests/fetch tries the download, and boxes:: a boot of the image: ./dev test --full"]
fn a_cloud_image_from_a_url_comes_up_and_is_pinned() {
    let server = Server::start();
    let image = cloud_image();
    let digest: String = Sha256::digest(&image)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let url = server.serve("debian-12-genericcloud.qcow2", Manner::CutOnce, &image);
    let sha512: String = Sha512::digest(&image)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let sums = format!("{sha512}  debian-12-genericcloud.qcow2\n");
    let sums_url = server.serve("SHA512SUMS", Manner::Well, sums.as_bytes());
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new(&folder.path().join("signer"));
    let signature = server.serve(
        "SHA512SUMS.gpg",
        Manner::Well,
        &signer.sign("--detach-sign", sums.as_bytes()),
    );
    let catalogue = folder.path().join("catalogue.kdl");
    fs::write(
        &catalogue,
        format!(
            r#"version 1
{}
box "cloud" login-user="debian" {{
    release "12.20260712.2537" {{
        image "{}" {{
            url "{url}"
            checksums "{sums_url}" signature="{signature}" key="test"
        }}
    }}
}}
"#,
            signer.node(),
            std::env::consts::ARCH,
        ),
    )
    .unwrap();
    let machinefile = format!(
        "project \"fetched\"\ncatalogue \"{}\"\nmachine \"vm\" {{ box \"cloud/12\"; cpus 1; memory \"768MiB\"; ready {{ timeout \"600s\"; }}; }}\n",
        catalogue.display()
    );
    let first = own_data("fetched-data-1");
    let project = Project::with_data("fetched", &machinefile, &first);

    let refused = up(&project, &server, &["--locked"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("Machinefile.lock would change"));
    assert!(server.requests("debian-12-genericcloud.qcow2").is_empty());
    let plan = project.ok(&["plan"]);
    assert!(plan.out.contains("fetch"), "{}", plan.out);

    let output = up(&project, &server, &[]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        project
            .ok(&["exec", "--", "uname", "-r"])
            .out
            .ends_with("-cloud-amd64\n")
    );
    assert_eq!(project.ok(&["exec", "--", "id", "-un"]).out, "debian\n");
    let lock = fs::read_to_string(project.folder.join("Machinefile.lock")).unwrap();
    assert!(lock.contains(&digest) && lock.contains(&url), "{lock}");
    // Broken once, gone on with, and never asked for again.
    assert_eq!(server.requests("debian-12-genericcloud.qcow2").len(), 2);
    let output = up(&project, &server, &["--locked"]);
    assert!(output.status.success(), "{}", text(&output));
    project.ok(&["destroy", "-y"]);
    project.assert_gone("vm");

    // Another project on this host: no byte is fetched.
    let other = Project::with_data("fetched-too", &machinefile, &first);
    let output = other
        .stead(&["up"])
        .env("STEAD_TEST_KILL_AT", "vm/start")
        .output()
        .unwrap();
    assert!(!output.status.success());
    other.ok(&["destroy", "-y"]);
    assert_eq!(server.requests("debian-12-genericcloud.qcow2").len(), 2);
    assert_eq!(
        fs::read_to_string(other.folder.join("Machinefile.lock")).unwrap(),
        lock
    );

    // A colleague's clone: the same bytes, by the lock file.
    let clone = Project::with_data("fetched-clone", &machinefile, &own_data("fetched-data-2"));
    clone.write("Machinefile.lock", &lock);
    let output = clone
        .stead(&["up", "--locked"])
        .env("SSL_CERT_FILE", server.certificate())
        .env("STEAD_TEST_KILL_AT", "vm/define")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let digests = |project: &Project| -> Vec<Value> {
        let list = project.ok(&["--json", "box", "list"]).out;
        let list: Value = serde_json::from_str(&list).unwrap();
        let list = list.as_array().unwrap();
        list.iter().map(|it| it["digest"].clone()).collect()
    };
    assert_eq!(digests(&clone), digests(&project));

    // The server has other bytes by now: an error that names both, and nothing is made.
    let mut altered = image;
    altered[5_000_000] ^= 1;
    let other_digest: String = Sha256::digest(&altered)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    server.serve("debian-12-genericcloud.qcow2", Manner::Well, &altered);
    let late = Project::with_data("fetched-late", &machinefile, &own_data("fetched-data-3"));
    late.write("Machinefile.lock", &lock);
    let output = up(&late, &server, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    for word in [
        &digest,
        &other_digest,
        "Machinefile.lock",
        "stead box update",
    ] {
        assert!(text(&output).contains(word), "{word}: {}", text(&output));
    }
    late.assert_gone("vm");
}
