//! Nodes to drafts: each node on its own, without a look at the others.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use crate::boxes::{Source, catalogue::Requirement};

use super::{
    Environment,
    block::{Block, unknown_node},
    diagnostics::{MachinefileError, Place, Spanned},
    model::{Accel, Bytes, ProvisionerKind, RunPolicy, ScriptSource},
    names::{is_hostname, is_label, is_user, nearest, one_of},
    paths::{Wants, guest_target, resolve},
    syntax::{FileInfo, Files, Item},
    units,
};

/// What the files say, not yet joined.
#[derive(Default)]
pub struct Drafts {
    pub project: Option<Spanned<String>>,
    pub connect: Option<Spanned<String>>,
    pub catalogue: Option<String>,
    pub defaults: Draft,
    /// In the order of the files.
    pub machines: Vec<MachineDraft>,
    /// Of Machinefile.local: laid over machines of the same name.
    pub local: Vec<MachineDraft>,
}

pub struct MachineDraft {
    pub name: Spanned<String>,
    pub count: Option<Spanned<i128>>,
    pub draft: Draft,
}

/// What may stand in `machine` and in `defaults`.
#[derive(Clone, Default)]
pub struct Draft {
    pub box_ref: Option<Spanned<BoxDraft>>,
    pub cpus: Option<Spanned<u32>>,
    pub memory: Option<Spanned<Bytes>>,
    pub disk: Option<Spanned<Bytes>>,
    pub hostname: Option<Spanned<String>>,
    pub user: Option<Spanned<String>>,
    pub user_data: Option<Spanned<PathBuf>>,
    pub accel: Option<Spanned<Accel>>,
    pub ready: Option<Spanned<ReadyDraft>>,
    pub labels: BTreeMap<String, String>,
    pub depends_on: Vec<Spanned<String>>,
    pub forwards: Vec<Spanned<(u16, u16)>>,
    pub syncs: Vec<Spanned<SyncDraft>>,
    pub provisioners: Vec<Spanned<ProvisionDraft>>,
}

#[derive(Clone)]
pub struct BoxDraft {
    pub reference: String,
    pub sha256: Option<String>,
}

#[derive(Clone, Default)]
pub struct ReadyDraft {
    pub tcp: Vec<u16>,
    pub exec: Vec<String>,
    pub timeout: Option<Duration>,
}

#[derive(Clone)]
pub struct SyncDraft {
    pub from: PathBuf,
    pub to: String,
    pub exclude: Vec<String>,
    pub delete: bool,
}

#[derive(Clone)]
pub struct ProvisionDraft {
    pub name: String,
    pub run: RunPolicy,
    pub kind: ProvisionerKind,
}

const TOP: [&str; 6] = [
    "project",
    "connect",
    "catalogue",
    "defaults",
    "machine",
    "include",
];

pub const MACHINE: [&str; 14] = [
    "box",
    "cpus",
    "memory",
    "disk",
    "hostname",
    "labels",
    "depends-on",
    "forward",
    "sync",
    "provision",
    "ready",
    "user",
    "user-data",
    "accel",
];

/// The least memory that a Linux guest can be expected to boot with.
const LEAST_MEMORY: u64 = 64 << 20;
/// More than QEMU's q35 takes (its documentation says 288).
const MOST_CPUS: i128 = 288;

