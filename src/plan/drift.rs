//! Compares machines with their Machinefile, and says how each difference can be applied.

use std::collections::HashMap;

use serde::Serialize;

use crate::{
    machine::Spec,
    machinefile::{Forward, ForwardRange, port_list},
};

use super::{
    tuning::{self, LiveSetting},
    wanted::WantedMachine,
};

/// How a change can be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// `stead up` applies it to the machine that runs.
    Live,
    /// `stead restart` applies it.
    NextBoot,
    /// Only a new machine gets it: `stead destroy`, then `stead up`.
    Replace,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// The Machinefile's name for it.
    pub what: &'static str,
    pub is: String,
    pub wanted: String,
    pub takes: Change,
}

/// A difference, and how it can be applied.
pub(super) struct Difference {
    pub what: &'static str,
    pub is: String,
    pub wanted: String,
    pub takes: Takes,
}

/// How a change can be applied, and for [`Change::Live`] which setting changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Live(LiveSetting),
    NextBoot,
    Replace,
}

impl From<Difference> for Drift {
    fn from(difference: Difference) -> Self {
        Drift {
            what: difference.what,
            is: difference.is,
            wanted: difference.wanted,
            takes: match difference.takes {
                Takes::Live(_) => Change::Live,
                Takes::NextBoot => Change::NextBoot,
                Takes::Replace => Change::Replace,
            },
        }
    }
}

/// Returns all differences between `has` and what is wanted.
pub fn drift(wanted: &WantedMachine, has: &Spec) -> Vec<Drift> {
    differences(wanted, has)
        .into_iter()
        .map(Drift::from)
        .collect()
}

/// As [`drift`], with the settings that can change live.
pub(super) fn differences(wanted: &WantedMachine, has: &Spec) -> Vec<Difference> {
    let mut found = Vec::new();
    let Some(want) = &wanted.spec else {
        return found;
    };
    let mut check = |what, is: String, wanted: String, takes| {
        if is != wanted {
            found.push(Difference {
                what,
                is,
                wanted,
                takes,
            });
        }
    };
    use Takes::{Live, NextBoot, Replace};
    check(
        "cpus",
        has.cpus.to_string(),
        want.cpus.to_string(),
        NextBoot,
    );
    check(
        "memory",
        has.memory.to_string(),
        want.memory.to_string(),
        if tuning::memory_is_live(has, want) {
            Live(LiveSetting::Memory)
        } else {
            NextBoot
        },
    );
    check(
        "kernel",
        kernel(has),
        kernel(want),
        if stays(has, want) { Replace } else { NextBoot },
    );
    // Another kernel covers the other differences of kernels.
    let by = |spec: &Spec| {
        (spec.kernel.as_ref()).map_or((true, false), |it| (it.is_the_boxs(), it.installed))
    };
    if by(has) == by(want) {
        check("cmdline", cmdline(has), cmdline(want), NextBoot);
    }
    check(
        "firmware",
        has.firmware.kind.to_string(),
        want.firmware.kind.to_string(),
        NextBoot,
    );
    let yes_or_no = |is: bool| format!("#{is}");
    check(
        "secure-boot",
        yes_or_no(has.firmware.secure_boot),
        yes_or_no(want.firmware.secure_boot),
        NextBoot,
    );
    check(
        "tpm",
        yes_or_no(has.firmware.tpm),
        yes_or_no(want.firmware.tpm),
        NextBoot,
    );
    for (what, is, wanted, takes) in tuning::compare(has, want) {
        check(what, is, wanted, takes);
    }
    check("cpu", cpu(has), cpu(want), NextBoot);
    let both = |is: fn(&Spec) -> bool| is(has) && is(want);
    let is_led = both(|it| it.login_card.is_some());
    check(
        "forward",
        forwards(&as_wanted(&has.forwards, &want.forwards)),
        forwards(&want.forwards),
        match is_led {
            true => Live(LiveSetting::Forwards),
            false => NextBoot,
        },
    );
    check("network", cards(has), cards(want), NextBoot);
    let internet = |spec: &Spec| format!("#{}", spec.internet);
    // Where what leaves the machine passes a network, that is told what the machine may reach.
    // A guest takes its default route when it asks for its address.
    let takes = match both(|it| it.egress.is_some()) || (is_led && want.egress.is_none()) {
        true => Live(LiveSetting::Egress),
        false => NextBoot,
    };
    check("internet", internet(has), internet(want), takes);
    let is_guarded = has.egress.is_some() || want.egress.is_some();
    if names_destinations(has) || names_destinations(want) || (is_guarded && !is_led) {
        check("egress", destinations(has), destinations(want), takes);
        check("host-access", host_ports(has), host_ports(want), takes);
    }
    check("sync", shares(has), shares(want), NextBoot);
    if wanted.machine.accel.is_some() {
        check(
            "accel",
            has.accel.to_string(),
            want.accel.to_string(),
            NextBoot,
        );
    }
    if has.box_digest != want.box_digest {
        check("box", name_of(has), name_of(want), Replace);
    }
    check("disk", has.disk.to_string(), want.disk.to_string(), Replace);
    check(
        "hostname",
        has.hostname.clone(),
        want.hostname.clone(),
        Replace,
    );
    check("user", or_box(&has.user), or_box(&want.user), Replace);
    if has.user_data != want.user_data {
        check(
            "user-data",
            short(&has.user_data),
            short(&want.user_data),
            Replace,
        );
    }
    found
}

