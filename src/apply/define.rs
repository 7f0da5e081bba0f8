//! Defines the domain of a machine: chooses its ports, and gives its definition to libvirt.

use std::path::{Path, PathBuf};

use crate::{
    boxes::{Boot, FileRole, StoredBox},
    guest::{MachineFiles, seed_device},
    host::{
        lock::LockName,
        ports::{HostPort, free_ssh_port},
        process::Process,
    },
    hypervisor::{
        BootFrom, DomainSpec, Filesystem, KernelModules, agent_is_too_long, domain_xml, user_folder,
    },
    kernel::{
        KernelFileRole, KernelStore, MODULES_SERIAL, ModuleTree,
        captured::facts_of,
        carry::{Guest, carry},
    },
    machine::{
        Additions, ForeignDisk, Identity, Layout, Phase, RECORD_FORMAT, Record, ShareKind, Spec,
    },
    network::NetworkFiles,
    plan::{PhaseKept, WantedMachine},
    report::clean::Shown,
    resources::weight_scale,
    sync::virtiofs,
};

use super::{
    context::{Context, lock},
    error::ApplyError,
    ports,
};

/// Chooses ports and defines the domain, under a lock. A port that is recorded in a domain is taken, even if
/// its machine does not run.
pub(super) fn define(
    context: &Context,
    wanted: &WantedMachine,
    stored: &StoredBox,
    spec: Spec,
    phase: PhaseKept,
    files: &MachineFiles,
    avoid: Option<u16>,
) -> Result<(), ApplyError> {
    let _held = lock(context, LockName::Defining)?;
    // The box may have been removed since the plan was made.
    context.store.ensure_present(stored)?;
    let existing = context.connection.lookup(&wanted.identity)?;
    let old = match &existing {
        Some(domain) => domain.record()?,
        None => None,
    };
    let images = context.data.images();
    let (additions, firmware_files) = match &existing {
        Some(domain) if phase == PhaseKept::Created => {
            let next = Layout::parse(&domain.next_xml()?).map_err(ApplyError::Internal)?;
            if let Some(foreign) = next.foreign_disk(&wanted.identity, &images) {
                let (message, remedy) =
                    foreign_disk(&wanted.machine.name, &wanted.identity, &foreign, &images);
                return Err(ApplyError::ForeignDisk { message, remedy });
            }
            let firmware_files = next.firmware_files.clone();
            let additions = additions(next, &wanted.identity, &images, files);
            (additions, firmware_files)
        }
        _ => Default::default(),
    };
    let overlays: Vec<String> = (1..)
        .zip(stored.manifest.disks())
        .map(|(n, _)| wanted.identity.overlay_of(n))
        .collect();
    let orphan = overlays.iter().find(|name| images.join(name).exists());
    if existing.is_none()
        && let Some(orphan) = orphan
    {
        return Err(ApplyError::OrphanDisk {
            machine: wanted.machine.name.clone(),
            disk: orphan.clone(),
            folder: images.shown(),
        });
    }
    let disk = images.join(wanted.identity.overlay());
    let mut taken = ports::taken(context, wanted)?;
    if let Some(port) = avoid {
        taken.insert(HostPort::local(port), ());
    }
    let spec = Spec {
        forwards: ports::choose(context, wanted, &spec.forwards, &mut taken)?,
        ..spec
    };
    let ssh_port = old
        .as_ref()
        .map(|record| record.ssh_port)
        .filter(|port| {
            let port = HostPort::local(*port);
            taken.overlapping(port).is_none() && port.is_free()
        })
        .or_else(|| free_ssh_port(&taken, wanted.identity.uuid.as_u128()))
        .ok_or(ApplyError::NoPort)?;
    let login_user = spec
        .user
        .clone()
        .unwrap_or_else(|| stored.manifest.login_user.clone());
    let (has, firmware) = old
        .as_ref()
        .map_or_else(Default::default, |old| (old.spec.firmware, old.firmware));
    let mut firmware = firmware.defined(&has, &spec.firmware);
    // A new machine must not get what another one has left.
    firmware.fresh |= phase == PhaseKept::New && spec.firmware.is_uefi();
    // For a new machine, nothing applies that was learned about the old one.
    let (provisioned, failed, first_kernels, login_ids, mounted, lacks_virtiofs, new_keys) =
        match old.filter(|_| phase == PhaseKept::Created) {
            Some(old) => (
                old.provisioned,
                old.failed,
                old.first_kernels,
                old.login_ids,
                old.mounted,
                old.lacks_virtiofs,
                old.new_keys,
            ),
            None => Default::default(),
        };
    // Claim the reservation now, so that no other `up` takes it while this machine starts.
    let claim = match spec.tuning.reserves() {
        true => Process::own(),
        false => None,
    };
    // Every field is listed, so that a new one is carried over or not on purpose.
    let record = Record {
        format: RECORD_FORMAT,
        project: wanted.owner.project.clone(),
        root: wanted.owner.root.clone(),
        file: Some(wanted.owner.file.clone()),
        machine: wanted.machine.name.clone(),
        phase: match phase {
            PhaseKept::New => Phase::Creating,
            PhaseKept::Created => Phase::Created,
        },
        spec,
        ssh_port,
        login_user,
        provisioned,
        failed,
        first_kernels,
        copy_of: wanted.copy_of.clone(),
        run_of: wanted.run_of.clone(),
        login_ids,
        mounted,
        lacks_virtiofs,
        firmware,
        new_keys,
        claim,
    };
    let (boot, modules) = boot(context, wanted, stored, &record.spec)?;
    let cable = context.connection.uri().cable();
    let console_log = files.console_log();
    let xml = domain_xml(&DomainSpec {
        identity: &wanted.identity,
        record: &record,
        disk: &disk,
        more_disks: (overlays.iter().skip(1))
            .map(|name| images.join(name))
            .collect(),
        boot,
        seed: seed_device(stored.manifest.seed, files),
        modules,
        console_log: &console_log,
        weight_scale: weight_scale(),
        filesystems: filesystems(&record.spec, files),
        card_sockets: cable.map_or_else(PathBuf::new, |cable| {
            NetworkFiles::of(&context.data, &wanted.owner.short(), cable).sockets()
        }),
        cable,
        agent_socket: (context.connection.uri().is_session())
            .then(user_folder)
            .flatten()
            .filter(|folder| agent_is_too_long(folder, &wanted.identity))
            .map(|_| files.agent_socket()),
        // Its variables are of the format of that firmware. Other firmware is for libvirt to choose.
        firmware_files: match record.spec.firmware {
            same if same == has && same.is_uefi() && !record.firmware.fresh => firmware_files,
            _ => Vec::new(),
        },
        additions: &additions,
    })
    .map_err(ApplyError::Internal)?;
    context.connection.define(&wanted.identity, &xml)?;
    Ok(())
}

