//! The kernels of a project's machines: looked up in the store, taken in where they are missing.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    boxes::{Boot, SeedKind, StoredBox},
    fetch::Fetcher,
    host::digest::name_of,
    kernel::{
        KernelError, KernelFiles, KernelStore, Provenance, StoredKernel, Title,
        captured::facts_of,
        carry,
        check::{Guest, judge},
        distribution_in, found_key, locate, running,
    },
    lockfile::{KernelEntry, KernelKey, LockFile},
    machine::KernelSpec,
    machinefile::{Cmdline, Kernel, KernelBoot, KernelSource, Machine},
    packages::{Distribution, PinnedPackage, Repository, fetch_and_unpack, resolve},
    plan::Plan,
    report::{Event, EventKind, Reporter},
};

use super::{Failure, meter::Meter, session::Session, work::Work};

/// What a machine's kernel is by the Machinefile, and why it cannot be booted now.
pub struct WantedKernel {
    pub spec: Option<KernelSpec>,
    pub missing: Option<Failure>,
}

/// Looks a machine's kernel up, in its own words of the command line.
pub fn wanted_kernel(
    session: &Session,
    machine: &Machine,
    stored: &StoredBox,
) -> Result<WantedKernel, Failure> {
    let Some(kernel) = &machine.kernel else {
        return Ok(WantedKernel {
            spec: None,
            missing: None,
        });
    };
    let own = own_cmdline(stored);
    let installed = kernel.boot == KernelBoot::Installed;
    let cmdline = match (installed, &kernel.cmdline) {
        (true, asked) => asked.as_ref().map_or("", |it| it.text.trim()).to_string(),
        (false, asked) => join_cmdline(own.unwrap_or(BY_INIT), asked.as_ref()),
    };
    let mut spec = KernelSpec {
        source: kernel.source.to_string(),
        digest: None,
        release: None,
        root: option(&cmdline, "rootfstype").map(str::to_string),
        cmdline,
        installed,
        replaces: installed && kernel.cmdline.as_ref().is_some_and(|it| it.replace),
    };
    if kernel.source == KernelSource::Box {
        if own.is_none() {
            return Err(at(
                kernel,
                machine,
                format!(
                    "the box {} boots by its own bootloader, which keeps the command line to itself",
                    stored.manifest.name
                ),
                "give a kernel too (`package`, `path`, `host`), which QEMU loads with this command line",
            ));
        }
        return Ok(WantedKernel {
            spec: Some(spec),
            missing: None,
        });
    }
    let missing = match find(session, kernel, stored) {
        Ok(Some(found)) => {
            spec.digest = Some(found.digest.to_string());
            spec.release = Some(found.manifest.release.clone());
            captured_cmdline(session, machine, &found)
                .and_then(|captured| {
                    if let Some(captured) = captured {
                        let base = join_cmdline(own.unwrap_or(BY_INIT), Some(&captured));
                        spec.cmdline = join_cmdline(&base, kernel.cmdline.as_ref());
                        spec.root = option(&spec.cmdline, "rootfstype").map(str::to_string);
                    }
                    fit(&found, &spec, stored)
                })
                .err()
                .map(|error| placed(kernel, machine, error))
        }
        Ok(None) => Some(at(
            kernel,
            machine,
            format!("its kernel, {}, is not here yet", kernel.source),
            "`stead up` gets it",
        )),
        Err(error) => Some(placed(kernel, machine, error)),
    };
    Ok(WantedKernel {
        spec: Some(spec),
        missing: no_bootloader(kernel, machine, stored).or(missing),
    })
}

/// Why a kernel that is to be installed would never be booted in a machine of this box.
fn no_bootloader(kernel: &Kernel, machine: &Machine, stored: &StoredBox) -> Option<Failure> {
    if kernel.boot != KernelBoot::Installed || own_cmdline(stored).is_none() {
        return None;
    }
    Some(at(
        kernel,
        machine,
        format!(
            "the box {} has no bootloader: QEMU loads its kernel, and one that is installed in it would never boot",
            stored.manifest.name
        ),
        "leave boot=\"installed\" out: QEMU loads this kernel then; or take a box with its own bootloader, such as debian-12-cloud",
    ))
}

