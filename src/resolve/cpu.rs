//! The CPU of a machine with `cpu` like a captured host's.

use crate::{
    failure::Failure,
    hypervisor::{Connection, OtherCpu},
    kernel::{KernelStore, captured::facts_of},
    machine::{CpuSpec, Spec},
    machinefile::{CpuLike, Machine},
};

use super::Resolver;

/// Returns the CPU that libvirt gives a machine for a captured host's. `None`: this host's CPU.
pub fn wanted_cpu(
    resolver: Resolver<'_>,
    connection: &Connection,
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
    let store = KernelStore::open(resolver.data);
    let facts = match store.get(digest).and_then(|stored| match stored {
        Some(stored) => facts_of(&store, &stored),
        None => Ok(None),
    }) {
        Ok(Some(facts)) => facts,
        Ok(None) => {
            return Err(Failure::error(
                format!(
                    "{}: {} was not captured from a host, so it has no CPU",
                    cpu.at, kernel.source
                ),
                "remove `cpu`, or choose a captured kernel",
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
    connection
        .cpu_like(&machine.name, &other, cpu.like, spec.accel)
        .map(Some)
        .map_err(|error| at(error.into()))
}
