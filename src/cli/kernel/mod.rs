//! `stead kernel`: imports, checks, lists, shows, updates and removes kernels.

mod capture;
mod compare;
mod examples;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    failure::Failure,
    host::{paths::DataDir, scratch::Temporary},
    kernel::{
        Config, Index, KernelStore, Modules, Presence, Provenance, StoredKernel,
        captured::facts_of,
        carry::carry,
        check::{Finding, Guest, Need, judge, look},
        locate,
    },
    report::{
        Table, ago, bytes,
        clean::{Shown, words},
        counted, reporter, say,
    },
    resolve::kernel_pins::update_packages,
    session::{
        Session,
        agreement::{self, Scope},
        invocation::Invocation,
        locate::{data_dir, start_folder},
        store_users::InUse,
    },
};

use super::output;

#[derive(Args)]
pub(super) struct KernelArgs {
    #[command(subcommand)]
    command: KernelCommand,
}

impl KernelArgs {
    /// Whether it changes the store.
    pub(super) fn changes(&self) -> bool {
        match self.command {
            KernelCommand::Capture(_)
            | KernelCommand::Update
            | KernelCommand::Remove { .. }
            | KernelCommand::Import { .. } => true,
            KernelCommand::Compare(_)
            | KernelCommand::Check { .. }
            | KernelCommand::List
            | KernelCommand::Show { .. }
            | KernelCommand::Verify { .. }
            | KernelCommand::Export { .. } => false,
        }
    }
}

#[derive(Subcommand)]
enum KernelCommand {
    /// Capture another host's kernel and settings over SSH; nothing is written there
    Capture(capture::CaptureArgs),
    /// Compare a running machine with a capture; exit 1 on unexpected differences
    Compare(compare::CompareArgs),
    /// Check whether a kernel can boot a machine on this host, and what it lacks
    #[command(after_help = examples::CHECK)]
    Check {
        /// An image, a build's folder, /lib/modules/RELEASE, or a kernel in the store
        kernel: String,
        /// Its modules [default: those beside it]
        #[arg(long, value_name = "DIR")]
        modules: Option<PathBuf>,
        /// Its configuration [default: the one beside it]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// List the kernels in the store
    List,
    /// Show a kernel's details and the machines that boot it
    #[command(after_help = examples::SHOW)]
    Show {
        /// Name, release, or at least 6 digits of the digest
        kernel: String,
    },
    /// Fetch the current versions of this project's kernel packages and pin them in Machinefile.lock
    Update,
    /// Check the files of kernels against their digests
    #[command(after_help = examples::VERIFY)]
    Verify {
        /// Name, release, or at least 6 digits of the digest [default: all]
        #[arg(value_name = "KERNEL")]
        kernels: Vec<String>,
    },
    /// Remove a kernel that no machine boots
    #[command(after_help = examples::REMOVE)]
    Remove {
        /// Name, release, or at least 6 digits of the digest
        kernel: String,
        /// Remove it even if stead cannot check which machines boot it
        #[arg(long)]
        force: bool,
    },
    /// Write a kernel to a file, to import it on another host
    #[command(after_help = examples::EXPORT)]
    Export {
        /// Name, release, or at least 6 digits of the digest
        kernel: String,
        /// File to write [default: NAME.kernel.tar.zst in this folder]
        #[arg(value_name = "FILE")]
        archive: Option<PathBuf>,
    },
    /// Import a kernel that `stead kernel export` wrote
    #[command(after_help = examples::IMPORT)]
    Import {
        /// File to import
        #[arg(value_name = "FILE")]
        archive: PathBuf,
    },
}

pub(super) fn run(invocation: &Invocation, args: KernelArgs) -> Result<ExitCode, Failure> {
    let data = data_dir()?;
    let store = KernelStore::open(&data);
    match args.command {
        KernelCommand::Capture(args) => capture::run(invocation, args),
        KernelCommand::Compare(args) => compare::run(invocation, args),
        KernelCommand::Check {
            kernel,
            modules,
            config,
        } => check(
            invocation,
            &store,
            &kernel,
            modules.as_deref(),
            config.as_deref(),
        ),
        KernelCommand::List => list(invocation, &store, &data),
        KernelCommand::Show { kernel } => show(invocation, &store, &data, &kernel),
        KernelCommand::Update => update(invocation),
        KernelCommand::Verify { kernels } => verify(invocation, &store, &kernels),
        KernelCommand::Remove { kernel, force } => {
            remove(invocation, &store, &data, &kernel, force)
        }
        KernelCommand::Export { kernel, archive } => export(invocation, &store, &kernel, archive),
        KernelCommand::Import { archive } => import(invocation, &store, &archive),
    }
}

/// A kernel to check, and what is known of it.
struct Subject {
    what: String,
    release: String,
    banner: Option<String>,
    options: BTreeMap<String, Presence>,
    config: bool,
    modules: Option<usize>,
    stored: bool,
}

fn check(
    invocation: &Invocation,
    store: &KernelStore,
    kernel: &str,
    modules: Option<&Path>,
    config: Option<&Path>,
) -> Result<ExitCode, Failure> {
    let folder = start_folder(invocation)?;
    let path: PathBuf = folder.join(kernel).components().collect();
    if kernel.contains('/') && !path.exists() {
        return Err(Failure::usage(
            format!("there is no {}", path.shown()),
            "give the path of an image or a build, or a kernel of `stead kernel list`",
        ));
    }
    let subject = if path.exists() {
        let modules = modules.map(|it| folder.join(it));
        let config = config.map(|it| folder.join(it));
        read_path(&path, modules.as_deref(), config.as_deref())?
    } else {
        let stored = store.resolve(kernel)?;
        Subject {
            what: stored.manifest.name.clone(),
            release: stored.manifest.release.clone(),
            banner: stored.manifest.banner.clone(),
            options: stored.manifest.options.clone(),
            config: stored.manifest.config.is_some(),
            modules: None,
            stored: true,
        }
    };
    let findings = judge(&subject.options, Guest::default());
    let verdict = Verdict::of(&findings);
    if invocation.style.json {
        let rows: Vec<_> = findings
            .iter()
            .map(|it| {
                serde_json::json!({
                    "option": it.option,
                    "for": it.what,
                    "presence": it.presence,
                    "fatal": it.is_fatal(),
                    "remedy": it.is_lack().then(|| it.remedy()),
                })
            })
            .collect();
        output::json(&serde_json::json!({
            "kernel": subject.what,
            "release": subject.release,
            "banner": subject.banner,
            "boots": verdict,
            "findings": rows,
        }))?;
    } else {
        output::data(&checked(
            &subject,
            &findings,
            verdict,
            invocation.style.verbose,
        ))?;
    }
    Ok(match verdict {
        Verdict::Yes => ExitCode::SUCCESS,
        Verdict::No | Verdict::Unknown => ExitCode::from(1),
    })
}

/// Whether a machine can boot a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Yes,
    No,
    /// A needed option is neither known to be there nor known to be missing.
    Unknown,
}

