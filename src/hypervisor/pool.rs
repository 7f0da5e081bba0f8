//! stead's storage pool, a directory, and the overlays in it.

use std::path::{Path, PathBuf};

use quick_xml::escape::escape;
use virt::{storage_pool::StoragePool, storage_vol::StorageVol, sys};

use crate::{host::digest::name_of, machinefile::Bytes};

use super::{
    connection::Connection,
    error::{Doing, HypervisorError},
};

/// The pool of the folder `images/` in the data directory. It has the box files, named by their digests, and the
/// machines' overlays.
pub struct Pool {
    pool: StoragePool,
    target: PathBuf,
}

impl Pool {
    /// Returns `stead-` and 6 hex digits of a hash of the target's path, so that each data directory has a pool of
    /// its own.
    fn name(target: &Path) -> String {
        format!(
            "stead-{}",
            name_of(target.as_os_str().as_encoded_bytes(), 3)
        )
    }

    /// Returns the pool if libvirt knows it, and starts it if necessary.
    ///
    /// # Errors
    /// If a pool of that name has another folder, or libvirt does not answer.
    pub fn lookup(connection: &Connection, target: &Path) -> Result<Option<Self>, HypervisorError> {
        let name = Self::name(target);
        let Ok(pool) = connection.connect.lookup_storage_pool_by_name(&name) else {
            return Ok(None);
        };
        let xml = pool
            .xml_desc(0)
            .doing(|| format!("reading storage pool {name}"))?;
        if !xml.contains(&format!(
            "<path>{}</path>",
            escape(&*target.to_string_lossy())
        )) {
            return Err(HypervisorError::NotOurs {
                kind: "storage pool",
                name,
            });
        }
        if !pool
            .is_active()
            .doing(|| format!("reading storage pool {name}"))?
        {
            pool.create(0)
                .doing(|| format!("starting storage pool {name}"))?;
        }
        Ok(Some(Pool {
            pool,
            target: target.to_path_buf(),
        }))
    }

    /// Defines and starts the pool if it does not exist.
    ///
    /// # Errors
    /// If a pool of that name has another folder, or libvirt refuses.
    pub fn ensure(connection: &Connection, target: &Path) -> Result<Self, HypervisorError> {
        if let Some(pool) = Self::lookup(connection, target)? {
            return Ok(pool);
        }
        let name = Self::name(target);
        let xml = format!(
            "<pool type='dir'><name>{name}</name><target><path>{}</path></target></pool>",
            escape(&*target.to_string_lossy())
        );
        // Two commands at the same time may both get here; the second finds it defined.
        if let Err(error) = connection.connect.define_storage_pool_xml(&xml, 0)
            && connection
                .connect
                .lookup_storage_pool_by_name(&name)
                .is_err()
        {
            return Err(HypervisorError::libvirt(
                format!("defining storage pool {name}"),
                &error,
            ));
        }
        let started = Self::lookup(connection, target);
        match started {
            Ok(Some(pool)) => Ok(pool),
            // Another command has started it meanwhile.
            _ => Self::lookup(connection, target)?.ok_or(HypervisorError::NotOurs {
                kind: "storage pool",
                name,
            }),
        }
    }

    /// Removes the pool from libvirt if it has no overlay left. The box files stay where they are.
    pub fn forget_if_unused(self) -> Result<(), HypervisorError> {
        let overlays = std::fs::read_dir(&self.target)
            .map(|entries| {
                entries
                    .flatten()
                    .any(|entry| entry.file_name().to_string_lossy().starts_with("stead-"))
            })
            .unwrap_or(true);
        if overlays {
            return Ok(());
        }
        // Another command may have done the same, or may use the pool again: both are fine, since a command that
        // needs the pool defines it.
        tracing::debug!("libvirt: removing the pool");
        let _ = self.pool.destroy();
        let _ = self.pool.undefine();
        Ok(())
    }

    pub fn path_of(&self, volume: &str) -> PathBuf {
        self.target.join(volume)
    }

    fn volume(&self, name: &str) -> Option<StorageVol> {
        tracing::debug!("libvirt: looking up volume {name}");
        if let Ok(volume) = self.pool.lookup_storage_vol_by_name(name) {
            return Some(volume);
        }
        // libvirt lists the directory only when the pool starts, so the file is checked too.
        if self.path_of(name).exists() {
            let _ = self.pool.refresh(0);
            return self.pool.lookup_storage_vol_by_name(name).ok();
        }
        None
    }

    /// Makes a qcow2 overlay of `size` bytes over `backing`, which is never written to.
    ///
    /// # Errors
    /// If libvirt cannot make it.
    pub fn create_overlay(
        &self,
        name: &str,
        size: Bytes,
        backing: &Path,
        backing_format: &str,
    ) -> Result<(), HypervisorError> {
        let xml = format!(
            "<volume><name>{}</name><capacity unit='bytes'>{}</capacity>\
             <target><format type='qcow2'/><compat>1.1</compat></target>\
             <backingStore><path>{}</path><format type='{backing_format}'/></backingStore></volume>",
            escape(name),
            size.0,
            escape(&*backing.to_string_lossy()),
        );
        StorageVol::create_xml(&self.pool, &xml, 0 as sys::virStorageVolCreateFlags)
            .doing(|| format!("creating the disk {name}"))?;
        Ok(())
    }

    /// Deletes a volume. If it does not exist, there is nothing to do.
    ///
    /// # Errors
    /// If libvirt cannot delete it.
    pub fn delete(&self, name: &str) -> Result<(), HypervisorError> {
        match self.volume(name) {
            Some(volume) => volume
                .delete(0)
                .doing(|| format!("deleting the disk {name}")),
            None => Ok(()),
        }
    }
}
