//! A machine's reservations and limits, as parts of its domain XML.

use std::io;

use quick_xml::events::BytesText;

use crate::{
    machine::Spec,
    machinefile::{Accel, Bytes, DEFAULT_SHARES, DiskTuning},
};

use super::xml::{W, empty, text};

/// libvirt's partition for machines with reserved CPUs. It is a control group at the top level, so its weight counts
/// against everything else on the host. Within libvirt's own /machine, a weight counts only against other machines.
pub const PARTITION: &str = "/stead";

/// The period of a quota, in µs; libvirt's default.
pub(super) const PERIOD: u64 = 100_000;

/// How this host's control groups count CPU weights. libvirt passes `<shares>` on to them unchanged, so the same number
/// could be half of the default weight with version 1, and five times the default with version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightScale {
    /// `cpu.shares` of version 1: 2 to 262144, the scale that the Machinefile uses too.
    #[default]
    Shares,
    /// `cpu.weight` of version 2: 1 to 10000.
    Weight,
}

impl WeightScale {
    /// Returns the weight of a group for which nobody has set one.
    pub const fn usual(self) -> u64 {
        match self {
            WeightScale::Shares => DEFAULT_SHARES,
            WeightScale::Weight => 100,
        }
    }

    /// Returns the greatest weight.
    pub const fn most(self) -> u64 {
        match self {
            WeightScale::Shares => 262_144,
            WeightScale::Weight => 10_000,
        }
    }

    /// Returns the greatest `shares` of a Machinefile that can be expressed as a weight.
    pub const fn most_shares(self) -> u64 {
        self.most() * DEFAULT_SHARES / self.usual()
    }

    /// Returns the weight for a Machinefile's `shares`, rounded.
    pub(super) fn of(self, shares: u64) -> u64 {
        let weight = (shares * self.usual() + DEFAULT_SHARES / 2) / DEFAULT_SHARES;
        weight.clamp(1, self.most())
    }
}

/// The largest cache of translated code. It is QEMU's own default, or an eighth of the host's memory if that is less.
pub const LARGEST_TCG_CACHE: Bytes = Bytes(1024 * Bytes::MIB);

/// The largest one of a machine whose memory is locked, because the cache is locked too.
const LOCKED_TCG_CACHE: Bytes = Bytes(256 * Bytes::MIB);

/// A smaller one would be full, and be emptied, while a guest boots.
const LEAST_TCG_CACHE: Bytes = Bytes(128 * Bytes::MIB);

/// Returns how large QEMU's cache of translated code may become: half of the machine's memory. QEMU fills it in hours
/// of use, whatever the size of the guest, and a small machine has little code to keep.
///
/// `is_locked`: its memory is reserved.
pub fn tcg_cache(memory: Bytes, is_locked: bool) -> Bytes {
    let most = match is_locked {
        true => LOCKED_TCG_CACHE,
        false => LARGEST_TCG_CACHE,
    };
    let half = Bytes(memory.mib() / 2 * Bytes::MIB);
    half.clamp(LEAST_TCG_CACHE, most)
}

/// Writes the memory settings. `shared`: other processes of the host, such as virtiofsd, need the guest's memory.
pub(super) fn memory(w: &mut W, machine: &Spec, shared: bool) -> io::Result<()> {
    let tuning = &machine.tuning.memory;
    size(w, "memory", tuning.max.unwrap_or(machine.memory))?;
    if tuning.max.is_some() {
        size(w, "currentMemory", machine.memory)?;
    }
    let kept = tuning.reserve || tuning.hugepages.is_some();
    if !kept && !shared {
        return Ok(());
    }
    w.create_element("memoryBacking").write_inner_content(|w| {
        if let Some(page) = tuning.hugepages {
            w.create_element("hugepages").write_inner_content(|w| {
                empty(
                    w,
                    "page",
                    &[("size", &(page.0 / 1024).to_string()), ("unit", "KiB")],
                )
            })?;
        }
        if shared || tuning.hugepages.is_some() {
            // memfd needs no mount of hugetlbfs that QEMU's user may write to.
            empty(w, "source", &[("type", "memfd")])?;
        }
        if shared {
            empty(w, "access", &[("mode", "shared")])?;
        }
        if kept {
            // Allocated from the start: QEMU would crash if it found later that huge pages are missing.
            empty(w, "allocation", &[("mode", "immediate")])?;
        }
        if tuning.reserve {
            // There is no <hard_limit>, because the kernel would kill a QEMU that is a little larger than
            // estimated.
            empty(w, "locked", &[])?;
        }
        Ok(())
    })?;
    Ok(())
}