/// What our own init needs to be told where no box says anything: it finds the root by itself, and
/// the root's own fstab says how it is mounted in the end.
const BY_INIT: &str = "ro";

/// The command line of a captured host, as far as it fits the machine. It takes the place of all
/// but the box's root options.
fn captured_cmdline(
    session: &Session,
    machine: &Machine,
    kernel: &StoredKernel,
) -> Result<Option<Cmdline>, KernelError> {
    let store = KernelStore::open(&session.data);
    let Some(facts) = facts_of(&store, kernel)? else {
        return Ok(None);
    };
    let guest = carry::Guest {
        cpus: machine.cpus,
        memory: machine.memory.0,
    };
    Ok(Some(Cmdline {
        text: carry::carry(&facts, Some(guest)).cmdline,
        replace: true,
    }))
}

fn own_cmdline(stored: &StoredBox) -> Option<&str> {
    match &stored.manifest.boot {
        Boot::Direct { cmdline, .. } => Some(cmdline),
        Boot::Bootloader {} => None,
    }
}

/// Options by which the root is found, which a replaced command line keeps.
const ROOT_OPTIONS: [&str; 5] = ["root", "rootfstype", "rootflags", "ro", "rw"];

fn join_cmdline(own: &str, asked: Option<&Cmdline>) -> String {
    let Some(asked) = asked else {
        return own.to_string();
    };
    let kept: Vec<&str> = own
        .split_whitespace()
        .filter(|word| {
            let key = word.split('=').next().unwrap_or(word);
            let said = |key: &str| {
                (asked.text.split_whitespace()).any(|word| word.split('=').next() == Some(key))
            };
            if asked.replace {
                // Of ro and rw only one can hold.
                ROOT_OPTIONS.contains(&key)
                    && !said(key)
                    && !(matches!(key, "ro" | "rw") && (said("ro") || said("rw")))
            } else {
                true
            }
        })
        .collect();
    [kept.join(" "), asked.text.trim().to_string()]
        .join(" ")
        .trim()
        .to_string()
}

/// The last value of an option.
fn option<'a>(cmdline: &'a str, key: &str) -> Option<&'a str> {
    cmdline
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .next_back()
}

/// The kernel in the store, if the source as it is now is there.
fn find(
    session: &Session,
    kernel: &Kernel,
    stored: &StoredBox,
) -> Result<Option<StoredKernel>, KernelError> {
    let store = KernelStore::open(&session.data);
    match &kernel.source {
        KernelSource::Box => Ok(None),
        KernelSource::Path {
            image,
            modules,
            config,
        } => {
            let found = located(session, image, modules.as_deref(), config.as_deref())?;
            store.of_source(&found_key(&found)?)
        }
        KernelSource::Host => store.of_source(&found_key(&running(ARCH)?)?),
        KernelSource::Capture { name } => match session.lock_file.kernel(&capture_key(name)) {
            Some(KernelEntry::Capture(digest)) => match store.get(digest)? {
                Some(found) => Ok(Some(found)),
                None => Err(KernelError::PinnedCapture {
                    name: name.clone(),
                    digest: digest.clone(),
                }),
            },
            _ => store.resolve_captured(name).map(Some),
        },
        KernelSource::Package { .. } => {
            let of = PackageOf::new(session, kernel, stored)?;
            match of.pinned(session) {
                Some(pinned) => store.of_source(&pinned_key(pinned)),
                None => store.of_recent_source(&of.asked_key(), FRESH),
            }
        }
    }
}

/// The kernel that a Machinefile names by paths. It lies in the project, or where those lead, which was
/// agreed to.
fn located(
    session: &Session,
    image: &Path,
    modules: Option<&Path>,
    config: Option<&Path>,
) -> Result<KernelFiles, KernelError> {
    let found = locate(image, modules, config, ARCH)?;
    let root = &session.project.root;
    let mut places = vec![root.clone()];
    if !image.starts_with(root) {
        // `boot/vmlinuz` and `lib/modules` have the same folder above.
        let above = image.parent().and_then(Path::parent);
        places.extend(above.map(Path::to_path_buf));
        places.push(image.to_path_buf());
    }
    places.extend(
        [modules, config]
            .into_iter()
            .flatten()
            .map(Path::to_path_buf),
    );
    found.check_within(&places)?;
    Ok(found)
}

