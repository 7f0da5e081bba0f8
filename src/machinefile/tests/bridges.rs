//! Networks that are bridges of the host.

use super::{loaded, project};
use crate::machinefile::Project;

fn read(text: &str) -> Project {
    let folder = project(&format!(
        "project \"shop\"\ndefaults {{ box \"b\"; }}\n{text}"
    ));
    loaded(folder.path()).unwrap()
}

#[test]
fn a_machine_has_cards_on_bridges_beside_its_networks() {
    let project = read(
        "network \"lan\" bridge=\"br0\"\nnetwork \"back\"\nnetwork \"dmz\" bridge=\"br-dmz.2\" isolated=#false\n\
         machine \"a\" { network \"dmz\"; network \"back\"; network \"lan\"; }\n\
         machine \"b\" count=2 { network \"lan\"; }\nmachine \"c\"\nmachine \"d\"",
    );
    // The bridges are no networks of stead's.
    let networks: Vec<&str> = (project.networks.iter())
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(networks, ["back", "default"]);
    let lines: Vec<String> = (project.machines.iter())
        .map(|machine| {
            let networks = machine.networks.iter().map(|it| it.name.clone());
            let bridges =
                (machine.bridges.iter()).map(|it| format!("{} is {}", it.network, it.interface));
            let all: Vec<String> = networks.chain(bridges).collect();
            format!("{}: {}", machine.name, all.join(", "))
        })
        .collect();
    assert_eq!(
        lines,
        [
            "a: back, lan is br0, dmz is br-dmz.2",
            "b-1: lan is br0",
            "b-2: lan is br0",
            "c: default",
            "d: default"
        ]
    );
    let span = project.machines[0].spans.bridge("lan").unwrap();
    assert_eq!(span.text(), "Machinefile:3:22");
}

/// Its login card leads out, as it does without networks.
#[test]
fn a_machine_on_a_bridge_is_not_isolated() {
    let of = |more: &str| {
        let text = format!(
            "network \"lan\" bridge=\"br0\"\nnetwork \"in\" isolated=#true\nmachine \"a\" {{ network \"in\"; {more} }}"
        );
        read(&text).machines[0].internet
    };
    assert!(!of(""));
    assert!(of("network \"lan\";"));
}

/// Machinefile.local of a computer whose bridge has another name.
#[test]
fn a_bridge_is_replaced_by_that_of_the_local_file() {
    let folder = project(
        "project \"shop\"\nnetwork \"lan\" bridge=\"br0\"\nmachine \"a\" { box \"b\"; network \"lan\"; }\n",
    );
    let local = folder.path().join(crate::machinefile::LOCAL);
    std::fs::write(local, "network \"lan\" bridge=\"br7\"\n").unwrap();
    let project = loaded(folder.path()).unwrap();
    assert_eq!(project.machines[0].bridges[0].interface, "br7");
}

/// stead would see nothing of what passes there.
#[test]
fn a_machine_that_may_not_reach_all_has_no_card_on_a_bridge() {
    for limit in [
        "egress { allow \"a.test\"; }",
        "host-access tcp=1",
        "internet #false",
    ] {
        let folder = project(&format!(
            "project \"shop\"\nnetwork \"lan\" bridge=\"br0\"\nmachine \"a\" {{ box \"b\"; network \"lan\"; {limit}; }}\n"
        ));
        let errors = loaded(folder.path()).unwrap_err();
        assert_eq!(errors.count(), 1, "{limit}: {errors}");
    }
}
