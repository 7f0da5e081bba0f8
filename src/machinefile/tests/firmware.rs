//! What machines boot by, as the Machinefile says it.

use super::*;

fn meant(text: &str) -> (Option<Firmware>, bool, bool) {
    let folder = project(&format!("project \"shop\"\n{text}"));
    match loaded(folder.path()) {
        Ok(project) => {
            let machine = &project.machines[0];
            (machine.firmware, machine.secure_boot, machine.tpm)
        }
        Err(errors) => panic!("{}", rendered(&errors, folder.path())),
    }
}

#[test]
fn a_machine_boots_by_what_it_names() {
    use Firmware::{Bios, Uefi};
    for (defaults, machine, wanted) in [
        ("", "", (None, false, false)),
        (
            "",
            "firmware \"bios\"; tpm #true",
            (Some(Bios), false, true),
        ),
        (
            "",
            "firmware \"uefi\"; secure-boot #false",
            (Some(Uefi), false, false),
        ),
        ("", "secure-boot #true", (Some(Uefi), true, false)),
        ("firmware \"bios\"", "", (Some(Bios), false, false)),
        (
            "secure-boot #true; tpm #true",
            "firmware \"bios\"; secure-boot #false",
            (Some(Bios), false, true),
        ),
    ] {
        let text = format!("defaults {{ {defaults} }}\nmachine \"m\" {{ box \"b\"; {machine} }}");
        assert_eq!(meant(&text), wanted, "{text}");
    }
}

#[test]
fn what_cannot_be_is_said_where_it_stands() {
    let folder = project(
        "project \"shop\"\nmachine \"m\" {\n    box \"b\"\n    firmware \"bios\"\n    secure-boot #true\n}\n\
         machine \"n\" {\n    box \"b\"\n    firmware \"efi\"\n    tpm \"2.0\"\n}\n",
    );
    let errors = loaded(folder.path()).unwrap_err();
    let said = rendered(&errors, folder.path());
    for words in [
        "machine \"m\" boots by a BIOS, which has no secure boot",
        "write firmware \"uefi\", or remove `secure-boot`",
        "\"uefi\" or \"bios\"",
        "`tpm` takes #true or #false",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
