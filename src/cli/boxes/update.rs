//! Finds newer versions of a project's boxes, and pins them.

use std::process::ExitCode;

use crate::{
    boxes::{Listing, Source, Store},
    failure::Failure,
    fetch::Fetcher,
    host::{paths::DataDir, runtime::runtime},
    machinefile::Project,
    report::{Table, reporter, say, warn},
    resolve::{
        box_fetch::fetch,
        box_pins::{pin_to, pin_to_name},
        boxes::{is_digest, origin_key, short},
        catalogues::Catalogues,
        lockfile::{LockFile, LockedBox},
        request::{BoxRequest, choose, expected_by_machinefile, is_at},
    },
    session::{
        agreement::{self, Scope},
        invocation::Invocation,
        locate::load_project,
    },
};

use super::super::output;

/// A box of the project that has an origin: a catalogue, a URL or a path.
struct Known {
    /// As the Machinefile writes it.
    reference: String,
    source: Source,
    wanted: BoxRequest,
    /// Its URL contains an environment variable's value.
    secret: bool,
}

/// Returns the project's boxes that were built, packed or added on this host.
fn named(project: &Project, catalogues: &Catalogues) -> Result<Vec<String>, Failure> {
    let mut named: Vec<String> = Vec::new();
    for machine in &project.machines {
        let reference = &machine.box_ref;
        let is_name = Source::parse(reference, &project.root) == Ok(Source::Name)
            && !is_digest(reference)
            && (catalogues.find(reference, std::env::consts::ARCH)?).is_none();
        if is_name && !named.contains(reference) {
            named.push(reference.clone());
        }
    }
    Ok(named)
}

/// Returns the project's boxes with an origin, as they are now, regardless of the lock file.
fn known(project: &Project, catalogues: &Catalogues) -> Result<Vec<Known>, Failure> {
    let mut known: Vec<Known> = Vec::new();
    for machine in &project.machines {
        let reference = &machine.box_ref;
        if known.iter().any(|other| other.reference == machine.box_key) {
            continue;
        }
        let Ok(source) = Source::parse(reference, &project.root) else {
            continue;
        };
        let wanted = match BoxRequest::of(machine, &source) {
            Some(wanted) => Some(wanted),
            None => (catalogues.find(reference, std::env::consts::ARCH)?)
                .map(|found| BoxRequest::listed(reference, &found)),
        };
        if let Some(mut wanted) = wanted {
            wanted.expected.extend(expected_by_machinefile(machine));
            known.push(Known {
                reference: machine.box_key.clone(),
                secret: machine.box_key != machine.box_ref,
                source,
                wanted,
            });
        }
    }
    Ok(known)
}

/// Pins what the catalogue, the URLs and the paths of this project hold now.
pub(super) fn update(
    invocation: &Invocation,
    store: &Store,
    data: &DataDir,
    references: &[String],
) -> Result<ExitCode, Failure> {
    let project = load_project(invocation)?;
    agreement::need(invocation, data, &project, Scope::Boxes)?;
    Catalogues::refresh(data, &project)?;
    let catalogues = Catalogues::open(data, Some(&project))?;
    let mut lock = LockFile::read(&project.root)?;
    let before = lock.clone();
    let mut known = known(&project, &catalogues)?;
    let mut named = named(&project, &catalogues)?;
    for reference in references {
        let is_known = known.iter().any(|known| known.reference == *reference);
        if !is_known && !named.contains(reference) {
            return Err(Failure::usage(
                format!("no machine of this project has box {reference:?}"),
                "write it as in the Machinefile; a box that is named by its digest never changes",
            ));
        }
    }
    if known.is_empty() && named.is_empty() {
        say(
            invocation.style,
            "no machine of this project has a box that can change",
        );
    }
    known.retain(|known| references.is_empty() || references.contains(&known.reference));
    named.retain(|reference| references.is_empty() || references.contains(reference));
    let reporter = reporter(invocation.style, &[]);
    let arch = std::env::consts::ARCH;
    let wanted = known.iter().map(|known| known.wanted.clone()).collect();
    for (known, (origin, _)) in known.iter().zip(fetch(store, data, wanted, &reporter)?) {
        let entry = pin_to(&known.reference, &known.source, origin);
        let line = match lock.get(&known.reference, arch) {
            Some(before) if *before == entry => format!("{} is unchanged", known.reference),
            Some(before) => format!(
                "{}: {} is now {}",
                known.reference,
                shown(before),
                shown(&entry)
            ),
            None => format!("{} is {}", known.reference, shown(&entry)),
        };
        say(invocation.style, &line);
        lock.set(&known.reference, arch, entry);
    }
    for reference in named {
        let entry = pin_to_name(&store.resolve_named(&reference)?);
        let shown = format!("{} ({})", entry.version, short(&entry.digest));
        let line = match lock.named(&reference, arch) {
            Some(before) if *before == entry => format!("{reference} is unchanged"),
            Some(before) => format!(
                "{reference}: {} ({}) is now {shown}",
                before.version,
                short(&before.digest)
            ),
            None => format!("{reference} is {shown}"),
        };
        say(invocation.style, &line);
        lock.set_named(&reference, arch, entry);
    }
    lock.save(&before, &project.root, &data.locks())?;
    Ok(ExitCode::SUCCESS)
}

