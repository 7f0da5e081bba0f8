//! Decides how machines share folders of the host, before anything starts.

use crate::{
    failure::Failure,
    hypervisor::Connection,
    kernel::{KernelStore, Presence},
    machine::{Observed, Share, ShareKind, Spec},
    machinefile::{Machine, SyncFolder, SyncKind},
    sync::{
        shares::remedy,
        virtiofs::{self, Lack, Owner, Virtiofsd},
    },
};

use super::Resolver;

/// The host's abilities to share folders, checked once and only if a folder needs them.
#[derive(Default)]
pub struct HostShares {
    virtiofsd: Option<Result<Virtiofsd, Lack>>,
    sandboxes: Vec<(Owner, Option<Lack>)>,
}

impl HostShares {
    /// Returns why virtiofs cannot share this folder.
    fn lacks_virtiofs(&mut self, connection: &Connection, folder: &SyncFolder) -> Option<Lack> {
        let found = self.virtiofsd.get_or_insert_with(|| {
            let found = virtiofs::find()?;
            match apparmor_keeps_out(connection) {
                Some(lack) => Err(lack),
                None => Ok(found),
            }
        });
        if let Err(lack) = found {
            return Some(lack.clone());
        }
        let owner = Owner::of(&folder.from).ok()?;
        if let Some((_, lack)) = self.sandboxes.iter().find(|(it, _)| *it == owner) {
            return lack.clone();
        }
        let lack = virtiofs::no_sandbox(owner);
        self.sandboxes.push((owner, lack.clone()));
        lack
    }
}

/// The rule that libvirt's AppArmor profile needs for QEMU of qemu:///system. libvirt's own
/// virt-aa-helper does not know the sockets of folders.
const APPARMOR_FILE: &str = "/etc/apparmor.d/local/abstractions/libvirt-qemu";
const APPARMOR_RULE: &str = "/run/stead/*/socket rw,";

fn apparmor_keeps_out(connection: &Connection) -> Option<Lack> {
    if connection.uri().is_session() || !connection.has_apparmor() {
        return None;
    }
    let rules = std::fs::read_to_string(APPARMOR_FILE).unwrap_or_default();
    if rules.contains("/run/stead/") {
        return None;
    }
    Some(Lack {
        why: "AppArmor denies libvirt's QEMU the sockets of virtiofsd".into(),
        remedy: format!("allow it: `echo '{APPARMOR_RULE}' >> {APPARMOR_FILE}`"),
    })
}

/// How a machine's folders are shared.
#[derive(Default)]
pub struct WantedShares {
    pub shares: Vec<Share>,
    /// How each folder of type auto is shared, and why.
    pub notes: Vec<String>,
    /// Why the machine cannot have them; matters only if it will be booted.
    pub missing: Option<Failure>,
}

/// How a folder of the Machinefile is shared, where it can be; `None` if it is copied.
fn share_kind(kind: SyncKind) -> Option<ShareKind> {
    match kind {
        SyncKind::Virtiofs | SyncKind::Auto => Some(ShareKind::Virtiofs),
        SyncKind::NineP => Some(ShareKind::NineP),
        SyncKind::Rsync | SyncKind::TwoWay => None,
    }
}

