//! `stead resources`: prints what the host has, and what machines reserve and use.

use std::{collections::HashMap, process::ExitCode};

use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    failure::Failure,
    hypervisor::{LARGEST_TCG_CACHE, Statistics},
    machine::Observed,
    report::{Table, bytes, warn},
    resources::{Capacity, HostShare, Unreserved, ledger},
    session::{
        admission::host_and_kept,
        invocation::Invocation,
        locate::{connect, load_project},
    },
};

use super::{output, status::state};

#[derive(Args)]
pub(super) struct ResourcesArgs {}

#[derive(Serialize)]
struct Report {
    connect: String,
    host: HostRow,
    machines: Vec<Row>,
}

#[derive(Serialize)]
struct HostRow {
    cpus: u32,
    kept_cpus: u32,
    reserved_cpus: u32,
    free_cpus: u32,
    memory_bytes: u64,
    kept_memory_bytes: u64,
    reserved_memory_bytes: u64,
    used_memory_bytes: u64,
    /// Memory that can still be reserved now.
    free_memory_bytes: u64,
}

#[derive(Serialize)]
struct Row {
    project: String,
    machine: String,
    state: &'static str,
    cpus: u32,
    reserved_cpus: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pin: Option<String>,
    memory_bytes: u64,
    /// Includes QEMU's own needs.
    reserved_memory_bytes: u64,
    /// The resident memory of QEMU.
    used_memory_bytes: u64,
    limits: Vec<String>,
}

