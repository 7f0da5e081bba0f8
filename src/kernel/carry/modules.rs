//! Which modules of a captured host a machine loads.

use std::collections::BTreeMap;

use super::{
    super::facts::Facts,
    setting::{Carried, CarriedSetting, Decision, Subject},
};

const DRIVER: &str = "drives hardware that a machine may not have";
pub(super) const ONLY_FOR_DRIVERS: &str = "is used only by hardware drivers";
const FOREIGN: &str =
    "is not among the kernel's modules: it was built there, or comes from another package";
const FIRMWARE: &str = "is for firmware that a machine does not have";

/// Modules that no device requests, but that need firmware.
const NEEDS_FIRMWARE: [&str; 6] = [
    "efivarfs",
    "efi_pstore",
    "efivars",
    "ipmi_devintf",
    "ipmi_msghandler",
    "nvram",
];

/// Returns why a module may be loaded on one side only without meaning anything; `None` if the difference
/// matters.
pub fn module_difference(
    name: &str,
    loaded: &BTreeMap<String, Vec<String>>,
    facts: &Facts,
) -> Option<&'static str> {
    fn of(
        name: &str,
        loaded: &BTreeMap<String, Vec<String>>,
        facts: &Facts,
        depth: u32,
    ) -> Option<&'static str> {
        if facts.foreign.contains(name) {
            return Some(FOREIGN);
        }
        if NEEDS_FIRMWARE.contains(&name) {
            return Some(FIRMWARE);
        }
        if facts.hardware.contains(name) {
            return Some(DRIVER);
        }
        let users = loaded.get(name)?;
        // Chains of users are short; the limit only stops made-up ones.
        let for_drivers = depth < 20
            && !users.is_empty()
            && users
                .iter()
                .all(|user| of(user, loaded, facts, depth + 1).is_some());
        for_drivers.then_some(ONLY_FOR_DRIVERS)
    }
    of(name, loaded, facts, 0)
}

/// Decides on the modules that are loaded on the host.
pub(super) fn modules(facts: &Facts, carried: &mut Carried) {
    for (name, users) in &facts.modules {
        let why = module_difference(name, &facts.modules, facts);
        carried.rows.push(CarriedSetting {
            subject: Subject::Module,
            name: name.clone(),
            there: "loaded".into(),
            here: why.is_none().then(|| "loaded".into()),
            verdict: if why.is_none() {
                Decision::Kept
            } else {
                Decision::Dropped
            },
            why: why.unwrap_or(""),
            set: false,
        });
        // Modules with users are loaded along with them.
        if why.is_none() && users.is_empty() {
            carried.modules.push(name.clone());
        }
    }
}
