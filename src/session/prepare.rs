//! Gets everything that machines need before it changes any of them.

use crate::{
    failure::Failure,
    kernel::KernelStore,
    log,
    machinefile::{CpuLike, KernelSource},
    plan::{Plan, Step},
    report::{Event, EventKind},
    resolve::{
        box_fetch::fetch,
        box_pins::pinned,
        kernel::{find, no_bootloader, placed, take},
        request::{BoxRequest, box_request},
    },
    session::operation::Operation,
};

/// Fetches missing boxes of machines. Returns whether any was missing.
pub fn fetch_missing(operation: &mut Operation, machines: &[String]) -> Result<bool, Failure> {
    let mut missing: Vec<BoxRequest> = Vec::new();
    for target in &operation.targets {
        let machine = &target.wanted.machine;
        if target.leftover || target.stored_box.is_some() || !machines.contains(&machine.name) {
            continue;
        }
        if let Some(wanted) = box_request(operation.session.resolver(), machine)?
            && !missing.iter().any(|other| other.key == wanted.key)
        {
            missing.push(wanted);
        }
    }
    if missing.is_empty() {
        return Ok(false);
    }
    log::keep();
    fetch(
        &operation.session.store,
        &operation.session.data,
        missing,
        &operation.reporter,
    )?;
    Ok(true)
}

/// Pins the project's boxes and kernels.
pub fn pin(operation: &mut Operation) -> Result<(), Failure> {
    let session = &operation.session;
    let lock = pinned(session.resolver())?;
    if lock != session.lock_file {
        let (root, locks) = (&session.project.root, session.data.locks());
        operation.session.lock_file = lock.save(&session.lock_file, root, &locks)?;
    }
    Ok(())
}

/// Imports missing kernels of machines that will be made or booted. Returns whether any was missing.
pub fn take_missing(operation: &Operation, machines: &[String]) -> Result<bool, Failure> {
    let store = KernelStore::open(&operation.session.data);
    let mut any = false;
    for target in &operation.targets {
        let machine = &target.wanted.machine;
        let (Some(kernel), Some(stored)) = (&machine.kernel, &target.stored_box) else {
            continue;
        };
        if target.leftover || !machines.contains(&machine.name) {
            continue;
        }
        if let Some(failure) = no_bootloader(kernel, machine, stored) {
            return Err(failure);
        }
        let here = find(operation.session.resolver(), kernel, stored)
            .map_err(|error| placed(kernel, machine, error))?;
        if here.is_some() || kernel.source == KernelSource::Box {
            continue;
        }
        log::keep();
        take(
            operation.session.resolver(),
            &store,
            &operation.reporter,
            machine,
            kernel,
            stored,
        )
        .map_err(|error| placed(kernel, machine, error))?;
        any = true;
    }
    Ok(any)
}

/// Fails if a machine that the plan makes or boots has no kernel. Runs before anything is defined.
pub fn need_kernels(operation: &Operation, plan: &Plan) -> Result<(), Failure> {
    for machine in plan.machines.iter().filter(|machine| machine.boots()) {
        if let Some(target) = operation
            .targets
            .iter()
            .find(|target| target.wanted.machine.name == machine.machine)
            && let Some(failure) = &target.no_kernel
        {
            return Err(failure.clone());
        }
    }
    Ok(())
}

/// Reports what a machine's CPU lacks compared with the captured one.
pub fn say_cpus(operation: &Operation, plan: &Plan) {
    for machine in &plan.machines {
        let cpu = machine.steps.iter().find_map(|step| match step {
            Step::Define { spec, .. } => spec.cpu.as_ref(),
            _ => None,
        });
        let Some(cpu) = cpu.filter(|cpu| cpu.like == CpuLike::Nearest) else {
            continue;
        };
        let mut lacks: Vec<String> = cpu.missing.iter().cloned().collect();
        if let Some(vendor) = &cpu.vendor {
            lacks.insert(0, format!("the vendor {vendor}"));
        }
        let lacks = match lacks.as_slice() {
            [] => "has all of its features that a machine can have".to_string(),
            lacks => format!("lacks {}", lacks.join(", ")),
        };
        operation.reporter.event(&Event::now(
            &machine.machine,
            EventKind::Notice {
                message: format!(
                    "the CPU that is nearest to the captured one, {}, {lacks}",
                    cpu.model
                ),
            },
        ));
    }
}

/// Fails if a machine that the plan makes or boots cannot have its shared folders. Runs before
/// anything is defined.
pub fn need_shares(operation: &Operation, plan: &Plan) -> Result<(), Failure> {
    for machine in plan.machines.iter().filter(|machine| machine.boots()) {
        let target =
            (operation.targets.iter()).find(|target| target.wanted.machine.name == machine.machine);
        let Some(target) = target else { continue };
        if let Some(failure) = &target.no_share {
            return Err(failure.clone());
        }
        for line in &target.share_notes {
            operation.reporter.event(&Event::now(
                &machine.machine,
                EventKind::Notice {
                    message: line.clone(),
                },
            ));
        }
    }
    Ok(())
}
