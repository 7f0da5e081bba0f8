//! Decodes `cpus`, `memory` and `disk` with their properties, `bandwidth`, and `host-reserve`.

use crate::{
    machinefile::{
        cpu_set::CpuSet,
        diagnostics::{MachinefileError, Spanned},
        node::Node,
        tuning::{CpuTuning, DiskTuning, HostReserve, MemoryTuning, Spans, Topology},
        units::{self, Bytes},
    },
    report::counted,
};

/// A node's amount and its other settings.
#[derive(Clone)]
pub(crate) struct Tuned<A, T> {
    pub amount: A,
    pub tuning: T,
    pub spans: Spans,
}

/// The least memory with which a Linux guest can boot.
const LEAST_MEMORY: u64 = 64 << 20;
/// No x86 processor addresses more (52 bits; Intel SDM, volume 3, 4.1.4).
const MOST_MEMORY: Bytes = Bytes(4096 * Bytes::TIB);
/// The largest pages of any Linux (kernel, Documentation/admin-guide/mm/hugetlbpage.rst).
const MOST_PAGE: Bytes = Bytes(16 * Bytes::GIB);
/// What a qcow2 image with clusters of 64 KiB can have (QEMU, block/qcow2.h, QCOW_MAX_L1_SIZE).
const MOST_DISK: Bytes = Bytes(2048 * Bytes::TIB);
/// More than QEMU's q35 takes (its documentation says 288).
const MOST_CPUS: i128 = 288;
/// The range of cgroup v1's `cpu.shares` (kernel, MIN_SHARES and MAX_SHARES).
const SHARES: (i128, i128) = (2, 262_144);
/// libvirt refuses a quota below 1000 µs (VIR_CGROUP_CPU_QUOTA_MIN), which is 1 % of the period of 100 ms.
const LEAST_QUOTA: u64 = 1;

pub(super) fn cpus(node: &mut Node<'_>) -> Option<Spanned<Tuned<u32, CpuTuning>>> {
    node.properties(&[
        "reserve", "pin", "shares", "quota", "sockets", "cores", "threads", "model",
    ]);
    node.no_children();
    node.at_most(1);
    let mut spans = Spans::default();
    let mut tuning = CpuTuning {
        reserve: flag(node, "reserve", "cpus.reserve", &mut spans),
        ..CpuTuning::default()
    };
    if let Some(text) = node.property_string("pin") {
        match text.value.parse::<CpuSet>() {
            Ok(set) => {
                spans.insert("pin", text.span);
                tuning.pin = Some(set);
            }
            Err(message) => node.error(
                MachinefileError::new(
                    &text.span,
                    format!("{:?} is not a set of CPUs", text.value),
                    message,
                )
                .help("write pin=\"2-3\" or pin=\"0,2,4-7\""),
            ),
        }
    }
    if let Some(shares) = node.property_number("shares", "weight", SHARES.0, SHARES.1) {
        tuning.shares = u64::try_from(shares.value).ok();
        spans.insert("shares", shares.span);
    }
    if let Some(quota) = node.property_with_unit("quota", "150%", percent) {
        tuning.quota = Some(quota.value);
        spans.insert("quota", quota.span);
    }
    if let Some(model) = node.property_string("model") {
        tuning.model = Some(model.value);
        spans.insert("model", model.span);
    }
    let mut topology = [None, None, None];
    for (part, name) in topology.iter_mut().zip(["sockets", "cores", "threads"]) {
        *part = node.property_number(name, "number", 1, MOST_CPUS);
    }
    let count = node.number(0, "number of CPUs", 1, MOST_CPUS)?;
    let amount = u32::try_from(count.value).ok()?;
    if topology.iter().any(Option::is_some) {
        let of = |part: &Option<Spanned<i128>>| {
            part.as_ref()
                .and_then(|n| u32::try_from(n.value).ok())
                .unwrap_or(1)
        };
        let found = Topology {
            sockets: of(&topology[0]),
            cores: of(&topology[1]),
            threads: of(&topology[2]),
        };
        let product = u64::from(found.sockets) * u64::from(found.cores) * u64::from(found.threads);
        if product != u64::from(amount) {
            node.error(
                MachinefileError::new(
                    &count.span,
                    format!(
                        "{} × {} × {} is {product}, not {amount}",
                        found.sockets, found.cores, found.threads
                    ),
                    "not sockets × cores × threads",
                )
                .help("sockets=, cores= and threads= are 1 if they are not set"),
            );
        }
        tuning.topology = Some(found);
    }
    if tuning.reserve {
        if let (Some(pin), Some(span)) = (&tuning.pin, spans.get("pin"))
            && pin.len() < amount as usize
        {
            node.error(
                MachinefileError::new(
                    span,
                    format!(
                        "{} cannot be reserved on {} of the host",
                        counted(amount, "CPU"),
                        pin.len()
                    ),
                    "too few",
                )
                .help("list as many CPUs as the machine has, or remove reserve=#true"),
            );
        }
        if let (Some(quota), Some(span)) = (tuning.quota, spans.get("quota"))
            && quota < amount * 100
        {
            node.error(
                MachinefileError::new(
                    span,
                    format!(
                        "{}% of a CPU is reserved, but the quota is {quota}%",
                        amount * 100
                    ),
                    "less than reserved",
                )
                .help("raise the quota, or remove one of the two"),
            );
        }
    }
    Some(Spanned::new(
        Tuned {
            amount,
            tuning,
            spans,
        },
        count.span,
    ))
}

