//! Networks that are edited while machines are on them.

use super::{in_guest, interfaces, state_file};
use crate::project::{Project, archive, is_system, own_data};

const HEAD: &str = r#"
project "edits"
defaults { box "debian-12"; cpus 1; memory "384MiB"; ready { timeout "900s"; }; }
"#;

fn write(project: &Project, rest: &str) {
    project.write("Machinefile", &format!("{HEAD}{rest}"));
}

/// Names and addresses of the machine's cards, by libvirt's records.
fn cards(project: &Project, machine: &str) -> Vec<String> {
    let networks = project.field(machine, "networks");
    let cards = networks.as_array().unwrap().iter();
    let words = |card: &serde_json::Value| {
        let word = |name: &str| card[name].as_str().unwrap().to_string();
        format!("{} {} {}", word("network"), word("address"), word("subnet"))
    };
    cards.map(words).collect()
}

/// Addresses of the guest's own cards on networks, as the guest says.
fn addresses(project: &Project, machine: &str) -> Vec<String> {
    let said = in_guest(project, machine, "ip -4 -o address show");
    let addresses = said
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(3));
    let own = addresses.filter(|it| !it.starts_with("127.") && !it.starts_with("10.0.2."));
    own.map(ToString::to_string).collect()
}

fn address_of(project: &Project, machine: &str, name: &str) -> String {
    in_guest(
        project,
        machine,
        &format!("getent ahostsv4 {name} | sed -n '1s/ .*//p'"),
    )
    .trim()
    .to_string()
}

/// All that is there of cards: sockets, or interfaces of root's.
fn files(project: &Project) -> Vec<String> {
    let mut names: Vec<String> = if is_system() {
        let names = interfaces(&state_file(project)).into_iter();
        names.filter(|name| !name.starts_with("stbr")).collect()
    } else {
        let state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(state_file(project)).unwrap()).unwrap();
        let control = std::path::PathBuf::from(state["control"].as_str().unwrap());
        let entries = std::fs::read_dir(control.parent().unwrap())
            .unwrap()
            .flatten();
        entries
            .map(|it| it.file_name().into_string().unwrap())
            .filter(|name| name != "control")
            .collect()
    };
    names.sort();
    names
}