pub(super) fn vcpu(w: &mut W, machine: &Spec, scale: WeightScale) -> io::Result<()> {
    let tuning = &machine.tuning.cpu;
    let mut vcpu = w.create_element("vcpu");
    let pin = tuning.pin.as_ref().map(ToString::to_string);
    if let Some(pin) = &pin {
        vcpu = vcpu.with_attribute(("cpuset", pin.as_str()));
    }
    vcpu.write_text_content(BytesText::new(&machine.cpus.to_string()))?;
    let shares = machine.tuning.shares(machine.cpus);
    if shares.is_some() || tuning.quota.is_some() {
        w.create_element("cputune").write_inner_content(|w| {
            if let Some(shares) = shares {
                text(w, "shares", &scale.of(shares).to_string())?;
            }
            if let Some(quota) = tuning.quota {
                text(w, "global_period", &PERIOD.to_string())?;
                text(w, "global_quota", &quota_of(quota).to_string())?;
            }
            Ok(())
        })?;
    }
    if tuning.reserve {
        w.create_element("resource")
            .write_inner_content(|w| text(w, "partition", PARTITION))?;
    }
    Ok(())
}

/// Returns the quota in µs per period.
pub(super) fn quota_of(percent: u32) -> i64 {
    i64::from(percent) * (PERIOD as i64) / 100
}

pub(super) fn features(w: &mut W, machine: &Spec) -> io::Result<()> {
    let cache = tcg_cache(machine.memory, machine.tuning.memory.reserve);
    if machine.accel == Accel::Tcg && cache < LARGEST_TCG_CACHE {
        w.create_element("tcg").write_inner_content(|w| {
            w.create_element("tb-cache")
                .with_attribute(("unit", "MiB"))
                .write_text_content(BytesText::new(&cache.mib().to_string()))?;
            Ok(())
        })?;
    }
    Ok(())
}

/// Writes the CPU: a model of the Machinefile's (`cpus … model=`), one like a captured host's (`cpu "exact"`), or
/// `mode`.
pub(super) fn cpu(w: &mut W, machine: &Spec, mode: &str) -> io::Result<()> {
    let tuning = &machine.tuning.cpu;
    let like = machine.cpu.as_ref();
    let model = tuning.model.as_ref().or(like.map(|like| &like.model));
    let element = match model {
        None => w.create_element("cpu").with_attribute(("mode", mode)),
        // "exact": the guest does not start if a feature of the model is missing.
        Some(_) => w
            .create_element("cpu")
            .with_attribute(("mode", "custom"))
            .with_attribute(("match", "exact")),
    };
    if model.is_none() && tuning.topology.is_none() {
        element.write_empty()?;
        return Ok(());
    }
    element.write_inner_content(|w| {
        if let Some(model) = model {
            w.create_element("model")
                .with_attribute(("fallback", "forbid"))
                .write_text_content(BytesText::new(model))?;
        }
        if let Some(topology) = tuning.topology {
            empty(
                w,
                "topology",
                &[
                    ("sockets", &topology.sockets.to_string()),
                    ("cores", &topology.cores.to_string()),
                    ("threads", &topology.threads.to_string()),
                ],
            )?;
        }
        if let Some(like) = like {
            for (policy, names) in [("require", &like.require), ("disable", &like.disable)] {
                for name in names {
                    empty(w, "feature", &[("policy", policy), ("name", name)])?;
                }
            }
        }
        Ok(())
    })?;
    Ok(())
}

pub(super) fn disk(w: &mut W, tuning: &DiskTuning) -> io::Result<()> {
    if tuning.iops.is_none() && tuning.throughput.is_none() {
        return Ok(());
    }
    w.create_element("iotune").write_inner_content(|w| {
        if let Some(rate) = tuning.throughput {
            text(w, "total_bytes_sec", &rate.0.to_string())?;
        }
        if let Some(iops) = tuning.iops {
            text(w, "total_iops_sec", &iops.to_string())?;
        }
        Ok(())
    })?;
    Ok(())
}

fn size(w: &mut W, name: &str, size: Bytes) -> io::Result<()> {
    w.create_element(name)
        .with_attribute(("unit", "KiB"))
        .write_text_content(BytesText::new(&(size.0 / 1024).to_string()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_mean_the_same_on_either_scale() {
        for (shares, weight) in [
            (1024, 100),
            (512, 50),
            (2048, 200),
            (1000, 98),
            (2, 1),
            (102_400, 10_000),
            // More than a hundred reserved CPUs.
            (300 * 1024, 10_000),
        ] {
            assert_eq!(WeightScale::Weight.of(shares), weight, "{shares}");
        }
        assert_eq!(WeightScale::Weight.most_shares(), 102_400);
        assert_eq!(WeightScale::Shares.of(512), 512);
        assert_eq!(WeightScale::Shares.most_shares(), 262_144);
    }

    #[test]
    fn translated_code_is_bounded_by_the_machine_s_memory() {
        let mib = |memory: u64, is_locked| tcg_cache(Bytes(memory * Bytes::MIB), is_locked).mib();
        for (memory, cache) in [(64, 128), (384, 192), (513, 256), (1024, 512), (8192, 1024)] {
            assert_eq!(mib(memory, false), cache, "{memory}");
        }
        // All of it would be locked too.
        assert_eq!((mib(256, true), mib(8192, true)), (128, 256));
    }
}