/// How long a name that nothing pins yet may mean what it meant before, without a look at the
/// repositories.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// A package as a machine asks for it.
struct PackageOf<'a> {
    name: &'a str,
    version: Option<&'a str>,
    from: Option<&'a str>,
    keyring: Option<&'a std::path::Path>,
    /// As people write it: `debian/12`.
    title: String,
    distribution: Distribution,
}

impl<'a> PackageOf<'a> {
    fn new(session: &Session, kernel: &'a Kernel, stored: &StoredBox) -> Result<Self, KernelError> {
        let KernelSource::Package {
            name,
            version,
            distribution,
            from,
            key,
        } = &kernel.source
        else {
            return Err(KernelError::NotFound {
                reference: kernel.source.to_string(),
                nearest: String::new(),
            });
        };
        let known = match distribution {
            Some(text) => text
                .split_once('/')
                .map(|(id, release)| (id.to_string(), release.to_string())),
            None => distribution_of(session, stored),
        };
        let (id, release) = known.ok_or_else(|| KernelError::UnknownDistribution {
            package: name.clone(),
            name: stored.manifest.name.clone(),
        })?;
        Ok(PackageOf {
            name,
            version: version.as_deref(),
            from: from.as_deref(),
            keyring: key.as_deref(),
            title: format!("{id}/{release}"),
            distribution: Distribution {
                release: codename(&id, &release).to_string(),
                id,
                arch: ARCH.to_string(),
            },
        })
    }

    fn key(&self) -> KernelKey {
        KernelKey::Package {
            name: self.name.to_string(),
            distribution: self.title.clone(),
            arch: ARCH.to_string(),
        }
    }

    /// What the lock file says, unless the Machinefile asks for another version by now.
    fn pinned<'s>(&self, session: &'s Session) -> Option<&'s PinnedPackage> {
        match session.lock_file.kernel(&self.key())? {
            KernelEntry::Package(pinned)
                if self.version.is_none_or(|version| version == pinned.version) =>
            {
                Some(pinned)
            }
            _ => None,
        }
    }

    /// What it is remembered by before it is known what it stands for.
    fn asked_key(&self) -> String {
        format!(
            "asked {} {ARCH} {} {} {}",
            self.title,
            self.name,
            self.version.unwrap_or("*"),
            // There may be a password in it.
            self.from
                .map_or_else(|| "*".into(), |from| name_of(from, 16))
        )
    }
}

/// The same files, the same kernel.
fn pinned_key(pinned: &PinnedPackage) -> String {
    let files: Vec<&str> = pinned
        .files
        .iter()
        .map(|file| file.sha256.as_str())
        .collect();
    format!("package {}", files.join(" "))
}

fn capture_key(name: &str) -> KernelKey {
    KernelKey::Capture {
        name: name.to_string(),
        arch: ARCH.to_string(),
    }
}

/// Of a box, or of the one that it was packed from.
fn distribution_of(session: &Session, stored: &StoredBox) -> Option<(String, String)> {
    let mut stored = stored.clone();
    // As deep as anybody packs boxes of boxes.
    for _ in 0..32 {
        let manifest = &stored.manifest;
        if let Some(found) = distribution_in(&manifest.name)
            .or_else(|| distribution_in(&format!("{}/{}", manifest.name, manifest.version)))
        {
            return Some(found);
        }
        stored = session.store.resolve(manifest.parent.as_ref()?).ok()?;
    }
    None
}

/// What package archives call a release that people call by its number.
fn codename<'a>(id: &str, release: &'a str) -> &'a str {
    match (id, release) {
        ("debian", "10") => "buster",
        ("debian", "11") => "bullseye",
        ("debian", "12") => "bookworm",
        ("debian", "13") => "trixie",
        ("debian", "14") => "forky",
        ("ubuntu", "20.04") => "focal",
        ("ubuntu", "22.04") => "jammy",
        ("ubuntu", "24.04") => "noble",
        ("ubuntu", "24.10") => "oracular",
        ("ubuntu", "25.04") => "plucky",
        ("ubuntu", "25.10") => "questing",
        ("ubuntu", "26.04") => "resolute",
        _ => release,
    }
}

