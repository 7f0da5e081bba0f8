use std::{
    collections::BTreeMap,
    io::{BufRead, IsTerminal, Read},
    process::ExitCode,
    sync::Arc,
};

use clap::Args;
use flate2::bufread::GzDecoder;

use crate::{
    fetch::Fetcher,
    guest::{HostSession, pack_script},
    host::{digest::nonce, names::check_name, paths::DataDir},
    kernel::{
        KernelError, KernelFiles, KernelStore, StoredKernel,
        captured::{
            CaptureError, Selection, check_running, found_in, keep, package_of, pick, settings_of,
            short_name, unpack,
        },
        carry::{CarriedSetting, Decision, Subject, carry},
        facts::{FACTS_LIMIT, Facts, Offer, facts_script, parse_facts},
    },
    packages::{PackageError, fetch_and_unpack, resolve},
    report::{
        Event, EventKind, Reporter, Style, Table, bytes,
        clean::{Shown, words},
        reporter,
    },
};

use super::{Failure, Global, meter::Meter, output, session::data_dir};

#[derive(Args)]
pub struct CaptureArgs {
    /// Whose kernel, as ssh takes it: NAME, USER@NAME, or ssh://USER@NAME:PORT
    host: String,
    /// Take no files from there: get the kernel's package from the distribution
    #[arg(long, conflicts_with = "full")]
    facts: bool,
    /// Take the files themselves, or fail where they cannot be read
    #[arg(long)]
    full: bool,
    /// What to call it; the host's short name where it is left out
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Take what is listed without asking
    #[arg(short = 'y', long)]
    yes: bool,
    /// Options for ssh: `-- -p 2222 -i KEY`
    #[arg(last = true, value_name = "SSH-OPTION")]
    ssh: Vec<String>,
}

pub fn run(global: &Global, args: CaptureArgs) -> Result<ExitCode, Failure> {
    if args.host.starts_with('-') || args.host.is_empty() {
        return Err(Failure::usage(
            format!("{:?} is no host", args.host),
            "options for ssh go behind `--`: `stead kernel capture prod -- -p 2222`",
        ));
    }
    if let Some(name) = &args.name {
        check_name("name", name)
            .map_err(|message| Failure::usage(message, "--name gives the kernel a name here"))?;
    }
    let data = data_dir()?;
    let store = KernelStore::open(&data);
    let reporter = reporter(
        Style {
            // What is printed is one document.
            quiet: global.quiet || global.json,
            json: false,
            ..output::style(global)
        },
        &[],
    );
    let host = host_of(&args.host).to_string();
    let nonce = nonce().map_err(|error| Failure::io("get random bytes from the kernel", &error))?;
    let nonce = format!("stead-{nonce}");
    let mut session = HostSession::open(&args.host, &args.ssh)?;
    let answer = session.ask(&facts_script(&nonce), &format!("{nonce} end"), FACTS_LIMIT)?;
    let (facts, offer) = match parse_facts(&answer, &nonce, &host) {
        Ok(read) => read,
        Err(error) => return Err(no_answer(session, &host, error.into())),
    };
    output::say(global, &words(&introduction(&host, &facts)));
    for line in remarks(&facts) {
        output::warn(&line);
    }
    let here = std::env::consts::ARCH;
    if facts.machine != here {
        return Err(CaptureError::OtherArch {
            host,
            machine: facts.machine,
            here: here.to_string(),
        }
        .into());
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => short_name(&args.host, &facts),
    };
    let request = Request {
        global,
        store: &store,
        data: &data,
        reporter: &reporter,
        host: &host,
        name: &name,
        yes: args.yes,
        full: args.full,
    };
    let stored = match plan(&request, args.facts, &facts, &offer)? {
        Some(picked) => {
            let stored = full(&request, session, &nonce, picked, &offer, &facts);
            reporter.finish();
            stored?
        }
        None => {
            session.close()?;
            let stored = by_package(&request, &facts);
            reporter.finish();
            stored?
        }
    };
    report(global, &store, &stored, &facts)?;
    Ok(ExitCode::SUCCESS)
}

struct Request<'a> {
    global: &'a Global,
    store: &'a KernelStore,
    data: &'a DataDir,
    reporter: &'a Reporter,
    host: &'a str,
    name: &'a str,
    yes: bool,
    full: bool,
}

