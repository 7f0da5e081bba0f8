//! What a project uses of the host: folders, images, variables, a catalogue, ports.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    host::ports::Protocol,
    machinefile::{ForwardRange, KernelSource, Machine, Project, Variable, port_list},
};

use super::{
    demand::{Demand, Kind},
    shown::{masked, plain, shown},
};

/// Returns demands for synced folders outside the project.
pub(super) fn outside_folders<'a>(
    project: &'a Project,
    machine: &'a Machine,
) -> impl Iterator<Item = Demand> + 'a {
    let root = &project.root;
    (machine.syncs.iter())
        .filter(move |sync| !sync.from.starts_with(root))
        .map(|sync| {
            let writes = sync.kind.guest_writes(sync.readonly);
            let from = sync.from.to_string_lossy().into_owned();
            let after = match writes {
                true => [", which may write to it", ", which may write to it"],
                false => ["", ""],
            };
            Demand::of_machines(
                Kind::Folder,
                &json!(["folder", from, writes]),
                format!("the folder {}, for ", shown(&from)),
                &[&machine.name],
                after.map(String::from),
            )
            .at(&sync.at)
        })
}

/// Returns demands for images of disks and kernels outside the project.
pub(super) fn images<'a>(
    project: &'a Project,
    machine: &'a Machine,
) -> impl Iterator<Item = Demand> + 'a {
    let root = &project.root;
    let outside = move |path: &Path| {
        let real = path.canonicalize().unwrap_or(path.to_path_buf());
        (!real.starts_with(root)).then_some(real)
    };
    let image = |what: &str, path: PathBuf| {
        let path = path.to_string_lossy().into_owned();
        Demand::of_machines(
            Kind::Image,
            &json!([what, path]),
            format!("{}, as {what} of ", shown(&path)),
            &[&machine.name],
            [String::new(), String::new()],
        )
    };
    let disk = (machine.box_file.as_deref())
        .and_then(outside)
        .map(|path| image("the disk", path));
    let kernel = machine.kernel.iter().flat_map(move |kernel| {
        let paths: Vec<PathBuf> = match &kernel.source {
            KernelSource::Path {
                image,
                modules,
                config,
            } => [Some(image), modules.as_ref(), config.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            _ => Vec::new(),
        };
        (paths.into_iter())
            .filter_map(move |path| outside(&path))
            .map(move |path| image("the kernel", path).at(&kernel.at))
    });
    disk.into_iter().chain(kernel)
}

/// Variables whose values are not secret.
const PLAIN: [&str; 6] = ["HOME", "LANG", "LC_ALL", "LOGNAME", "TZ", "USER"];

/// Returns the demand of a variable, unless its value is not secret and stays here.
pub(super) fn variable(variable: &Variable) -> Option<Demand> {
    let Variable { name, node, at, .. } = variable;
    // A server learns the URLs that it is asked for.
    let goes_out = ["box", "catalogue", "package"].contains(&node.as_str());
    if PLAIN.contains(&name.as_str()) && !goes_out {
        return None;
    }
    let what = format!("{}   (in `{}`)", shown(name), plain(node));
    Some(Demand::new(Kind::Variable, &json!(["variable", name, node]), what).at(at))
}

/// Returns the demand of a catalogue that is not a file of the project.
pub(super) fn catalogue(project: &Project) -> Option<Demand> {
    let place = project.catalogue.as_ref()?;
    if place.contains("://") {
        let place = masked(place, &project.variables);
        let what = format!("the catalogue {}", shown(&place));
        return Some(Demand::new(
            Kind::Catalogue,
            &json!(["catalogue", place]),
            what,
        ));
    }
    let path = Path::new(place);
    let real = path.canonicalize().unwrap_or(path.to_path_buf());
    if real.starts_with(&project.root) {
        return None;
    }
    let place = real.to_string_lossy().into_owned();
    let what = format!("{}, as a catalogue", shown(&place));
    Some(Demand::new(Kind::Image, &json!(["catalogue", place]), what))
}