pub(super) fn run(invocation: &Invocation, _args: ResourcesArgs) -> Result<ExitCode, Failure> {
    // This is about the whole host. A project in this folder only says how much to leave to the host.
    let project = load_project(invocation).ok();
    let connection = connect(invocation, None)?;
    let survey = connection.survey()?;
    for unreadable in &survey.unreadable {
        warn(&unreadable.error.to_string());
    }
    let (host, kept) = host_and_kept(project.as_ref())?;
    let used: HashMap<Uuid, Statistics> = connection
        .statistics()?
        .into_iter()
        .map(|statistics| (statistics.uuid, statistics))
        .collect();
    let mut machines = survey.machines;
    machines.sort_by(|a, b| {
        (&a.record.project, &a.record.machine).cmp(&(&b.record.project, &b.record.machine))
    });
    let report = report(&connection.uri().uri, &host, &kept, &machines, &|uuid| {
        used.get(uuid).map_or(0, |statistics| statistics.resident)
    });
    if invocation.style.json {
        output::json(&report)?;
    } else {
        output::data(&table(&report, output::width()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(
    uri: &str,
    host: &Capacity,
    kept: &HostShare,
    machines: &[Observed],
    used: &dyn Fn(&Uuid) -> u64,
) -> Report {
    let held = ledger(machines);
    let room = Unreserved::of(host, kept, &held);
    let rows = machines
        .iter()
        .map(|machine| {
            let record = &machine.record;
            let holding = held
                .iter()
                .find(|holding| holding.identity == machine.identity);
            let tuning = &record.spec.tuning;
            let mut limits = Vec::new();
            if let Some(shares) = tuning.shares(record.spec.cpus) {
                limits.push(format!("shares {shares}"));
            }
            if let Some(quota) = tuning.cpu.quota {
                limits.push(format!("quota {quota}%"));
            }
            if let Some(iops) = tuning.disk.iops {
                limits.push(format!("{iops} iops"));
            }
            if let Some(rate) = tuning.disk.throughput {
                limits.push(format!("{rate}/s"));
            }
            Row {
                project: record.project.clone(),
                machine: record.machine.clone(),
                state: state(Some(machine)),
                cpus: record.spec.cpus,
                reserved_cpus: holding.map_or(0, |holding| holding.cpus),
                pin: tuning.cpu.pin.as_ref().map(ToString::to_string),
                memory_bytes: record.spec.memory.0,
                reserved_memory_bytes: holding.map_or(0, |holding| holding.memory.0),
                used_memory_bytes: used(&machine.identity.uuid),
                limits,
            }
        })
        .collect();
    Report {
        connect: uri.to_string(),
        host: HostRow {
            cpus: host.whole_cpus(),
            kept_cpus: kept.cpus,
            reserved_cpus: held.iter().map(|holding| holding.cpus).sum(),
            free_cpus: room.cpus,
            memory_bytes: host.memory.0,
            kept_memory_bytes: kept.memory.0,
            reserved_memory_bytes: held.iter().map(|holding| holding.memory.0).sum(),
            used_memory_bytes: host.memory.0.saturating_sub(host.available.0),
            free_memory_bytes: room.memory_now.0,
        },
        machines: rows,
    }
}

fn table(report: &Report, width: Option<usize>) -> String {
    let host = &report.host;
    let mut table = Table::new(&["HOST", "TOTAL", "KEPT", "RESERVED", "USED", "FREE"]);
    table.row([
        "CPUs".into(),
        host.cpus.to_string(),
        host.kept_cpus.to_string(),
        host.reserved_cpus.to_string(),
        "-".into(),
        host.free_cpus.to_string(),
    ]);
    table.row([
        "memory".into(),
        bytes(host.memory_bytes),
        bytes(host.kept_memory_bytes),
        bytes(host.reserved_memory_bytes),
        bytes(host.used_memory_bytes),
        bytes(host.free_memory_bytes),
    ]);
    let mut text = table.fitted(width);
    text.push_str("\nKEPT is for the host itself; FREE can still be reserved.\n");
    if report.machines.is_empty() {
        text.push_str(&format!("There are no machines on {}.\n", report.connect));
        return text;
    }
    text.push('\n');
    let mut table = Table::new(&[
        "PROJECT", "MACHINE", "STATE", "CPUS", "RESERVED", "PIN", "MEMORY", "RESERVED", "USED",
        "LIMITS",
    ]);
    let or = |size: u64| match size {
        0 => "-".to_string(),
        size => bytes(size),
    };
    for row in &report.machines {
        table.row([
            row.project.clone(),
            row.machine.clone(),
            row.state.to_string(),
            row.cpus.to_string(),
            match row.reserved_cpus {
                0 => "-".to_string(),
                cpus => cpus.to_string(),
            },
            row.pin.clone().unwrap_or_else(|| "-".into()),
            bytes(row.memory_bytes),
            or(row.reserved_memory_bytes),
            or(row.used_memory_bytes),
            if row.limits.is_empty() {
                "-".into()
            } else {
                row.limits.join(", ")
            },
        ]);
    }
    text.push_str(&table.fitted(width));
    if report.machines.iter().any(|row| row.used_memory_bytes != 0) {
        text.push_str(&format!(
            "\nUSED is what QEMU takes on the host: memory that the guest has touched, and QEMU's own, which without KVM has up to half as much translated code as the guest has memory, and at most {}.\n",
            bytes(LARGEST_TCG_CACHE.0)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_machines_reads_well() {
        let row = |machine: &str, state, reserved: bool| Row {
            project: "shop".into(),
            machine: machine.into(),
            state,
            cpus: 2,
            reserved_cpus: if reserved { 2 } else { 0 },
            pin: reserved.then(|| "2-3".into()),
            memory_bytes: 2 << 30,
            reserved_memory_bytes: if reserved { (2 << 30) + (96 << 20) } else { 0 },
            used_memory_bytes: if state == "off" { 0 } else { 900 << 20 },
            limits: match reserved {
                true => vec!["shares 2048".into(), "500 iops".into()],
                false => Vec::new(),
            },
        };
        let report = Report {
            connect: "qemu:///system".into(),
            host: HostRow {
                cpus: 8,
                kept_cpus: 1,
                reserved_cpus: 2,
                free_cpus: 5,
                memory_bytes: 16 << 30,
                kept_memory_bytes: 1 << 30,
                reserved_memory_bytes: (2 << 30) + (96 << 20),
                used_memory_bytes: 6 << 30,
                free_memory_bytes: 9 << 30,
            },
            machines: vec![row("db", "ready", true), row("web", "off", false)],
        };
        insta::assert_snapshot!(table(&report, None));
    }
}
