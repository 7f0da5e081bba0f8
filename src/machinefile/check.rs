//! Turns drafts into machines, and checks what needs all of them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use crate::report::{bytes, clean::Shown};

use super::{
    decode::{Draft, Drafts, MachineDraft},
    diagnostics::{Errors, MachinefileError, Span, Spanned},
    egress, firmware,
    forward::Forward,
    inventory, links,
    model::{
        CpuLike, KernelSource, Libvirt, Machine, MachineBridge, MachineNetwork, Project,
        Provisioner, Ready,
    },
    names::is_label,
    networks::{Member, networks},
    ports::{Instance, Taken, forwards},
    syntax::Files,
    tuning::{Spans, Tuning},
    units::Bytes,
};
use crate::host::names::{nearest, one_of};

/// libvirt names a domain's files after it. File names have at most 255 bytes, and its monitor sockets even fewer.
const LONGEST_NAME: usize = 56;

/// How many machines a project may have, `count` expanded. A computer runs some tens.
const MOST_MACHINES: usize = 256;
/// How many synced folders a machine may have. Each is compared with each.
const MOST_FOLDERS: usize = 256;
/// How much text the machines may have together, in bytes: `defaults` and `count` multiply it.
const LARGEST: usize = 16 << 20;

struct Joined {
    name: Spanned<String>,
    /// Its names after `count` is expanded.
    instances: Vec<String>,
    /// Whether it has a `count`.
    count: bool,
    draft: Draft,
}

pub(super) fn check(files: &Files, drafts: Drafts, errors: &mut Errors) -> Option<Project> {
    let whole = Span {
        source: files.main.source.clone(),
        range: (0, 0).into(),
    };
    if drafts.project.is_none() {
        errors.push(
            MachinefileError::new(&whole, "the Machinefile has no `project`", "no project")
                .help("start it with: project \"name\""),
        );
    }
    let joined = join(&drafts, errors)?;
    check_names(&drafts, &joined, errors);
    let instances: HashMap<&str, &[String]> = joined
        .iter()
        .map(|machine| (machine.name.value.as_str(), machine.instances.as_slice()))
        .collect();
    check_cycles(&joined, errors);
    check_shares(&joined, errors);
    let members: Vec<Member<'_>> = (joined.iter())
        .map(|machine| Member {
            name: &machine.name,
            instances: &machine.instances,
            draft: &machine.draft,
        })
        .collect();
    let project = drafts
        .project
        .as_ref()
        .map_or("", |name| name.value.as_str());
    let mut networks = networks(project, &drafts.networks, &members, errors);
    let links = links::links(&drafts.links, &members, &networks, errors);
    let mut ports = Taken::default();
    for machine in &joined {
        for (n, name) in machine.instances.iter().enumerate() {
            ports.fix(&Instance { name, n }, &machine.draft.forwards);
        }
    }
    let mut machines = Vec::new();
    for machine in &joined {
        check_repeats(machine, errors);
        check_cpu(machine, errors);
        firmware::check(&machine.name.value, &machine.draft, errors);
        egress::check(&machine.name, &machine.draft, errors);
        let depends_on = dependencies(machine, &joined, &instances, errors);
        for (n, name) in machine.instances.iter().enumerate() {
            let mut spans = Spans::default();
            let instance = Instance { name, n };
            let drafts = &machine.draft.forwards;
            let forwards = forwards(&instance, drafts, &mut ports, &mut spans, errors);
            let bridges: Vec<MachineBridge> = (networks.bridges_of(&machine.draft))
                .map(|(bridge, span)| {
                    spans.insert_bridge(&bridge.network, span.clone());
                    bridge
                })
                .collect();
            let networks = networks.of.remove(name).unwrap_or_default();
            if n == 0 {
                egress::check_bridges(&machine.name, &machine.draft, &bridges, errors);
                if bridges.is_empty() {
                    egress::check_isolation(&machine.name, &machine.draft, &networks, errors);
                }
            }
            let reach = Reach {
                networks,
                bridges,
                forwards,
                spans,
            };
            if let Some(machine) = build(machine, name, &depends_on, reach, n == 0, errors) {
                machines.push(machine);
            }
        }
    }
    let groups = inventory::groups(drafts.groups, &machines, errors);
    let provisioners = inventory::provisioners(drafts.provisioners, &groups, &machines, errors);
    Some(Project {
        name: drafts.project?.value,
        root: files.root.clone(),
        file: files.path.clone(),
        read: files.read.clone(),
        variables: Vec::new(),
        warnings: Vec::new(),
        catalogue: drafts.catalogue,
        connect: drafts.connect,
        host_reserve: drafts.host_reserve.unwrap_or_default(),
        networks: networks.all,
        links,
        machines,
        groups,
        provisioners,
    })
}

