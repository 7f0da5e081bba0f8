//! `stead box`: builds, adds, lists, shows, verifies and removes boxes.

mod describe;
mod examples;
mod export;
mod pack;
mod prune;
mod push;
mod update;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::{Args, Subcommand};

use crate::{
    boxes::{
        self, Boot, Firmware, NameSource, Phase, Progress, Source, Store, StoredBox, write_archive,
    },
    failure::Failure,
    fetch::{Expected, kept},
    host::{address, names::check_name_in_parts, paths::DataDir},
    report::{
        CopyBar, Table, WorkLine, ago, bytes,
        clean::{Shown, words},
        elapsed, reporter, say,
    },
    resolve::{box_fetch::fetch, catalogues::Catalogues, request::BoxRequest},
    session::{
        invocation::Invocation,
        locate::{data_dir, load_project, start_folder, text_from_start},
        store_users::InUse,
    },
};
use describe::{describe, name};

use super::output;
use export::ExportArgs;
use pack::PackArgs;
use prune::PruneArgs;
use update::{available, outdated, update};

#[derive(Args)]
pub(super) struct BoxArgs {
    #[command(subcommand)]
    command: BoxCommand,
}

impl BoxArgs {
    /// Whether it changes the store or a registry.
    pub(super) fn changes(&self) -> bool {
        match self.command {
            BoxCommand::Add { .. }
            | BoxCommand::Update { .. }
            | BoxCommand::Push { .. }
            | BoxCommand::Pull { .. }
            | BoxCommand::Build { .. }
            | BoxCommand::Pack(_)
            | BoxCommand::Prune(_)
            | BoxCommand::Remove { .. } => true,
            BoxCommand::Outdated
            | BoxCommand::List { .. }
            | BoxCommand::Show { .. }
            | BoxCommand::Export(_)
            | BoxCommand::Verify { .. } => false,
        }
    }
}

