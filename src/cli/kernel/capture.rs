//! `stead kernel capture`: records another computer's kernel and settings.

use std::{collections::BTreeMap, process::ExitCode};

use clap::Args;

use crate::{
    failure::Failure,
    guest::HostSession,
    host::{digest::nonce, names::check_name},
    kernel::{
        KernelStore, StoredKernel,
        captured::{CaptureError, short_name},
        carry::{CarriedSetting, Decision, Subject, carry},
        facts::{FACTS_LIMIT, Facts, facts_script, parse_facts},
    },
    report::{Style, Table, clean::words, counted, reporter, say, warn},
    session::{
        capture::{Request, by_package, full, introduction, no_answer, plan, remarks},
        invocation::Invocation,
        locate::data_dir,
    },
};

use super::super::output;

const EXAMPLES: &str = "\
Examples:
  stead kernel capture prod                              Capture the kernel of host prod
  stead kernel capture root@prod --name prod -- -p 2222  Log in as root, on port 2222";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CaptureArgs {
    /// Host to capture, as ssh takes it: NAME, USER@NAME, or ssh://USER@NAME:PORT
    host: String,
    /// Copy no files: get the kernel's package from the distribution
    #[arg(long, conflicts_with = "full")]
    facts: bool,
    /// Copy the kernel's files, or fail if they cannot be read
    #[arg(long)]
    full: bool,
    /// Name of the captured kernel [default: the host's short name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Copy the listed files without asking
    #[arg(short = 'y', long)]
    yes: bool,
    /// Options for ssh, such as `-- -p 2222 -i KEY`
    #[arg(last = true, value_name = "SSH-OPTION")]
    ssh: Vec<String>,
}

pub(super) fn run(invocation: &Invocation, args: CaptureArgs) -> Result<ExitCode, Failure> {
    if args.host.starts_with('-') || args.host.is_empty() {
        return Err(Failure::usage(
            format!("{:?} is not a host", args.host),
            "write options for ssh after `--`: `stead kernel capture prod -- -p 2222`",
        ));
    }
    if let Some(name) = &args.name {
        check_name("name", name)
            .map_err(|message| Failure::usage(message, "choose another --name"))?;
    }
    let data = data_dir()?;
    let store = KernelStore::open(&data);
    let reporter = reporter(
        Style {
            // With --json, the output is a single document.
            quiet: invocation.style.quiet || invocation.style.json,
            json: false,
            ..invocation.style
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
    say(invocation.style, &words(&introduction(&host, &facts)));
    for line in remarks(&facts) {
        warn(&line);
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
        invocation,
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
    report(invocation, &store, &stored, &facts)?;
    Ok(ExitCode::SUCCESS)
}

fn report(
    invocation: &Invocation,
    store: &KernelStore,
    stored: &StoredKernel,
    facts: &Facts,
) -> Result<(), Failure> {
    let facts = crate::kernel::captured::facts_of(store, stored)?.unwrap_or_else(|| facts.clone());
    let carried = carry(&facts, None);
    let name = &stored.manifest.name;
    if invocation.style.json {
        return output::json(&serde_json::json!({
            "name": name,
            "release": stored.manifest.release,
            "digest": stored.digest.to_string(),
            "from": stored.manifest.from,
            "carried": carried.rows,
        }));
    }
    output::data(&carried_text(&carried.rows, invocation.style.verbose))?;
    say(
        invocation.style,
        &format!(
            "captured {name} ({}, {}); `kernel {{ capture \"{name}\"; }}` in a machine boots it",
            stored.manifest.release,
            stored.digest.short()
        ),
    );
    Ok(())
}

/// Shows which of a captured host's settings a machine gets: all of them with `all`, else those
/// that were set there by hand or are not kept, and counts for the rest.
pub(super) fn carried_text(rows: &[CarriedSetting], all: bool) -> String {
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
        text.push_str(&output::fitted(&table));
    }
    for ((subject, verdict, why), names) in rest {
        let examples: Vec<&str> = names.iter().take(3).copied().collect();
        let more = if names.len() > 3 { ", …" } else { "" };
        let why = match (subject, verdict, why) {
            (Subject::Module, Decision::Kept, _) => "loaded at boot, as on the host".to_string(),
            (_, Decision::Kept, _) => "as on the host".to_string(),
            (_, _, why) => why.to_string(),
        };
        text.push_str(&format!(
            "{} {}: {why} ({}{more})\n",
            counted(names.len(), subject.word()),
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

/// Returns the host's name in an argument of ssh, for messages.
fn host_of(host: &str) -> &str {
    let host = host.strip_prefix("ssh://").unwrap_or(host);
    let host = host.rsplit('@').next().unwrap_or(host);
    host.trim_end_matches('/')
}