/// The names in a Machinefile that may have other mistakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    pub project: Option<String>,
    pub connect: Option<Libvirt>,
    /// The names of its machines, with `count` expanded.
    pub machines: Vec<String>,
}

pub(super) fn outline(drafts: &Drafts) -> Outline {
    // The mistakes are reported elsewhere.
    let joined = join(drafts, &mut Errors::default()).unwrap_or_default();
    Outline {
        project: drafts.project.as_ref().map(|name| name.value.clone()),
        connect: drafts.connect,
        machines: (joined.into_iter())
            .flat_map(|machine| machine.instances)
            .collect(),
    }
}

/// Completes machines by the defaults, and overrides them by Machinefile.local. `None` if there are too many.
fn join(drafts: &Drafts, errors: &mut Errors) -> Option<Vec<Joined>> {
    let mut merged: Vec<MachineDraft> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for machine in &drafts.machines {
        let name = machine.name.value.as_str();
        if places.contains_key(name) {
            errors.push(
                MachinefileError::new(
                    &machine.name.span,
                    format!("the project has two machines {name:?}"),
                    "the second one",
                )
                .help("rename one of them; for two alike, write count=2 on the first"),
            );
            continue;
        }
        places.insert(name, merged.len());
        merged.push(machine.clone());
    }
    for local in &drafts.local {
        let place = places.get(local.name.value.as_str());
        match place.and_then(|place| merged.get_mut(*place)) {
            Some(machine) => {
                machine.draft = local.draft.clone().over(&machine.draft);
                machine.count = local.count.clone().or(machine.count.clone());
                machine.size += local.size;
            }
            None => {
                places.insert(&local.name.value, merged.len());
                merged.push(local.clone());
            }
        }
    }
    let mut joined = Vec::new();
    let (mut machines, mut size) = (0, 0);
    for machine in merged {
        let count =
            (machine.count.as_ref()).map_or(1, |count| usize::try_from(count.value).unwrap_or(1));
        machines += count;
        size += count * (machine.size + drafts.defaults_size);
        let excess = if machines > MOST_MACHINES {
            Some((
                format!("the project has more than {MOST_MACHINES} machines"),
                "one too many",
            ))
        } else if size > LARGEST {
            let most = bytes(LARGEST as u64);
            Some((
                format!(
                    "the machines have more than {most} of text together, with `defaults` and `count`"
                ),
                "too much from here on",
            ))
        } else {
            None
        };
        if let Some((message, label)) = excess {
            let error = MachinefileError::new(&machine.name.span, message, label);
            errors.push(error.help(
                "split the project: each folder with a Machinefile is one; `stead list` shows all of them",
            ));
            return None;
        }
        let name = &machine.name.value;
        let instances = match &machine.count {
            None => vec![name.clone()],
            Some(count) => (1..=count.value).map(|n| format!("{name}-{n}")).collect(),
        };
        joined.push(Joined {
            instances,
            count: machine.count.is_some(),
            draft: machine.draft.over(&drafts.defaults),
            name: machine.name,
        });
    }
    Some(joined)
}

fn check_names(drafts: &Drafts, joined: &[Joined], errors: &mut Errors) {
    let project = drafts.project.as_ref().map_or(0, |name| name.value.len());
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for machine in joined {
        for instance in &machine.instances {
            if let Some(other) = seen.insert(instance, &machine.name.value) {
                errors.push(
                    MachinefileError::new(
                        &machine.name.span,
                        format!("the project has two machines {instance:?}"),
                        format!("{other:?} is numbered to this name too"),
                    )
                    .help(
                        "`count` adds -1, -2 … to a name: choose a name that no other machine gets",
                    ),
                );
            }
            let length = project + 1 + instance.len();
            // A name that is not a label is an error already.
            if length > LONGEST_NAME && is_label(&machine.name.value) {
                errors.push(MachinefileError::new(
                    &machine.name.span,
                    format!("the names of project and machine have {length} characters together"),
                    format!("at most {LONGEST_NAME}"),
                ));
                break;
            }
        }
    }
}

