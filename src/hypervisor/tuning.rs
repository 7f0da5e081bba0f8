//! Changes a machine's reservations and limits while it runs. The `virt` crate does not wrap the limits of block
//! devices, so there is unsafe code here (libvirt.org/html/libvirt-libvirt-domain.html).

use std::{
    path::{Path, PathBuf},
    ptr,
};

use virt::{
    domain::{SchedBandwidth, SchedulerInfo},
    error::Error,
    sys,
};

use crate::{
    machine::Spec,
    machinefile::{Bytes, CpuSet, CpuTuning, DEFAULT_SHARES, DiskTuning},
};

use super::{
    connection::Connection,
    domain::Domain,
    error::{Doing, HypervisorError},
    tuning_xml::{PERIOD, WeightScale, quota_of},
};

/// Changes the running domain and its stored definition, so that both agree.
const BOTH: u32 = sys::VIR_DOMAIN_AFFECT_LIVE | sys::VIR_DOMAIN_AFFECT_CONFIG;

impl Domain {
    /// Changes a running machine from `has` to `want`, as far as that is possible while it runs: memory below its
    /// maximum, weight, quota, pinning, and the disk's limits. `host`: every CPU of the host, for a machine that
    /// is not pinned any more. `scale`: how the host's control groups count weights.
    ///
    /// # Errors
    /// If libvirt refuses a change.
    pub fn tune(
        &self,
        has: &Spec,
        want: &Spec,
        host: &CpuSet,
        scale: WeightScale,
    ) -> Result<(), HypervisorError> {
        if has.memory != want.memory {
            self.set_memory(want.memory)?;
        }
        let weight = |spec: &Spec| (spec.tuning.shares(spec.cpus), spec.tuning.cpu.quota);
        if weight(has) != weight(want) {
            let shares = want.tuning.shares(want.cpus).unwrap_or(DEFAULT_SHARES);
            self.set_weight(scale.of(shares), &want.tuning.cpu)?;
        }
        if has.tuning.cpu.pin != want.tuning.cpu.pin {
            self.pin(want.tuning.cpu.pin.as_ref().unwrap_or(host), want.cpus)?;
        }
        if has.tuning.disk != want.tuning.disk {
            self.set_disk_limits(&want.tuning.disk)?;
        }
        Ok(())
    }

    fn set_memory(&self, memory: Bytes) -> Result<(), HypervisorError> {
        self.virt()
            .set_memory_flags(memory.0 / 1024, BOTH)
            .doing(|| format!("setting the memory of domain {} to {memory}", self.name()))
    }

    fn set_weight(&self, weight: u64, cpu: &CpuTuning) -> Result<(), HypervisorError> {
        let wanted = SchedulerInfo {
            cpu_shares: Some(weight),
            global_bw: SchedBandwidth {
                period: Some(PERIOD),
                // -1 means no limit.
                quota: Some(cpu.quota.map_or(-1, quota_of)),
            },
            ..SchedulerInfo::default()
        };
        self.virt()
            .set_scheduler_parameters_flags(&wanted, BOTH)
            .doing(|| format!("setting CPU shares and quota of domain {}", self.name()))
    }

    fn pin(&self, cpus: &CpuSet, count: u32) -> Result<(), HypervisorError> {
        let bits = cpus.bits();
        let doing = || format!("pinning domain {} to CPUs {cpus}", self.name());
        for vcpu in 0..count {
            self.virt().pin_vcpu_flags(vcpu, &bits, BOTH).doing(doing)?;
        }
        self.virt().pin_emulator(&bits, BOTH).doing(doing)
    }

    /// The machine's disk is `vda` (domain_xml.rs).
    fn set_disk_limits(&self, disk: &DiskTuning) -> Result<(), HypervisorError> {
        let doing = || format!("setting the limits of the disk of domain {}", self.name());
        tracing::debug!("libvirt: {}", doing());
        let mut parameters: sys::virTypedParameterPtr = ptr::null_mut();
        let (mut count, mut room) = (0, 0);
        let mut added = true;
        // 0 means no limit. Both are always set, because libvirt accepts some only together.
        for (name, value) in [
            (c"total_bytes_sec", disk.throughput.map_or(0, |rate| rate.0)),
            (c"total_iops_sec", disk.iops.unwrap_or(0)),
        ] {
            // SAFETY: libvirt keeps the list, its length and its capacity in the three variables, and copies the
            // name.
            added &= unsafe {
                sys::virTypedParamsAddULLong(
                    &mut parameters,
                    &mut count,
                    &mut room,
                    name.as_ptr(),
                    value,
                )
            } >= 0;
        }
        let set = if added {
            // SAFETY: the domain is valid as long as self, the disk's name is a C string, and the list was made
            // above.
            unsafe {
                sys::virDomainSetBlockIoTune(
                    self.as_ptr(),
                    c"vda".as_ptr(),
                    parameters,
                    count,
                    BOTH,
                )
            }
        } else {
            -1
        };
        let failed = (set < 0).then(|| HypervisorError::libvirt(doing(), &Error::last_error()));
        // SAFETY: this is the list made above, which is not used any more; NULL is allowed.
        unsafe { sys::virTypedParamsFree(parameters, count) };
        failed.map_or(Ok(()), Err)
    }
}

