//! The content of the files, with a span for each value, and not merged or checked yet.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{
    host::firmware::Firmware,
    machinefile::{
        ansible::{Playbook, Vars},
        diagnostics::Spanned,
        model::{Accel, Cpu, Hook, Kernel, Libvirt, ProvisionerKind, RunPolicy, SyncFolder},
        tuning::{CpuTuning, DiskTuning, HostReserve, MemoryTuning},
        units::Bytes,
    },
};

use super::{
    egress::{EgressDraft, HostAccessDraft},
    forward::ForwardDraft,
    inventory::GroupDraft,
    link::LinkDraft,
    network::{NetworkDraft, NetworksDraft},
    tuning::Tuned,
};

/// A project, from all its files.
#[derive(Default)]
pub(crate) struct Drafts {
    pub project: Option<Spanned<String>>,
    pub connect: Option<Libvirt>,
    pub catalogue: Option<String>,
    pub host_reserve: Option<HostReserve>,
    pub defaults: Draft,
    /// How many bytes of text `defaults` has.
    pub defaults_size: usize,
    pub networks: Vec<NetworkDraft>,
    /// Those of Machinefile.local come last.
    pub links: Vec<LinkDraft>,
    /// In the order of the files.
    pub machines: Vec<MachineDraft>,
    /// From Machinefile.local: they override machines of the same name.
    pub local: Vec<MachineDraft>,
    /// Groups of Machinefile.local come after those of the Machinefile. A name may occur in both.
    pub groups: Vec<GroupDraft>,
    pub provisioners: Vec<ProjectProvisionDraft>,
}

#[derive(Clone)]
pub(crate) struct MachineDraft {
    pub name: Spanned<String>,
    pub count: Option<Spanned<i128>>,
    pub draft: Draft,
    /// How many bytes of text it has.
    pub size: usize,
}

/// The content of `machine` and `defaults`.
#[derive(Clone, Default)]
pub(crate) struct Draft {
    pub box_ref: Option<Spanned<BoxDraft>>,
    pub cpus: Option<Spanned<Tuned<u32, CpuTuning>>>,
    pub memory: Option<Spanned<Tuned<Bytes, MemoryTuning>>>,
    pub disk: Option<Spanned<Tuned<Bytes, DiskTuning>>>,
    pub kernel: Option<Spanned<Kernel>>,
    pub firmware: Option<Spanned<Firmware>>,
    pub secure_boot: Option<Spanned<bool>>,
    pub tpm: Option<Spanned<bool>>,
    pub hostname: Option<Spanned<String>>,
    pub user: Option<Spanned<String>>,
    pub user_data: Option<Spanned<PathBuf>>,
    pub accel: Option<Spanned<Accel>>,
    pub internet: Option<Spanned<bool>>,
    pub egress: Option<EgressDraft>,
    pub host_access: HostAccessDraft,
    pub auto_forward: Option<Spanned<bool>>,
    pub cpu: Option<Spanned<Cpu>>,
    pub ready: Option<Spanned<ReadyDraft>>,
    pub labels: BTreeMap<String, String>,
    pub vars: Vars,
    pub depends_on: Vec<Spanned<String>>,
    pub networks: NetworksDraft,
    pub forwards: Vec<Spanned<ForwardDraft>>,
    pub syncs: Vec<Spanned<SyncFolder>>,
    pub provisioners: Vec<Spanned<ProvisionDraft>>,
    pub hooks: Vec<Hook>,
}

#[derive(Clone)]
pub(crate) struct BoxDraft {
    pub reference: String,
    /// The same for files and messages: a URL without values of variables.
    pub key: String,
    pub file: Option<PathBuf>,
    pub sha256: Option<String>,
}

#[derive(Clone, Default)]
pub(crate) struct ReadyDraft {
    pub tcp: Vec<u16>,
    pub exec: Vec<String>,
    pub timeout: Option<Duration>,
}

#[derive(Clone)]
pub(crate) struct ProvisionDraft {
    pub name: String,
    pub run: RunPolicy,
    pub kind: ProvisionerKind,
}

/// A provisioner of the whole project.
pub(crate) struct ProjectProvisionDraft {
    pub name: Spanned<String>,
    pub run: RunPolicy,
    pub playbook: Playbook,
    /// Names of machines and groups. Empty: all.
    pub limit: Vec<Spanned<String>>,
}

impl Draft {
    /// Returns this draft, completed by `under`. Lists are joined, with those of `under` first.
    pub(crate) fn over(self, under: &Draft) -> Draft {
        fn join<T: Clone>(under: &[T], over: Vec<T>) -> Vec<T> {
            let mut all = under.to_vec();
            all.extend(over);
            all
        }
        // Both say what it reaches outside, so either replaces the other.
        let (internet, egress) = match self.internet.is_some() || self.egress.is_some() {
            true => (self.internet, self.egress),
            false => (under.internet.clone(), under.egress.clone()),
        };
        let mut labels = under.labels.clone();
        labels.extend(self.labels);
        Draft {
            box_ref: self.box_ref.or(under.box_ref.clone()),
            cpus: self.cpus.or(under.cpus.clone()),
            memory: self.memory.or(under.memory.clone()),
            disk: self.disk.or(under.disk.clone()),
            kernel: self.kernel.or(under.kernel.clone()),
            firmware: self.firmware.or(under.firmware.clone()),
            secure_boot: self.secure_boot.or(under.secure_boot.clone()),
            tpm: self.tpm.or(under.tpm.clone()),
            hostname: self.hostname.or(under.hostname.clone()),
            user: self.user.or(under.user.clone()),
            user_data: self.user_data.or(under.user_data.clone()),
            accel: self.accel.or(under.accel.clone()),
            internet,
            egress,
            host_access: self.host_access.over(&under.host_access),
            auto_forward: self.auto_forward.or(under.auto_forward.clone()),
            cpu: self.cpu.or(under.cpu.clone()),
            ready: self.ready.or(under.ready.clone()),
            labels,
            vars: self.vars.over(&under.vars),
            depends_on: join(&under.depends_on, self.depends_on),
            networks: self.networks.over(&under.networks),
            forwards: join(&under.forwards, self.forwards),
            syncs: join(&under.syncs, self.syncs),
            provisioners: join(&under.provisioners, self.provisioners),
            hooks: join(&under.hooks, self.hooks),
        }
    }
}