/// Only a capture knows the CPU of the captured host.
fn check_cpu(machine: &Joined, errors: &mut Errors) {
    let Some(cpu) = &machine.draft.cpu else {
        return;
    };
    let captured = (machine.draft.kernel.as_ref())
        .is_some_and(|kernel| matches!(kernel.value.source, KernelSource::Capture { .. }));
    let modelled =
        (machine.draft.cpus.as_ref()).is_some_and(|cpus| cpus.value.tuning.model.is_some());
    if cpu.value.like != CpuLike::Host && modelled {
        errors.push(
            MachinefileError::new(
                &cpu.span,
                "`cpus` sets a model, but `cpu` asks for the model of a captured host",
                "two models",
            )
            .help("keep one of them: `cpus … model=` or `cpu`"),
        );
    }
    if cpu.value.like != CpuLike::Host && !captured {
        errors.push(
            MachinefileError::new(
                &cpu.span,
                format!(
                    "cpu {:?} needs a captured host, but machine {:?} does not boot a capture",
                    cpu.value.like.word(),
                    machine.name.value
                ),
                "no captured host",
            )
            .help("add `kernel { capture \"NAME\"; }`, or remove `cpu`"),
        );
    }
}

fn check_repeats(machine: &Joined, errors: &mut Errors) {
    let mut names: HashSet<&str> = HashSet::new();
    for provisioner in &machine.draft.provisioners {
        if !names.insert(&provisioner.value.name) {
            errors.push(
                MachinefileError::new(
                    &provisioner.span,
                    format!(
                        "machine {:?} has two provisioners {:?}",
                        machine.name.value, provisioner.value.name
                    ),
                    "the second one",
                )
                .help("rename one of them: stead knows them by name"),
            );
        }
    }
    if let Some(folder) = machine.draft.syncs.get(MOST_FOLDERS) {
        errors.push(MachinefileError::new(
            &folder.span,
            format!(
                "machine {:?} has more than {MOST_FOLDERS} synced folders",
                machine.name.value
            ),
            "one too many",
        ));
        return;
    }
    let mut targets: HashSet<&str> = HashSet::new();
    for (n, folder) in machine.draft.syncs.iter().enumerate() {
        let (to, kind) = (&folder.value.to, folder.value.kind);
        // A copy into a mounted folder of the host would write and delete files on the host.
        let nested = machine.draft.syncs[..n].iter().find(|other| {
            let other = &other.value;
            !(kind.is_one_way() && other.kind.is_one_way())
                && (below(to, &other.to) || below(&other.to, to))
        });
        if let Some(other) = nested {
            errors.push(
                MachinefileError::new(
                    &folder.span,
                    format!("{to} and {} overlap", other.value.to),
                    "here",
                )
                .help("only folders that are copied one way may overlap; give each its own place"),
            );
        }
        if !targets.insert(&folder.value.to) {
            errors.push(MachinefileError::new(
                &folder.span,
                format!(
                    "machine {:?} syncs two folders to {}",
                    machine.name.value, folder.value.to
                ),
                "the second one",
            ));
        }
    }
}

/// QEMU opens a 9p folder by its name when it starts. By then, a guest that can write a folder above it may have
/// replaced it by a symlink to anything on the host.
fn check_shares(joined: &[Joined], errors: &mut Errors) {
    let all = || {
        joined.iter().flat_map(|machine| {
            let syncs = machine.draft.syncs.iter();
            syncs.map(move |sync| (machine.name.value.as_str(), sync))
        })
    };
    let mut written: HashMap<&Path, &str> = HashMap::new();
    for (machine, folder) in all() {
        if folder.value.kind.guest_writes(folder.value.readonly) {
            written.entry(&folder.value.from).or_insert(machine);
        }
    }
    for (_, folder) in all().filter(|(_, folder)| folder.value.kind.is_opened_by_name()) {
        let from = &folder.value.from;
        let above = (from.ancestors().skip(1))
            .find_map(|above| written.get(above).map(|machine| (machine, above)));
        if let Some((machine, other)) = above {
            errors.push(
                MachinefileError::new(
                    &folder.span,
                    format!(
                        "{} is below {}, which machine {machine} can write to, so it could make QEMU share another folder of this computer",
                        from.shown(),
                        other.shown()
                    ),
                    "shared by 9p",
                )
                .help("use type=\"virtiofs\", which is safe here, or make the folder above readonly=#true"),
            );
        }
    }
}

