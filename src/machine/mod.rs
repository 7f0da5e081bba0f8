//! The model of a machine: its identity, the record of what it was made from, and its observed state. `hypervisor`
//! keeps the records in libvirt, and nowhere else.

mod cpu;
mod firmware;
mod identity;
mod layout;
mod marks;
mod observed;
mod pause;
mod record;

pub use cpu::CpuSpec;
pub use firmware::{FirmwareSpec, FirmwareState};
pub use identity::{Identity, Owner};
pub use layout::{Addition, Additions, Disk, ForeignDisk, Layout, Ports};
pub use marks::{has_other_checks, lacks_copy, mark_of_checks, mark_of_copy};
pub use observed::{Condition, Observed, Power};
pub use pause::{DiskError, Pause};
#[cfg(test)]
pub(crate) use record::tests::record as sample_record;
pub use record::{
    BridgeCard, FIRST_USER, GivenCertificate, KernelSpec, NetworkCard, OWN_ADDRESS, Phase,
    Provisioned, Provisioning, RECORD_FORMAT, Record, Running, Share, ShareKind, Signs, Spec,
    wired,
};
pub(crate) use record::{Format, MACHINE_URI, PREFIX, RUNNING_URI, from_xml, to_xml};
