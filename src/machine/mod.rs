//! The model of a machine: who it is, what it was made from, and how it was seen. What exists is recorded in
//! libvirt alone, by `hypervisor`.

mod cpu;
mod identity;
mod layout;
mod observed;
mod pause;
mod record;

pub use cpu::CpuSpec;
pub use identity::{Identity, Owner};
pub use layout::{Addition, Additions, Disk, ForeignDisk, Layout, Ports};
pub use observed::{Condition, Observed, Power};
pub use pause::{DiskError, Pause};
pub use record::{
    FIRST_USER, KernelSpec, Phase, Provisioned, RECORD_FORMAT, Record, Running, Share, ShareKind,
    Spec,
};
pub(crate) use record::{Format, MACHINE_URI, PREFIX, RUNNING_URI, from_xml, to_xml};