impl Verdict {
    fn of(findings: &[Finding]) -> Self {
        if findings.iter().any(Finding::is_fatal) {
            Verdict::No
        } else if findings
            .iter()
            .any(|it| it.need == Need::Required && it.presence == Presence::Unknown)
        {
            Verdict::Unknown
        } else {
            Verdict::Yes
        }
    }
}

fn read_path(
    path: &Path,
    modules: Option<&Path>,
    config: Option<&Path>,
) -> Result<Subject, Failure> {
    let found = locate(path, modules, config, std::env::consts::ARCH)?;
    let config = match &found.config {
        Some(path) => std::fs::read(path)
            .map_err(|error| Failure::io(format!("read {}", path.shown()), &error))
            .map(|bytes| Config::read(&bytes))?,
        None => None,
    };
    let work = tempfile::tempdir()
        .map(Temporary::of)
        .map_err(|error| Failure::io("make a temporary folder", &error))?;
    let index = match &found.modules {
        Some(modules) => Some(crate::kernel::index(modules, &found.release, work.path())?),
        None => None,
    };
    Ok(Subject {
        what: match &found.modules {
            Some(Modules::Build(build)) => format!("the build in {}", build.shown()),
            _ => found.image_path.shown(),
        },
        options: look(config.as_ref(), index.as_ref()),
        config: config.is_some(),
        modules: index.as_ref().map(Index::len),
        release: found.release,
        banner: found.image.banner,
        stored: false,
    })
}