pub fn decode(files: &Files, env: Environment<'_>, errors: &mut Vec<MachinefileError>) -> Drafts {
    let mut drafts = Drafts::default();
    let mut defaults_at: Option<Place> = None;
    for Item { node, file } in &files.items {
        let mut block = Block::new(node, file, env, errors);
        match block.name() {
            "project" => {
                let here = block.here();
                block.properties(&[]);
                block.no_children();
                if let Some(name) = block.one_string("a name") {
                    if !is_label(&name.value) {
                        block.error(not_a_label(&name, "project"));
                    }
                    if drafts.project.is_some() && !file.local {
                        block.error(twice(&here, "project"));
                    }
                    drafts.project = Some(name);
                }
            }
            "connect" => {
                let here = block.here();
                block.properties(&[]);
                block.no_children();
                if let Some(uri) = block.one_string("a libvirt URI") {
                    if !uri.value.contains("://") {
                        block.error(
                            MachinefileError::new(
                                &uri.place,
                                format!("{:?} is no libvirt URI", uri.value),
                                "here",
                            )
                            .help("write \"qemu:///session\" or \"qemu:///system\""),
                        );
                    }
                    if drafts.connect.is_some() && !file.local {
                        block.error(twice(&here, "connect"));
                    }
                    drafts.connect = Some(uri);
                }
            }
            "catalogue" => {
                let here = block.here();
                block.properties(&[]);
                block.no_children();
                if let Some(place) = block.one_string("a URL or a path") {
                    if drafts.catalogue.is_some() && !file.local {
                        block.error(twice(&here, "catalogue"));
                    }
                    match Source::parse(&place.value, &file.folder) {
                        Ok(Source::Web(url)) if url.scheme() == "https" => {
                            drafts.catalogue = Some(url.to_string());
                        }
                        Ok(Source::File(path)) => {
                            drafts.catalogue = Some(path.display().to_string());
                        }
                        _ => block.error(
                            MachinefileError::new(
                                &place.place,
                                format!("{:?} is no place of a catalogue", place.value),
                                "here",
                            )
                            .help("write an https: URL, or a path that starts with ./ or /"),
                        ),
                    }
                }
            }
            "defaults" => {
                let here = block.here();
                block.properties(&[]);
                block.at_most(0);
                if defaults_at.is_some() && !file.local {
                    block.error(twice(&here, "defaults"));
                }
                defaults_at = Some(here);
                let draft = machine(&mut block, files);
                drafts.defaults = draft.over(&drafts.defaults);
            }
            "machine" => {
                block.properties(&["count"]);
                let count = block.property_number("count", "number of machines", 1, 100);
                let name = block.one_string("a name");
                let draft = machine(&mut block, files);
                if let Some(name) = name {
                    if !is_label(&name.value) {
                        block.error(not_a_label(&name, "machine"));
                    }
                    let machine = MachineDraft { name, count, draft };
                    if file.local {
                        drafts.local.push(machine);
                    } else {
                        drafts.machines.push(machine);
                    }
                }
            }
            other => {
                let place = block.here();
                let error = if MACHINE.contains(&other) {
                    MachinefileError::new(
                        &place,
                        format!("`{other}` belongs inside of a machine"),
                        "not at the top",
                    )
                    .help("put it into `machine \"…\" { }`, or into `defaults { }` for all")
                } else {
                    unknown_node(&place, "a Machinefile", other, &TOP)
                };
                block.error(error);
            }
        }
    }
    drafts
}

fn not_a_label(name: &Spanned<String>, what: &str) -> MachinefileError {
    MachinefileError::new(
        &name.place,
        format!("{:?} is no valid {what} name", name.value),
        "not a hostname label",
    )
    .help("use lower-case letters, digits and dashes, up to 63, with no dash at either end")
}

pub fn twice(place: &Place, what: &str) -> MachinefileError {
    MachinefileError::new(place, format!("`{what}` is given twice"), "the second one")
        .help("keep one of them")
}

impl Draft {
    /// This draft, with what it does not say taken from `under`. What may be repeated adds up,
    /// `under`'s first.
    pub fn over(self, under: &Draft) -> Draft {
        fn join<T: Clone>(under: &[T], over: Vec<T>) -> Vec<T> {
            let mut all = under.to_vec();
            all.extend(over);
            all
        }
        let mut labels = under.labels.clone();
        labels.extend(self.labels);
        Draft {
            box_ref: self.box_ref.or(under.box_ref.clone()),
            cpus: self.cpus.or(under.cpus.clone()),
            memory: self.memory.or(under.memory.clone()),
            disk: self.disk.or(under.disk.clone()),
            hostname: self.hostname.or(under.hostname.clone()),
            user: self.user.or(under.user.clone()),
            user_data: self.user_data.or(under.user_data.clone()),
            accel: self.accel.or(under.accel.clone()),
            ready: self.ready.or(under.ready.clone()),
            labels,
            depends_on: join(&under.depends_on, self.depends_on),
            forwards: join(&under.forwards, self.forwards),
            syncs: join(&under.syncs, self.syncs),
            provisioners: join(&under.provisioners, self.provisioners),
        }
    }
}