/// Returns `has`, with everything that a boot can change as wanted.
pub(super) fn after_boot(has: &Spec, wanted: &WantedMachine) -> Spec {
    let mut spec = has.clone();
    if let Some(want) = &wanted.spec {
        spec.cpus = want.cpus;
        spec.memory = want.memory;
        spec.forwards = want.forwards.clone();
        spec.internet = want.internet;
        spec.egress = want.egress.clone();
        spec.cards = want.cards.clone();
        spec.bridges = want.bridges.clone();
        spec.shares = want.shares.clone();
        if !stays(has, want) {
            spec.kernel = want.kernel.clone();
        }
        spec.firmware = want.firmware;
        spec.tuning = tuning::after_boot(has, want);
        spec.cpu = want.cpu.clone();
        if wanted.machine.accel.is_some() {
            spec.accel = want.accel;
        }
    }
    spec
}

/// Whether the guest still boots an installed kernel after the Machinefile no longer wants one: the kernel stays on the
/// machine's disk.
fn stays(has: &Spec, want: &Spec) -> bool {
    has.kernel.as_ref().is_some_and(|kernel| kernel.installed) && want.kernel.is_none()
}

/// Returns `has`, without what is no difference: another port where the Machinefile allows one, and whether it does.
fn as_wanted(has: &[Forward], want: &[Forward]) -> Vec<Forward> {
    let wanted: HashMap<_, &Forward> = (want.iter()).map(|it| (it.host_port(), it)).collect();
    (has.iter())
        .map(|forward| {
            let declared = forward.as_declared();
            let found = wanted.get(&declared.host_port());
            let found = found.filter(|it| it.guest == forward.guest);
            match found {
                Some(want) if want.auto_correct || forward.instead_of.is_none() => (*want).clone(),
                _ => forward.clone(),
            }
        })
        .collect()
}

fn forwards(forwards: &[Forward]) -> String {
    let list: Vec<String> = (ForwardRange::all_of(forwards).iter())
        .map(ToString::to_string)
        .collect();
    if list.is_empty() {
        "none".into()
    } else {
        list.join(", ")
    }
}

fn cards(spec: &Spec) -> String {
    let bridges =
        (spec.bridges.iter()).map(|card| format!("{} on bridge {}", card.network, card.interface));
    let list: Vec<String> = (spec.cards.iter())
        .map(|card| {
            let mut text = format!("{} {} of {}", card.network, card.address, card.subnet);
            if !card.aliases.is_empty() {
                text.push_str(&format!(" ({})", card.aliases.join(", ")));
            }
            text
        })
        .chain(bridges)
        .collect();
    if list.is_empty() {
        "none".into()
    } else {
        list.join(", ")
    }
}

/// Whether the Machinefile names what the machine may reach.
fn names_destinations(spec: &Spec) -> bool {
    (spec.egress.as_ref()).is_some_and(|it| it.allow.is_some() || !it.host_tcp.is_empty())
}

/// Returns what a machine may reach outside.
fn destinations(spec: &Spec) -> String {
    match (spec.egress.as_ref()).and_then(|egress| egress.allow.as_ref()) {
        _ if !spec.internet => "nothing".into(),
        None => "everything".into(),
        Some(allow) => {
            let list: Vec<String> = allow.iter().map(ToString::to_string).collect();
            list.join(", ")
        }
    }
}

