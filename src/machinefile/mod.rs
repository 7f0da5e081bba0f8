//! Reads a `Machinefile` (KDL v2) into a [`Project`], with each error at its span.
//!
//! `syntax` reads files into nodes, `decode` turns nodes into drafts, and `check` joins drafts into machines and
//! checks them together. All errors are collected and reported at once.

mod ansible;
mod check;
mod cpu_set;
mod decode;
mod diagnostics;
mod egress;
mod find;
mod firmware;
mod format;
mod forward;
mod interpolate;
mod inventory;
mod links;
mod load;
mod misread;
pub mod model;
mod names;
mod networks;
mod node;
mod paths;
mod ports;
mod secret;
mod syntax;
mod template;
mod tuning;
mod units;
mod user_data;
mod variables;

pub use crate::host::firmware::Firmware;
pub use ansible::{ALL, AnsibleInstall, Group, Playbook, Vars, VaultPassword, group_name};
pub use check::Outline;
pub use cpu_set::CpuSet;
pub use diagnostics::{MachinefileError, MachinefileErrors, Span};
pub use egress::port_list;
pub use find::{LOCAL, MACHINEFILE, find};
pub use format::{format, read as read_to_format};
pub use forward::{Forward, ForwardRange};
pub use inventory::implied_groups;
pub use load::{load, outline};
pub use misread::is_node;
pub use model::{
    Accel, Cmdline, Cpu, CpuLike, Hook, HookRuns, HostCommand, HostSource, Invocation, Kernel,
    KernelBoot, KernelSource, Libvirt, Machine, MachineBridge, MachineNetwork, Moment, Network,
    Project, ProjectProvisioner, Provisioner, ProvisionerKind, Ready, RunPolicy, ScriptSource,
    Shell, SyncFolder, SyncKind,
};
pub use networks::MOST_CARDS;
pub use secret::Secret;
pub use syntax::LARGEST;
pub use template::template;
pub use tuning::{
    CpuTuning, DEFAULT_SHARES, DiskTuning, HostReserve, MemoryTuning, Spans, Topology, Tuning,
    is_default,
};
pub use units::{Bytes, duration};
pub use user_data::{FORMS as USER_DATA_FORMS, Form, UserData, read as read_user_data};
pub use variables::{Environment, Variable, hide};

#[cfg(test)]
mod tests;