const ARCH: &str = std::env::consts::ARCH;

/// Takes in the kernels of machines that have to be made or booted, where they are not here. Says
/// whether there were any.
pub fn take_missing(work: &Work, machines: &[String]) -> Result<bool, Failure> {
    let store = KernelStore::open(&work.session.data);
    let mut any = false;
    for subject in &work.subjects {
        let machine = &subject.wanted.machine;
        let (Some(kernel), Some(stored)) = (&machine.kernel, &subject.stored_box) else {
            continue;
        };
        if subject.leftover || !machines.contains(&machine.name) {
            continue;
        }
        if let Some(failure) = no_bootloader(kernel, machine, stored) {
            return Err(failure);
        }
        let here =
            find(&work.session, kernel, stored).map_err(|error| placed(kernel, machine, error))?;
        if here.is_some() || kernel.source == KernelSource::Box {
            continue;
        }
        take(
            &work.session,
            &store,
            &work.reporter,
            machine,
            kernel,
            stored,
        )
        .map_err(|error| placed(kernel, machine, error))?;
        any = true;
    }
    Ok(any)
}

fn take(
    session: &Session,
    store: &KernelStore,
    reporter: &Reporter,
    machine: &Machine,
    kernel: &Kernel,
    stored: &StoredBox,
) -> Result<(), KernelError> {
    reporter.event(&Event::now(
        &machine.name,
        EventKind::StepStarted {
            step: "kernel".into(),
            doing: format!("taking in kernel {}", kernel.source),
        },
    ));
    let found = match &kernel.source {
        KernelSource::Path {
            image,
            modules,
            config,
        } => located(session, image, modules.as_deref(), config.as_deref())?,
        KernelSource::Host => running(ARCH)?,
        KernelSource::Package { .. } => {
            let of = PackageOf::new(session, kernel, stored)?;
            return take_package(session, store, reporter, &machine.name, &of);
        }
        KernelSource::Box | KernelSource::Capture { .. } => return Ok(()),
    };
    // Before it is read: what changes meanwhile is seen at the next look.
    let key = found_key(&found)?;
    let stored = store.add(
        &found,
        &Title {
            name: &found.release,
            from: match kernel.source {
                KernelSource::Host => Provenance::Host {},
                _ => Provenance::Path {},
            },
            facts: None,
        },
    )?;
    store.remember_source(&key, &stored)
}

fn take_package(
    session: &Session,
    store: &KernelStore,
    reporter: &Reporter,
    label: &str,
    of: &PackageOf<'_>,
) -> Result<(), KernelError> {
    let fetcher = Fetcher::new().map_err(KernelError::Network)?;
    let meter = Meter::new(label, "kernel", Arc::clone(reporter));
    let work = store.work_folder()?;
    let downloads = session.data.downloads();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(KernelError::io("start the runtime for", &downloads))?;
    let (pinned, unpacked) = runtime.block_on(async {
        let pinned = match of.pinned(session) {
            Some(pinned) => pinned.clone(),
            None => {
                let sources = match of.from {
                    Some(from) => Repository::parse(from, of.keyring, &of.distribution)?,
                    None => Vec::new(),
                };
                let cache = session.data.downloads().join("packages");
                let resolved = resolve(
                    &fetcher,
                    &cache,
                    &sources,
                    &of.distribution,
                    of.name,
                    of.version,
                )
                .await?;
                for note in resolved.notes {
                    reporter.event(&Event::now(label, EventKind::Notice { message: note }));
                }
                resolved.package
            }
        };
        let into = work.path().join("package");
        let progress = |done, total| meter.at(done, total);
        let unpacked = fetch_and_unpack(&fetcher, &downloads, &pinned, &into, &progress).await?;
        Ok::<_, KernelError>((pinned, unpacked))
    })?;
    let found = KernelFiles::of_package(unpacked, ARCH)?;
    let name = pinned
        .files
        .first()
        .map_or(pinned.name.clone(), |file| file.package.clone());
    // Asked for by its own name or by one that follows the archive: it is the same kernel.
    let from = Provenance::Package(PinnedPackage {
        name: name.clone(),
        ..pinned.clone()
    });
    let stored = store.add(
        &found,
        &Title {
            name: &name,
            from,
            facts: None,
        },
    )?;
    store.remember_source(&pinned_key(&pinned), &stored)?;
    store.remember_source(&of.asked_key(), &stored)
}

