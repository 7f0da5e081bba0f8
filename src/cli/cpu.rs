//! The CPU of a machine that is to have one like a captured host's.

use crate::{
    hypervisor::OtherCpu,
    kernel::{KernelStore, captured::facts_of},
    machine::{CpuSpec, Spec},
    machinefile::{CpuLike, Machine},
    plan::{Plan, Step},
    report::{Event, EventKind},
};

use super::{Failure, session::Session, work::Work};

/// What libvirt gives a machine of its captured host's CPU. `None` where it is to have the host's.
pub fn wanted_cpu(
    session: &Session,
    machine: &Machine,
    spec: &Spec,
) -> Result<Option<CpuSpec>, Failure> {
    let (Some(cpu), Some(kernel)) = (&machine.cpu, &spec.kernel) else {
        return Ok(None);
    };
    let (CpuLike::Exact | CpuLike::Nearest, Some(digest)) = (cpu.like, &kernel.digest) else {
        return Ok(None);
    };
    let at = |failure: Failure| match failure {
        Failure::Error { message, hint } => Failure::Error {
            message: format!("{}: {message}", cpu.at),
            hint,
        },
        other => other,
    };
    let store = KernelStore::open(&session.data);
    let facts = match store.get(digest).and_then(|stored| match stored {
        Some(stored) => facts_of(&store, &stored),
        None => Ok(None),
    }) {
        Ok(Some(facts)) => facts,
        Ok(None) => {
            return Err(Failure::error(
                format!(
                    "{}: {} was not captured of a host, so it has no CPU",
                    cpu.at, kernel.source
                ),
                "leave `cpu` out",
            ));
        }
        Err(error) => return Err(at(error.into())),
    };
    let other = OtherCpu {
        vendor: &facts.cpu.vendor,
        family: &facts.cpu.family,
        model: &facts.cpu.model,
        stepping: &facts.cpu.stepping,
        flags: &facts.cpu.flags,
    };
    session
        .connection
        .cpu_like(&machine.name, &other, cpu.like, spec.accel)
        .map(Some)
        .map_err(|error| at(error.into()))
}

/// Says what a machine's CPU lacks, where it is only the nearest.
pub fn say_cpus(work: &Work, plan: &Plan) {
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
            [] => "lacks nothing of it that a machine can have".to_string(),
            lacks => format!("lacks {}", lacks.join(", ")),
        };
        work.reporter.event(&Event::now(
            &machine.machine,
            EventKind::Notice {
                message: format!(
                    "the CPU nearest to the captured one, {}, {lacks}",
                    cpu.model
                ),
            },
        ));
    }
}
