//! libvirt. No other room of stead uses it.
//!
//! Only libvirt records what exists: a domain that stead made has a [`crate::machine::Record`] in its `<metadata>`,
//! and stead never touches domains without one.

#![expect(
    unsafe_code,
    reason = "calls of libvirt's C library that the bindings lack"
)]

mod acceleration;
mod all_domains;
mod backup;
mod connection;
mod console;
mod cpu;
mod daemon;
mod domain;
mod domain_xml;
mod error;
mod events;
mod filesystem_xml;
mod firmware;
mod firmware_xml;
mod layout_xml;
mod library;
mod network_xml;
mod pause;
mod pool;
mod sockets;
mod statistics;
mod tuning;
mod tuning_xml;
mod xml;

pub use acceleration::{Acceleration, HostFacts, choose as choose_acceleration};
pub use all_domains::Definition;
pub use backup::Copying;
pub use connection::{Connection, Uri, choose_uri};
pub use console::{Console, Heard, NotOpened};
pub use cpu::{OtherCpu, feature};
pub use daemon::{Qemus, Runtime, qemu_of};
pub use domain::{Domain, ShutdownMethod, Survey, Unreadable};
pub use domain_xml::{BootFrom, DomainSpec, KernelModules, SeedDevice, domain_xml};
pub use error::HypervisorError;
pub use events::{Lifecycle, LifecycleEvents};
pub use filesystem_xml::Filesystem;
pub use firmware::FirmwareAbilities;
pub use pool::Pool;
pub use sockets::{Fit, agent_is_too_long, monitor_fit, user_folder};
pub use statistics::{Statistics, Traffic, Transfer};
pub use tuning_xml::{LARGEST_TCG_CACHE, PARTITION, WeightScale, tcg_cache};