fn machine(parent: &mut Block<'_>, files: &Files) -> Draft {
    let mut draft = Draft::default();
    let mut seen: Vec<&str> = Vec::new();
    for node in parent.children() {
        let name = node.name().value();
        if !MACHINE.contains(&name) {
            parent.unknown_child(node, &MACHINE);
            continue;
        }
        let file = Arc::clone(parent.file());
        let mut block = parent.child(node);
        let repeatable = matches!(
            name,
            "labels" | "depends-on" | "forward" | "sync" | "provision"
        );
        if !repeatable && seen.contains(&name) {
            let here = block.here();
            block.error(twice(&here, name));
            continue;
        }
        seen.push(name);
        field(&mut block, &mut draft, &file, files);
    }
    draft
}

fn field(block: &mut Block<'_>, draft: &mut Draft, file: &FileInfo, files: &Files) {
    match block.name() {
        "labels" => {
            block.no_children();
            block.at_most(0);
            for (key, value) in block.free_properties() {
                draft.labels.insert(key.value, value.value);
            }
            return;
        }
        "forward" => {
            block.properties(&["to"]);
            block.no_children();
            block.at_most(1);
            let guest = block.property_number("to", "port", 1, 65535);
            if let Some(host) = block.number(0, "port", 1, 65535) {
                let host_port = port(host.value);
                let guest_port = guest.map_or(host_port, |guest| port(guest.value));
                draft
                    .forwards
                    .push(Spanned::new((host_port, guest_port), host.place));
            }
            return;
        }
        "sync" => {
            draft.syncs.extend(sync(block, file, files));
            return;
        }
        "provision" => {
            draft.provisioners.extend(provision(block, file, files));
            return;
        }
        "ready" => {
            draft.ready = ready(block);
            return;
        }
        "box" => {
            draft.box_ref = Some(box_ref(block, file, files));
            return;
        }
        _ => {}
    }
    block.properties(&[]);
    block.no_children();
    match block.name() {
        "cpus" => {
            block.at_most(1);
            draft.cpus = block
                .number(0, "number of CPUs", 1, MOST_CPUS)
                .map(|n| Spanned::new(u32::try_from(n.value).unwrap_or(1), n.place));
        }
        "memory" => {
            draft.memory = block.with_unit("2GiB", |text| {
                let size = units::size(text)?;
                if size.0 < LEAST_MEMORY {
                    return Err("less than any Linux boots with (64MiB)".into());
                }
                Ok(size)
            });
        }
        "disk" => {
            draft.disk = block.with_unit("20GiB", |text| {
                let size = units::size(text)?;
                if size.0 == 0 {
                    return Err("has to be more than nothing".into());
                }
                Ok(size)
            });
        }
        "hostname" => {
            draft.hostname = block.one_string("a name");
            if let Some(name) = &draft.hostname
                && !is_hostname(&name.value)
            {
                let error = MachinefileError::new(
                    &name.place,
                    format!("{:?} is no valid hostname", name.value),
                    "not a hostname",
                )
                .help("labels of lower-case letters, digits and dashes, joined by dots");
                block.error(error);
            }
        }
        "user" => {
            draft.user = block.one_string("a user name");
            if let Some(name) = &draft.user
                && !is_user(&name.value)
            {
                let error = MachinefileError::new(
                    &name.place,
                    format!("{:?} is no valid user name", name.value),
                    "not a user name",
                )
                .help("lower-case letters, digits, `-` and `_`, starting with a letter, up to 32");
                block.error(error);
            }
        }
        "user-data" => {
            if let Some(path) = block.one_string("a path") {
                draft.user_data = resolve(&path, file, &files.root, Wants::File, block.errors)
                    .map(|found| Spanned::new(found, path.place));
            }
        }
        "accel" => {
            if let Some(word) = block.one_string("\"kvm\" or \"tcg\"") {
                draft.accel = choice(block, &word, &[("kvm", Accel::Kvm), ("tcg", Accel::Tcg)])
                    .map(|accel| Spanned::new(accel, word.place));
            }
        }
        "depends-on" => {
            draft
                .depends_on
                .extend(block.strings("the name of a machine"));
        }
        _ => {}
    }
}

