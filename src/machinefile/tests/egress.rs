//! What machines reach, as the Machinefile says it.

use super::*;
use crate::network::Egress;

/// What a machine reaches, in words: what is outside, and which ports of this computer.
fn words(machine: &Machine) -> String {
    let internet = if machine.internet {
        ""
    } else {
        "no internet, "
    };
    match &machine.egress {
        None => format!("{internet}unguarded"),
        Some(Egress { allow, host_tcp }) => {
            let allow = allow.as_ref().map(|allow| {
                let list: Vec<String> = allow.iter().map(ToString::to_string).collect();
                list.join(" ")
            });
            let allow = allow.unwrap_or("everything".into());
            format!("{internet}{allow}; {}", port_list(host_tcp))
        }
    }
}

fn reached(text: &str) -> Vec<String> {
    let folder = project(&format!("project \"shop\"\n{text}"));
    match loaded(folder.path()) {
        Ok(project) => project.machines.iter().map(words).collect(),
        Err(errors) => panic!("{}", rendered(&errors, folder.path())),
    }
}

#[test]
fn a_machine_reaches_what_it_names() {
    let machine = |text: &str| {
        let text = format!("machine \"m\" {{ box \"b\"; {text} }}");
        reached(&text).remove(0)
    };
    for (text, meant) in [
        ("", "unguarded"),
        ("internet #true", "unguarded"),
        ("internet #false", "no internet, unguarded"),
        (
            "egress { allow \"Deb.Debian.org\" \"*.example.com\"; allow \"192.0.2.0/24\" \"deb.debian.org\"; }",
            "deb.debian.org *.example.com 192.0.2.0/24; ",
        ),
        ("host-access none=#true", "everything; "),
        (
            "host-access tcp=5432; host-access tcp=\"8000-8010\"; host-access tcp=8010",
            "everything; 5432, 8000-8010",
        ),
        (
            "internet #true; egress { allow \"a.test\"; }; host-access tcp=1",
            "a.test; 1",
        ),
        ("internet #false; host-access tcp=1", "no internet, ; 1"),
        (
            "internet #false; host-access none=#true",
            "no internet, unguarded",
        ),
    ] {
        assert_eq!(machine(text), meant, "{text}");
    }
}

#[test]
fn ports_add_up_with_those_of_the_defaults_and_destinations_replace_them() {
    let all = reached(
        r#"
defaults { box "b"; egress { allow "a.test"; }; host-access tcp=1; }
machine "as-usual"
machine "other" { egress { allow "b.test"; }; host-access tcp=2; }
machine "open" { internet #true; host-access none=#true; }
machine "shut" { internet #false; }
"#,
    );
    assert_eq!(
        all,
        [
            "a.test; 1",
            "b.test; 1-2",
            "everything; ",
            "no internet, ; 1"
        ]
    );
    let all = reached(
        r#"
defaults { box "b"; internet #false; host-access none=#true; }
machine "as-usual"
machine "other" { egress { allow "b.test"; }; host-access tcp=2; }
"#,
    );
    assert_eq!(all, ["no internet, unguarded", "b.test; 2"]);
}

/// It is its way out.
#[test]
fn a_guarded_machine_is_on_a_network_even_alone() {
    let networks = |text: &str| {
        let folder = project(&format!("project \"shop\"\n{text}"));
        let project = loaded(folder.path()).unwrap();
        let names = |machine: &Machine| {
            let names: Vec<&str> = machine.networks.iter().map(|it| it.name.as_str()).collect();
            names.join(" ")
        };
        project.machines.iter().map(names).collect::<Vec<_>>()
    };
    assert_eq!(networks("machine \"m\" { box \"b\"; }"), [""]);
    assert_eq!(
        networks("machine \"m\" { box \"b\"; host-access none=#true; }"),
        ["default"]
    );
    assert_eq!(
        networks(
            "network \"a\"; machine \"m\" { box \"b\"; network \"a\"; egress { allow \"x.test\"; }; }"
        ),
        ["a"]
    );
}

#[test]
fn who_is_only_on_isolated_networks_reaches_nothing_else() {
    let machine = |text: &str| {
        let text = format!(
            "defaults {{ box \"b\"; }}; network \"in\" isolated=#true; network \"out\" isolated=#false; machine \"m\" {{ {text} }}"
        );
        reached(&text).remove(0)
    };
    assert_eq!(machine("network \"in\";"), "no internet, unguarded");
    assert_eq!(machine("network \"out\";"), "unguarded");
    assert_eq!(machine("network \"in\"; network \"out\";"), "unguarded");
    assert_eq!(
        machine("network \"in\"; network \"out\"; host-access tcp=1"),
        "everything; 1"
    );
    for (node, said) in [
        ("host-access tcp=1", "`host-access` needs a way out"),
        ("internet #true", "`internet #true` needs a way out"),
    ] {
        let folder = project(&format!(
            "project \"shop\"; network \"in\" isolated=#true\nmachine \"m\" {{ box \"b\"; network \"in\"; {node}; }}"
        ));
        let error = loaded(folder.path()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn there_is_a_limit_to_what_a_machine_names() {
    let names: Vec<String> = (0..257).map(|n| format!("\"n{n}.test\"")).collect();
    let of = |names: &[String]| {
        let text = format!(
            "project \"shop\"\nmachine \"m\" {{ box \"b\"; egress {{ allow {}; }}; }}",
            names.join(" ")
        );
        loaded(project(&text).path())
    };
    assert!(of(&names[..256]).is_ok());
    let error = of(&names).unwrap_err().to_string();
    assert!(error.contains("more than 256 destinations"), "{error}");
}
