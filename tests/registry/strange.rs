//! Other artifacts in a registry, and bad boxes.

use serde_json::{Value, json};

use crate::{place::Place, server::Registry, sha256};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

fn image(registry: &Registry, config_type: &str) -> Value {
    let config = b"{\"architecture\": \"amd64\", \"os\": \"linux\"}";
    let layer = b"not a tar, but nobody checks";
    json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": {
            "mediaType": config_type,
            "digest": registry.put_blob("team/image", config),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": registry.put_blob("team/image", layer),
            "size": layer.len(),
        }],
    })
}

#[test]
fn what_is_no_box_is_called_by_its_name() {
    let (registry, place) = (Registry::start(), Place::new());
    let tag = |tag: &str| format!("oci://{}/team/image:{tag}", registry.host());
    let container = image(&registry, "application/vnd.oci.image.config.v1+json");
    registry.put_manifest("team/image", "container", &container);
    place.fails(
        &["box", "pull", &tag("container")],
        &["is a container image, not a box", "stead box push"],
    );
    let chart = image(&registry, "application/vnd.cncf.helm.config.v1+json");
    registry.put_manifest("team/image", "chart", &chart);
    place.fails(&["box", "pull", &tag("chart")], &["helm", "not a box"]);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": OCI,
            "digest": format!("sha256:{}", sha256(container.to_string().as_bytes())),
            "size": container.to_string().len(),
            "platform": { "architecture": "amd64", "os": "linux" },
        }],
    });
    registry.put_manifest("team/image", "index", &index);
    place.fails(&["box", "pull", &tag("index")], &["an index of several"]);
    place.fails(
        &["box", "pull", &tag("none")],
        &["has no none in team/image"],
    );
    place.fails(
        &["box", "pull", "oci://127.0.0.1:1/team/small:1"],
        &["127.0.0.1:1"],
    );
    place.has_nothing();
}

#[test]
fn arguments_that_make_no_sense() {
    let place = Place::new();
    place.add("1", 0);
    place.fails(
        &["box", "pull", "https://e.org/a"],
        &["is not a place in a registry"],
    );
    place.fails(&["box", "pull", "oci://e.org/a"], &["neither :TAG nor"]);
    place.fails(&["box", "push", "small", "e.org/a:1"], &["oci://HOST"]);
    place.fails(&["box", "push", "no-such", "oci://e.org/a:1"], &["no-such"]);
    let digest = format!("oci://e.org/a@sha256:{}", "0".repeat(64));
    place.fails(
        &["box", "push", "small", &digest],
        &["the registry chooses the digest"],
    );
}

/// A good box of one raw disk and one chunk, which a test then breaks.
struct Small {
    registry: Registry,
    manifest: Value,
    packed: Vec<u8>,
    content: Vec<u8>,
}

impl Small {
    fn new() -> Self {
        let content = vec![7u8; 100_000];
        Small {
            registry: Registry::start(),
            manifest: json!({
                "format_version": 1, "name": "small", "version": "1",
                "arch": std::env::consts::ARCH,
                "disk": {
                    "file": {
                        "name": "disk.raw", "size": content.len(), "sha256": sha256(&content),
                    },
                    "format": "raw", "virtual_size": content.len(),
                },
                "boot": { "bootloader": {} }, "seed": "cloud-init", "login_user": "me",
            }),
            packed: zstd::encode_all(content.as_slice(), 3).unwrap(),
            content,
        }
    }

    /// Pushes the box after a change; returns its reference.
    fn push(&self, change: impl FnOnce(&mut Value)) -> String {
        let config = self.manifest.to_string();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI,
            "artifactType": "application/vnd.stead.box.v1",
            "config": {
                "mediaType": "application/vnd.stead.box.config.v1+json",
                "digest": self.registry.put_blob("team/small", config.as_bytes()),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.stead.box.chunk.v1+zstd",
                "digest": self.registry.put_blob("team/small", &self.packed),
                "size": self.packed.len(),
                "annotations": {
                    "vnd.stead.box.file": "disk.raw",
                    "vnd.stead.box.offset": "0",
                    "vnd.stead.box.length": self.content.len().to_string(),
                    "vnd.stead.box.sha256": sha256(&self.content),
                },
            }],
        });
        change(&mut manifest);
        self.registry.put_manifest("team/small", "x", &manifest);
        format!("oci://{}/team/small:x", self.registry.host())
    }

    #[track_caller]
    fn refused(&self, change: impl FnOnce(&mut Value), words: &[&str]) {
        let place = Place::new();
        let tag = self.push(change);
        place.fails(&["box", "pull", &tag], words);
        place.has_nothing();
        assert!(place.kept_chunks().is_empty());
    }
}

#[test]
fn a_box_made_by_hand_is_pulled() {
    let small = Small::new();
    let tag = small.push(|_| {});
    let pulled = Place::new().does(&["box", "add", &tag]);
    assert_eq!(pulled["seed"], "cloud-init");
}

#[test]
fn boxes_that_lie_are_refused() {
    let mut small = Small::new();
    let annotation = |key: &str, value: &str| {
        let (key, value) = (format!("vnd.stead.box.{key}"), value.to_string());
        move |it: &mut Value| it["layers"][0]["annotations"][key] = json!(value)
    };
    small.refused(
        annotation("file", "../../x"),
        &["which is not one of its files"],
    );
    small.refused(annotation("offset", "1"), &["goes past its end"]);
    small.refused(
        annotation("length", "50000"),
        &["more than its 50000 bytes"],
    );
    small.refused(
        |it| it["layers"][0]["mediaType"] = json!("application/octet-stream"),
        &["unknown type"],
    );
    // The file is twice as long as its chunk, so its end is zeros.
    small.manifest["disk"]["file"]["size"] = json!(200_000);
    let disk = small.manifest["disk"]["file"]["sha256"]
        .as_str()
        .unwrap()
        .to_string();
    small.refused(|_| {}, &["but its manifest lists", &disk]);
    small.refused(annotation("length", "150000"), &["expected 150000"]);
    small.manifest["disk"]["file"]["name"] = json!("../disk.raw");
    small.refused(|_| {}, &["the file name \"../disk.raw\" is not valid"]);
    small.manifest = json!({ "format_version": 2 });
    small.refused(|_| {}, &["format_version is 2"]);
}

#[test]
fn a_bomb_takes_no_room() {
    let mut small = Small::new();
    // 512 MiB of zeros.
    let zeros = std::io::Read::take(std::io::repeat(0), 512 << 20);
    small.packed = zstd::encode_all(zeros, 1).unwrap();
    assert!((small.packed.len() as u64) < 1 << 16);
    small.manifest["disk"]["file"]["size"] = json!(1 << 20);
    small.refused(
        |it| it["layers"][0]["annotations"]["vnd.stead.box.length"] = json!("1048576"),
        &["more than its 1048576 bytes", "chunk sha256:"],
    );
}