#[derive(Subcommand)]
enum BoxCommand {
    /// Add a box or disk image to the store, from a file or URL
    #[command(after_help = examples::ADD)]
    Add {
        /// A box folder or archive, a disk image, the URL of an archive or image,
        /// oci://HOST/REPOSITORY:TAG, or a name in the catalogue, such as debian/12
        place: String,
        /// Expected SHA-256 of the file, or of the manifest in the registry: 64 hex digits
        #[arg(long, value_name = "DIGEST")]
        sha256: Option<String>,
        /// Name of the box in the store; a fetched box without one goes by its origin
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Fetch the current versions of this project's boxes and pin them in Machinefile.lock
    #[command(after_help = examples::UPDATE)]
    Update {
        /// Boxes to update, as named in the Machinefile [default: all]
        #[arg(value_name = "BOX")]
        references: Vec<String>,
    },
    /// List boxes of this project that have newer versions than Machinefile.lock
    Outdated,
    /// Push a box to a registry
    #[command(after_help = examples::PUSH)]
    Push {
        /// NAME, NAME:VERSION, or at least 6 digits of the digest
        #[arg(value_name = "BOX")]
        reference: String,
        /// Target: oci://HOST[:PORT]/REPOSITORY:TAG
        to: String,
    },
    /// Pull a box from a registry
    #[command(after_help = examples::PULL)]
    Pull {
        /// Source: oci://HOST[:PORT]/REPOSITORY:TAG, or with @sha256:DIGEST
        from: String,
    },
    /// List the boxes in the store
    #[command(after_help = examples::LIST)]
    List {
        /// List the boxes that the catalogue has for this host instead
        #[arg(long)]
        available: bool,
    },
    /// Show a box's details and the machines that use it
    #[command(after_help = examples::SHOW)]
    Show {
        /// NAME, NAME:VERSION, or at least 6 digits of the digest
        #[arg(value_name = "BOX")]
        reference: String,
    },
    /// Build a box from a distribution's packages and add it
    #[command(after_help = examples::BUILD)]
    Build {
        /// A recipe's folder, or a recipe of stead's own: debian-12, debian-13, debian-12-cloud, almalinux-9, opensuse-leap-16, arch
        recipe: String,
        /// Write the box to this archive instead of adding it to the store
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Make a box from a machine's current state; the machine is not changed
    Pack(PackArgs),
    /// Convert a box's disk to another format
    Export(ExportArgs),
    /// Check the files of boxes against their digests
    #[command(after_help = examples::VERIFY)]
    Verify {
        /// NAME, NAME:VERSION, or at least 6 digits of the digest [default: all]
        #[arg(value_name = "BOX")]
        references: Vec<String>,
    },
    /// Remove fetched boxes that are long unused, and remains of broken downloads
    Prune(PruneArgs),
    /// Remove a box that no machine uses
    #[command(after_help = examples::REMOVE)]
    Remove {
        /// NAME, NAME:VERSION, or at least 6 digits of the digest
        #[arg(value_name = "BOX")]
        reference: String,
        /// Remove it even if stead cannot check which machines use it
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(invocation: &Invocation, args: BoxArgs) -> Result<ExitCode, Failure> {
    let data = data_dir()?;
    let store = Store::open(&data);
    match args.command {
        BoxCommand::Add {
            place,
            sha256,
            name,
        } => add_from(
            invocation,
            &store,
            &data,
            &place,
            sha256.as_deref(),
            name.as_deref(),
        ),
        BoxCommand::Update { references } => update(invocation, &store, &data, &references),
        BoxCommand::Outdated => outdated(invocation, &store, &data),
        BoxCommand::List { available: true } => available(invocation, &data),
        BoxCommand::List { available: false } => list(invocation, &store, &data),
        BoxCommand::Push { reference, to } => push::run(invocation, &store, &data, &reference, &to),
        BoxCommand::Pull { from } => {
            if !from.starts_with("oci://") {
                return Err(Failure::usage(
                    format!("{:?} is not a place in a registry", address::shown(&from)),
                    "write oci://HOST/REPOSITORY:TAG; `stead box add` takes paths and other URLs",
                ));
            }
            add_from(invocation, &store, &data, &from, None, None)
        }
        BoxCommand::Show { reference } => show(invocation, &store, &data, &reference),
        BoxCommand::Build { recipe, output } => {
            let folder = text_from_start(invocation, recipe.clone())?;
            let recipe = if Path::new(&folder).join("recipe.kdl").exists() {
                folder
            } else {
                recipe
            };
            let output = output.map(|file| output::file(invocation, &file, "--output"));
            build(
                invocation,
                &store,
                &recipe,
                output.transpose()?.as_deref(),
                data.root(),
            )
        }
        BoxCommand::Pack(args) => pack::run(invocation, args),
        BoxCommand::Export(args) => export::run(invocation, &store, args),
        BoxCommand::Verify { references } => verify(invocation, &store, &references),
        BoxCommand::Prune(args) => prune::run(invocation, &store, &data, &args),
        BoxCommand::Remove { reference, force } => {
            remove(invocation, &store, &data, &reference, force)
        }
    }
}

fn add_from(
    invocation: &Invocation,
    store: &Store,
    data: &DataDir,
    place: &str,
    sha256: Option<&str>,
    called: Option<&str>,
) -> Result<ExitCode, Failure> {
    if let Some(name) = called
        && let Err(message) = check_name_in_parts("name", name)
    {
        return Err(Failure::usage(message, "choose another --name"));
    }
    let folder = start_folder(invocation)?;
    let path = folder.join(place);
    if sha256.is_none() && !place.contains("://") && path.is_dir() {
        return add(invocation, store, &path, NameSource::Added, called);
    }
    let mut by_name = called.is_some();
    let wanted = match Source::parse(place, &folder) {
        Err(message) => {
            return Err(Failure::usage(
                message,
                "give a path, a URL that starts with https://, or oci://HOST/REPOSITORY:TAG",
            ));
        }
        Ok(Source::Web(url)) => {
            let written = match place.split_once(' ') {
                Some((_, version)) => format!("{} {version}", kept(&url)),
                None => kept(&url),
            };
            BoxRequest::at(&written, &Source::Web(url))
        }
        Ok(source @ Source::Oci(_)) => BoxRequest::at(place, &source),
        _ if path.exists() => None,
        _ => {
            let typed = address::shown(place);
            let catalogues = Catalogues::open(data, load_project(invocation).ok().as_ref())?;
            let found = catalogues
                .find(place, std::env::consts::ARCH)?
                .ok_or_else(|| {
                    Failure::error(
                        format!(
                            "there is neither a file {} nor a box {} in the catalogue",
                            folder.join(&*typed).shown(),
                            words(&typed)
                        ),
                        "give a path, a URL, or a name of `stead box list --available`",
                    )
                })?;
            // A name in the user's own catalogue or stead's was chosen by the user. A project's
            // catalogue may come from anyone.
            by_name |= (Catalogues::open(data, None)?.find(place, std::env::consts::ARCH)?)
                .is_some_and(|own| own.image.urls == found.image.urls);
            Some(BoxRequest::listed(place, &found))
        }
    };
    by_name |= wanted.is_none();
    // The user may come by symlinks; a project's file is opened without.
    let file = Source::File(path.canonicalize().unwrap_or(path));
    let Some(mut wanted) = wanted.or_else(|| BoxRequest::at(place, &file)) else {
        return Err(Failure::usage(
            format!("{:?} is not a path or a URL", address::shown(place)),
            "give a path or a URL",
        ));
    };
    let expected = match sha256 {
        None => None,
        Some(text) => Some(Expected::parse(text, "--sha256").ok_or_else(|| {
            Failure::usage(
                format!("invalid SHA-256 {text:?}"),
                "give its 64 hex digits",
            )
        })?),
    };
    if expected.is_none() && place.starts_with("http://") {
        return Err(Failure::usage(
            "a download over http: may be altered on its way",
            "use https:, or give the expected --sha256",
        ));
    }
    let adding = Adding::begin(store);
    let reporter = reporter(invocation.style, &[]);
    wanted.expected.extend(expected);
    for (_, stored) in fetch(store, data, vec![wanted], &reporter)? {
        let given = by_name.then_some(NameSource::Added);
        adding.end(invocation, stored, given, called)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn add(
    invocation: &Invocation,
    store: &Store,
    path: &Path,
    given: NameSource,
    called: Option<&str>,
) -> Result<ExitCode, Failure> {
    let adding = Adding::begin(store);
    let style = invocation.style;
    let bar = CopyBar::new(style.live && !style.quiet && !style.json);
    let stored = store.add(path, &mut |done, total| bar.at(done, total));
    bar.end();
    adding.end(invocation, stored?, Some(given), called)?;
    Ok(ExitCode::SUCCESS)
}

/// A command that adds a box.
struct Adding<'a> {
    store: &'a Store,
    started: Instant,
    /// The digests of the boxes that were in the store before.
    before: HashSet<String>,
}

impl<'a> Adding<'a> {
    fn begin(store: &'a Store) -> Self {
        // What is wrong with the store is reported when a box is added.
        let boxes = store.list().unwrap_or_default();
        Adding {
            store,
            started: Instant::now(),
            before: boxes.iter().map(|it| it.digest.to_string()).collect(),
        }
    }

    /// Names the box, if it is to have a name, and reports it.
    fn end(
        &self,
        invocation: &Invocation,
        stored: StoredBox,
        given: Option<NameSource>,
        called: Option<&str>,
    ) -> Result<(), Failure> {
        let store = self.store;
        let stored = match called {
            Some(name) if name != stored.manifest.name => store.add_under_name(&stored, name)?,
            _ => stored,
        };
        let before = match given {
            Some(given) => store.give_name(&stored, given)?,
            None => None,
        };
        if invocation.style.json {
            return output::json(&describe(store, &stored));
        }
        let known = match given {
            Some(_) => name(&stored),
            None => store.known_as(&stored, &store.named()?),
        };
        let which = format!(
            "{known} ({}, {})",
            stored.digest.short(),
            bytes(store.disk_use(&stored))
        );
        let line = match self.before.contains(&stored.digest.to_string()) {
            true => format!("{which} is in the store already"),
            false => format!("added {which} in {}", elapsed(self.started.elapsed())),
        };
        say(invocation.style, &line);
        if let Some(before) = before {
            say(
                invocation.style,
                &format!(
                    "{} now means this box instead of {} ({}); projects that have pinned it keep the old one",
                    stored.manifest.name,
                    before.manifest.version,
                    before.digest.short()
                ),
            );
        }
        Ok(())
    }
}

/// Shows a box by its digest, with its name if it is in the store.
fn parent_name(store: &Store, digest: &str) -> String {
    match store.resolve(digest) {
        Ok(parent) => format!("{} ({})", name(&parent), parent.digest.short()),
        Err(_) => format!("{digest}, which is not in the store"),
    }
}

fn list(invocation: &Invocation, store: &Store, data: &DataDir) -> Result<ExitCode, Failure> {
    let boxes = store.list()?;
    // Boxes can be listed even when libvirt cannot be reached.
    let in_use = InUse::observe(invocation, data).ok();
    let machines = |stored: &StoredBox| {
        let in_use = in_use.as_ref()?;
        Some(in_use.machines_of(&stored.digest.to_string()))
    };
    if invocation.style.json {
        let rows: Vec<_> = (boxes.iter())
            .map(|stored| {
                let mut row = describe(store, stored);
                row["machines"] = serde_json::json!(machines(stored));
                row
            })
            .collect();
        output::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    if boxes.is_empty() {
        say(
            invocation.style,
            "no boxes; `stead box build debian-12` builds one from Debian's packages",
        );
        return Ok(ExitCode::SUCCESS);
    }
    let named = store.named()?;
    let mut table = Table::new(&[
        "NAME", "VERSION", "ARCH", "DIGEST", "SEED", "SIZE", "ON DISK", "ADDED", "MACHINES",
    ]);
    for stored in &boxes {
        let manifest = &stored.manifest;
        table.row([
            store.known_as(stored, &named),
            manifest.version.clone(),
            manifest.arch.clone(),
            stored.digest.short().to_string(),
            manifest.seed.to_string(),
            bytes(manifest.disk.virtual_size),
            bytes(store.disk_use(stored)),
            ago(stored.added),
            machines(stored).map_or_else(|| "?".into(), |count| count.to_string()),
        ]);
    }
    output::data(&output::fitted(&table))?;
    Ok(ExitCode::SUCCESS)
}

fn show(
    invocation: &Invocation,
    store: &Store,
    data: &DataDir,
    reference: &str,
) -> Result<ExitCode, Failure> {
    let stored = store.resolve(reference)?;
    let users = InUse::observe(invocation, data).and_then(|in_use| in_use.of_box(store, &stored));
    if invocation.style.json {
        let mut value = describe(store, &stored);
        value["machines"] = serde_json::json!(users.unwrap_or_default());
        output::json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let manifest = &stored.manifest;
    let boot = match &manifest.boot {
        Boot::Direct { kernel_release, .. } => format!("its kernel {kernel_release}, directly"),
        Boot::Bootloader { .. } => match store.firmware_of(&stored) {
            Ok(Firmware::Uefi) => "its own bootloader, by UEFI".to_string(),
            // An image that is gone is said elsewhere.
            Ok(Firmware::Bios) | Err(_) => "its own bootloader".to_string(),
        },
    };
    let mut rows = vec![
        ("name", manifest.name.clone()),
        ("version", manifest.version.clone()),
        ("arch", manifest.arch.clone()),
        ("digest", stored.digest.to_string()),
        ("boots", boot),
        ("seed", manifest.seed.to_string()),
        ("login user", manifest.login_user.clone()),
        (
            "disk",
            format!("{} for the guest", bytes(manifest.disk.virtual_size)),
        ),
        ("on disk", bytes(store.disk_use(&stored))),
        ("added", ago(stored.added)),
        ("from", store.came_from(&stored, &store.named()?)),
    ];
    if let Some(parent) = &manifest.parent {
        rows.push(("packed from", parent_name(store, parent)));
    }
    for disk in &manifest.more_disks {
        rows.push((
            "another",
            format!("{} for the guest", bytes(disk.virtual_size)),
        ));
    }
    for (key, value) in &manifest.labels {
        rows.push(("label", format!("{key}={value}")));
    }
    match users {
        Ok(users) if users.is_empty() => rows.push(("machines", "none".into())),
        Ok(users) => rows.extend(users.into_iter().map(|user| ("used by", user))),
        Err(_) => rows.push(("machines", "unknown: libvirt cannot be reached".into())),
    }
    let text: String = rows
        .iter()
        .map(|(key, value)| format!("{key:<12}{}\n", words(value)))
        .collect();
    output::data(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn build(
    invocation: &Invocation,
    store: &Store,
    recipe: &str,
    archive: Option<&Path>,
    data: &Path,
) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let logs = data.join("logs");
    let log = logs.join("box-build.log");
    say(
        invocation.style,
        &format!(
            "building {}; the tools' output goes to {}",
            address::shown(recipe),
            log.shown()
        ),
    );
    let style = invocation.style;
    let mut line = WorkLine::new(style.live && !style.quiet && !style.json, style.color);
    let mut begun: Option<(Phase, Instant)> = None;
    let ended = |begun: Option<(Phase, Instant)>| {
        if let Some((phase, since)) = begun {
            say(style, &format!("  {phase}: {}", elapsed(since.elapsed())));
        }
    };
    let built = boxes::build(recipe, &log, &mut |progress| match progress {
        Progress::Phase(phase) => {
            line.aside(|| ended(begun.replace((phase, Instant::now()))));
            line.begin(&phase.to_string());
        }
        Progress::Line(said) => line.tool_says(said),
    });
    line.end();
    let built = built?;
    ended(begun);
    match archive {
        Some(archive) => {
            write_archive(&built.folder(), archive)?;
            say(
                invocation.style,
                &format!(
                    "wrote {} in {}",
                    archive.shown(),
                    elapsed(started.elapsed())
                ),
            );
            Ok(ExitCode::SUCCESS)
        }
        None => add(invocation, store, &built.folder(), NameSource::Built, None),
    }
}

fn verify(
    invocation: &Invocation,
    store: &Store,
    references: &[String],
) -> Result<ExitCode, Failure> {
    let boxes = if references.is_empty() {
        store.list()?
    } else {
        references
            .iter()
            .map(|reference| store.resolve(reference))
            .collect::<Result<_, _>>()?
    };
    for stored in &boxes {
        store.verify(stored)?;
        say(invocation.style, &format!("{} is intact", name(stored)));
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(
    invocation: &Invocation,
    store: &Store,
    data: &DataDir,
    reference: &str,
    force: bool,
) -> Result<ExitCode, Failure> {
    let stored = store.resolve(reference)?;
    let _held = InUse::lock(data)?;
    let in_use = match InUse::observe(invocation, data) {
        Ok(in_use) => in_use,
        // Backing files are known even when libvirt cannot be reached.
        Err(_) if force => InUse::of_images(data)?,
        Err(Failure::Error { message, .. }) => {
            return Err(Failure::error(
                format!(
                    "cannot check whether box {} is in use: {message}",
                    name(&stored)
                ),
                "fix that first, or add --force if you know that no machine does",
            ));
        }
        Err(failure) => return Err(failure),
    };
    let users = in_use.of_box(store, &stored)?;
    if !users.is_empty() {
        return Err(Failure::error(
            format!(
                "box {} is in use: {} is backed by it",
                name(&stored),
                users.join(", ")
            ),
            "destroy those machines first: their disks cannot be read without the box",
        ));
    }
    let freed = store.remove(&stored)?;
    say(
        invocation.style,
        &format!("removed {}, {} freed", name(&stored), bytes(freed)),
    );
    Ok(ExitCode::SUCCESS)
}