pub(super) fn memory(node: &mut Node<'_>) -> Option<Spanned<Tuned<Bytes, MemoryTuning>>> {
    node.properties(&["reserve", "hugepages", "max"]);
    node.no_children();
    let mut spans = Spans::default();
    let mut tuning = MemoryTuning {
        reserve: flag(node, "reserve", "memory.reserve", &mut spans),
        ..MemoryTuning::default()
    };
    if let Some(size) = node.property_with_unit("hugepages", "2MiB", |text| {
        let size = units::size(text)?;
        if !size.0.is_power_of_two() || size.0 < 64 << 10 {
            return Err("write a size such as 2MiB or 1GiB".into());
        }
        within(size, MOST_PAGE)
    }) {
        tuning.hugepages = Some(size.value);
        spans.insert("hugepages", size.span);
    }
    if let Some(max) = node.property_with_unit("max", "4GiB", memory_size) {
        tuning.max = Some(max.value);
        spans.insert("max", max.span);
    }
    let amount = node.with_unit("2GiB", |text| {
        let size = memory_size(text)?;
        if size.0 < LEAST_MEMORY {
            return Err("Linux needs at least 64MiB to boot".into());
        }
        Ok(size)
    })?;
    if let (Some(size), Some(span)) = (tuning.hugepages, spans.get("hugepages"))
        && !amount.value.0.is_multiple_of(size.0)
    {
        let whole = Bytes(amount.value.0.div_ceil(size.0) * size.0);
        node.error(
            MachinefileError::new(
                span,
                format!("{} is not a multiple of the page size {size}", amount.value),
                "not a divisor of the memory",
            )
            .help(format!("write memory \"{whole}\"")),
        );
    }
    if let (Some(max), Some(span)) = (tuning.max, spans.get("max")) {
        if max < amount.value {
            node.error(
                MachinefileError::new(
                    span,
                    format!("the memory {} is more than its max {max}", amount.value),
                    "less than the memory",
                )
                .help("`max` is how far the memory can grow while the machine runs"),
            );
        }
        let clash = [
            (tuning.reserve, "reserve=#true"),
            (tuning.hugepages.is_some(), "hugepages"),
        ];
        if let Some((_, other)) = clash.iter().find(|(there, _)| *there) {
            node.error(
                MachinefileError::new(
                    span,
                    format!("`max` and {other} exclude each other"),
                    "memory that can grow",
                )
                .help("memory that grows is taken and returned page by page, but this memory is held as a whole; set the most as the memory, or remove one of the two"),
            );
        }
    }
    Some(Spanned::new(
        Tuned {
            amount: amount.value,
            tuning,
            spans,
        },
        amount.span,
    ))
}

