//! Good and bad manifests.

use serde_json::{Value, json};

use super::*;

fn box_manifest() -> Manifest {
    let manifest = json!({
        "format_version": 1, "name": "small", "version": "1", "arch": "x86_64",
        "disk": {
            "file": { "name": "disk.raw", "size": 100 << 20, "sha256": "a".repeat(64) },
            "format": "raw", "virtual_size": 100 << 20,
        },
        "boot": { "bootloader": {} }, "seed": "credentials", "login_user": "stead",
    });
    Manifest::parse(manifest.to_string().as_bytes(), "test").unwrap()
}

fn good_chunk(offset: u64, digit: char) -> Chunk {
    Chunk {
        blob: Blob {
            sha256: digit.to_string().repeat(64),
            size: 1000,
        },
        offset,
        length: CHUNK,
        content: "e".repeat(64),
    }
}

fn good() -> Layout {
    Layout {
        config: Blob {
            sha256: "f".repeat(64),
            size: 300,
        },
        files: BTreeMap::from([(
            "disk.raw".into(),
            vec![good_chunk(0, '1'), good_chunk(CHUNK * 2, '2')],
        )]),
    }
}

#[test]
fn written_and_read_back() {
    let bytes = good().render(&box_manifest()).unwrap();
    let read = Layout::parse(&bytes).unwrap();
    assert_eq!(read, good());
    assert_eq!(read.check(&box_manifest()), Ok(()));
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&value).unwrap());
}

/// The good manifest after a change.
fn changed(change: impl FnOnce(&mut Value)) -> Result<(), Objection> {
    let bytes = good().render(&box_manifest()).unwrap();
    let mut value: Value = serde_json::from_slice(&bytes).unwrap();
    change(&mut value);
    Layout::parse(value.to_string().as_bytes())?
        .check(&box_manifest())
        .map_err(Objection::Bad)
}

#[test]
fn what_is_bad_is_refused() {
    type Change = Box<dyn FnOnce(&mut Value)>;
    let annotation = |key: &'static str, value: &str| -> Change {
        let value = value.to_string();
        Box::new(move |it| it["layers"][1]["annotations"][key] = json!(value))
    };
    let field = |key: &'static str, value: Value| -> Change {
        Box::new(move |it| it["layers"][1][key] = value)
    };
    let cases: Vec<(Change, &str)> = vec![
        (annotation(OFFSET, "1"), "overlap at byte 1"),
        (annotation(OFFSET, "0"), "overlap at byte 0"),
        (annotation(OFFSET, "99999999"), "past its end"),
        (annotation(OFFSET, "18446744073709551615"), "past its end"),
        (annotation(OFFSET, "-1"), "vnd.stead.box.offset"),
        (annotation(OFFSET, "0x10"), "vnd.stead.box.offset"),
        (annotation(LENGTH, "0"), "1 to 67108864"),
        (annotation(LENGTH, "67108865"), "1 to 67108864"),
        (
            annotation(FILE, "../etc/passwd"),
            "which is not one of its files",
        ),
        (
            annotation(FILE, "manifest.json"),
            "which is not one of its files",
        ),
        (annotation(CONTENT, "x"), "not a sha256"),
        (field("annotations", json!({})), "no annotation"),
        (field("size", json!(1u64 << 40)), "invalid compressed size"),
        (field("size", json!(0)), "invalid compressed size"),
        (
            field("digest", json!("sha512:00")),
            "is not a sha256 digest",
        ),
        (
            field("digest", json!(format!("sha256:{}", "A".repeat(64)))),
            "is not a sha256 digest",
        ),
        (
            field("mediaType", json!("application/octet-stream")),
            "unknown type \"application/octet-stream\"",
        ),
        (
            // The same blob as the first, with another size.
            Box::new(|it| {
                it["layers"][1]["digest"] = it["layers"][0]["digest"].clone();
                it["layers"][1]["size"] = json!(7);
            }),
            "in two ways",
        ),
        (
            Box::new(|it| it["config"]["size"] = json!(2 << 20)),
            "its config has 2097152 bytes",
        ),
        (
            Box::new(|it| it["config"]["mediaType"] = json!("a/b")),
            "unknown type \"a/b\"",
        ),
        (
            Box::new(|it| it["schemaVersion"] = json!(1)),
            "not an OCI image manifest",
        ),
        (
            Box::new(|it| {
                it.as_object_mut().unwrap().remove("layers");
            }),
            "cannot be read",
        ),
    ];
    for (change, words) in cases {
        match changed(change) {
            Err(Objection::Bad(message)) => {
                assert!(message.contains(words), "{words:?} is not in {message:?}");
            }
            other => panic!("{words}: {other:?}"),
        }
    }
    assert!(matches!(Layout::parse(b"<html>"), Err(Objection::Bad(_))));
    assert_eq!(changed(|_| {}), Ok(()));
}

#[test]
fn other_artifacts_are_named() {
    let other = |change: fn(&mut Value)| match changed(change) {
        Err(Objection::Other(what)) => what,
        other => panic!("{other:?}"),
    };
    let image = other(|it| {
        it.as_object_mut().unwrap().remove("artifactType");
        it["config"]["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    });
    assert_eq!(image, "a container image");
    let chart = other(|it| {
        it.as_object_mut().unwrap().remove("artifactType");
        it["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    });
    assert!(chart.contains("helm"), "{chart}");
    let artifact = other(|it| it["artifactType"] = json!("application/x"));
    assert!(artifact.contains("application/x"), "{artifact}");
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    assert!(matches!(Layout::parse(index), Err(Objection::Other(_))));
}

#[test]
fn no_part_of_a_manifest_panics() {
    let whole = good().render(&box_manifest()).unwrap();
    for end in 0..whole.len() {
        assert!(Layout::parse(&whole[..end]).is_err());
    }
}