/// What to take of the host; `None` where the facts are enough. Asks where that is not clear.
fn plan(
    request: &Request<'_>,
    facts_only: bool,
    facts: &Facts,
    offer: &Offer,
) -> Result<Option<Selection>, Failure> {
    if facts_only {
        return Ok(None);
    }
    let picked = match pick(facts, offer, request.host) {
        Ok(picked) => picked,
        Err(error) if request.full => return Err(error.into()),
        Err(error) => {
            let Some(package) = &facts.package else {
                return Err(error.into());
            };
            if !request.yes && !std::io::stdin().is_terminal() {
                return Err(error.into());
            }
            output::warn(&error.to_string());
            let what = format!(
                "package {} {} from the distribution instead",
                package.name, package.version
            );
            if request.yes {
                output::say(request.global, &format!("getting {what}"));
                return Ok(None);
            }
            return match output::ask(&format!("get {what}?")) {
                Some(true) => Ok(None),
                _ => Err(error.into()),
            };
        }
    };
    output::talk(&listing(request.host, &picked));
    if request.yes {
        return Ok(Some(picked));
    }
    let total: u64 = picked.all().iter().map(|taken| taken.size).sum();
    match output::ask(&format!("take these {}?", bytes(total))) {
        Some(true) => Ok(Some(picked)),
        Some(false) => Err(Failure::Said(1)),
        None => Err(Failure::usage(
            "nobody can be asked, since standard input is no terminal: nothing was taken",
            "-y takes what is listed; --facts takes no files at all",
        )),
    }
}

fn introduction(host: &str, facts: &Facts) -> String {
    let system = match facts.os.name.as_str() {
        "" => String::new(),
        name => format!(", {name}"),
    };
    format!(
        "{host} runs {}{system} ({}, {} CPUs, {})",
        facts.release,
        facts.machine,
        facts.cpu.count,
        bytes(facts.memory_kib * 1024),
    )
}

/// What makes it another kernel than that of its image.
fn remarks(facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    if !facts.livepatches.is_empty() {
        lines.push(format!(
            "a live patch is in its kernel ({}): what runs there is not what its image holds",
            facts.livepatches.join(", ")
        ));
    }
    if facts.tainted != 0 {
        lines.push(format!(
            "its kernel is tainted ({}): modules of others, or something went wrong there (kernel.org, tainted-kernels)",
            facts.tainted
        ));
    }
    lines
}

fn listing(host: &str, picked: &Selection) -> String {
    let mut table = Table::new(&["FILE", "SIZE", ""]);
    for taken in picked.all() {
        let note = if Some(taken) == picked.tree.as_ref() {
            format!("{} files; without build and source", taken.files)
        } else if picked.sudo && taken == &picked.image {
            "by sudo: only root can read it".into()
        } else {
            String::new()
        };
        table.row([taken.path.clone(), bytes(taken.size), note]);
    }
    let mut text = format!("to be read on {host}, where nothing is written:\n");
    for line in table.render().lines() {
        text.push_str(&format!("  {line}\n"));
    }
    for line in &picked.left_out {
        text.push_str(&format!("  left out: {}\n", words(line)));
    }
    text
}

fn full(
    request: &Request<'_>,
    mut session: HostSession,
    nonce: &str,
    picked: Selection,
    offer: &Offer,
    facts: &Facts,
) -> Result<StoredKernel, Failure> {
    let host = request.host;
    let work = request.store.work_folder()?;
    let folder = work.path().join("host");
    std::fs::create_dir_all(&folder)
        .map_err(|error| Failure::io(format!("create {}", folder.shown()), &error))?;
    let (begin, end) = (format!("{nonce} archive"), format!("{nonce} status"));
    let files: Vec<String> = picked
        .all()
        .iter()
        .map(|taken| taken.path.clone())
        .collect();
    let script = pack_script(
        &begin,
        &end,
        &files,
        &picked.exclude,
        picked.sudo,
        offer.gzip,
    );
    let total: u64 = picked.all().iter().map(|taken| taken.size).sum();
    let meter = Meter::new(request.name, "capture", Arc::clone(request.reporter));
    step(request, &format!("reading {} on {host}", bytes(total)));
    let unpacked = match session.stream(&script, &begin)? {
        None => Err(CaptureError::BrokeOff {
            host: host.to_string(),
            got: bytes(0),
            said: String::new(),
        }),
        Some(stream) => {
            let mut plain: Box<dyn Read + '_> = if offer.gzip {
                Box::new(GzDecoder::new(stream as &mut dyn BufRead))
            } else {
                Box::new(stream)
            };
            unpack(&mut plain, &picked, &end, &folder, host, &mut |done| {
                meter.at(done.min(total), total);
            })
        }
    };
    if let Err(error) = unpacked {
        let words = match &error {
            // They are what says why, and ssh is on its way out.
            CaptureError::BrokeOff { .. } | CaptureError::Tar { .. } => session.close()?.said,
            _ => String::new(),
        };
        return Err(error.with_words(&words).into());
    }
    session.close()?;
    step(request, "packing its modules");
    let mut facts = facts.clone();
    facts.settings = settings_of(&folder, &picked)?;
    let found = found_in(&folder, &picked)?;
    check_running(&found, &facts, host)?;
    Ok(keep(
        request.store,
        found,
        facts,
        work.path(),
        host,
        request.name,
    )?)
}