/// Returns what others have added to a machine's domain.
pub fn additions(
    definition: Layout,
    identity: &Identity,
    images: &Path,
    files: &MachineFiles,
) -> Additions {
    let own = format!("{}.", identity.domain);
    let is_own = |path: &Path| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        path.starts_with(files.folder())
            || path.parent() == Some(images)
                && name.is_some_and(|name| name.starts_with(&own) || name.starts_with("modules-"))
    };
    definition.own_disks_left_out(&is_own).additions
}

/// Returns the error and its hint for a machine whose domain has another disk than the one that stead made.
pub fn foreign_disk(
    machine: &str,
    identity: &Identity,
    foreign: &ForeignDisk,
    images: &Path,
) -> (String, String) {
    let domain = &identity.domain;
    let own = images.join(identity.overlay());
    let source = match &foreign.source {
        Some(source) => source.shown(),
        None => "no file".into(),
    };
    let (own, target) = (own.shown(), &foreign.target);
    if foreign.over_own {
        return (
            format!(
                "machine {machine} has a snapshot that stead did not make: its disk {target} is {source}, on top of stead's {own}; if stead booted it from {own}, everything written since the snapshot would be lost, and both files damaged"
            ),
            format!(
                "merge the snapshot into the machine's disk: `virsh start {domain}` if it is off, then `virsh blockcommit {domain} {target} --base {own} --active --pivot --wait --delete` (never without --base, which would write to the box itself), and `virsh snapshot-delete {domain} NAME --metadata` for each of `virsh snapshot-list {domain} --name`; or delete the machine with its disk: `stead destroy {machine}`. docs/guides/troubleshooting.md has more"
            ),
        );
    }
    if let Some(data) = foreign.other_data_folder(identity) {
        return (
            format!(
                "the disk of machine {machine} is {source}, in another data folder than stead uses now ({own})"
            ),
            format!(
                "set STEAD_DATA_DIR to {}, where the machine was made",
                data.shown()
            ),
        );
    }
    (
        format!(
            "the disk {target} of machine {machine} is {source}, not stead's {own}: its domain was edited, or its disk was moved"
        ),
        format!(
            "while the machine is off, copy the disk back (`qemu-img convert -O qcow2` to {own}), and set the disk's source to {own} in `virsh edit {domain}`; docs/guides/troubleshooting.md has more"
        ),
    )
}

