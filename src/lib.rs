//! stead: local development VMs from a `Machinefile`.
//!
//! Data goes one way: `machinefile` reads and checks, `plan` compares with what `hypervisor` observes, `apply` runs the
//! steps, `report` prints what happens. ARCHITECTURE.md has the picture.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests write files and run programs as they like"
    )
)]

pub mod apply;
pub mod boxes;
pub mod cli;
pub mod failure;
pub mod fetch;
pub mod guest;
pub mod host;
pub mod hypervisor;
pub mod kernel;
pub mod log;
pub mod machine;
pub mod machinefile;
pub mod network;
pub mod packages;
pub mod plan;
pub mod provision;
pub mod report;
pub mod resolve;
pub mod resources;
pub mod session;
pub mod store;
pub mod sync;
pub mod tls;
pub mod trust;
pub mod unpack;
