//! Texts that are too long, and amounts that no machine can have.

use super::*;

fn is_one(said: &str) -> bool {
    said.matches("  × ").count() == 1
}

/// Each is one error, under the text, which is not shown whole.
#[test]
fn long_texts_are_errors_at_their_places() {
    let long = "a".repeat(900_000);
    let half = &long[..200_000];
    for (what, text) in [
        ("`box`", format!("box \"{long}\"")),
        ("`box`", format!("box \"./{long}.qcow2\"")),
        ("`depends-on`", format!("depends-on \"{long}\"")),
        ("`package`", format!("kernel {{ package \"{long}\"; }}")),
        ("`model` of `cpus`", format!("cpus 1 model=\"{long}\"")),
        ("`exec`", format!("ready {{ exec \"{long}\"; }}")),
        ("name of a provisioner", {
            format!("provision \"{}\" {{ shell \"setup.sh\"; }}", &long[..300])
        }),
        ("`args`", {
            format!("provision \"p\" {{ shell \"setup.sh\" {{ args \"{long}\"; }}; }}")
        }),
        ("`X` of `env`", {
            format!("provision \"p\" {{ shell \"setup.sh\" {{ env X=\"{half}\"; }}; }}")
        }),
        ("name in `labels`", format!("labels {half}=\"x\"")),
        ("`x` of `labels`", format!("labels x=\"{half}\"")),
        ("`workdir` of `shell`", {
            format!("provision \"p\" {{ shell \"setup.sh\" workdir=\"/{half}\"; }}")
        }),
    ] {
        let rest = if text.starts_with("box") {
            ""
        } else {
            "box \"b\";"
        };
        let said = broken(&format!(
            "project \"p\"\nmachine \"w\" {{ {rest} {text}; }}\n"
        ));
        assert!(said.contains(what), "{what}: {said}");
        assert!(said.contains("at most "), "{said}");
        assert!(is_one(&said), "{said}");
        assert!(said.len() < 2_000, "{said}");
    }
    let said = broken(&format!(
        "project \"p\"\nmachine \"{long}\" {{ box \"b\"; }}\n"
    ));
    assert!(is_one(&said), "{said}");
}

#[test]
fn long_scripts_and_arguments_are_taken() {
    let (script, word) = ("true\n".repeat(100_000), "a".repeat(100_000));
    let folder = project(&format!(
        "project \"p\"\nmachine \"w\" {{ box \"b\"; provision \"p\" {{ shell inline=#\"\"\"\n{script}\"\"\"# {{ args \"{word}\"; env X=\"{word}\"; }}; }}; }}\n"
    ));
    loaded(folder.path()).unwrap();
}

#[test]
fn amounts_that_no_machine_has_are_errors() {
    for text in [
        "memory \"16777215TiB\"",
        "memory \"4097TiB\"",
        "memory \"1GiB\" max=\"16777215TiB\"",
        "memory \"32GiB\" hugepages=\"32GiB\"",
        "disk \"2049TiB\"",
        "cpus 289",
        "cpus 1 quota=\"99999999999%\"",
        "disk \"1GiB\" throughput=\"16777215TiB/s\"",
        "forward 65536 to=80",
        "ready { timeout \"169h\"; }",
    ] {
        let said = broken(&format!(
            "project \"p\"\nmachine \"w\" {{ box \"b\"; {text}; }}\n"
        ));
        assert!(is_one(&said), "{text}: {said}");
    }
    let said =
        broken("project \"p\"\nhost-reserve memory=\"4097TiB\"\nmachine \"w\" { box \"b\"; }\n");
    assert!(said.contains("at most 4096TiB"), "{said}");
    let most = project(
        "project \"p\"\nmachine \"w\" { box \"b\"; memory \"4096TiB\"; disk \"2048TiB\"; cpus 288; }\n",
    );
    loaded(most.path()).unwrap();
}

/// What follows from a mistake is not reported beside it.
#[test]
fn a_mistake_in_a_network_is_one_error() {
    for network in [
        "network \"b\" subnet=\"10.77.0.0/33\"",
        "network \"b\" subnet=\"10.77.0.5/24\"",
        "network \"b\" subnet=77",
    ] {
        let said = broken(&format!(
            "project \"p\"\n{network}\nmachine \"w\" count=2 {{ box \"b\"; network \"b\" address=\"10.77.0.10\"; }}\nmachine \"x\" {{ box \"b\"; network \"b\" address=\"10.78.0.20\"; }}\n"
        ));
        assert!(is_one(&said), "{said}");
    }
    let said = broken(
        "project \"p\"\nnetwork \"B_x\" subnet=\"10.77.0.0/24\"\nmachine \"w\" { box \"b\"; network \"B_x\" address=\"10.77.0.10\"; }\nmachine \"x\" { box \"b\"; network \"B_x\"; }\nlink \"w\" \"x\" network=\"B_x\" latency=\"1ms\"\n",
    );
    assert!(is_one(&said), "{said}");
}
