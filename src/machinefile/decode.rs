//! Turns nodes into drafts, each on its own.

mod ansible;
mod box_ref;
mod draft;
mod egress;
mod forward;
mod hook;
mod inventory;
mod kernel;
mod link;
mod network;
mod network_meant;
mod provision;
mod ready;
mod runs_meant;
mod script_text;
mod shell;
mod sync;
mod tuning;
mod values;

use std::sync::Arc;

use crate::{boxes::Source, host::firmware::Firmware};

use super::{
    diagnostics::{Errors, MachinefileError, Span, Spanned},
    model::{Accel, Cpu, CpuLike, Libvirt},
    names::{is_hostname, is_label, stands_for_other},
    node::{Node, unknown_node, values::list_of},
    syntax::{FileInfo, Files, Item},
    user_data,
    variables::Variables,
};
use values::{choice, not_a_label, twice};

pub(super) use draft::{Draft, Drafts, MachineDraft, ProjectProvisionDraft};
pub(super) use forward::ForwardDraft;
pub(super) use inventory::GroupDraft;
pub(super) use link::LinkDraft;
pub(super) use network::{CardDraft, NetworkDraft};
pub(super) use network_meant::{NONE, subnet_around};

pub(super) const TOP: [&str; 11] = [
    "project",
    "connect",
    "catalogue",
    "host-reserve",
    "defaults",
    "network",
    "link",
    "machine",
    "group",
    "provision",
    "include",
];

pub(super) const MACHINE: [&str; 26] = [
    "box",
    "kernel",
    "firmware",
    "secure-boot",
    "tpm",
    "cpus",
    "memory",
    "disk",
    "hostname",
    "labels",
    "vars",
    "depends-on",
    "network",
    "forward",
    "sync",
    "provision",
    "before",
    "after",
    "ready",
    "user",
    "user-data",
    "accel",
    "internet",
    "egress",
    "host-access",
    "cpu",
];

/// How many groups a project may have.
const MOST_GROUPS: usize = 1_000;