/// The same kernel as its distribution packages it.
fn by_package(request: &Request<'_>, facts: &Facts) -> Result<StoredKernel, Failure> {
    let host = request.host;
    let (distribution, name, version) = package_of(facts, host)?;
    step(
        request,
        &format!("getting package {name} {version} of {}", distribution.id),
    );
    let work = request.store.work_folder()?;
    let fetcher = Fetcher::new().map_err(KernelError::Network)?;
    let meter = Meter::new(request.name, "capture", Arc::clone(request.reporter));
    let downloads = request.data.downloads();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start the runtime", &error))?;
    let (resolved, unpacked) = runtime.block_on(async {
        let resolved = resolve(
            &fetcher,
            &downloads.join("packages"),
            &[],
            &distribution,
            &name,
            Some(&version),
        )
        .await?;
        let unpacked = fetch_and_unpack(
            &fetcher,
            &downloads,
            &resolved.package,
            &work.path().join("package"),
            &|done, total| meter.at(done, total),
        )
        .await?;
        Ok::<_, PackageError>((resolved, unpacked))
    })?;
    for note in resolved.notes {
        output::warn(&note);
    }
    let found = KernelFiles::of_package(unpacked, std::env::consts::ARCH)?;
    check_running(&found, facts, host)?;
    step(request, "packing its modules");
    Ok(keep(
        request.store,
        found,
        facts.clone(),
        work.path(),
        host,
        request.name,
    )?)
}

fn step(request: &Request<'_>, doing: &str) {
    request.reporter.event(&Event::now(
        request.name,
        EventKind::StepStarted {
            step: "capture".into(),
            doing: doing.to_string(),
        },
    ));
}

/// The host said nothing that makes sense: ssh's own reason, where it has one, says why.
fn no_answer(session: HostSession, host: &str, other: Failure) -> Failure {
    match session.close() {
        Ok(ended) if ended.is_ssh() => Failure::error(
            format!(
                "{host} cannot be reached by ssh: {}",
                if ended.said.is_empty() {
                    "it does not say why"
                } else {
                    &ended.said
                }
            ),
            format!("`ssh {host} true` has to work; options for ssh go behind `--`"),
        ),
        Ok(_) => other,
        Err(error) => error.into(),
    }
}

fn report(
    global: &Global,
    store: &KernelStore,
    stored: &StoredKernel,
    facts: &Facts,
) -> Result<(), Failure> {
    let facts = crate::kernel::captured::facts_of(store, stored)?.unwrap_or_else(|| facts.clone());
    let carried = carry(&facts, None);
    let name = &stored.manifest.name;
    if global.json {
        return output::json(&serde_json::json!({
            "name": name,
            "release": stored.manifest.release,
            "digest": stored.digest.to_string(),
            "from": stored.manifest.from,
            "carried": carried.rows,
        }));
    }
    output::data(&carried_text(&carried.rows, global.verbose))?;
    output::say(
        global,
        &format!(
            "captured {name} ({}, {}); `kernel {{ capture \"{name}\"; }}` in a machine boots it",
            stored.manifest.release,
            stored.digest.short()
        ),
    );
    Ok(())
}

/// What of a captured host's settings a machine gets, for people: everything with `all`, else what
/// somebody set there, and numbers for the rest.
pub fn carried_text(rows: &[CarriedSetting], all: bool) -> String {
    let mut table = Table::new(&["SETTING", "THERE", "HERE", ""]);
    let mut rest: BTreeMap<(Subject, Decision, &str), Vec<&str>> = BTreeMap::new();
    for row in rows {
        let shown = all
            || match row.subject {
                Subject::Cmdline | Subject::Kernel => true,
                Subject::Sysctl => row.set || row.verdict == Decision::Changed,
                Subject::Module => false,
            };
        if !shown {
            rest.entry((row.subject, row.verdict, row.why))
                .or_default()
                .push(&row.name);
            continue;
        }
        let here = match (&row.here, row.verdict) {
            (_, Decision::Kept) => "kept".to_string(),
            (Some(here), _) => short(here),
            (None, Decision::Changed) => "changed".into(),
            (None, _) => "dropped".into(),
        };
        table.row([
            match row.subject {
                Subject::Cmdline => "cmdline".into(),
                subject => format!("{} {}", subject.word(), row.name),
            },
            short(&row.there),
            here,
            row.why.to_string(),
        ]);
    }
    let mut text = String::new();
    if !table.is_empty() {
        text.push_str(&table.render());
    }
    for ((subject, verdict, why), names) in rest {
        let examples: Vec<&str> = names.iter().take(3).copied().collect();
        let more = if names.len() > 3 { ", …" } else { "" };
        let why = match (subject, verdict, why) {
            (Subject::Module, Decision::Kept, _) => "loaded at boot as there".to_string(),
            (_, Decision::Kept, _) => "as there".to_string(),
            (_, _, why) => why.to_string(),
        };
        text.push_str(&format!(
            "{} {}{} {}: {why} ({}{more})\n",
            names.len(),
            subject.word(),
            if names.len() == 1 { "" } else { "s" },
            verdict.word(),
            examples.join(", ")
        ));
    }
    text
}

fn short(text: &str) -> String {
    let line = text.replace('\n', " ");
    match line.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// The host in what ssh takes, for messages.
fn host_of(host: &str) -> &str {
    let host = host.strip_prefix("ssh://").unwrap_or(host);
    let host = host.rsplit('@').next().unwrap_or(host);
    host.trim_end_matches('/')
}