impl Connection {
    fn is_of_a_user(&self) -> bool {
        self.uri().is_session() && !nix::unistd::geteuid().is_root()
    }

    /// Returns the process of the daemon that serves this connection, if it has written a file with it: libvirtd, or
    /// virtqemud, which serves QEMU only.
    pub fn daemon_process(&self) -> Option<u32> {
        let folder = if self.is_of_a_user() {
            user_folder()?
        } else {
            "/run".into()
        };
        ["virtqemud.pid", "libvirtd.pid"]
            .iter()
            .find_map(|name| read_pid(&folder.join(name)))
    }

    /// Returns the names of the CPU models that QEMU can give a machine of this kind ("kvm" or "qemu").
    ///
    /// # Errors
    /// If libvirt does not answer.
    pub fn usable_cpu_models(&self, kind: &str) -> Result<Vec<String>, HypervisorError> {
        let xml = self
            .connect
            .domain_capabilities(None, None, Some("q35"), Some(kind), 0)
            .doing(|| "asking libvirt for CPU models".into())?;
        models_of(&xml).map_err(|message| HypervisorError::Libvirt {
            doing: "reading libvirt's CPU models".into(),
            message,
            code: 0,
            hint: None,
        })
    }
}

impl Domain {
    /// Returns QEMU's process, while the machine runs.
    pub fn process(&self) -> Option<u32> {
        let file = format!("{}.pid", self.name());
        let system = Path::new("/run/libvirt/qemu").join(&file);
        let user = user_folder().map(|folder| folder.join("qemu/run").join(&file));
        if nix::unistd::geteuid().is_root() {
            read_pid(&system)
        } else {
            user.and_then(|file| read_pid(&file))
        }
    }
}

/// Returns the folder in which a user's libvirt keeps the files of running daemons and machines
/// (virGetUserRuntimeDirectory).
fn user_folder() -> Option<PathBuf> {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => Some(PathBuf::from(folder).join("libvirt")),
        None => dirs::cache_dir().map(|folder| folder.join("libvirt")),
    }
}

/// Reads the process from a file; `None` if it does not exist any more.
fn read_pid(file: &Path) -> Option<u32> {
    let pid: u32 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    Path::new("/proc")
        .join(pid.to_string())
        .exists()
        .then_some(pid)
}

/// Returns the usable models of `<mode name='custom'>`.
fn models_of(xml: &str) -> Result<Vec<String>, String> {
    use quick_xml::{events::Event, reader::Reader};
    let mut reader = Reader::from_str(xml);
    let (mut custom, mut usable) = (false, false);
    let mut models = Vec::new();
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(element) => {
                let has = |name: &str, value: &str| {
                    element
                        .try_get_attribute(name)
                        .ok()
                        .flatten()
                        .is_some_and(|found| *found.value == *value)
                };
                match element.name().as_ref() {
                    "mode" => custom = has("name", "custom"),
                    "model" => usable = custom && has("usable", "yes"),
                    _ => {}
                }
            }
            Event::Text(text) if usable => models.push(text.to_string()),
            Event::End(_) => usable = false,
            Event::Eof => return Ok(models),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_cannot_be_had_are_left_out() {
        let xml = "<domainCapabilities><cpu>
            <mode name='host-model' supported='yes'><model fallback='forbid'>EPYC</model></mode>
            <mode name='custom' supported='yes'>
              <model usable='yes' vendor='unknown'>qemu64</model>
              <model usable='no' vendor='Intel'>Snowridge</model>
              <blockers model='Snowridge'><feature name='split-lock-detect'/></blockers>
              <model usable='yes' vendor='Intel'>Skylake-Client</model>
            </mode></cpu></domainCapabilities>";
        assert_eq!(models_of(xml).unwrap(), ["qemu64", "Skylake-Client"]);
    }
}
