//! Describes a box, for people and for programs.

use crate::boxes::{Store, StoredBox};

pub(super) fn name(stored: &StoredBox) -> String {
    format!("{}:{}", stored.manifest.name, stored.manifest.version)
}

pub(super) fn describe(store: &Store, stored: &StoredBox) -> serde_json::Value {
    serde_json::json!({
        "name": stored.manifest.name,
        "version": stored.manifest.version,
        "arch": stored.manifest.arch,
        "digest": stored.digest.to_string(),
        "seed": stored.manifest.seed,
        "login_user": stored.manifest.login_user,
        "virtual_size_bytes": stored.manifest.disk.virtual_size,
        "disk_use_bytes": store.disk_use(stored),
        "added": stored.added,
        "last_used": store.last_used(stored),
        "labels": stored.manifest.labels,
        "parent": stored.manifest.parent,
        "manifest": stored.manifest,
    })
}