fn filesystems(spec: &Spec, files: &MachineFiles) -> Vec<Filesystem> {
    (spec.shares.iter())
        .map(|share| Filesystem {
            kind: share.kind,
            source: match share.kind {
                ShareKind::Virtiofs => virtiofs::SharePaths::of(share, files).socket(),
                ShareKind::NineP => share.from.clone(),
            },
            tag: share.tag(),
            readonly: share.readonly,
        })
        .collect()
}

/// Returns what the machine boots: its box's kernel, a kernel of the store with its modules, or its own
/// bootloader.
fn boot(
    context: &Context,
    wanted: &WantedMachine,
    stored: &StoredBox,
    spec: &Spec,
) -> Result<(BootFrom, Option<KernelModules>), ApplyError> {
    let console = |cmdline: &str| format!("{cmdline} console=ttyS0");
    if let Some(kernel) = &spec.kernel
        && let Some(digest) = &kernel.digest
        && !kernel.installed
    {
        let store = KernelStore::open(&context.data);
        let found = store.get(digest)?.ok_or_else(|| ApplyError::NoKernel {
            machine: wanted.machine.name.clone(),
            kernel: kernel.source.clone(),
        })?;
        store.ensure_intact(&found)?;
        // The settings of a captured host that fit this machine.
        let carried = match facts_of(&store, &found)? {
            Some(facts) => {
                let guest = Guest {
                    cpus: spec.cpus,
                    memory: spec.memory.0,
                };
                carry(&facts, Some(guest)).files
            }
            None => Vec::new(),
        };
        let modules = match &found.manifest.modules {
            Some(ModuleTree::Disk(entry)) => Some(KernelModules {
                file: store.file(entry, KernelFileRole::ModulesDisk),
                serial: MODULES_SERIAL,
            }),
            Some(ModuleTree::Memory(_)) | None => None,
        };
        let from = BootFrom::Kernel {
            kernel: store.file(&found.manifest.image, KernelFileRole::Image),
            initrd: Some(store.initramfs(&found, kernel.root.as_deref(), &carried)?),
            cmdline: console(&kernel.cmdline),
        };
        return Ok((from, modules));
    }
    let from = match &stored.manifest.boot {
        Boot::Direct {
            kernel,
            initrd,
            cmdline,
            ..
        } => BootFrom::Kernel {
            kernel: context.store.file(kernel, FileRole::Kernel),
            initrd: initrd
                .as_ref()
                .map(|initrd| context.store.file(initrd, FileRole::Initrd)),
            cmdline: console(
                (spec.kernel.as_ref()).map_or(cmdline.as_str(), |kernel| &kernel.cmdline),
            ),
        },
        Boot::Bootloader { .. } => BootFrom::Disk,
    };
    Ok((from, None))
}