/// Pins what the kernels of the project's machines are, where they are here.
pub fn pin_kernels(session: &Session, lock: &mut LockFile) -> Result<(), Failure> {
    let mut wanted = Vec::new();
    for machine in &session.project.machines {
        let Some(kernel) = &machine.kernel else {
            continue;
        };
        let key = match &kernel.source {
            KernelSource::Capture { name } => capture_key(name),
            KernelSource::Package { name, .. } => {
                // The box says which distribution; without it what is pinned stays as it is.
                let Ok(stored) = session.wanted_box(machine) else {
                    wanted.push(Wanted::Name(name));
                    continue;
                };
                PackageOf::new(session, kernel, &stored)
                    .map_err(|error| placed(kernel, machine, error))?
                    .key()
            }
            _ => continue,
        };
        wanted.push(Wanted::Key(key.clone()));
        let Ok(stored) = session.wanted_box(machine) else {
            continue;
        };
        // A machine that was not asked for may have none here.
        if let Ok(Some(found)) = find(session, kernel, &stored) {
            let entry = match (&key, &found.manifest.from) {
                (KernelKey::Capture { .. }, _) => KernelEntry::Capture(found.digest.to_string()),
                (_, Provenance::Package(package)) => KernelEntry::Package(PinnedPackage {
                    name: match &key {
                        KernelKey::Package { name, .. } | KernelKey::Capture { name, .. } => {
                            name.clone()
                        }
                    },
                    ..package.clone()
                }),
                _ => continue,
            };
            lock.set_kernel(key, entry);
        }
    }
    lock.retain_kernels(|key| {
        wanted.iter().any(|wanted| match (wanted, key) {
            (Wanted::Name(wanted), KernelKey::Package { name, .. }) => *wanted == name,
            (Wanted::Name(_), KernelKey::Capture { .. }) => false,
            // Those of other architectures are a colleague's.
            (Wanted::Key(wanted), key) => wanted.is_like(key),
        })
    });
    Ok(())
}

/// A kernel that the Machinefile names.
enum Wanted<'a> {
    Key(KernelKey),
    Name(&'a str),
}

/// Looks up again what the packages of the project's machines are now, takes those in, and pins
/// them. Returns what has moved: a package's name, its version before, and the one now.
pub fn update_packages(
    session: &mut Session,
    reporter: &Reporter,
) -> Result<Vec<(String, Option<String>, String)>, Failure> {
    let store = KernelStore::open(&session.data);
    let before = session.lock_file.clone();
    session
        .lock_file
        .retain_kernels(|key| matches!(key, KernelKey::Capture { .. }));
    let mut lock = before.clone();
    let mut moved: Vec<(String, Option<String>, String)> = Vec::new();
    for machine in &session.project.machines {
        let Some(kernel) = &machine.kernel else {
            continue;
        };
        if !matches!(kernel.source, KernelSource::Package { .. }) {
            continue;
        }
        let stored = session.wanted_box(machine)?;
        let of = PackageOf::new(session, kernel, &stored)
            .map_err(|error| placed(kernel, machine, error))?;
        if moved.iter().any(|(name, ..)| *name == of.name) {
            continue;
        }
        take_package(session, &store, reporter, &machine.name, &of)
            .map_err(|error| placed(kernel, machine, error))?;
        let Some(found) = store.of_source(&of.asked_key())? else {
            continue;
        };
        let Provenance::Package(package) = found.manifest.from else {
            continue;
        };
        let old = match before.kernel(&of.key()) {
            Some(KernelEntry::Package(pinned)) => Some(pinned.version.clone()),
            _ => None,
        };
        moved.push((of.name.to_string(), old, package.version.clone()));
        let name = of.name.to_string();
        lock.set_kernel(
            of.key(),
            KernelEntry::Package(PinnedPackage { name, ..package }),
        );
    }
    session.lock_file = lock.save(&before, &session.project.root, &session.data.locks())?;
    moved.retain(|(_, old, now)| old.as_ref() != Some(now));
    Ok(moved)
}