/// Returns the demand of a machine for ports of this computer.
pub(super) fn host_ports(machine: &Machine) -> Option<Demand> {
    let ports = &machine.egress.as_ref()?.host_tcp;
    if ports.is_empty() {
        return None;
    }
    let many = if ports.len() == 1 { "port" } else { "ports" };
    let demand = Demand::of_machines(
        Kind::HostPort,
        &json!(["host-access", ports]),
        format!(
            "{many} {} of this computer's 127.0.0.1, for ",
            port_list(ports)
        ),
        &[&machine.name],
        [String::new(), String::new()],
    );
    Some(match machine.spans.get("host-access") {
        Some(span) => demand.at(&span.text()),
        None => demand,
    })
}

/// Returns the demands of a machine for cards on bridges of this computer.
pub(super) fn bridges(machine: &Machine) -> impl Iterator<Item = Demand> {
    machine.bridges.iter().map(|bridge| {
        let interface = &bridge.interface;
        let demand = Demand::of_machines(
            Kind::Bridge,
            &json!(["bridge", interface]),
            format!("a card on the bridge {}, for ", shown(interface)),
            &[&machine.name],
            [
                ": computers there reach it, and it reaches them".into(),
                ": computers there reach these machines, and are reached by them".into(),
            ],
        );
        match machine.spans.bridge(&bridge.network) {
            Some(span) => demand.at(&span.text()),
            None => demand,
        }
    })
}

/// What the machines of a `count` forward: its place among all, the ports of the host, from one to another, and the
/// machines.
type OfCount<'a> = (usize, Vec<(u16, u16)>, Vec<&'a str>);

/// Returns demands for forwarded ports that other computers reach. Those of one `count` are one demand.
pub(super) fn ports(project: &Project) -> Vec<Demand> {
    // By all that is the same for them.
    let mut all: BTreeMap<_, OfCount<'_>> = BTreeMap::new();
    for machine in &project.machines {
        for range in ForwardRange::all_of(&machine.forwards) {
            let first = &range.first;
            if !first.is_public() {
                continue;
            }
            let Some(span) = machine.spans.port(first.host_port()) else {
                continue;
            };
            let guests = range.guests();
            let key = (
                span.text(),
                first.protocol,
                first.address,
                guests,
                first.auto_correct,
            );
            let end = first.host + (range.length - 1);
            let place = all.len();
            let (_, ports, machines) = all.entry(key).or_insert((place, Vec::new(), Vec::new()));
            machines.push(&machine.name);
            match ports.last_mut() {
                Some(last) if last.1.checked_add(1) == Some(first.host) => last.1 = end,
                _ => ports.push((first.host, end)),
            }
        }
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(_, (place, ..))| *place);
    (all.into_iter())
        .map(
            |((at, protocol, address, guests, near), (_, ports, machines))| {
                let hosts: Vec<String> = (ports.iter())
                    .map(|(first, last)| match first == last {
                        true => first.to_string(),
                        false => format!("{first}-{last}"),
                    })
                    .collect();
                let hosts = hosts.join(", ");
                let udp = match protocol {
                    Protocol::Tcp => "",
                    Protocol::Udp => "UDP ",
                };
                let many = |ports: &str| {
                    if ports.contains(['-', ',']) {
                        "ports"
                    } else {
                        "port"
                    }
                };
                let on = match address.is_unspecified() {
                    true => "all addresses of this computer".to_string(),
                    false => address.to_string(),
                };
                let or_near = if near { ", or a free one above," } else { "" };
                let before = format!(
                    "{udp}{} {hosts} of {on}{or_near} to {} {guests} of ",
                    many(&hosts),
                    many(&guests)
                );
                let names = json!(["port", protocol, address, hosts, guests, near]);
                let after = [String::new(), String::new()];
                Demand::of_machines(Kind::Port, &names, before, &machines, after).at(&at)
            },
        )
        .collect()
}
