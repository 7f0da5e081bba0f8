//! Mistakes that newcomers make, and what stead says about them.

use super::Place;

const TWO: &str =
    "project \"shop\"\ndefaults { box \"debian/12\"; }\nmachine \"web\"\nmachine \"db\" count=2\n";

#[test]
fn a_mistyped_machine_has_a_suggestion() {
    let place = Place::with(TWO);
    for command in [
        &["status", "wbe"][..],
        &["plan", "wbe"],
        &["halt", "Web"],
        &["destroy", "wbe"],
        &["ssh-config", "wbe"],
        &["port", "wbe"],
        &["sync", "wbe"],
        &["ssh", "wbe"],
        &["exec", "wbe", "--", "true"],
        &["logs", "wbe"],
        &["console", "wbe"],
        &["run", "wbe", "--", "true"],
        &["copy", "wbe:/x", "y"],
    ] {
        let said = place.run(&[&["--connect", "test:///default"], command].concat());
        assert!(said.starts_with("exit 2"), "{command:?}: {said}");
        assert!(said.contains("did you mean web?"), "{command:?}: {said}");
    }
    let said = place.run(&["--connect", "test:///default", "status", "db"]);
    assert!(said.contains("name its machines, db-1, db-2"), "{said}");
    let said = place.run(&[
        "--connect",
        "test:///default",
        "status",
        "a\u{202e}b\u{200b}",
    ]);
    assert!(
        said.contains("no machine a\\u{202e}b\\u{200b} in"),
        "{said}"
    );
}

#[test]
fn commands_of_other_tools_have_a_tip() {
    let place = Place::new();
    for (words, tip) in [
        (&["Up"][..], "`stead up`"),
        (&["VALIDATE"], "`stead validate`"),
        (&["ps"], "`stead status`"),
        (&["ls"], "`stead list`"),
        (&["vm", "list"], "`stead up web`"),
        (&["stop"], "`stead halt`"),
        (&["rm", "web"], "`stead destroy`"),
        (&["start"], "`stead up`"),
        (&["Start"], "`stead up`"),
        (&["reload"], "`stead restart`"),
        (&["shell"], "`stead ssh`"),
        (&["down"], "`stead halt`"),
        (&["version"], "`stead --version`"),
        (&["box", "ls"], "`stead box list`"),
        (&["box", "rm", "x"], "`stead box remove NAME`"),
        (&["kernel", "ls"], "`stead kernel list`"),
        (&["logs", "-f"], "`stead logs --follow`"),
        (&["help", "forward"], "docs/reference/machinefile.md"),
        (&["egress"], "docs/reference/machinefile.md"),
        (&["help", "network"], "`stead link`"),
        (&["help", "nonesuch"], "docs/README.md"),
    ] {
        let said = place.run(words);
        assert!(said.starts_with("exit 2"), "{words:?}: {said}");
        let tips = said
            .lines()
            .filter(|line| line.starts_with("  tip: ") && line.contains(tip));
        assert_eq!(tips.count(), 1, "{words:?}: {said}");
    }
}

#[test]
fn a_box_that_is_not_here_is_a_step_of_the_plan() {
    let place = Place::with(TWO);
    let said = place.run(&["--connect", "test:///default", "plan", "web"]);
    assert!(
        said.starts_with("exit 0")
            && said.contains("web\n  fetch box debian/12 (it is not on this computer yet)\n")
            && !said.contains('!'),
        "{said}"
    );
    let said = place.run(&["--connect", "test:///default", "ssh-config"]);
    assert!(
        said.starts_with("exit 0\n--- stdout\n--- stderr\nno machine has been made yet"),
        "{said}"
    );
    let place = Place::with("project \"shop\"\nmachine \"web\" { box \"nonesuch\"; }\n");
    let said = place.run(&["--connect", "test:///default", "run", "--", "true"]);
    assert!(
        said.contains(
            "error: a throwaway machine like web: no box in the store is called nonesuch"
        ),
        "{said}"
    );
}

/// No host has a name below `.invalid` (RFC 6761 §6.4).
#[test]
fn a_host_that_does_not_exist_is_named() {
    let place = Place::new();
    let said = place.run(&["box", "add", "https://boxes.invalid/web.qcow2"]);
    assert!(
        said.starts_with("exit 1")
            && said.contains("cannot find the address of boxes.invalid: ")
            && said.contains("`getent hosts boxes.invalid`"),
        "{said}"
    );
}

/// What the list shows is what one writes.
#[test]
fn each_listed_box_is_a_name_for_a_machinefile() {
    let place = Place::new();
    let said = place.run(&["box", "list", "--available"]);
    let names: Vec<&str> = (said.lines().skip(3))
        .take_while(|line| !line.starts_with("---"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(
        names.contains(&"debian/12") && names.contains(&"ubuntu/24"),
        "{said}"
    );
    let machines: String = (names.iter().enumerate())
        .map(|(n, name)| format!("machine \"m{n}\" {{ box \"{name}\"; }}\n"))
        .collect();
    let place = Place::with(&format!("project \"shop\"\n{machines}"));
    let said = place.run(&["--connect", "test:///default", "plan"]);
    for name in names {
        assert!(said.contains(&format!("fetch box {name} (")), "{said}");
    }
}

/// A value of the environment is shown nowhere, except where the project makes it a name.
#[test]
fn values_of_variables_are_not_shown() {
    const SECRET: &str = "s3cret'value\"of-mine";
    let machinefile = r#"
project "shop"
machine "web" {
    box "${env.TOKEN}"
    memory "1GiB"
    hostname "web"
    kernel { cmdline "x=${env.TOKEN}"; }
    provision "y" { shell inline="echo ${env.TOKEN}" { env A="${env.TOKEN}"; }; }
    before "up" { host "curl-${env.TOKEN}" "${env.TOKEN}"; host inline="echo ${env.TOKEN}"; }
}
"#;
    let wrong = machinefile.replace("\"1GiB\"", "\"${env.TOKEN}\"");
    for text in [machinefile, &wrong] {
        let place = Place::with(text);
        for command in [
            &["validate"][..],
            &["plan"],
            &["plan", "--json"],
            &["trust", "--show"],
            &["trust", "--show", "--json"],
            &["trust"],
            &["up"],
            &["run", "--", "true"],
            &["status"],
            &["doctor", "--report"],
        ] {
            let output = place
                .stead(&[&["-vv", "--connect", "test:///default"], command].concat())
                .env("TOKEN", SECRET)
                .output()
                .unwrap();
            let said = place.said(&output);
            assert!(!said.contains("s3cret"), "{command:?}: {said}");
        }
    }
}