fn checked(subject: &Subject, findings: &[Finding], verdict: Verdict, all: bool) -> String {
    let mut text = format!("{} is {}\n", subject.what, subject.release);
    if let Some(banner) = &subject.banner {
        text.push_str(&format!("  {banner}\n"));
    }
    text.push_str(&match (subject.config, subject.modules) {
        _ if subject.stored => "  as it was when it was imported\n".into(),
        (true, Some(count)) => format!(
            "  checked its configuration and {}\n",
            counted(count, "module")
        ),
        (true, None) => "  checked its configuration; it has no modules beside it\n".into(),
        (false, Some(count)) => {
            format!(
                "  checked {}; it has no configuration beside it\n",
                counted(count, "module")
            )
        }
        (false, None) => {
            "  it has neither a configuration nor modules beside it, so little is known: name them with --config and --modules\n".into()
        }
    });
    let mut table = Table::new(&["OPTION", "IS", "FOR", "REMEDY"]);
    for finding in findings.iter().filter(|it| all || it.is_lack()) {
        // The option's name is in the first column already.
        let remedy = match (finding.is_fatal(), finding.need) {
            (true, Need::BuiltIn) => "needed, built in (y)",
            (true, _) => "needed, built in (y) or as a module (m)",
            (false, _) if finding.is_lack() => "useful, built in (y) or as a module (m)",
            (false, _) => "",
        };
        table.row([
            finding.option.to_string(),
            finding.presence.word().to_string(),
            finding.what.to_string(),
            remedy.to_string(),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&output::fitted(&table));
    }
    let count = |presence| findings.iter().filter(|it| it.presence == presence).count();
    text.push_str(&format!(
        "{} built in, {} loadable, {} missing, {} unknown\n",
        count(Presence::BuiltIn),
        count(Presence::Loadable),
        count(Presence::Missing),
        count(Presence::Unknown)
    ));
    text.push_str(match verdict {
        Verdict::Yes => "a machine can boot it\n",
        Verdict::No => "a machine cannot boot it\n",
        Verdict::Unknown => "cannot tell whether a machine can boot it\n",
    });
    text
}

fn provenance(stored: &StoredKernel) -> String {
    match &stored.manifest.from {
        Provenance::Path {} => "a path".into(),
        Provenance::Package(package) => format!("package {} {}", package.name, package.version),
        Provenance::Host {} => "this host".into(),
        Provenance::Capture { host } => format!("captured from {host}"),
    }
}

fn describe(store: &KernelStore, stored: &StoredKernel) -> serde_json::Value {
    serde_json::json!({
        "name": stored.manifest.name,
        "release": stored.manifest.release,
        "arch": stored.manifest.arch,
        "digest": stored.digest.to_string(),
        "disk_use_bytes": store.disk_use(stored),
        "added": stored.added,
        "manifest": stored.manifest,
    })
}

fn list(invocation: &Invocation, store: &KernelStore, data: &DataDir) -> Result<ExitCode, Failure> {
    let kernels = store.list()?;
    // Kernels can be listed even when libvirt cannot be reached.
    let in_use = InUse::observe(invocation, data).ok();
    let machines = |stored: &StoredKernel| Some(in_use.as_ref()?.machines_on(stored));
    if invocation.style.json {
        let rows: Vec<_> = kernels
            .iter()
            .map(|stored| {
                let mut row = describe(store, stored);
                row["machines"] = serde_json::json!(machines(stored));
                row
            })
            .collect();
        output::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    if kernels.is_empty() {
        say(
            invocation.style,
            "no kernels; `kernel` in the Machinefile or `stead kernel capture` adds one",
        );
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&[
        "NAME", "RELEASE", "ARCH", "DIGEST", "FROM", "ON DISK", "ADDED", "MACHINES",
    ]);
    for stored in &kernels {
        table.row([
            stored.manifest.name.clone(),
            stored.manifest.release.clone(),
            stored.manifest.arch.clone(),
            stored.digest.short().to_string(),
            match &stored.manifest.from {
                // The name is in the first column already.
                Provenance::Package(package) => format!("package {}", package.version),
                _ => provenance(stored),
            },
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
    store: &KernelStore,
    data: &DataDir,
    reference: &str,
) -> Result<ExitCode, Failure> {
    let stored = store.resolve(reference)?;
    let users =
        InUse::observe(invocation, data).and_then(|in_use| in_use.of_kernel(store, &stored));
    if invocation.style.json {
        let mut value = describe(store, &stored);
        value["machines"] = serde_json::json!(users.unwrap_or_default());
        if let Some(facts) = facts_of(store, &stored)? {
            value["carried"] = serde_json::json!(carry(&facts, None).rows);
        }
        output::json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let manifest = &stored.manifest;
    let mut rows = vec![
        ("name", manifest.name.clone()),
        ("release", manifest.release.clone()),
        ("arch", manifest.arch.clone()),
        ("digest", stored.digest.to_string()),
        ("from", provenance(&stored)),
        ("on disk", bytes(store.disk_use(&stored))),
        ("added", ago(stored.added)),
    ];
    if let Some(banner) = &manifest.banner {
        rows.push(("says", banner.clone()));
    }
    if let Provenance::Package(package) = &manifest.from {
        for file in &package.files {
            let url = file.urls.first().cloned().unwrap_or_default();
            rows.push(("file", url));
        }
    }
    rows.push((
        "modules",
        match &manifest.modules {
            Some(crate::kernel::ModuleTree::Disk(entry)) => {
                format!("{} on a disk of their own", bytes(entry.size))
            }
            Some(crate::kernel::ModuleTree::Memory(entry)) => format!(
                "{} in the machine's memory: the kernel cannot read a squashfs",
                bytes(entry.size)
            ),
            None => "none: everything is built in".into(),
        },
    ));
    for finding in judge(&manifest.options, Guest::default())
        .iter()
        .filter(|finding| finding.is_lack())
    {
        rows.push(("lacks", format!("{} ({})", finding.option, finding.what)));
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
    if let Some(facts) = facts_of(store, &stored)? {
        let rows = carry(&facts, None).rows;
        output::data(&format!(
            "\n{}",
            capture::carried_text(&rows, invocation.style.verbose)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn update(invocation: &Invocation) -> Result<ExitCode, Failure> {
    let session = Session::open(invocation)?;
    agreement::need(invocation, &session.data, &session.project, Scope::Boxes)?;
    let reporter = reporter(invocation.style, &[]);
    let moved = update_packages(session.resolver(), &reporter);
    reporter.finish();
    let moved = moved?;
    if invocation.style.json {
        let rows: Vec<_> = moved
            .iter()
            .map(|(name, old, now)| serde_json::json!({"package": name, "from": old, "to": now}))
            .collect();
        output::json(&rows)?;
    } else if moved.is_empty() {
        say(
            invocation.style,
            "all kernels are up to date with Machinefile.lock",
        );
    } else {
        for (name, old, now) in &moved {
            say(
                invocation.style,
                &match old {
                    Some(old) => format!("{name}: {old} → {now}"),
                    None => format!("{name}: {now}"),
                },
            );
        }
        say(invocation.style, "`stead restart` boots machines on them");
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(
    invocation: &Invocation,
    store: &KernelStore,
    references: &[String],
) -> Result<ExitCode, Failure> {
    let kernels = if references.is_empty() {
        store.list()?
    } else {
        references
            .iter()
            .map(|reference| store.resolve(reference))
            .collect::<Result<_, _>>()?
    };
    for stored in &kernels {
        store.verify(stored)?;
        say(
            invocation.style,
            &format!(
                "{} ({}) is intact",
                stored.manifest.name,
                stored.digest.short()
            ),
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(
    invocation: &Invocation,
    store: &KernelStore,
    data: &DataDir,
    reference: &str,
    force: bool,
) -> Result<ExitCode, Failure> {
    let stored = store.resolve(reference)?;
    let name = &stored.manifest.name;
    let _held = InUse::lock(data)?;
    match InUse::observe(invocation, data) {
        Ok(in_use) => {
            let users = in_use.of_kernel(store, &stored)?;
            if !users.is_empty() {
                return Err(Failure::error(
                    format!("kernel {name} is in use: {} boots it", users.join(", ")),
                    "destroy those machines first, or give them another kernel and restart them",
                ));
            }
        }
        Err(_) if force => {}
        Err(Failure::Error { message, .. }) => {
            return Err(Failure::error(
                format!("cannot check whether a machine boots kernel {name}: {message}"),
                "fix that first, or add --force if you know that no machine does",
            ));
        }
        Err(failure) => return Err(failure),
    }
    let freed = store.remove(&stored)?;
    say(
        invocation.style,
        &format!(
            "removed {name} ({}), {} freed",
            stored.digest.short(),
            bytes(freed)
        ),
    );
    Ok(ExitCode::SUCCESS)
}

fn export(
    invocation: &Invocation,
    store: &KernelStore,
    reference: &str,
    file: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let stored = store.resolve(reference)?;
    let file = file.unwrap_or_else(|| format!("{}.kernel.tar.zst", stored.manifest.name).into());
    let file = output::file(invocation, &file, "FILE")?;
    let size = store.export(&stored, &file)?;
    say(
        invocation.style,
        &format!(
            "wrote {} ({}); `stead kernel import` imports it",
            file.shown(),
            bytes(size)
        ),
    );
    Ok(ExitCode::SUCCESS)
}

fn import(invocation: &Invocation, store: &KernelStore, file: &Path) -> Result<ExitCode, Failure> {
    let file = start_folder(invocation)?.join(file);
    let before = store.list()?;
    let stored = store.import(&file)?;
    let replaced = (before.iter())
        .find(|it| it.manifest.name == stored.manifest.name && it.digest != stored.digest);
    if invocation.style.json {
        output::json(&describe(store, &stored))?;
    } else {
        say(
            invocation.style,
            &format!(
                "imported {} ({}, {})",
                stored.manifest.name,
                stored.manifest.release,
                stored.digest.short()
            ),
        );
        if let Some(replaced) = replaced {
            say(
                invocation.style,
                &format!(
                    "{} now means this kernel instead of {}; projects that have pinned it keep the old one",
                    stored.manifest.name,
                    replaced.digest.short()
                ),
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