#[test]
#[ignore = "boots seven times, one after the other: ./dev test --full"]
fn networks_change_while_machines_run() {
    let project = Project::with_data("edits", HEAD, &own_data("edits-data"));
    project.ok(&["box", "add", archive("debian-12").to_str().unwrap()]);
    write(
        &project,
        r#"
        network "back" subnet="10.89.0.0/24"
        machine "db" { network "back" address="10.89.0.10" aliases="postgres"; }
        machine "web" { network "back" address="10.89.0.20"; }
    "#,
    );
    project.ok(&["up"]);
    assert_eq!(files(&project).len(), 2, "{:?}", files(&project));
    let boot = |machine: &str| project.boot_id(machine).unwrap();
    let booted = [boot("db"), boot("web")];

    // A machine that runs keeps its address, also if another one is to have it.
    write(
        &project,
        r#"
        network "back" subnet="10.89.0.0/24"
        machine "pg" { network "back" address="10.89.0.10" aliases="postgres"; }
        machine "web" { network "back" address="10.89.0.20"; }
    "#,
    );
    for command in ["plan", "up"] {
        project.run(&[command], 1).says(&[
            "machine pg cannot have address 10.89.0.10 on network \"back\": machine db has it while it runs",
            "`stead halt db`",
        ]);
    }
    assert_eq!(project.state("pg"), "absent");
    // Others are not held up.
    project.ok(&["up", "web"]);
    assert_eq!(address_of(&project, "web", "db"), "10.89.0.10");
    assert_eq!(address_of(&project, "web", "pg"), "");

    // Two that change places do so together.
    write(
        &project,
        r#"
        network "back" subnet="10.89.0.0/24" isolated=#true
        machine "db" { network "back" address="10.89.0.20" aliases="postgres pg"; }
        machine "web" { network "back" address="10.89.0.10"; }
    "#,
    );
    let plan = project.ok(&["plan"]).out;
    assert!(plan.contains("network is back 10.89.0.10 of 10.89.0.0/24 (postgres), wanted back 10.89.0.20 of 10.89.0.0/24 (postgres, pg); `stead restart db` applies it"), "{plan}");
    assert!(
        plan.contains("change while it runs: internet #true → #false"),
        "{plan}"
    );
    project
        .run(&["restart", "db"], 1)
        .says(&["machine web has it while it runs"]);
    project.ok(&["up"]);
    assert_eq!([boot("db"), boot("web")], booted);
    assert_eq!(cards(&project, "db"), ["back 10.89.0.10 10.89.0.0/24"]);
    project.ok(&["restart"]);
    assert_eq!(addresses(&project, "db"), ["10.89.0.20/24"]);
    assert_eq!(addresses(&project, "web"), ["10.89.0.10/24"]);
    for name in ["db", "postgres", "pg"] {
        assert_eq!(address_of(&project, "web", name), "10.89.0.20");
    }
    assert_eq!(address_of(&project, "db", "web"), "10.89.0.10");
    for machine in ["db", "web"] {
        assert_eq!(in_guest(&project, machine, "ip route show default"), "");
    }

    // With another subnet it is another network, until all have booted. The same end, and so the same address on this
    // computer, is no trouble.
    write(
        &project,
        r#"
        network "back" subnet="10.89.0.0/16"
        network "front"
        machine "db" { network "back" address="10.89.0.20"; }
        machine "web" { network "back" address="10.89.0.10"; network "front"; }
    "#,
    );
    project.ok(&["restart", "web"]);
    assert_eq!(addresses(&project, "web")[0], "10.89.0.10/16");
    assert_eq!(addresses(&project, "web").len(), 2);
    assert_eq!(addresses(&project, "db"), ["10.89.0.20/24"]);
    assert_eq!(address_of(&project, "web", "db"), "");
    assert_eq!(address_of(&project, "db", "web"), "");
    assert!(in_guest(&project, "web", "ip route show default").contains("default"));
    project.ok(&["restart", "db"]);
    assert_eq!(address_of(&project, "web", "db"), "10.89.0.20");
    assert_eq!(address_of(&project, "db", "web"), "10.89.0.10");
    assert_eq!(address_of(&project, "db", "postgres"), "");
    assert_eq!(files(&project).len(), 3, "{:?}", files(&project));

    // One machine is removed from the Machinefile, and its network is renamed.
    write(
        &project,
        r#"
        network "rear" subnet="10.89.0.0/16"
        machine "web" { network "rear"; }
    "#,
    );
    let plan = project.ok(&["plan"]).out;
    assert!(plan.contains("wanted rear 10.89."), "{plan}");
    project.ok(&["up"]);
    assert_eq!(address_of(&project, "web", "db"), "10.89.0.20");
    project.ok(&["destroy", "-y", "db"]);
    assert_eq!(address_of(&project, "web", "db"), "");
    assert_eq!(files(&project).len(), 2, "{:?}", files(&project));
    project.ok(&["restart"]);
    assert_eq!(addresses(&project, "web").len(), 1);
    assert_eq!(files(&project).len(), 1, "{:?}", files(&project));

    // Nothing is left of networks. Who edits first halts afterwards.
    write(&project, r#"machine "web""#);
    let plan = project.ok(&["plan"]).out;
    assert!(
        plan.contains("wanted none; `stead restart web` applies it"),
        "{plan}"
    );
    let state = state_file(&project);
    project.ok(&["halt"]);
    assert!(!state.exists());
    // It has a network of its own, as every machine without one.
    project.ok(&["up"]);
    assert_eq!(addresses(&project, "web"), [""; 0]);
    assert_eq!(files(&project).len(), 1, "{:?}", files(&project));
    project.ok(&["destroy", "-y"]);
    project.assert_gone("web");
}