fn host_ports(spec: &Spec) -> String {
    match &spec.egress {
        None if spec.internet => "all ports".into(),
        Some(egress) if !egress.host_tcp.is_empty() => port_list(&egress.host_tcp),
        None | Some(_) => "no port".into(),
    }
}

/// Returns shared folders. Copied ones are not part of the domain.
fn shares(spec: &Spec) -> String {
    let list: Vec<String> = spec.shares.iter().map(ToString::to_string).collect();
    if list.is_empty() {
        "no shared folder".into()
    } else {
        list.join(", ")
    }
}

fn kernel(spec: &Spec) -> String {
    spec.kernel
        .as_ref()
        .map_or_else(|| "the box's".into(), ToString::to_string)
}

fn cmdline(spec: &Spec) -> String {
    match &spec.kernel {
        Some(kernel) if kernel.installed && kernel.cmdline.is_empty() && !kernel.replaces => {
            "the guest's own".into()
        }
        Some(kernel) if kernel.installed && !kernel.replaces => {
            format!("the guest's own and {:?}", kernel.cmdline)
        }
        Some(kernel) => format!("{:?}", kernel.cmdline),
        None => "the box's".into(),
    }
}

fn cpu(spec: &Spec) -> String {
    spec.cpu
        .as_ref()
        .map_or_else(|| "host".into(), ToString::to_string)
}

fn name_of(spec: &Spec) -> String {
    let digest = spec.box_digest.trim_start_matches("sha256:");
    format!(
        "{} {} ({})",
        spec.box_name,
        spec.box_version,
        digest.get(..12).unwrap_or(digest)
    )
}

fn or_box(user: &Option<String>) -> String {
    user.clone().unwrap_or_else(|| "the box's".into())
}