/// Whether the lock file has every kernel that it may have.
pub fn kernels_are_pinned(session: &Session) -> Result<bool, Failure> {
    for machine in &session.project.machines {
        let Some(kernel) = &machine.kernel else {
            continue;
        };
        let pinned = match &kernel.source {
            KernelSource::Capture { name } => {
                session.lock_file.kernel(&capture_key(name)).is_some()
            }
            KernelSource::Package { .. } => match session.wanted_box(machine) {
                Ok(stored) => PackageOf::new(session, kernel, &stored)
                    .map_err(|error| placed(kernel, machine, error))?
                    .pinned(session)
                    .is_some(),
                Err(_) => true,
            },
            _ => true,
        };
        if !pinned {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a kernel can boot a machine of this box.
fn fit(kernel: &StoredKernel, spec: &KernelSpec, stored: &StoredBox) -> Result<(), KernelError> {
    let guest = Guest {
        root: spec.root.as_deref(),
        credentials: stored.manifest.seed == SeedKind::Credentials,
    };
    let fatal: Vec<_> = judge(&kernel.manifest.options, guest)
        .into_iter()
        .filter(|finding| finding.is_fatal())
        .collect();
    if fatal.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = fatal
        .iter()
        .map(|it| format!("  {} is {} ({})", it.option, it.presence.word(), it.what))
        .collect();
    let remedies: Vec<String> = fatal.iter().map(|finding| finding.remedy()).collect();
    Err(KernelError::Unfit {
        name: kernel.manifest.name.clone(),
        release: kernel.manifest.release.clone(),
        findings: lines.join("\n"),
        remedies: format!("build it with {}", remedies.join(", ")),
    })
}

/// Fails when a machine that the plan makes or boots has no kernel, before anything is defined.
pub fn need_kernels(work: &mut Work, plan: &Plan) -> Result<(), Failure> {
    for machine in plan.machines.iter().filter(|machine| machine.boots()) {
        if let Some(subject) = work
            .subjects
            .iter_mut()
            .find(|subject| subject.wanted.machine.name == machine.machine)
            && let Some(failure) = subject.no_kernel.take()
        {
            return Err(failure);
        }
    }
    Ok(())
}

fn placed(kernel: &Kernel, machine: &Machine, error: KernelError) -> Failure {
    match Failure::from(error) {
        Failure::Error { message, hint } => Failure::Error {
            message: format!("{}: machine {}: {message}", kernel.at, machine.name),
            hint,
        },
        other => other,
    }
}

fn at(kernel: &Kernel, machine: &Machine, message: String, hint: &str) -> Failure {
    Failure::error(
        format!("{}: machine {}: {message}", kernel.at, machine.name),
        hint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str, replace: bool) -> Cmdline {
        Cmdline {
            text: text.into(),
            replace,
        }
    }

    #[test]
    fn options_are_added_or_take_the_place_of_the_boxs() {
        let own = "root=/dev/vda rootfstype=ext4 rw loglevel=4";
        assert_eq!(join_cmdline(own, None), own);
        assert_eq!(
            join_cmdline(own, Some(&asked("mitigations=off", false))),
            "root=/dev/vda rootfstype=ext4 rw loglevel=4 mitigations=off"
        );
        assert_eq!(
            join_cmdline(own, Some(&asked("quiet ro", true))),
            "root=/dev/vda rootfstype=ext4 quiet ro"
        );
        assert_eq!(
            join_cmdline(own, Some(&asked("root=LABEL=x", true))),
            "rootfstype=ext4 rw root=LABEL=x"
        );
        assert_eq!(option("a=1 b=2 a=3", "a"), Some("3"));
    }
}