pub(super) fn decode<'a>(files: &'a Files, env: &'a Variables<'a>, errors: &mut Errors) -> Drafts {
    let mut drafts = Drafts::default();
    let mut defaults_at: Option<Span> = None;
    let mut too_many_groups = false;
    for Item { node, file } in &files.items {
        let (length, before) = (node.span().len(), env.size());
        let size = || length + (env.size() - before);
        let mut node = Node::new(node, file, env, errors);
        match node.name() {
            "project" => {
                let here = node.here();
                node.properties(&[]);
                node.no_children();
                if let Some(name) = node.one_string("a name") {
                    if !is_label(&name.value) {
                        node.error(not_a_label(&name, "project"));
                    }
                    if drafts.project.is_some() && !file.local {
                        node.error(twice(&here, "project"));
                    }
                    drafts.project = Some(name);
                }
            }
            "connect" => {
                let here = node.here();
                node.properties(&[]);
                node.no_children();
                if let Some(uri) = node.one_string("a libvirt URI") {
                    if drafts.connect.is_some() && !file.local {
                        node.error(twice(&here, "connect"));
                    }
                    match Libvirt::of(&uri.value) {
                        Some(libvirt) => drafts.connect = Some(libvirt),
                        None => node.error(
                            MachinefileError::new(
                                &uri.span,
                                format!("a Machinefile cannot connect to {:?}", uri.value),
                                "expected \"qemu:///session\" or \"qemu:///system\"",
                            )
                            .help("a libvirt URI can name programs to run, so give any other URI yourself: --connect or LIBVIRT_DEFAULT_URI"),
                        ),
                    }
                }
            }
            "catalogue" => {
                let here = node.here();
                node.properties(&[]);
                node.no_children();
                let written = node.first_as_written().unwrap_or_default();
                if let Some(place) = node.one_string("a URL or a path") {
                    if drafts.catalogue.is_some() && !file.local {
                        node.error(twice(&here, "catalogue"));
                    }
                    match Source::parse(&place.value, &file.folder) {
                        // Read-only commands fetch it too, and must not send values of the environment anywhere.
                        Ok(Source::Web(_)) if written != place.value => node.error(
                            MachinefileError::new(
                                &place.span,
                                "the URL of a catalogue cannot contain ${env.…}",
                                "here",
                            )
                            .help("write the whole URL, or a path: catalogue \"./catalogue.kdl\""),
                        ),
                        Ok(Source::Web(url)) if has_login(&url) => node.error(
                            MachinefileError::new(
                                &place.span,
                                "the URL of a catalogue cannot contain a user or a password",
                                "here",
                            )
                            .help("everybody with the Machinefile could read them; use a path: catalogue \"./catalogue.kdl\""),
                        ),
                        Ok(Source::Web(url)) if url.scheme() == "https" => {
                            drafts.catalogue = Some(url.to_string());
                        }
                        Ok(Source::File(path)) => {
                            drafts.catalogue = Some(path.to_string_lossy().into_owned());
                        }
                        _ => node.error(
                            MachinefileError::new(
                                &place.span,
                                format!("{:?} is not a catalogue", place.value),
                                "here",
                            )
                            .help("write an https: URL, or a path that starts with ./ or /"),
                        ),
                    }
                }
            }
            "host-reserve" => {
                let here = node.here();
                if drafts.host_reserve.is_some() && !file.local {
                    node.error(twice(&here, "host-reserve"));
                }
                drafts.host_reserve = Some(tuning::host_reserve(&mut node));
            }
            "defaults" => {
                let here = node.here();
                node.properties(&[]);
                node.at_most(0);
                if defaults_at.is_some() && !file.local {
                    node.error(twice(&here, "defaults"));
                }
                defaults_at = Some(here);
                let draft = machine(&mut node, files);
                drafts.defaults = draft.over(&drafts.defaults);
                drafts.defaults_size += size();
            }
            "network" => drafts.networks.extend(network::top(&mut node, file.local)),
            "link" => drafts.links.extend(link::link(&mut node)),
            "machine" => {
                node.properties(&["count"]);
                let has_count = node.has_property("count");
                let count = node.property_number("count", "number of machines", 1, 100);
                let name = node.one_string_or("a name", |written| match written {
                    [name, count] if !has_count && count.parse::<u8>().is_ok() => {
                        Some(format!("write `machine {name} count={count}`"))
                    }
                    _ => None,
                });
                let draft = machine(&mut node, files);
                if let Some(name) = name {
                    if !is_label(&name.value) {
                        node.error(not_a_label(&name, "machine"));
                    } else if stands_for_other(&name.value) && count.is_none() {
                        node.error(
                            MachinefileError::new(
                                &name.span,
                                format!("no machine can have the name {:?}", name.value),
                                "programs take it for an address",
                            )
                            .help(match name.value.as_str() {
                                "localhost" => {
                                    "choose another name: `localhost` is the computer that asks"
                                        .into()
                                }
                                number => {
                                    format!("begin it with a letter, such as \"node-{number}\"")
                                }
                            }),
                        );
                    }
                    let machine = MachineDraft {
                        name,
                        count,
                        draft,
                        size: size(),
                    };
                    if file.local {
                        drafts.local.push(machine);
                    } else {
                        drafts.machines.push(machine);
                    }
                }
            }
            "group" if drafts.groups.len() >= MOST_GROUPS => {
                // Reported once, because there may be any number of them.
                if !std::mem::replace(&mut too_many_groups, true) {
                    let place = node.here();
                    node.error(MachinefileError::new(
                        &place,
                        format!("the project has more than {MOST_GROUPS} groups"),
                        "one too many",
                    ));
                }
            }
            "group" => {
                if let Some(group) = inventory::group(&mut node) {
                    let again =
                        (drafts.groups.iter()).any(|other| other.name.value == group.name.value);
                    if again && !file.local {
                        node.error(
                            MachinefileError::new(
                                &group.name.span,
                                format!("the project has two groups {:?}", group.name.value),
                                "the second one",
                            )
                            .help("merge the two"),
                        );
                    }
                    drafts.groups.push(group);
                }
            }
            "provision" => {
                drafts
                    .provisioners
                    .extend(provision::project(&mut node, file, files));
            }
            // Half a million of them are in a file of 1 MiB.
            _ if node.errors.is_full() => node.errors.count(),
            other => {
                let place = node.here();
                let error = if MACHINE.contains(&other) {
                    MachinefileError::new(
                        &place,
                        format!("`{other}` belongs in a machine"),
                        "not at the top",
                    )
                    .help(
                        "move it into `machine \"…\" { }`, or into `defaults { }` for all machines",
                    )
                } else {
                    unknown_node(&place, "a Machinefile", other, &TOP)
                };
                node.error(error);
            }
        }
    }
    drafts
}

