//! Refuses firmware and TPMs that a machine cannot have, before anything is made.

use crate::{
    boxes::Store,
    failure::Failure,
    host::paths::DataDir,
    hypervisor::FirmwareAbilities,
    machine::FirmwareSpec,
    machinefile::{
        Accel, Firmware, Kernel, KernelBoot, Machine, MachinefileError, MachinefileErrors,
    },
    plan::Plan,
    resolve::{Resolver, catalogues::Catalogues, firmware::is_loaded_by_qemu, lockfile::LockFile},
    session::{Session, invocation::Invocation, locate::load_project, target::Target},
};

/// Fails if one of these machines cannot have its firmware or its TPM. What the box of a machine needs is known only if
/// that is in the store.
pub fn check_firmware<'a>(
    session: &Session,
    targets: impl Iterator<Item = &'a Target>,
) -> Result<(), Failure> {
    let mut found: Option<(Accel, FirmwareAbilities)> = None;
    for target in targets {
        let machine = &target.wanted.machine;
        let firmware = wanted(target);
        if let Some(why) = wrong(session, target)? {
            return Err(why);
        }
        if firmware == FirmwareSpec::default() {
            continue;
        }
        let spec = target.wanted.spec.as_ref().map(|spec| spec.accel);
        let accel = spec.or(machine.accel).unwrap_or(Accel::Tcg);
        let abilities = match found {
            Some((of, abilities)) if of == accel => abilities,
            _ => session.connection.firmware_abilities(accel)?,
        };
        found = Some((accel, abilities));
        if let Some((node, lack, remedy)) = abilities.lack(&firmware) {
            let remedy = format!("install it, then run the same command again ({remedy})");
            return Err(refusal(machine, node, lack, &why(target, node), &remedy));
        }
    }
    Ok(())
}

/// Fails if a machine that the plan boots cannot have its firmware or its TPM.
pub fn need_firmware(session: &Session, targets: &[Target], plan: &Plan) -> Result<(), Failure> {
    let boots = |target: &&Target| {
        let name = &target.wanted.machine.name;
        (plan.machines.iter()).any(|machine| machine.machine == *name && machine.boots())
    };
    check_firmware(session, targets.iter().filter(boots))
}

/// Returns what the machines of this folder's project need of this computer together; `None` if there is no project that
/// can be read. A box counts if it is in the store.
pub fn needed_here(invocation: &Invocation, data: &DataDir) -> Option<FirmwareSpec> {
    let project = load_project(invocation).ok()?;
    let store = Store::open(data);
    let lock_file = LockFile::read(&project.root).ok()?;
    let catalogues = Catalogues::open(data, Some(&project)).ok()?;
    let resolver = Resolver {
        project: &project,
        data,
        store: &store,
        lock_file: &lock_file,
        catalogues: &catalogues,
    };
    let mut all = FirmwareSpec::default();
    for machine in &project.machines {
        let by_box = || {
            // A kernel that QEMU loads needs nothing of the disk.
            let by_qemu = |kernel: &Kernel| kernel.boot != KernelBoot::Installed;
            if machine.kernel.as_ref().is_some_and(by_qemu) {
                return None;
            }
            store.firmware_of(&resolver.wanted_box(machine).ok()?).ok()
        };
        if machine.firmware.or_else(by_box) == Some(Firmware::Uefi) {
            all.kind = Firmware::Uefi;
        }
        all.secure_boot |= machine.secure_boot;
        all.tpm |= machine.tpm;
    }
    Some(all)
}

/// What a machine is to boot by, as far as it is known.
fn wanted(target: &Target) -> FirmwareSpec {
    let machine = &target.wanted.machine;
    match &target.wanted.spec {
        Some(spec) => spec.firmware,
        None => FirmwareSpec {
            kind: machine.firmware.unwrap_or_default(),
            secure_boot: machine.secure_boot,
            tpm: machine.tpm,
        },
    }
}

/// Returns why a machine could not boot by what the Machinefile says.
fn wrong(session: &Session, target: &Target) -> Result<Option<Failure>, Failure> {
    let machine = &target.wanted.machine;
    let Some(stored) = &target.stored_box else {
        return Ok(None);
    };
    let spec = target.wanted.spec.as_ref();
    let name = &stored.manifest.name;
    if is_loaded_by_qemu(stored, spec.and_then(|it| it.kernel.as_ref())) {
        return Ok(machine.secure_boot.then(|| {
            refusal(
                machine,
                "secure-boot",
                "secure boot checks what the disk's bootloader starts",
                "but QEMU loads its kernel",
                "use a box with its own bootloader and no `kernel` (or `kernel boot=\"installed\"`), or remove `secure-boot`",
            )
        }));
    }
    // The guest may have got another bootloader since.
    let is_new = target.existing.observed.is_none();
    if machine.firmware == Some(Firmware::Bios)
        && is_new
        && session.store.needed_by_disk(stored)? == Firmware::Uefi
    {
        let why = format!("but the disk of its box {name} has no code that a BIOS can run");
        let hint = "remove `firmware`: stead chooses what the box needs";
        return Ok(Some(refusal(
            machine,
            "firmware",
            "a BIOS cannot boot it",
            &why,
            hint,
        )));
    }
    Ok(None)
}

/// Says for what a machine needs UEFI, if the Machinefile does not.
fn why(target: &Target, node: &str) -> String {
    let machine = &target.wanted.machine;
    match (&target.stored_box, machine.firmware) {
        (Some(stored), None) if node == "firmware" => {
            format!("but its box {} boots by UEFI only", stored.manifest.name)
        }
        _ => "but the Machinefile asks for it".into(),
    }
}

/// Returns the error at the place of a node, if the Machinefile has it.
fn refusal(machine: &Machine, node: &str, what: &str, why: &str, remedy: &str) -> Failure {
    let message = format!("machine {}: {what}, {why}", machine.name);
    match machine.spans.get(node) {
        Some(place) => {
            let error = MachinefileError::new(place, message, "here").help(remedy);
            Failure::Machinefile(Box::new(MachinefileErrors::new(vec![error])))
        }
        None => Failure::error(message, remedy),
    }
}
