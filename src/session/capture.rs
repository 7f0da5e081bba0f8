//! `kernel capture`: captures the kernel of another host.

use flate2::bufread::GzDecoder;
use std::{
    io::{BufRead, IsTerminal, Read},
    sync::Arc,
};

use crate::resolve::package::{PackageChoice, fetch_package};
use crate::{
    failure::Failure,
    guest::{HostSession, pack_script},
    host::paths::DataDir,
    kernel::{
        KernelStore, StoredKernel,
        captured::{
            CaptureError, Selection, check_running, found_in, keep, package_of, pick, settings_of,
            unpack,
        },
        facts::{Facts, Offer},
    },
    report::{
        Event, EventKind, Meter, Reporter, Table, ask, bytes,
        clean::{Shown, words},
        counted, say, talk, warn,
    },
    session::invocation::Invocation,
};

pub struct Request<'a> {
    pub invocation: &'a Invocation,
    pub store: &'a KernelStore,
    pub data: &'a DataDir,
    pub reporter: &'a Reporter,
    pub host: &'a str,
    pub name: &'a str,
    pub yes: bool,
    pub full: bool,
}

/// Returns which files to copy from the host, or `None` if the facts are enough. Asks the user
/// unless options have decided it.
pub fn plan(
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
            warn(&error.to_string());
            let what = format!(
                "package {} {} from the distribution instead",
                package.name, package.version
            );
            if request.yes {
                say(request.invocation.style, &format!("getting {what}"));
                return Ok(None);
            }
            return match ask(&format!("get {what}?")) {
                Some(true) => Ok(None),
                _ => Err(error.into()),
            };
        }
    };
    talk(&listing(request.host, &picked));
    if request.yes {
        return Ok(Some(picked));
    }
    let total: u64 = picked.all().iter().map(|taken| taken.size).sum();
    match ask(&format!("take these {}?", bytes(total))) {
        Some(true) => Ok(Some(picked)),
        Some(false) => Err(Failure::Reported(1)),
        None => Err(Failure::usage(
            "cannot ask: standard input is not a terminal",
            "add -y to copy the listed files, or --facts to copy none",
        )),
    }
}

pub fn introduction(host: &str, facts: &Facts) -> String {
    let system = match facts.os.name.as_str() {
        "" => String::new(),
        name => format!(", {name}"),
    };
    format!(
        "{host} runs {}{system} ({}, {}, {})",
        facts.release,
        facts.machine,
        counted(facts.cpu.count, "CPU"),
        bytes(facts.memory_kib * 1024),
    )
}

/// Warns where the running kernel differs from its image.
pub fn remarks(facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    if !facts.livepatches.is_empty() {
        lines.push(format!(
            "its kernel is live-patched ({}): the running code differs from the image",
            facts.livepatches.join(", ")
        ));
    }
    if facts.tainted != 0 {
        lines.push(format!(
            "its kernel is tainted ({}): it has foreign modules or has had errors (kernel.org, tainted-kernels)",
            facts.tainted
        ));
    }
    lines
}

fn listing(host: &str, picked: &Selection) -> String {
    let mut table = Table::new(&["FILE", "SIZE", ""]);
    for taken in picked.all() {
        let note = if Some(taken) == picked.tree.as_ref() {
            format!("{}, without build and source", counted(taken.files, "file"))
        } else if picked.sudo && taken == &picked.image {
            "with sudo: only root can read it".into()
        } else {
            String::new()
        };
        table.row([taken.path.clone(), bytes(taken.size), note]);
    }
    let mut text = format!("stead will read on {host}, and write nothing there:\n");
    for line in table.render().lines() {
        text.push_str(&format!("  {line}\n"));
    }
    for line in &picked.left_out {
        text.push_str(&format!("  skipped: {}\n", words(line)));
    }
    text
}

pub fn full(
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
            // Its last lines explain the failure, and ssh is about to exit.
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

/// Returns the same kernel from its distribution's package.
pub fn by_package(request: &Request<'_>, facts: &Facts) -> Result<StoredKernel, Failure> {
    let host = request.host;
    let (distribution, name, version) = package_of(facts, host)?;
    step(
        request,
        &format!("getting package {name} {version} of {}", distribution.id),
    );
    let work = request.store.work_folder()?;
    let meter = Meter::new(request.name, "capture", Arc::clone(request.reporter));
    let wanted = PackageChoice::Named {
        repositories: Vec::new(),
        distribution: &distribution,
        name: &name,
        version: Some(&version),
    };
    let found = fetch_package(request.data, wanted, work.path(), &meter, |note| {
        warn(&note)
    })?
    .files;
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

/// The failure for an answer that stead cannot read: ssh's own error if it has one, else `other`.
pub fn no_answer(session: HostSession, host: &str, other: Failure) -> Failure {
    match session.close() {
        Ok(ended) if ended.is_ssh() => Failure::error(
            format!(
                "cannot reach {host} by ssh: {}",
                if ended.said.is_empty() {
                    "ssh gives no reason"
                } else {
                    &ended.said
                }
            ),
            format!("`ssh {host} true` must work; write options for ssh after `--`"),
        ),
        Ok(_) => other,
        Err(error) => error.into(),
    }
}