pub(super) fn disk(node: &mut Node<'_>) -> Option<Spanned<Tuned<Bytes, DiskTuning>>> {
    node.properties(&["preallocate", "iops", "throughput"]);
    node.no_children();
    let mut spans = Spans::default();
    let mut tuning = DiskTuning {
        preallocate: flag(node, "preallocate", "preallocate", &mut spans),
        ..DiskTuning::default()
    };
    if let Some(iops) =
        node.property_number("iops", "number of requests per second", 1, 1_000_000_000)
    {
        tuning.iops = u64::try_from(iops.value).ok();
        spans.insert("iops", iops.span);
    }
    if let Some(rate) = node.property_with_unit("throughput", "100MiB/s", rate) {
        tuning.throughput = Some(rate.value);
        spans.insert("throughput", rate.span);
    }
    let amount = node.with_unit("20GiB", |text| {
        let size = units::size(text)?;
        if size.0 == 0 {
            return Err("must be more than 0".into());
        }
        within(size, MOST_DISK)
    })?;
    Some(Spanned::new(
        Tuned {
            amount: amount.value,
            tuning,
            spans,
        },
        amount.span,
    ))
}

fn memory_size(text: &str) -> Result<Bytes, String> {
    within(units::size(text)?, MOST_MEMORY)
}

fn within(size: Bytes, most: Bytes) -> Result<Bytes, String> {
    match size <= most {
        true => Ok(size),
        false => Err(format!("at most {most}")),
    }
}

/// Reports `bandwidth`: the only kind of network has no limits.
pub(super) fn bandwidth(node: &mut Node<'_>) {
    let here = node.here();
    node.error(
        MachinefileError::new(
            &here,
            "`bandwidth` does not work on this machine's network",
            "networks have no limits by machine",
        )
        .help("remove it; `link` limits what passes between machines (`rate=10mbit`), and `tc` in the guest limits the rest"),
    );
}

pub(super) fn host_reserve(node: &mut Node<'_>) -> HostReserve {
    node.properties(&["cpus", "memory"]);
    node.no_children();
    node.at_most(0);
    HostReserve {
        cpus: node
            .property_number("cpus", "number of CPUs", 0, 8192)
            .and_then(|cpus| u32::try_from(cpus.value).ok()),
        memory: node
            .property_with_unit("memory", "2GiB", memory_size)
            .map(|memory| memory.value),
    }
}

fn flag(node: &mut Node<'_>, property: &str, name: &'static str, spans: &mut Spans) -> bool {
    match node.property_bool(property) {
        Some(Spanned { value: true, span }) => {
            spans.insert(name, span);
            true
        }
        _ => false,
    }
}

/// `"150%"` of one CPU.
fn percent(text: &str) -> Result<u32, String> {
    let number = text
        .trim()
        .strip_suffix('%')
        .ok_or("write a share of one CPU, in %")?
        .trim_end();
    let number: u64 = number
        .parse()
        .map_err(|_| "must be a whole number of %".to_string())?;
    if number < LEAST_QUOTA {
        return Err(format!("must be at least {LEAST_QUOTA}%, for libvirt"));
    }
    u32::try_from(number)
        .ok()
        .filter(|percent| *percent <= 819_200)
        .ok_or_else(|| "more than any host has".into())
}

/// `"100MiB/s"`
fn rate(text: &str) -> Result<Bytes, String> {
    let size = text
        .trim()
        .strip_suffix("/s")
        .ok_or("write a size per second, with /s")?;
    let size = units::size(size.trim_end())?;
    // QEMU's limit (THROTTLE_VALUE_MAX).
    if size.0 == 0 {
        return Err("must be more than 0".into());
    }
    if size.0 > 1_000_000_000_000_000 {
        return Err("more than any disk does".into());
    }
    Ok(size)
}