/// One that is wrong is told of here, and not missed again later.
fn box_ref(block: &mut Block<'_>, file: &FileInfo, files: &Files) -> Spanned<BoxDraft> {
    block.properties(&["sha256", "version"]);
    block.no_children();
    let here = block.here();
    let sha256 = block.property_string("sha256");
    let version = block.property_string("version");
    let Some(name) = block.one_string("the name of a box") else {
        return Spanned::new(
            BoxDraft {
                reference: "?".into(),
                sha256: None,
            },
            here,
        );
    };
    let mut reference = name.value.clone();
    if name.value.trim().is_empty() {
        block.error(MachinefileError::new(
            &name.place,
            "`box` is empty",
            "the name of a box goes here",
        ));
    }
    match Source::parse(&name.value, &file.folder) {
        Err(message) => block.error(MachinefileError::new(&name.place, message, "here").help(
            "a box is a name in the store, an https: URL, oci://HOST/REPOSITORY:TAG, or a path that starts with ./ or /",
        )),
        Ok(Source::Web(url)) if url.scheme() == "http" && sha256.is_none() => block.error(
            MachinefileError::new(
                &name.place,
                "what comes over http: may have been altered on its way",
                "unprotected",
            )
            .help("use https:, or say what it has to be: box \"http://…\" sha256=\"…\""),
        ),
        // From the project's root, so that it means the same to whoever reads it.
        Ok(Source::File(_)) if name.value.starts_with('.') => {
            if let Ok(folder) = file.folder.strip_prefix(&files.root)
                && !folder.as_os_str().is_empty()
            {
                reference = format!("./{}/{}", folder.display(), name.value);
            }
        }
        Ok(Source::Name) => {
            if let Some(sha256) = &sha256 {
                block.error(
                    MachinefileError::new(
                        &sha256.place,
                        "`sha256` goes with a URL or a path",
                        "not with a name",
                    )
                    .help("a box in the store can be named by its digest: box \"sha256:…\""),
                );
            }
        }
        Ok(_) => {}
    }
    if let Some(version) = version {
        if let Err(message) = Requirement::parse(&version.value) {
            block.error(
                MachinefileError::new(&version.place, message, "here").help(
                    "a version is like 12 or 24.04, a range as in Cargo.toml: \">=22.04, <26\"",
                ),
            );
        }
        match Source::parse(&name.value, &file.folder) {
            Ok(Source::Name) if !name.value.contains(['/', ':']) => {
                reference = format!("{reference} {}", version.value.trim());
            }
            // Of those that a Vagrant server lists there.
            Ok(Source::Web(_)) => reference = format!("{reference} {}", version.value.trim()),
            _ => block.error(
                MachinefileError::new(
                    &version.place,
                    "`version` goes with a name of the catalogue",
                    "not with this",
                )
                .help("box \"debian\" version=\"12\" is the same as box \"debian/12\""),
            ),
        }
    }
    let sha256 = sha256.and_then(|sha256| {
        let digits = sha256
            .value
            .strip_prefix("sha256:")
            .unwrap_or(&sha256.value);
        let digits = digits.to_ascii_lowercase();
        if digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return Some(digits);
        }
        block.error(MachinefileError::new(
            &sha256.place,
            format!("{:?} is no sha256", sha256.value),
            "64 hex digits go here",
        ));
        None
    });
    Spanned::new(BoxDraft { reference, sha256 }, name.place)
}

fn port(number: i128) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn choice<T: Copy>(
    block: &mut Block<'_>,
    word: &Spanned<String>,
    known: &[(&str, T)],
) -> Option<T> {
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == word.value) {
        return Some(*value);
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    let quoted: Vec<&str> = quoted.iter().map(String::as_str).collect();
    block.error(
        MachinefileError::new(
            &word.place,
            format!("`{}` does not know {:?}", block.name(), word.value),
            nearest(&word.value, names.iter().copied())
                .map_or("unknown".into(), |near| format!("did you mean {near:?}?")),
        )
        .help(format!("it may be {}", one_of(&quoted))),
    );
    None
}