/// Whether a path of the guest is below another.
fn below(path: &str, above: &str) -> bool {
    (path.strip_prefix(above)).is_some_and(|rest| rest.starts_with('/'))
}

fn dependencies(
    machine: &Joined,
    joined: &[Joined],
    instances: &HashMap<&str, &[String]>,
    errors: &mut Errors,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for name in &machine.draft.depends_on {
        let text = name.value.as_str();
        if !seen.insert(text) {
            continue;
        }
        if let Some(all) = instances.get(text) {
            found.extend(all.iter().cloned());
        } else if joined
            .iter()
            .any(|other| other.instances.contains(&name.value))
        {
            found.push(name.value.clone());
        } else {
            let names: Vec<&str> = joined
                .iter()
                .map(|other| other.name.value.as_str())
                .collect();
            errors.push(
                MachinefileError::new(
                    &name.span,
                    format!("there is no machine {text:?}"),
                    nearest(text, names.iter().copied())
                        .map_or("unknown".into(), |near| format!("did you mean {near:?}?")),
                )
                .help(format!("the machines are {}", one_of(&names))),
            );
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Reports each cycle once, at the dependency that closes it.
fn check_cycles(joined: &[Joined], errors: &mut Errors) {
    let index = |name: &str| {
        joined.iter().position(|machine| {
            machine.name.value == name || machine.instances.iter().any(|i| i == name)
        })
    };
    // 0: not seen, 1: on the path, 2: done.
    let mut state = vec![0u8; joined.len()];
    for start in 0..joined.len() {
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        if state[start] != 0 {
            continue;
        }
        state[start] = 1;
        while let Some((machine, next)) = path.last_mut() {
            let Some(dependency) = joined[*machine].draft.depends_on.get(*next) else {
                state[*machine] = 2;
                path.pop();
                continue;
            };
            *next += 1;
            let Some(other) = index(&dependency.value) else {
                continue;
            };
            match state[other] {
                0 => {
                    state[other] = 1;
                    path.push((other, 0));
                }
                1 => {
                    let from = path.iter().position(|(m, _)| *m == other).unwrap_or(0);
                    let mut names: Vec<&str> = path[from..]
                        .iter()
                        .map(|(m, _)| joined[*m].name.value.as_str())
                        .collect();
                    names.push(&joined[other].name.value);
                    errors.push(
                        MachinefileError::new(
                            &dependency.span,
                            format!("machines depend on each other: {}", names.join(" → ")),
                            "closes the cycle",
                        )
                        .help("remove one of these `depends-on`"),
                    );
                }
                _ => {}
            }
        }
    }
}

/// How others reach a machine.
struct Reach {
    networks: Vec<MachineNetwork>,
    bridges: Vec<MachineBridge>,
    forwards: Vec<Forward>,
    /// The spans of its forwards.
    spans: Spans,
}

fn build(
    machine: &Joined,
    name: &str,
    depends_on: &[String],
    reach: Reach,
    first: bool,
    errors: &mut Errors,
) -> Option<Machine> {
    let draft = &machine.draft;
    if first {
        let mut need = |missing: bool, what: &str, example: &str| {
            if missing {
                errors.push(
                    MachinefileError::new(
                        &machine.name.span,
                        format!("machine {:?} has no `{what}`", machine.name.value),
                        "this machine",
                    )
                    .help(format!("add {example} to it, or to `defaults`")),
                );
            }
        };
        need(draft.box_ref.is_none(), "box", "box \"debian-12\"");
    }
    if let Some(hostname) = &draft.hostname
        && machine.instances.len() > 1
        && first
    {
        errors.push(
            MachinefileError::new(
                &hostname.span,
                "machines of one `count` cannot share a hostname",
                "used for all of them",
            )
            .help("remove it: the hostname of each is its machine's name"),
        );
    }
    let ready = draft.ready.as_ref().map(|ready| &ready.value);
    let (tuning, mut spans) = tuning(draft);
    spans.extend(reach.spans);
    Some(Machine {
        name: name.to_string(),
        one_of: (machine.count).then(|| machine.name.value.clone()),
        hostname: draft
            .hostname
            .as_ref()
            .map_or_else(|| name.to_string(), |hostname| hostname.value.clone()),
        box_ref: draft.box_ref.as_ref()?.value.reference.clone(),
        box_key: draft.box_ref.as_ref()?.value.key.clone(),
        box_file: draft.box_ref.as_ref()?.value.file.clone(),
        box_sha256: draft.box_ref.as_ref()?.value.sha256.clone(),
        cpus: (draft.cpus.as_ref()).map_or(DEFAULT_CPUS, |cpus| cpus.value.amount),
        memory: draft
            .memory
            .as_ref()
            .map_or(DEFAULT_MEMORY, |memory| memory.value.amount),
        disk: draft.disk.as_ref().map(|disk| disk.value.amount),
        kernel: draft.kernel.as_ref().map(|kernel| kernel.value.clone()),
        firmware: firmware::wanted(draft),
        secure_boot: firmware::is_set(&draft.secure_boot),
        tpm: firmware::is_set(&draft.tpm),
        tuning,
        spans,
        labels: draft.labels.clone().into_iter().collect::<BTreeMap<_, _>>(),
        vars: draft.vars.clone(),
        depends_on: depends_on.to_vec(),
        internet: (draft.internet.as_ref()).is_none_or(|internet| internet.value)
            && !(egress::is_isolated(&reach.networks) && reach.bridges.is_empty()),
        networks: reach.networks,
        bridges: reach.bridges,
        forwards: reach.forwards,
        syncs: (draft.syncs.iter())
            .map(|folder| folder.value.clone())
            .collect(),
        provisioners: draft
            .provisioners
            .iter()
            .map(|provisioner| Provisioner {
                name: provisioner.value.name.clone(),
                run: provisioner.value.run,
                kind: provisioner.value.kind.clone(),
            })
            .collect(),
        hooks: draft.hooks.clone(),
        ready: Ready {
            tcp: ready.map(|ready| ready.tcp.clone()).unwrap_or_default(),
            exec: ready.map(|ready| ready.exec.clone()).unwrap_or_default(),
            timeout: ready
                .and_then(|ready| ready.timeout)
                .unwrap_or(Ready::DEFAULT_TIMEOUT),
        },
        user: draft.user.as_ref().map(|user| user.value.clone()),
        user_data: draft.user_data.as_ref().map(|path| path.value.clone()),
        accel: draft.accel.as_ref().map(|accel| accel.value),
        egress: egress::egress(draft),
        auto_forward: (draft.auto_forward.as_ref()).is_none_or(|auto| auto.value),
        cpu: draft.cpu.as_ref().map(|cpu| cpu.value.clone()),
    })
}

/// The settings of `cpus`, `memory` and `disk` beside their amounts, and the spans of what only a host can check.
fn tuning(draft: &Draft) -> (Tuning, Spans) {
    let mut tuning = Tuning::default();
    let mut spans = Spans::default();
    if let Some(cpus) = &draft.cpus {
        tuning.cpu = cpus.value.tuning.clone();
        spans.extend(cpus.value.spans.clone());
    }
    if let Some(memory) = &draft.memory {
        tuning.memory = memory.value.tuning.clone();
        spans.extend(memory.value.spans.clone());
    }
    if let Some(disk) = &draft.disk {
        tuning.disk = disk.value.tuning.clone();
        spans.extend(disk.value.spans.clone());
    }
    if let Some(user_data) = &draft.user_data {
        spans.insert("user-data", user_data.span.clone());
    }
    firmware::note_spans(draft, &mut spans);
    if let Some((node, span)) = egress::guard(draft) {
        spans.insert(node, span.clone());
    }
    if let Some(span) = draft.host_access.here() {
        spans.insert("host-access", span.clone());
    }
    (tuning, spans)
}

/// The values for a machine that does not set them.
const DEFAULT_CPUS: u32 = 1;
const DEFAULT_MEMORY: Bytes = Bytes(1 << 30);
