//! `stead status`: prints the state of the project's machines.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
};

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    boxes::Boot,
    failure::Failure,
    machine::{NetworkCard, Observed, Pause, Phase, Power},
    machinefile::{ForwardRange, RunPolicy},
    network::Destination,
    plan::{self, MachinePlan, Step, WantedProvisioner},
    report::{Table, ago, clean, counted, secrets, warn},
    session::{
        Detail, Session,
        condition::{self, cut_off},
        invocation::Invocation,
        leftover::Leftovers,
        networks,
        project_runs::{ProjectRuns, stale_line},
        stranded::say_stranded,
        target::Target,
        up::drift_lines,
    },
    sync::watch::{Last, State, WatcherFiles},
};

use super::{
    output,
    port::PortRow,
    select::{OtherProjectArgs, SelectionArgs},
};

const EXAMPLES: &str = "\
Examples:
  stead status                 Show all machines of the project
  stead status --project shop  Show those of project shop, from any folder";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

#[derive(Serialize)]
struct Row<'a> {
    machine: &'a str,
    state: &'static str,
    #[serde(skip)]
    state_in_words: String,
    domain: &'a str,
    uuid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#box: Option<String>,
    /// The running kernel, as `uname -r` prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    cpus: u32,
    memory: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    accel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_port: Option<u16>,
    forwards: Vec<String>,
    /// The same, one by one.
    ports: Vec<PortRow>,
    /// Where the ports on which it listens are on this computer.
    #[serde(skip_serializing_if = "Option::is_none")]
    host_address: Option<Ipv4Addr>,
    /// Its cards on networks of the project.
    networks: Vec<NetworkRow<'a>>,
    /// Its cards on bridges of the host.
    bridges: Vec<BridgeRow<'a>>,
    /// What it reaches beyond its networks. `None`: that is not limited to what the Machinefile names.
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<EgressRow<'a>>,
    in_machinefile: bool,
    provisioners: Vec<ProvisionerRow<'a>>,
    /// Why the machine is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<&'a Pause>,
    /// Whether its disk is the one that stead created for it.
    own_disk: bool,
    notes: Vec<String>,
}

/// A card on a network of the project, as JSON.
#[derive(Serialize)]
pub(super) struct NetworkRow<'a> {
    network: &'a str,
    subnet: String,
    address: Ipv4Addr,
    mac: String,
    aliases: &'a [String],
}

impl<'a> NetworkRow<'a> {
    pub(super) fn of(card: &'a NetworkCard) -> Self {
        NetworkRow {
            network: &card.network,
            subnet: card.subnet.to_string(),
            address: card.address,
            mac: card.mac.to_string(),
            aliases: &card.aliases,
        }
    }
}

#[derive(Serialize)]
struct BridgeRow<'a> {
    network: &'a str,
    bridge: &'a str,
    mac: String,
    /// Those that the guest's agent tells.
    addresses: Vec<IpAddr>,
}

#[derive(Serialize)]
struct EgressRow<'a> {
    /// `None`: everything but this computer.
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<&'a [Destination]>,
    host_tcp: &'a [u16],
}

#[derive(Serialize)]
struct ProvisionerRow<'a> {
    name: &'a str,
    run: RunPolicy,
    /// `running`, `not-run`, `failed` (its last run did not succeed), `ran`, or `changed` since it ran.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ran: Option<Timestamp>,
}

fn provisioner_row<'a>(
    provisioner: &'a WantedProvisioner,
    observed: Option<&Observed>,
) -> ProvisionerRow<'a> {
    let ran = observed.and_then(|it| it.record.provisioned.get(&provisioner.name));
    let failed = observed.is_some_and(|it| it.record.failed.contains_key(&provisioner.name));
    let runs = observed.and_then(Observed::provisioning) == Some(provisioner.name.as_str());
    ProvisionerRow {
        name: &provisioner.name,
        run: provisioner.run,
        state: match ran {
            _ if runs => "running",
            None if failed => "failed",
            None => "not-run",
            Some(ran) if ran.digest == provisioner.digest => "ran",
            Some(_) => "changed",
        },
        ran: ran.map(|ran| ran.at),
    }
}

impl BridgeRow<'_> {
    /// `192.168.1.50 (br0)`, or `br0` without an address of IPv4.
    fn words(&self) -> String {
        let first = self.addresses.iter().find(|address| address.is_ipv4());
        match first {
            Some(address) => format!("{address} ({})", self.bridge),
            None => self.bridge.to_string(),
        }
    }
}