fn sync(block: &mut Block<'_>, file: &FileInfo, files: &Files) -> Option<Spanned<SyncDraft>> {
    block.properties(&["to", "delete"]);
    let here = block.here();
    let from = block.one_string("the folder to sync");
    let to = block.property_string("to");
    let delete = block
        .property_bool("delete")
        .is_none_or(|delete| delete.value);
    let mut exclude = Vec::new();
    for node in block.children() {
        match node.name().value() {
            "exclude" => {
                let mut child = block.child(node);
                child.properties(&[]);
                child.no_children();
                exclude.extend(
                    child
                        .strings("a pattern")
                        .into_iter()
                        .map(|word| word.value),
                );
            }
            _ => block.unknown_child(node, &["exclude"]),
        }
    }
    if to.is_none() {
        block.error(
            MachinefileError::new(&here, "`sync` needs to=\"…\"", "where does it go?")
                .help("write sync \".\" to=\"/srv/app\""),
        );
    }
    let from = from.and_then(|from| resolve(&from, file, &files.root, Wants::Folder, block.errors));
    let to =
        to.and_then(|to| guest_target(&to, block.errors).map(|path| Spanned::new(path, to.place)));
    let (from, to) = from.zip(to)?;
    Some(Spanned::new(
        SyncDraft {
            from,
            to: to.value,
            exclude,
            delete,
        },
        to.place,
    ))
}

fn provision(
    block: &mut Block<'_>,
    file: &FileInfo,
    files: &Files,
) -> Option<Spanned<ProvisionDraft>> {
    block.properties(&["run"]);
    let here = block.here();
    let name = block.one_string("a name");
    let run = match block.property_string("run") {
        None => RunPolicy::Once,
        Some(word) => choice(
            block,
            &word,
            &[("once", RunPolicy::Once), ("always", RunPolicy::Always)],
        )?,
    };
    let mut kind = None;
    for node in block.children() {
        let what = node.name().value();
        if !matches!(what, "shell" | "file") {
            block.unknown_child(node, &["shell", "file"]);
            continue;
        }
        let mut child = block.child(node);
        let child_here = child.here();
        if kind.is_some() {
            child.error(
                MachinefileError::new(
                    &child_here,
                    "a provisioner is one `shell` or one `file`",
                    "the second one",
                )
                .help("give it a `provision` of its own, with its own name"),
            );
            continue;
        }
        kind = Some(match what {
            "shell" => shell(&mut child, file, files),
            _ => file_kind(&mut child, file, files),
        });
    }
    if kind.is_none() {
        block.error(
            MachinefileError::new(&here, "`provision` has nothing to run", "empty")
                .help("put a `shell` or a `file` into its braces"),
        );
    }
    let (name, kind) = name.zip(kind.flatten())?;
    let plain = |c: char| !c.is_control() && c != '/';
    if name.value.is_empty() || !name.value.chars().all(plain) {
        block.error(MachinefileError::new(
            &name.place,
            format!("{:?} is no name for a provisioner", name.value),
            "here",
        ));
        return None;
    }
    Some(Spanned::new(
        ProvisionDraft {
            name: name.value,
            run,
            kind,
        },
        name.place,
    ))
}

