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