fn has_login(url: &reqwest::Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn machine(parent: &mut Node<'_>, files: &Files) -> Draft {
    let mut draft = Draft::default();
    let mut seen: Vec<&str> = Vec::new();
    let mut auto: Option<Span> = None;
    for inner in parent.children() {
        let name = inner.name().value();
        if name == "bandwidth" {
            tuning::bandwidth(&mut parent.child(inner));
            continue;
        }
        if TOP.contains(&name) && !MACHINE.contains(&name) {
            let node = parent.child(inner);
            let (here, message) = (node.here(), format!("`{name}` belongs at the top"));
            let error = MachinefileError::new(&here, message, "within a machine");
            parent.error(error.help("move it out of the braces, to the top of the Machinefile"));
            continue;
        }
        if !MACHINE.contains(&name) {
            parent.unknown_child(inner, &MACHINE);
            continue;
        }
        let file = Arc::clone(parent.file());
        let mut node = parent.child(inner);
        let repeatable = matches!(
            name,
            "labels"
                | "vars"
                | "depends-on"
                | "network"
                | "forward"
                | "host-access"
                | "sync"
                | "provision"
                | "before"
                | "after"
        );
        if !repeatable && seen.contains(&name) {
            let here = node.here();
            node.error(twice(&here, name));
            continue;
        }
        seen.push(name);
        if name == "forward" && node.has_property("auto") && auto.replace(node.here()).is_some() {
            let here = node.here();
            node.error(twice(&here, "forward auto"));
            continue;
        }
        field(&mut node, &mut draft, &file, files);
    }
    draft
}

fn field(node: &mut Node<'_>, draft: &mut Draft, file: &FileInfo, files: &Files) {
    match node.name() {
        "labels" => {
            node.only_properties();
            node.at_most(0);
            for (key, value) in node.free_properties() {
                draft.labels.insert(key.value, value.value);
            }
            return;
        }
        "vars" => {
            node.only_properties();
            draft.vars = ansible::vars(node).over(&draft.vars);
            return;
        }
        "forward" => {
            match node.has_property("auto") {
                true => draft.auto_forward = forward::auto(node),
                false => draft.forwards.extend(forward::forward(node)),
            }
            return;
        }
        "network" => {
            network::of_machine(node, &mut draft.networks);
            return;
        }
        "egress" => {
            draft.egress = egress::egress(node);
            return;
        }
        "host-access" => {
            egress::host_access(node, &mut draft.host_access);
            return;
        }
        "sync" => {
            draft.syncs.extend(sync::sync(node, file, files));
            return;
        }
        "provision" => {
            draft
                .provisioners
                .extend(provision::provision(node, file, files));
            return;
        }
        "before" | "after" => {
            draft.hooks.extend(hook::hooks(node, file, files));
            return;
        }
        "ready" => {
            draft.ready = ready::ready(node);
            return;
        }
        "kernel" => {
            draft.kernel = Some(kernel::kernel(node, file));
            return;
        }
        "box" => {
            draft.box_ref = Some(box_ref::box_ref(node, file, files));
            return;
        }
        "cpus" => {
            draft.cpus = tuning::cpus(node);
            return;
        }
        "memory" => {
            draft.memory = tuning::memory(node);
            return;
        }
        "disk" => {
            draft.disk = tuning::disk(node);
            return;
        }
        _ => {}
    }
    node.properties(&[]);
    if node.name() == "depends-on" && node.is_without_arguments() && !node.children().is_empty() {
        let here = node.here();
        let lists = node.children().iter().map(list_of);
        let list = lists.collect::<Option<Vec<_>>>();
        let list = list.map_or("\"db\"".into(), |list| list.join(" "));
        let error = MachinefileError::new(
            &here,
            "`depends-on` has its machines on its line",
            "in braces",
        );
        node.error(error.help(format!("write depends-on {list}")));
        return;
    }
    node.no_children();
    match node.name() {
        "hostname" => {
            draft.hostname = node.one_string("a name");
            if let Some(name) = &draft.hostname
                && !is_hostname(&name.value)
            {
                let error = MachinefileError::new(
                    &name.span,
                    format!("{:?} is not a valid hostname", name.value),
                    "not a hostname",
                )
                .help("use labels of lower-case ASCII letters, digits and dashes, with no dash at either end, joined by dots");
                node.error(error);
            }
        }
        "user" => {
            draft.user = node.one_string("a user name");
            if let Some(name) = &draft.user {
                node.check_user(name);
            }
        }
        "user-data" => {
            if let Some(path) = node.one_string("a path") {
                draft.user_data = user_data::file(&path, file, files, node.errors)
                    .map(|found| Spanned::new(found, path.span));
            }
        }
        "accel" => {
            if let Some(word) = node.one_string("\"kvm\" or \"tcg\"") {
                draft.accel = choice(node, &word, &[("kvm", Accel::Kvm), ("tcg", Accel::Tcg)])
                    .map(|accel| Spanned::new(accel, word.span));
            }
        }
        "firmware" => {
            if let Some(word) = node.one_string("\"uefi\" or \"bios\"") {
                let known = [("uefi", Firmware::Uefi), ("bios", Firmware::Bios)];
                draft.firmware =
                    choice(node, &word, &known).map(|firmware| Spanned::new(firmware, word.span));
            }
        }
        "secure-boot" => draft.secure_boot = node.one_bool(),
        "tpm" => draft.tpm = node.one_bool(),
        "internet" => draft.internet = node.one_bool(),
        "cpu" => {
            if let Some(word) = node.one_string("\"exact\", \"nearest\" or \"host\"") {
                let known = [
                    ("exact", CpuLike::Exact),
                    ("nearest", CpuLike::Nearest),
                    ("host", CpuLike::Host),
                ];
                draft.cpu = choice(node, &word, &known).map(|like| {
                    let at = word.span.text();
                    Spanned::new(Cpu { like, at }, word.span)
                });
            }
        }
        "depends-on" => {
            draft
                .depends_on
                .extend(node.strings("the name of a machine"));
        }
        _ => {}
    }
}