fn short(digest: &Option<String>) -> String {
    match digest {
        None => "none".into(),
        Some(digest) => digest.get(..12).unwrap_or(digest).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::ports::Protocol,
        machine::{KernelSpec, Phase, Power},
        network::Egress,
        plan::{
            Existing, Plan, Step, install_kernel,
            tests::{existing, one, wanted},
            up,
        },
    };

    fn installed(cmdline: &str) -> KernelSpec {
        KernelSpec {
            source: "package linux-image-6.12".into(),
            digest: Some("sha256:0123456789abcdef".into()),
            release: Some("6.12.1".into()),
            cmdline: cmdline.into(),
            installed: true,
            replaces: false,
            root: None,
        }
    }

    /// A machine that wants `want` and has `has`.
    fn with_kernels(
        want: Option<KernelSpec>,
        has: Option<KernelSpec>,
        power: Power,
        ready: bool,
    ) -> Plan {
        let mut web = wanted("web", &[]);
        web.provisioners.clear();
        web.spec.as_mut().unwrap().kernel = want;
        let mut is = existing("web", Phase::Created, power, ready);
        is.observed.as_mut().unwrap().record.spec.kernel = has;
        up(&[(web, is)])
    }

    #[test]
    fn another_bridge_takes_a_boot() {
        let bridge = |interface: &str| crate::machine::BridgeCard {
            network: "lan".into(),
            interface: interface.into(),
            mac: crate::network::Mac([0x52, 0x54, 0, 0, 0, 1]),
        };
        let of = |has: &[&str], want: &[&str]| -> Vec<String> {
            let cards = |names: &[&str]| names.iter().map(|it| bridge(it)).collect();
            let mut web = wanted("web", &[]);
            let mut is = web.spec.clone().unwrap();
            is.bridges = cards(has);
            web.spec.as_mut().unwrap().bridges = cards(want);
            assert_eq!(
                after_boot(&is, &web).bridges,
                cards(want) as Vec<crate::machine::BridgeCard>
            );
            (drift(&web, &is).iter())
                .map(|it| {
                    assert_eq!((it.what, it.takes), ("network", Change::NextBoot));
                    format!("{} → {}", it.is, it.wanted)
                })
                .collect()
        };
        assert_eq!(of(&["br0"], &["br0"]), [""; 0]);
        assert_eq!(of(&[], &["br0"]), ["none → lan on bridge br0"]);
        assert_eq!(of(&["br0"], &[]), ["lan on bridge br0 → none"]);
        assert_eq!(
            of(&["br0"], &["br1"]),
            ["lan on bridge br0 → lan on bridge br1"]
        );
    }

    #[test]
    fn other_firmware_takes_a_boot() {
        use crate::{machine::FirmwareSpec, machinefile::Firmware};
        let mut web = wanted("web", &[]);
        let is = web.spec.clone().unwrap();
        let firmware = FirmwareSpec {
            kind: Firmware::Uefi,
            secure_boot: true,
            tpm: true,
        };
        web.spec.as_mut().unwrap().firmware = firmware;
        let said: Vec<String> = (drift(&web, &is).iter())
            .map(|it| {
                assert_eq!(it.takes, Change::NextBoot);
                format!("{}: {} → {}", it.what, it.is, it.wanted)
            })
            .collect();
        assert_eq!(
            said,
            [
                "firmware: bios → uefi",
                "secure-boot: #false → #true",
                "tpm: #false → #true"
            ]
        );
        assert_eq!(after_boot(&is, &web).firmware, firmware);
    }

    #[test]
    fn a_kernel_is_installed_once_the_guest_answers() {
        let mut web = wanted("web", &[]);
        web.spec.as_mut().unwrap().kernel = Some(installed(""));
        assert_eq!(
            one(&up(&[(web, Existing::default())])),
            "web after []: box define disk seed start reach kernel:install provision:app provision:hello ready"
        );
        let step = install_kernel(&installed("")).unwrap();
        assert_eq!(
            (step.describe().as_str(), step.doing().as_str()),
            (
                "install kernel 6.12.1 in the guest and boot it, unless it runs",
                "checking kernel 6.12.1"
            )
        );
        let with = |power, ready| {
            one(&with_kernels(
                Some(installed("")),
                Some(installed("")),
                power,
                ready,
            ))
        };
        assert_eq!(
            with(Power::Off, false),
            "web after []: box define seed start reach kernel:install ready"
        );
        assert_eq!(
            with(Power::Running, false),
            "web after []: reach kernel:install ready"
        );
        assert_eq!(with(Power::Running, true), "web after []: ");
    }

    #[test]
    fn what_a_running_machine_was_defined_with_is_installed() {
        let plan = |want, has| one(&with_kernels(want, has, Power::Running, false));
        assert_eq!(
            plan(Some(installed("")), None),
            "web after []: reach ready; drift kernel"
        );
        assert_eq!(
            plan(Some(installed("a")), Some(installed(""))),
            "web after []: reach kernel:install ready; drift cmdline"
        );
    }

    #[test]
    fn a_kernel_that_is_installed_does_not_go_by_itself() {
        let plan = with_kernels(None, Some(installed("a")), Power::Off, false);
        assert_eq!(
            one(&plan),
            "web after []: box define seed start reach kernel:install ready; drift kernel"
        );
        let drift = &plan.machines[0].drift[0];
        assert_eq!(drift.takes, Change::Replace);
        assert_eq!(
            format!("{} → {}", drift.is, drift.wanted),
            "6.12.1 (package linux-image-6.12, 0123456789ab, installed) → the box's"
        );
        // A kernel that QEMU loads replaces it.
        let direct = KernelSpec {
            installed: false,
            ..installed("ro")
        };
        assert_eq!(
            one(&with_kernels(
                Some(direct),
                Some(installed("a")),
                Power::Off,
                false
            )),
            "web after []: box define seed start reach ready"
        );
    }

    #[test]
    fn options_of_a_kernel_that_is_installed_stand_beside_the_guests() {
        let plan = with_kernels(
            Some(installed("a=1")),
            Some(installed("")),
            Power::Running,
            true,
        );
        let drift = &plan.machines[0].drift[0];
        assert_eq!(
            (drift.is.as_str(), drift.wanted.as_str(), drift.takes),
            (
                "the guest's own",
                "the guest's own and \"a=1\"",
                Change::NextBoot
            )
        );
    }

    fn with_forwards(want: &[Forward], has: &[Forward]) -> Option<String> {
        let mut web = wanted("web", &[]);
        web.provisioners.clear();
        web.spec.as_mut().unwrap().forwards = want.to_vec();
        let mut is = existing("web", Phase::Created, Power::Running, true);
        let spec = &mut is.observed.as_mut().unwrap().record.spec;
        spec.forwards = has.to_vec();
        let found = drift(&web, spec);
        assert!(found.iter().all(|it| it.takes == Change::NextBoot));
        let found = found.first()?;
        Some(format!("{} → {}", found.is, found.wanted))
    }

    #[test]
    fn another_port_is_no_drift_where_the_machinefile_allows_one() {
        let plain = Forward::tcp(8080, 80);
        let near = Forward {
            auto_correct: true,
            ..plain.clone()
        };
        let moved = near.moved_to(8083);
        let with = |want: &Forward, has: &Forward| {
            with_forwards(std::slice::from_ref(want), std::slice::from_ref(has))
        };
        assert_eq!(with(&near, &moved), None);
        assert_eq!(with(&near, &near), None);
        // Whether another port would be allowed makes no difference to a machine that has its own.
        assert_eq!(with(&near, &plain), None);
        assert_eq!(with(&plain, &near), None);
        assert_eq!(with(&plain, &moved).as_deref(), Some("8083→80 → 8080→80"));
        let other = Forward {
            guest: 81,
            ..near.clone()
        };
        assert_eq!(with(&other, &moved).as_deref(), Some("8083→80 → 8080→81"));
        let several = [near.clone(), Forward::tcp(9000, 9000)];
        assert_eq!(
            with_forwards(&several, &[moved]).as_deref(),
            Some("8080→80 → 8080→80, 9000→9000")
        );
    }

    #[test]
    fn what_a_guarded_machine_may_reach_changes_while_it_runs() {
        let egress = |allow: Option<&[&str]>, host_tcp: &[u16]| {
            let allow = allow.map(|names| names.iter().map(|name| name.parse().unwrap()).collect());
            Some(Egress {
                allow,
                host_tcp: host_tcp.to_vec(),
            })
        };
        type Reach = (bool, Option<Egress>);
        let with = |has: &Reach, want: &Reach| {
            let mut web = wanted("web", &[]);
            web.provisioners.clear();
            let spec = web.spec.as_mut().unwrap();
            (spec.internet, spec.egress) = want.clone();
            let mut is = existing("web", Phase::Created, Power::Running, true);
            let spec = &mut is.observed.as_mut().unwrap().record.spec;
            (spec.internet, spec.egress) = has.clone();
            let plan = up(&[(web, is)]);
            let machine = plan.machines[0].clone();
            let mut lines: Vec<String> = machine.steps.iter().map(Step::describe).collect();
            if let Some(spec) = plan.tunes("web") {
                assert_eq!((spec.internet, spec.egress.clone()), *want);
            }
            lines.extend(machine.drift.iter().map(|drift| {
                assert_eq!(drift.takes, Change::NextBoot);
                format!("restart: {} {} → {}", drift.what, drift.is, drift.wanted)
            }));
            lines
        };
        let open = (true, None);
        let shut = (false, None);
        let some = (true, egress(Some(&["a.test", "*.b"]), &[1, 2, 5]));
        let other = (true, egress(Some(&["a.test"]), &[]));
        let all = (true, egress(None, &[]));
        let host_only = (false, egress(Some(&[]), &[1]));
        assert_eq!(with(&some, &some), [""; 0]);
        assert_eq!(
            with(&some, &other),
            ["change while it runs: egress a.test, *.b → a.test, host-access 1-2, 5 → no port"]
        );
        assert_eq!(
            with(&all, &other),
            ["change while it runs: egress everything → a.test"]
        );
        assert_eq!(
            with(&some, &host_only),
            [
                "change while it runs: internet #true → #false, egress a.test, *.b → nothing, host-access 1-2, 5 → 1"
            ]
        );
        assert_eq!(
            with(&open, &some),
            [
                "restart: egress everything → a.test, *.b",
                "restart: host-access all ports → 1-2, 5"
            ]
        );
        assert_eq!(
            with(&all, &open),
            ["restart: host-access no port → all ports"]
        );
        assert_eq!(
            with(&shut, &host_only),
            ["restart: host-access no port → 1"]
        );
        assert_eq!(with(&shut, &open), ["restart: internet #false → #true"]);
    }

    #[test]
    fn protocol_and_address_are_drift() {
        let udp = Forward {
            protocol: Protocol::Udp,
            ..Forward::tcp(5353, 53)
        };
        let public = Forward {
            address: [0, 0, 0, 0].into(),
            ..Forward::tcp(5353, 53)
        };
        let tcp = [Forward::tcp(5353, 53)];
        assert_eq!(
            with_forwards(&[udp], &tcp).as_deref(),
            Some("5353→53 → 5353→53/udp")
        );
        assert_eq!(
            with_forwards(&[public], &tcp).as_deref(),
            Some("5353→53 → 0.0.0.0:5353→53")
        );
    }
}