/// Returns a machine's state in one word.
pub(super) fn state(observed: Option<&Observed>) -> &'static str {
    let Some(observed) = observed else {
        return "absent";
    };
    if observed.record.copy_of.is_some() {
        return "packing";
    }
    match (observed.record.phase, observed.power) {
        (Phase::Destroying, _) => "half-destroyed",
        (Phase::Creating, Power::Off) => "half-made",
        (_, Power::Off) if observed.condition.saved => "saved",
        (_, Power::Off) => "off",
        (_, Power::Paused) => "paused",
        (_, Power::Stopping) => "stopping",
        (_, Power::Running) if observed.condition.rebooting => "rebooting",
        (_, Power::Running) if observed.is_ready() => "ready",
        (_, Power::Running) if observed.provisioning().is_some() => "provisioning",
        (_, Power::Running) if observed.has_booted() => "booted",
        (_, Power::Running) => "booting",
    }
}

/// Returns a machine's state for people: with the provisioner that runs.
pub(super) fn state_in_words(state: &'static str, observed: Option<&Observed>) -> String {
    match observed.and_then(Observed::provisioning) {
        Some(name) if state == "provisioning" => format!("{state} ({name})"),
        _ => state.to_string(),
    }
}

pub(super) fn run(invocation: &Invocation, args: StatusArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Shown)?;
    let selection = session.selection(&args.selection.into())?;
    let leftovers = Leftovers {
        selection: &selection,
        asked: selection.is_all(),
    };
    let machines = session.select(&selection, false)?;
    let survey = session.survey()?;
    let targets = session.targets(&survey, machines, Some(leftovers))?;
    let pairs: Vec<_> = targets
        .iter()
        .map(|target| (target.wanted.clone(), target.existing.clone()))
        .collect();
    let plan = plan::up(&pairs);
    let runs = session.project_runs(&targets).unwrap_or_else(|failure| {
        warn(&failure.message());
        ProjectRuns::default()
    });
    let pending = plan::pending_runs(&runs.within, &pairs, false);
    let stale = plan::stale_runs(&runs.within, &pairs);
    say_stranded(&session, &survey, &targets);
    networks::revive(&session, Some(&survey));
    let made = targets.iter().any(|it| it.existing.observed.is_some());
    let watching = Watching::observe(&session);
    let ways = session.way_notes(&survey);
    let shared = session.shared_addresses(&survey);
    let rows: Vec<Row<'_>> = targets
        .iter()
        .zip(&plan.machines)
        .map(|(target, plan)| {
            let mut row = row(&session, target, plan);
            row.notes.extend(watching.notes(target));
            let ways_of = ways.get(&target.wanted.machine.name);
            row.notes.extend(ways_of.into_iter().flatten().cloned());
            row.notes
                .extend(shared.get(&target.wanted.machine.name).cloned());
            row
        })
        .collect();
    if invocation.style.json {
        output::json(&serde_json::json!({
            "project": session.project.name,
            "root": session.project.root,
            "connect": session.connection.uri().uri,
            "machines": rows,
            "provisioners": runs.within.iter().map(|run| {
                let reason = pending.iter().find(|it| it.provisioner == run.name);
                serde_json::json!({
                    "provisioner": run.name,
                    "machines": run.machines,
                    "pending": reason.map(|it| it.reason),
                    "changed": stale.contains(&run),
                })
            }).collect::<Vec<_>>(),
            "watch": watching.json(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let has_networks = (rows.iter()).any(|row| !row.networks.is_empty() || !row.bridges.is_empty());
    let mut columns = vec!["MACHINE", "STATE", "BOX", "KERNEL", "CPUS", "MEMORY"];
    columns.extend(has_networks.then_some("ADDRESS"));
    columns.push("PORTS");
    let mut table = Table::new(&columns);
    for row in &rows {
        let mut ports: Vec<String> = row
            .ssh_port
            .iter()
            .map(|port| format!("{port}→22"))
            .collect();
        ports.extend(row.forwards.iter().cloned());
        let addresses: Vec<String> = (row.networks.iter())
            .map(|card| card.address.to_string())
            .chain(row.bridges.iter().map(BridgeRow::words))
            .collect();
        let joined = |words: Vec<String>| match words.is_empty() {
            true => "-".to_string(),
            false => words.join(" "),
        };
        let mut cells = vec![
            row.machine.to_string(),
            row.state_in_words.clone(),
            (row.r#box.as_deref()).map_or("-".into(), |name| secrets::without(name).into_owned()),
            (row.kernel.as_deref()).map_or("-".into(), |name| secrets::without(name).into_owned()),
            row.cpus.to_string(),
            row.memory.clone(),
        ];
        cells.extend(has_networks.then(|| joined(addresses)));
        cells.push(joined(ports));
        table.row(cells);
    }
    let mut text = output::fitted(&table);
    let mut first = true;
    for row in &rows {
        for note in &row.notes {
            if first {
                text.push('\n');
                first = false;
            }
            let note = clean::words(&secrets::without(note));
            text.push_str(&output::fitted_line(&format!("{}: {note}", row.machine)));
        }
    }
    // Of a machine that has yet to be made, everything is pending.
    for run in pending.iter().filter(|_| made) {
        if run.reason != plan::ProvisionReason::Always {
            if first {
                text.push('\n');
                first = false;
            }
            let name = &run.provisioner;
            let line = format!("{name}: `stead up` would {}", run.describe());
            text.push_str(&output::fitted_line(&line));
        }
    }
    for run in stale {
        if first {
            text.push('\n');
            first = false;
        }
        let line = format!("{}: {}", run.name, stale_line(run));
        text.push_str(&output::fitted_line(&line));
    }
    output::data(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The process that watches folders, for `status`.
struct Watching {
    state: Option<State>,
    alive: bool,
    log: String,
}

impl Watching {
    fn observe(session: &Session) -> Self {
        let place = WatcherFiles::of(&session.data, &session.owner());
        let state = place.read();
        Watching {
            alive: (state.as_ref()).is_some_and(|state| state.process.is_alive()),
            state,
            log: place.log().to_string_lossy().into_owned(),
        }
    }

    fn json(&self) -> serde_json::Value {
        let Some(state) = &self.state else {
            return serde_json::Value::Null;
        };
        serde_json::json!({
            "running": self.alive,
            "pid": state.process.pid,
            "since": state.since,
            "folders": state.folders,
            "log": self.log,
            "machines": state.machines,
            "ended": state.ended,
        })
    }

    fn notes(&self, target: &Target) -> Vec<String> {
        let machine = &target.wanted.machine;
        let up = (target.existing.observed.as_ref()).is_some_and(Observed::is_up);
        let wants = (machine.syncs.iter()).any(|folder| folder.watch && folder.kind.is_one_way());
        let name = &machine.name;
        let known = (self.state.as_ref()).filter(|state| state.machines.contains_key(name));
        let Some(state) = known.filter(|_| self.alive) else {
            if !up || !wants {
                return Vec::new();
            }
            let why = match known {
                None => String::new(),
                Some(State {
                    ended: Some(said), ..
                }) => format!(": {said}"),
                Some(state) => {
                    format!(
                        ": the process that watched them (pid {}) is gone",
                        state.process.pid
                    )
                }
            };
            return vec![format!(
                "its folders are not watched{why}; run `stead up {name}` to watch them"
            )];
        };
        let Some(machine) = state.machines.get(name) else {
            return Vec::new();
        };
        let mut notes: Vec<String> = (machine.trouble.iter())
            .map(|(to, why)| format!("{to} is watched, but has a problem: {why}"))
            .collect();
        notes.push(match (&machine.away, &machine.last) {
            (Some(why), _) if up => format!(
                "its folders are watched, but it cannot be reached ({why}); changes are sent once it is back"
            ),
            (_, Some(last)) => format!(
                "its folders have been watched since {}; last sent {}: {} to {}",
                ago(state.since),
                ago(last.at),
                words(last),
                last.to
            ),
            _ => format!("its folders have been watched since {}", ago(state.since)),
        });
        notes
    }
}

fn words(last: &Last) -> String {
    let files = counted(last.sent, "file");
    match last.deleted {
        0 => files,
        n => format!("{files}, {n} deleted"),
    }
}

/// Reports kernels that were installed in a machine after its first boot, and that it does not boot
/// because QEMU loads its kernel.
fn unused_kernels(observed: &Observed) -> Option<String> {
    let running = observed.running.as_ref()?;
    let current = running.kernel.as_ref()?;
    let others: Vec<&str> = running
        .installed_kernels
        .iter()
        .filter(|release| *release != current && !observed.record.first_kernels.contains(*release))
        .map(String::as_str)
        .collect();
    if others.is_empty() {
        return None;
    }
    Some(format!(
        "kernel {} is installed in it, but QEMU loads {current} at every boot; `kernel` in the Machinefile chooses the kernel",
        others.join(", ")
    ))
}

fn row<'a>(session: &Session, target: &'a Target, plan: &MachinePlan) -> Row<'a> {
    let observed = target.existing.observed.as_ref();
    let mut notes = Vec::new();
    if let Some(original) = &target.wanted.copy_of {
        notes.push(format!(
            "is a copy of {original} for `stead box pack`; if that was interrupted, the next `stead box pack {original}` or `stead up {original}` removes the copy"
        ));
    } else if let Some(original) = &target.wanted.run_of {
        notes.push(format!(
            "was made by a `stead run` of {original}, which removes it at its end; if that was killed, run `stead destroy {}`",
            target.wanted.machine.name
        ));
    } else if target.leftover {
        notes.push(format!(
            "is no longer in the Machinefile; `stead destroy {}` removes it",
            target.wanted.machine.name
        ));
    } else {
        notes.extend(drift_lines(plan));
        if let Some(observed) = observed {
            notes.extend(cut_off(observed, &session.files(&target.wanted.identity)));
            // Before that, QEMU may not have made its sockets yet.
            if observed.has_booted() {
                notes.extend(session.cards_cut_off(observed));
            }
            notes.extend(target.share_notes.iter().cloned());
            let has_provisioners =
                (plan.steps.iter()).any(|step| matches!(step, Step::Provision { .. }));
            notes.extend(plan.steps.iter().filter_map(|step| match step {
                Step::Provision {
                    reason: plan::ProvisionReason::Always,
                    ..
                } => None,
                // It does so now.
                Step::Provision { name, .. } if observed.provisioning() == Some(name.as_str()) => {
                    None
                }
                Step::Provision { .. } | Step::Tune { .. } => {
                    Some(format!("`stead up` would {}", step.describe()))
                }
                // After a provisioner, it is checked anyway.
                Step::Ready if has_provisioners => None,
                Step::Sync { .. } | Step::Ready if observed.is_ready() => {
                    Some(format!("`stead up` would {}", step.describe()))
                }
                _ => None,
            }));
        }
    }
    if let Some(observed) = observed {
        notes.splice(0..0, condition::notes(session, observed));
    }
    let by_itself = target
        .stored_box
        .as_ref()
        .is_none_or(|stored| matches!(stored.manifest.boot, Boot::Bootloader { .. }))
        && observed.is_none_or(|it| {
            (it.record.spec.kernel.as_ref()).is_none_or(|kernel| kernel.installed)
        });
    if !by_itself {
        notes.extend(observed.and_then(unused_kernels));
    }
    if let Some(Failure::Error { message, .. }) = &target.no_box {
        notes.push(message.clone());
    }
    let wanted = &target.wanted.machine;
    let spec = observed.map(|observed| &observed.record.spec);
    let forwards = spec.map_or(&wanted.forwards, |spec| &spec.forwards);
    if observed.is_some_and(Observed::is_up) {
        let corrections = ForwardRange::all_of(forwards);
        notes.extend(corrections.iter().filter_map(ForwardRange::correction));
    }
    Row {
        machine: &wanted.name,
        state: state(observed),
        state_in_words: state_in_words(state(observed), observed),
        domain: &target.wanted.identity.domain,
        uuid: target.wanted.identity.uuid.to_string(),
        r#box: spec
            .map(|spec| format!("{} {}", spec.box_name, spec.box_version))
            .or_else(|| Some(wanted.box_key.clone())),
        kernel: observed
            .and_then(|observed| observed.running.as_ref())
            .and_then(|running| running.kernel.clone()),
        cpus: spec.map_or(wanted.cpus, |spec| spec.cpus),
        memory: spec.map_or(wanted.memory, |spec| spec.memory).to_string(),
        accel: spec.map(|spec| spec.accel.to_string()),
        ssh_port: observed.map(|observed| observed.record.ssh_port),
        host_address: spec.and_then(|spec| spec.host_address()),
        networks: (spec.map_or(&[][..], |spec| &spec.cards).iter())
            .map(NetworkRow::of)
            .collect(),
        bridges: observed.map_or_else(Vec::new, |observed| bridges(session, observed)),
        egress: spec
            .map_or(wanted.egress.as_ref(), |spec| spec.egress.as_ref())
            .map(|egress| EgressRow {
                allow: egress.allow.as_deref(),
                host_tcp: &egress.host_tcp,
            }),
        forwards: (ForwardRange::all_of(forwards).iter())
            .map(ToString::to_string)
            .collect(),
        ports: forwards.iter().map(PortRow::of).collect(),
        in_machinefile: !target.leftover
            && !matches!(session.detail, Detail::Recorded { named: None }),
        paused: observed.and_then(|it| it.condition.pause.as_ref()),
        own_disk: observed.is_none_or(|it| condition::disk_trouble(session, it).is_none()),
        provisioners: (target.wanted.provisioners.iter())
            .map(|provisioner| provisioner_row(provisioner, observed))
            .collect(),
        notes,
    }
}

fn bridges<'a>(session: &Session, observed: &'a Observed) -> Vec<BridgeRow<'a>> {
    let mut addresses = session.bridge_addresses(observed);
    (observed.record.spec.bridges.iter())
        .map(|card| BridgeRow {
            network: &card.network,
            bridge: &card.interface,
            mac: card.mac.to_string(),
            addresses: addresses.remove(&card.mac).unwrap_or_default(),
        })
        .collect()
}