pub fn wanted_shares(
    resolver: Resolver<'_>,
    connection: &Connection,
    machine: &Machine,
    spec: &Spec,
    observed: Option<&Observed>,
    host: &mut HostShares,
) -> Result<WantedShares, Failure> {
    let mut wanted = WantedShares::default();
    let shared: Vec<(&SyncFolder, ShareKind)> = (machine.syncs.iter())
        .filter_map(|folder| Some((folder, share_kind(folder.kind)?)))
        .collect();
    if shared.is_empty() {
        return Ok(wanted);
    }
    let guest = GuestKernel::of(resolver, spec, observed)?;
    for (folder, kind) in shared {
        let lack = guest.lacks(kind).or_else(|| match kind {
            ShareKind::Virtiofs => host.lacks_virtiofs(connection, folder),
            ShareKind::NineP => None,
        });
        let from = resolver.project.display_path(&folder.from).to_string();
        let from = if from.is_empty() { "." } else { &from };
        match lack {
            None => {
                wanted.shares.push(Share {
                    from: folder.from.clone(),
                    to: folder.to.clone(),
                    kind,
                    readonly: folder.readonly,
                });
                if folder.kind.is_automatic() {
                    wanted.notes.push(match running(observed, folder) {
                        Some(false) => format!(
                            "{from} is copied by rsync to {}, as at the last boot; `stead restart {}` shares it by virtiofs",
                            folder.to, machine.name
                        ),
                        _ => format!("{from} is shared by virtiofs as {}", folder.to),
                    });
                }
            }
            Some(lack) if folder.kind.is_automatic() => {
                wanted.notes.push(match running(observed, folder) {
                    Some(true) if guest.without_virtiofs.is_none() => format!(
                        "{from} is shared by virtiofs as {}, as at the last boot; from the next boot on it is copied by rsync: {}",
                        folder.to, lack.why
                    ),
                    _ => format!("{from} is copied by rsync to {}: {}", folder.to, lack.why),
                });
            }
            Some(lack) => {
                wanted.missing.get_or_insert(Failure::error(
                    format!(
                        "{}: machine {}: cannot share {from} by {}: {}",
                        folder.at,
                        machine.name,
                        kind.word(),
                        lack.why
                    ),
                    match kind {
                        ShareKind::Virtiofs => {
                            format!(
                                "{}; or use type=\"auto\", which copies what it cannot share",
                                lack.remedy
                            )
                        }
                        ShareKind::NineP => lack.remedy,
                    },
                ));
                // `plan` shows the difference even if the folder cannot be shared.
                wanted.shares.push(Share {
                    from: folder.from.clone(),
                    to: folder.to.clone(),
                    kind,
                    readonly: folder.readonly,
                });
            }
        }
    }
    Ok(wanted)
}

/// Whether a running machine was booted with the folder as a file system.
fn running(observed: Option<&Observed>, folder: &SyncFolder) -> Option<bool> {
    let observed = observed.filter(|it| it.is_up())?;
    Some((observed.record.spec.shares.iter()).any(|share| share.to == folder.to))
}

/// The kernel that a machine will boot, as far as it is known.
struct GuestKernel {
    /// The options of a kernel in the store.
    options: std::collections::BTreeMap<String, Presence>,
    release: Option<String>,
    /// A kernel that had no virtiofs at a boot of this machine.
    without_virtiofs: Option<String>,
}

impl GuestKernel {
    fn of(
        resolver: Resolver<'_>,
        spec: &Spec,
        observed: Option<&Observed>,
    ) -> Result<Self, Failure> {
        let kernel = spec.kernel.as_ref();
        let found = match kernel.and_then(|kernel| kernel.digest.as_ref()) {
            Some(digest) => KernelStore::open(resolver.data).get(digest)?,
            None => None,
        };
        let release = kernel.and_then(|kernel| kernel.release.clone());
        let without_virtiofs = observed
            .and_then(|observed| observed.record.lacks_virtiofs.clone())
            // Another kernel may have it.
            .filter(|lacking| {
                let own = observed
                    .and_then(|observed| observed.record.spec.kernel.as_ref())
                    .and_then(|kernel| kernel.release.as_ref());
                release.as_ref() == own || release.as_ref() == Some(lacking)
            });
        Ok(GuestKernel {
            options: found.map(|it| it.manifest.options).unwrap_or_default(),
            release,
            without_virtiofs,
        })
    }

    fn lacks(&self, kind: ShareKind) -> Option<Lack> {
        let missing = |option: &&&str| self.options.get(**option) == Some(&Presence::Missing);
        let options: &[&str] = match kind {
            ShareKind::Virtiofs => &["CONFIG_VIRTIO_FS"],
            ShareKind::NineP => &["CONFIG_9P_FS", "CONFIG_NET_9P_VIRTIO"],
        };
        let why = match (options.iter().find(missing), &self.without_virtiofs) {
            (Some(option), _) => format!(
                "its kernel {} has no {} ({option})",
                self.release.as_deref().unwrap_or_default(),
                kind.word()
            ),
            (None, Some(kernel)) if kind == ShareKind::Virtiofs => {
                format!("its kernel {kernel} has no virtiofs")
            }
            _ => return None,
        };
        Some(Lack {
            why,
            remedy: remedy(kind).into(),
        })
    }
}
