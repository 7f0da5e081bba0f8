//! placeholder until the store lands
use std::{collections::BTreeMap, path::{Path, PathBuf}};
use serde::{Deserialize, Serialize};
use crate::host::paths::DataDir;
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeedKind { Credentials, CloudInit }
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat { Qcow2, Raw }
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntry { pub name: String, pub size: u64, pub sha256: String }
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disk { pub file: FileEntry, pub format: DiskFormat, pub virtual_size: u64 }
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Boot { Direct { kernel: FileEntry, kernel_release: String, initrd: Option<FileEntry>, cmdline: String }, Bootloader {} }
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest { pub name: String, pub version: String, pub arch: String, pub disk: Disk, pub boot: Boot, pub seed: SeedKind, pub login_user: String, pub labels: BTreeMap<String, String> }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole { Disk(DiskFormat), Kernel, Initrd }
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(pub String);
impl std::fmt::Display for Digest { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(&self.0) } }
impl Digest { pub fn short(&self) -> &str { &self.0[7..19] } }
#[derive(Clone, Debug)]
pub struct StoredBox { pub digest: Digest, pub manifest: Manifest, pub added: jiff::Timestamp }
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum BoxError { #[error("no box {0}")] NotFound(String) }
#[derive(Clone)]
pub struct Store { _d: DataDir }
impl Store {
  pub fn open(d: &DataDir) -> Store { Store { _d: d.clone() } }
  pub fn list(&self) -> Result<Vec<StoredBox>, BoxError> { Ok(vec![]) }
  pub fn resolve(&self, r: &str) -> Result<StoredBox, BoxError> { Err(BoxError::NotFound(r.into())) }
  pub fn file(&self, e: &FileEntry, _r: FileRole) -> PathBuf { self._d.images().join(&e.sha256) }
  pub fn ensure_intact(&self, _b: &StoredBox) -> Result<(), BoxError> { Ok(()) }
  pub fn add(&self, _p: &Path) -> Result<StoredBox, BoxError> { Err(BoxError::NotFound("".into())) }
}
