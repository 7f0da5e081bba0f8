//! The kernels of a project's machines: looks them up in the store, and imports missing ones.

use std::path::Path;

use crate::{
    boxes::StoredBox,
    failure::Failure,
    kernel::{
        KernelError, KernelFiles, KernelStore, Provenance, StoredKernel, Title,
        captured::facts_of,
        carry,
        check::{Guest, judge},
        fingerprint, locate, running,
    },
    machine::KernelSpec,
    machinefile::{Cmdline, Kernel, KernelBoot, KernelSource, Machine},
    report::{Event, EventKind, Reporter},
    resolve::lockfile::{KernelKey, LockedKernel},
};

use super::{
    Resolver,
    cmdline::{BY_INIT, join_cmdline, option, own_cmdline},
    package::{FRESH, PackageOf, pinned_key, take_package},
};

/// A machine's kernel by the Machinefile, and why it cannot be booted now, if so.
pub struct WantedKernel {
    pub spec: Option<KernelSpec>,
    pub missing: Option<Failure>,
}

/// Looks up a machine's kernel, and joins its command line.
pub fn wanted_kernel(
    resolver: Resolver<'_>,
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
                    "cannot set the command line: box {} boots with its own bootloader, which has its own",
                    stored.manifest.name
                ),
                "add a kernel (`package`, `path` or `host`), which QEMU loads with this command line",
            ));
        }
        return Ok(WantedKernel {
            spec: Some(spec),
            missing: None,
        });
    }
    let missing = match find(resolver, kernel, stored) {
        Ok(Some(found)) => {
            spec.digest = Some(found.digest.to_string());
            spec.release = Some(found.manifest.release.clone());
            captured_cmdline(resolver, machine, &found)
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
            format!("its kernel {} is not in the store yet", kernel.source),
            "run `stead up` to fetch it",
        )),
        Err(error) => Some(placed(kernel, machine, error)),
    };
    Ok(WantedKernel {
        spec: Some(spec),
        missing: no_bootloader(kernel, machine, stored).or(missing),
    })
}

/// Returns an error if a machine of this box would never boot an installed kernel.
pub fn no_bootloader(kernel: &Kernel, machine: &Machine, stored: &StoredBox) -> Option<Failure> {
    if kernel.boot != KernelBoot::Installed || own_cmdline(stored).is_none() {
        return None;
    }
    Some(at(
        kernel,
        machine,
        format!(
            "box {} has no bootloader: QEMU loads its kernel, so an installed kernel would never boot",
            stored.manifest.name
        ),
        "remove boot=\"installed\", so that QEMU loads this kernel; or use a box with its own bootloader, such as debian-12-cloud",
    ))
}

/// Returns the command line of a captured host, as far as it fits the machine. It replaces everything
/// except the box's root options.
fn captured_cmdline(
    resolver: Resolver<'_>,
    machine: &Machine,
    kernel: &StoredKernel,
) -> Result<Option<Cmdline>, KernelError> {
    let store = KernelStore::open(resolver.data);
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

/// Returns the stored kernel of the source as it is now, if there is one.
pub fn find(
    resolver: Resolver<'_>,
    kernel: &Kernel,
    stored: &StoredBox,
) -> Result<Option<StoredKernel>, KernelError> {
    let store = KernelStore::open(resolver.data);
    match &kernel.source {
        KernelSource::Box => Ok(None),
        KernelSource::Path {
            image,
            modules,
            config,
        } => {
            let found = located(resolver, image, modules.as_deref(), config.as_deref())?;
            store.of_source(&fingerprint(&found)?)
        }
        KernelSource::Host => store.of_source(&fingerprint(&running(ARCH)?)?),
        KernelSource::Capture { name } => match resolver.lock_file.kernel(&capture_key(name)) {
            Some(LockedKernel::Capture(digest)) => match store.get(digest)? {
                Some(found) => Ok(Some(found)),
                None => Err(KernelError::PinnedCapture {
                    name: name.clone(),
                    digest: digest.clone(),
                }),
            },
            _ => store.resolve_captured(name).map(Some),
        },
        KernelSource::Package { .. } => {
            let of = PackageOf::new(resolver, kernel, stored)?;
            match of.pinned(resolver) {
                Some(pinned) => store.of_source(&pinned_key(pinned)),
                None => store.of_recent_source(&of.asked_key(), FRESH),
            }
        }
    }
}

/// Returns the kernel that a Machinefile names by paths. It is in the project, or where the user
/// agreed that the paths lead.
fn located(
    resolver: Resolver<'_>,
    image: &Path,
    modules: Option<&Path>,
    config: Option<&Path>,
) -> Result<KernelFiles, KernelError> {
    let found = locate(image, modules, config, ARCH)?;
    let root = &resolver.project.root;
    let mut places = vec![root.clone()];
    if !image.starts_with(root) {
        // `boot/vmlinuz` and `lib/modules` are below the same folder.
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

pub fn capture_key(name: &str) -> KernelKey {
    KernelKey::Capture {
        name: name.to_string(),
        arch: ARCH.to_string(),
    }
}

pub const ARCH: &str = std::env::consts::ARCH;

pub fn take(
    resolver: Resolver<'_>,
    store: &KernelStore,
    reporter: &Reporter,
    machine: &Machine,
    kernel: &Kernel,
    stored: &StoredBox,
) -> Result<(), Failure> {
    reporter.event(&Event::now(
        &machine.name,
        EventKind::StepStarted {
            step: "kernel".into(),
            doing: format!("importing kernel {}", kernel.source),
        },
    ));
    let found = match &kernel.source {
        KernelSource::Path {
            image,
            modules,
            config,
        } => located(resolver, image, modules.as_deref(), config.as_deref())?,
        KernelSource::Host => running(ARCH)?,
        KernelSource::Package { .. } => {
            let of = PackageOf::new(resolver, kernel, stored)?;
            return take_package(resolver, store, reporter, &machine.name, &of);
        }
        KernelSource::Box | KernelSource::Capture { .. } => return Ok(()),
    };
    // Taken before the files are read: if they change meanwhile, the next command notices.
    let key = fingerprint(&found)?;
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
    Ok(store.remember_source(&key, &stored)?)
}

/// Fails unless a kernel can boot a machine of this box.
fn fit(kernel: &StoredKernel, spec: &KernelSpec, stored: &StoredBox) -> Result<(), KernelError> {
    let guest = Guest {
        root: spec.root.as_deref(),
        credentials: stored.manifest.seed.is_in_firmware(),
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

pub fn placed(kernel: &Kernel, machine: &Machine, error: impl Into<Failure>) -> Failure {
    match error.into() {
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
