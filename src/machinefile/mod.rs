//! The language: `Machinefile` (KDL v2) to [`Project`], with every error at its span.

pub mod model;

pub use model::{
    Accel, Bytes, Forward, Machine, Project, Provisioner, ProvisionerKind, Ready, RunPolicy,
    ScriptSource, SyncFolder,
};