fn shown(entry: &LockedBox) -> String {
    let digits = entry.sha256.get(..12).unwrap_or(&entry.sha256);
    if entry.version == digits {
        digits.to_string()
    } else {
        format!("{} ({digits})", entry.version)
    }
}

/// Lists boxes that `update` would change, without fetching them.
pub(super) fn outdated(
    invocation: &Invocation,
    store: &Store,
    data: &DataDir,
) -> Result<ExitCode, Failure> {
    let project = load_project(invocation)?;
    agreement::need(invocation, data, &project, Scope::Boxes)?;
    Catalogues::refresh(data, &project)?;
    let catalogues = Catalogues::open(data, Some(&project))?;
    let lock = LockFile::read(&project.root)?;
    let arch = std::env::consts::ARCH;
    let fetcher = Fetcher::new()?;
    let runtime = runtime()?;
    let mut rows = Vec::new();
    for known in known(&project, &catalogues)? {
        let Some(entry) = lock.get(&known.reference, arch) else {
            rows.push((known.reference, String::new(), "not pinned yet".to_string()));
            continue;
        };
        // This command needs no agreement, so it sends no environment variable to a server.
        if known.secret && matches!(known.source, Source::Web(_)) {
            warn(&format!(
                "{} is skipped, because its URL would send ${{env.…}} to the server; `stead box update` does that",
                known.reference
            ));
            continue;
        }
        let now = match (&known.source, &known.wanted.naming.version) {
            (Source::Name, Some(version)) if *version != entry.version => Some(version.clone()),
            // A listing as Vagrant's servers have it.
            (Source::Web(url), _) if !is_at(entry, &known.reference, url) => {
                let listing = Listing::parse(&runtime.block_on(fetcher.small(url))?);
                match listing {
                    None => Some("changed on the server".to_string()),
                    Some(listing) => {
                        let version = choose(&listing, &known.wanted.version, url)?.version;
                        (version != entry.version).then_some(version)
                    }
                }
            }
            (Source::Web(url), _) => {
                let key = origin_key(&known.reference, &known.source);
                let etag = store
                    .by_reference_and_source(&key, &entry.sha256, arch)
                    .and_then(|(origin, _)| origin.etag);
                match etag {
                    // Without an ETag, only a download would show a change.
                    None => None,
                    Some(etag) => (!runtime.block_on(fetcher.unchanged(url, &etag))?)
                        .then(|| "changed on the server".to_string()),
                }
            }
            _ => None,
        };
        if let Some(now) = now {
            rows.push((known.reference, entry.version.clone(), now));
        }
    }
    for reference in named(&project, &catalogues)? {
        let Some(entry) = lock.named(&reference, arch) else {
            rows.push((reference, String::new(), "not pinned yet".to_string()));
            continue;
        };
        if let Ok(now) = store.resolve_named(&reference)
            && now.digest.to_string() != entry.digest
        {
            let now = format!("{} ({})", now.manifest.version, now.digest.short());
            rows.push((reference, entry.version.clone(), now));
        }
    }
    if invocation.style.json {
        let rows: Vec<_> = (rows.iter())
            .map(|(reference, pinned, now)| {
                serde_json::json!({ "box": reference, "pinned": pinned, "now": now })
            })
            .collect();
        output::json(&rows)?;
    } else if rows.is_empty() {
        say(
            invocation.style,
            "all boxes are up to date with Machinefile.lock",
        );
    } else {
        let mut table = Table::new(&["BOX", "PINNED", "NOW"]);
        for (reference, pinned, now) in &rows {
            table.row([reference.clone(), pinned.clone(), now.clone()]);
        }
        output::data(&output::fitted(&table))?;
        say(invocation.style, "`stead box update` fetches and pins them");
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists the boxes that the catalogues have for this host.
pub(super) fn available(invocation: &Invocation, data: &DataDir) -> Result<ExitCode, Failure> {
    let project = load_project(invocation).ok();
    if let Some(project) = &project {
        agreement::need(invocation, data, project, Scope::Boxes)?;
        Catalogues::refresh(data, project)?;
    }
    let catalogues = Catalogues::open(data, project.as_ref())?;
    let catalogue = catalogues.all()?;
    let arch = std::env::consts::ARCH;
    let mut table = Table::new(&["NAME", "VERSION", "LOGIN USER", "SIGNED", "TITLE"]);
    let mut rows = Vec::new();
    for (name, entry) in catalogue.boxes() {
        for release in &entry.releases {
            let Some(image) = release.images.get(arch) else {
                continue;
            };
            let version = release.version.to_string();
            rows.push(serde_json::json!({
                "name": name,
                "version": version,
                "arch": arch,
                "login_user": entry.login_user,
                "signed": image.is_signed(),
                "urls": image.urls.iter().map(|url| url.as_str()).collect::<Vec<_>>(),
            }));
            table.row([
                catalogue.short_reference(name, &release.version, arch),
                version,
                entry.login_user.clone(),
                if image.is_signed() { "yes" } else { "no" }.to_string(),
                entry.title.clone(),
            ]);
        }
    }
    if invocation.style.json {
        output::json(&rows)?;
    } else {
        output::data(&output::fitted(&table))?;
    }
    Ok(ExitCode::SUCCESS)
}