fn shell(block: &mut Block<'_>, file: &FileInfo, files: &Files) -> Option<ProvisionerKind> {
    block.properties(&["inline", "user", "privileged"]);
    let here = block.here();
    let inline = block.property_string("inline");
    let user = block.property_string("user");
    let privileged = block.property_bool("privileged");
    let mut args: Vec<String> = Vec::new();
    let mut env = BTreeMap::new();
    for node in block.children() {
        let mut child = block.child(node);
        match node.name().value() {
            "args" => {
                child.properties(&[]);
                child.no_children();
                args.extend(child.strings("text").into_iter().map(|word| word.value));
            }
            "env" => {
                child.at_most(0);
                child.no_children();
                for (key, value) in child.free_properties() {
                    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    if !key.value.chars().all(plain)
                        || key.value.starts_with(|c: char| c.is_ascii_digit())
                    {
                        child.error(MachinefileError::new(
                            &key.place,
                            format!("{:?} is no name of an environment variable", key.value),
                            "letters, digits and _",
                        ));
                    }
                    env.insert(key.value, value.value);
                }
            }
            _ => block.unknown_child(node, &["args", "env"]),
        }
    }
    if let Some(user) = &user {
        if !is_user(&user.value) {
            block.error(MachinefileError::new(
                &user.place,
                format!("{:?} is no valid user name", user.value),
                "not a user name",
            ));
        }
        if let Some(privileged) = &privileged
            && privileged.value
        {
            block.error(
                MachinefileError::new(
                    &privileged.place,
                    "`privileged` means root, and `user` names somebody else",
                    "one of the two",
                )
                .help("leave one of them out"),
            );
        }
    }
    let source = match inline {
        Some(text) => {
            block.at_most(0);
            Some(ScriptSource::Inline(text.value))
        }
        None => match block.optional_first_string("the path of a script") {
            Some(path) => {
                args.splice(0..0, block.rest("text").into_iter().map(|word| word.value));
                resolve(&path, file, &files.root, Wants::File, block.errors).map(ScriptSource::Path)
            }
            None => {
                if block.is_without_arguments() {
                    block.error(
                        MachinefileError::new(&here, "`shell` has no script", "empty")
                            .help("give it a path, or inline=\"…\""),
                    );
                }
                None
            }
        },
    };
    Some(ProvisionerKind::Shell {
        source: source?,
        args,
        env,
        privileged: user.is_none() && privileged.is_none_or(|privileged| privileged.value),
        user: user.map(|user| user.value),
    })
}

fn file_kind(block: &mut Block<'_>, file: &FileInfo, files: &Files) -> Option<ProvisionerKind> {
    block.properties(&["to", "mode", "owner"]);
    block.no_children();
    let here = block.here();
    let from = block.one_string("a path");
    let to = block.property_string("to");
    if to.is_none() {
        block.error(
            MachinefileError::new(&here, "`file` needs to=\"…\"", "where does it go?")
                .help("write file \"motd\" to=\"/etc/motd\""),
        );
    }
    let mode =
        block
            .property_string("mode")
            .and_then(|mode| match u32::from_str_radix(&mode.value, 8) {
                Ok(number) if number <= 0o7777 && mode.value.len() >= 3 => Some(number),
                _ => {
                    block.error(
                        MachinefileError::new(
                            &mode.place,
                            format!("{:?} is no file mode", mode.value),
                            "octal digits",
                        )
                        .help("write it as chmod takes it: \"0644\""),
                    );
                    None
                }
            });
    let owner = block.property_string("owner").and_then(|owner| {
        let good = match owner.value.split_once(':') {
            Some((user, group)) => is_user(user) && is_user(group),
            None => is_user(&owner.value),
        };
        if good {
            return Some(owner.value);
        }
        block.error(
            MachinefileError::new(
                &owner.place,
                format!("{:?} is no owner", owner.value),
                "here",
            )
            .help("write \"user\" or \"user:group\""),
        );
        None
    });
    let from = from.and_then(|from| resolve(&from, file, &files.root, Wants::Either, block.errors));
    let to = to.and_then(|to| guest_target(&to, block.errors));
    let (from, to) = from.zip(to)?;
    Some(ProvisionerKind::File {
        from,
        to,
        mode,
        owner,
    })
}

fn ready(block: &mut Block<'_>) -> Option<Spanned<ReadyDraft>> {
    block.properties(&[]);
    block.at_most(0);
    let here = block.here();
    let mut ready = ReadyDraft::default();
    const KNOWN: [&str; 3] = ["tcp", "exec", "timeout"];
    for node in block.children() {
        let mut child = block.child(node);
        match node.name().value() {
            "tcp" => {
                child.properties(&[]);
                child.no_children();
                let ports = child.numbers("port", 1, 65535);
                ready.tcp.extend(ports.into_iter().map(|p| port(p.value)));
            }
            "exec" => {
                child.properties(&[]);
                child.no_children();
                ready
                    .exec
                    .extend(child.one_string("a command line").map(|word| word.value));
            }
            "timeout" => {
                child.properties(&[]);
                child.no_children();
                let here = child.here();
                if ready.timeout.is_some() {
                    child.error(twice(&here, "timeout"));
                }
                ready.timeout = child
                    .with_unit("90s", units::duration)
                    .map(|timeout| timeout.value);
            }
            _ => block.unknown_child(node, &KNOWN),
        }
    }
    Some(Spanned::new(ready, here))
}
