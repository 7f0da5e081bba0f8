use serde::{Deserialize, Serialize};
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct PinnedPackage {
    pub name: String,
    pub version: String,
    pub arch: String,
}
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum PackageError {}
