//! CPUs like that of another host: which of its features libvirt can give to a machine. The `virt` crate does not
//! wrap libvirt's calls about a hypervisor's CPUs, so there is unsafe code here
//! (libvirt.org/html/libvirt-libvirt-host.html#virConnectBaselineHypervisorCPU).

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString},
    ptr,
};

use quick_xml::{events::Event, reader::Reader};
use virt::{error::Error, sys};

use crate::{
    machine::CpuSpec,
    machinefile::{Accel, CpuLike},
};

use super::{connection::Connection, error::HypervisorError};

/// Another host's CPU, as its /proc/cpuinfo describes it.
#[derive(Clone, Debug)]
pub struct OtherCpu<'a> {
    pub vendor: &'a str,
    pub family: &'a str,
    pub model: &'a str,
    pub stepping: &'a str,
    pub flags: &'a BTreeSet<String>,
}

/// The vendor and features of the host's CPU, or of the CPU that QEMU emulates.
struct Ability {
    vendor: Option<String>,
    features: BTreeSet<String>,
}

impl Connection {
    /// Returns the CPU for a machine that is to have one like `other`.
    ///
    /// # Errors
    /// If libvirt does not answer, or refuses the CPU; with `Exact`, also if a feature is missing.
    pub fn cpu_like(
        &self,
        machine: &str,
        other: &OtherCpu<'_>,
        like: CpuLike,
        accel: Accel,
    ) -> Result<CpuSpec, HypervisorError> {
        let ability = self.ability(accel)?;
        let vendor = vendor_name(other.vendor);
        let same_vendor = ability.vendor.as_deref() == Some(vendor);
        let wanted = features_of(other);
        let missing: BTreeSet<String> = wanted.difference(&ability.features).cloned().collect();
        if like == CpuLike::Exact && (!missing.is_empty() || !same_vendor) {
            let mut lacks: Vec<String> = missing.into_iter().collect();
            if !same_vendor {
                let here = ability.vendor.as_deref().unwrap_or("unknown");
                lacks.insert(0, format!("the vendor {vendor} (its own is {here})"));
            }
            return Err(HypervisorError::CpuLacks {
                machine: machine.to_string(),
                by: by(accel),
                lacks: lacks.join(", "),
            });
        }
        let model = if same_vendor { named(other) } else { GENERIC };
        let of_model = self.features_of_model(model)?;
        let require: BTreeSet<String> = wanted.difference(&missing).cloned().collect();
        let spec = CpuSpec {
            like,
            model: model.to_string(),
            disable: of_model
                .difference(&require)
                .filter(|name| !PHYSICAL.contains(&name.as_str()) && *name != "hypervisor")
                .cloned()
                .collect(),
            require,
            missing,
            vendor: (!same_vendor).then(|| vendor.to_string()),
        };
        self.check_cpu(&cpu_xml(&spec), accel)?;
        Ok(spec)
    }

    fn ability(&self, accel: Accel) -> Result<Ability, HypervisorError> {
        let kind = kind(accel);
        let doing = || format!("asking libvirt which CPU {} has", by(accel));
        let capabilities = self
            .connect
            .domain_capabilities(None, Some(std::env::consts::ARCH), None, Some(kind), 0)
            .map_err(|error| HypervisorError::libvirt(doing(), &error))?;
        let host = host_model(&capabilities).ok_or_else(|| HypervisorError::Libvirt {
            doing: doing(),
            message: "it reports no model that it knows by name".into(),
            code: 0,
            hint: Some("leave `cpu` out of the Machinefile".into()),
        })?;
        let expanded = self.baseline(&host, accel)?;
        Ok(Ability {
            vendor: element(&expanded, "vendor").or_else(|| element(&host, "vendor")),
            features: required(&expanded),
        })
    }

    /// Returns a CPU with all its features listed, as the hypervisor provides it.
    fn baseline(&self, cpu: &str, accel: Accel) -> Result<String, HypervisorError> {
        let doing = "asking libvirt for a CPU's features";
        tracing::debug!("libvirt: {doing}");
        let cpu = c_string(doing, cpu)?;
        let arch = c_string(doing, std::env::consts::ARCH)?;
        let kind = c_string(doing, kind(accel))?;
        let mut cpus = [cpu.as_ptr()];
        // SAFETY: the connection is valid as long as self, all strings are C strings that live until after the
        // call, NULL lets libvirt choose, and there is one CPU.
        let xml = unsafe {
            sys::virConnectBaselineHypervisorCPU(
                self.connect.as_ptr(),
                ptr::null(),
                arch.as_ptr(),
                ptr::null(),
                kind.as_ptr(),
                cpus.as_mut_ptr(),
                1,
                sys::VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES,
            )
        };
        if xml.is_null() {
            return Err(HypervisorError::libvirt(doing, &Error::last_error()));
        }
        // SAFETY: libvirt returned a C string, which the caller must free.
        let text = unsafe { CStr::from_ptr(xml) }
            .to_string_lossy()
            .into_owned();
        // SAFETY: it was allocated by malloc(3), and nothing refers to it any more.
        unsafe { nix::libc::free(xml.cast()) };
        Ok(text)
    }

    /// Returns all features of one of libvirt's models, even those that the host lacks.
    fn features_of_model(&self, model: &str) -> Result<BTreeSet<String>, HypervisorError> {
        let xml = format!(
            "<cpu><arch>{}</arch><model>{model}</model></cpu>",
            std::env::consts::ARCH
        );
        let expanded = self
            .connect
            .baseline_cpu(
                &[xml.as_str()],
                sys::VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES,
            )
            .map_err(|error| {
                HypervisorError::libvirt(format!("asking libvirt for the CPU {model}"), &error)
            })?;
        Ok(required(&expanded))
    }

    /// Checks that the hypervisor can give a machine this CPU.
    ///
    /// # Errors
    /// If it cannot.
    fn check_cpu(&self, cpu: &str, accel: Accel) -> Result<(), HypervisorError> {
        let doing = "asking libvirt whether a machine can have that CPU";
        tracing::debug!("libvirt: {doing}");
        let cpu = c_string(doing, cpu)?;
        let arch = c_string(doing, std::env::consts::ARCH)?;
        let kind = c_string(doing, kind(accel))?;
        // SAFETY: as above.
        let result = unsafe {
            sys::virConnectCompareHypervisorCPU(
                self.connect.as_ptr(),
                ptr::null(),
                arch.as_ptr(),
                ptr::null(),
                kind.as_ptr(),
                cpu.as_ptr(),
                sys::VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE,
            )
        };
        if result < 0 {
            return Err(HypervisorError::libvirt(doing, &Error::last_error()));
        }
        Ok(())
    }
}

fn c_string(doing: &str, text: &str) -> Result<CString, HypervisorError> {
    CString::new(text).map_err(|_| HypervisorError::Libvirt {
        doing: doing.to_string(),
        message: "a text contains a NUL byte".into(),
        code: 0,
        hint: None,
    })
}

fn kind(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "qemu",
    }
}

fn by(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "this host",
        Accel::Tcg => "QEMU's emulated CPU",
    }
}

/// Returns the element for a domain definition (libvirt.org/formatdomain.html#cpu-model-and-topology).
pub(super) fn cpu_xml(spec: &CpuSpec) -> String {
    let mut xml = format!(
        "<cpu mode=\"custom\" match=\"exact\"><model fallback=\"forbid\">{}</model>",
        spec.model
    );
    for (policy, names) in [("require", &spec.require), ("disable", &spec.disable)] {
        for name in names {
            xml.push_str(&format!("<feature policy=\"{policy}\" name=\"{name}\"/>"));
        }
    }
    xml.push_str("</cpu>");
    xml
}

/// Returns `<mode name='host-model'>` of domain capabilities as a `<cpu>`.
fn host_model(capabilities: &str) -> Option<String> {
    let start = capabilities.find("<mode name='host-model'")?;
    let rest = &capabilities[start..];
    let inner = &rest[rest.find('>')? + 1..rest.find("</mode>")?];
    Some(format!("<cpu mode='custom' match='exact'>{inner}</cpu>"))
}

/// Returns the text of the first element of that name.
fn element(xml: &str, name: &str) -> Option<String> {
    let mut reader = Reader::from_str(xml);
    let mut inside = false;
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => inside = start.name().as_ref() == name,
            Event::Text(text) if inside => return Some(text.trim().to_string()),
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// Returns the names of the features that are not disabled.
fn required(xml: &str) -> BTreeSet<String> {
    let mut reader = Reader::from_str(xml);
    let mut names = BTreeSet::new();
    loop {
        match reader.read_event() {
            Ok(Event::Empty(tag) | Event::Start(tag)) if tag.name().as_ref() == "feature" => {
                let of = |key: &str| {
                    tag.try_get_attribute(key)
                        .ok()
                        .flatten()
                        .map(|it| it.value.into_owned())
                };
                if of("policy").as_deref() != Some("disable") {
                    names.extend(of("name"));
                }
            }
            Ok(Event::Eof) | Err(_) => return names,
            Ok(_) => {}
        }
    }
}

fn vendor_name(vendor: &str) -> &str {
    match vendor {
        "GenuineIntel" => "Intel",
        "AuthenticAMD" => "AMD",
        "HygonGenuine" => "Hygon",
        other => other,
    }
}

/// The model that every x86-64 host can provide.
const GENERIC: &str = "qemu64";

/// Returns libvirt's model for the family and model number (its cpu_map) of the usual server CPUs.
fn named(other: &OtherCpu<'_>) -> &'static str {
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    let stepping = number(other.stepping);
    match (other.vendor, number(other.family), number(other.model)) {
        ("GenuineIntel", 6, 85) if stepping >= 10 => "Cooperlake",
        ("GenuineIntel", 6, 85) if stepping >= 5 => "Cascadelake-Server",
        ("GenuineIntel", 6, 85) => "Skylake-Server",
        ("GenuineIntel", 6, 106 | 108) => "Icelake-Server",
        ("GenuineIntel", 6, 78 | 94 | 142 | 158) => "Skylake-Client",
        ("GenuineIntel", 6, 61 | 71 | 79 | 86) => "Broadwell",
        ("GenuineIntel", 6, 60 | 63 | 69 | 70) => "Haswell",
        ("GenuineIntel", 6, 58 | 62) => "IvyBridge",
        ("GenuineIntel", 6, 42 | 45) => "SandyBridge",
        ("GenuineIntel", 6, 37 | 44 | 47) => "Westmere",
        ("GenuineIntel", 6, 26 | 30 | 31 | 46) => "Nehalem",
        ("AuthenticAMD", 23, 49 | 96 | 113) => "EPYC-Rome",
        ("AuthenticAMD", 23, _) => "EPYC",
        ("AuthenticAMD", 25, 0..=15) => "EPYC-Milan",
        _ => GENERIC,
    }
}

/// Features that only physical machines have, or that depend on the kernel and not on the CPU (Linux shows
/// 3dnowprefetch for every AMD).
const PHYSICAL: [&str; 42] = [
    "3dnowprefetch",
    "acpi",
    "ds",
    "dtes64",
    "est",
    "ht",
    "ia64",
    "monitor",
    "ds_cpl",
    "pbe",
    "pn",
    "smx",
    "tm",
    "tm2",
    "xtpr",
    "pdcm",
    "cid",
    "dca",
    "osxsave",
    "ospke",
    "cmt",
    "mbm_total",
    "mbm_local",
    "intel-pt",
    "intel-pt-lip",
    "extapic",
    "ibs",
    "skinit",
    "wdt",
    "lwp",
    "nodeid_msr",
    "osvw",
    "tce",
    "perfctr_core",
    "perfctr_nb",
    "topoext",
    "vmx",
    "svm",
    "ss",
    "arat",
    "invtsc",
    "pconfig",
];

/// libvirt's names (cpu_map/x86_features.xml) of the features that a machine's CPU can have.
const FEATURES: [&str; 115] = [
    "fpu",
    "vme",
    "de",
    "pse",
    "tsc",
    "msr",
    "pae",
    "mce",
    "cx8",
    "apic",
    "sep",
    "mtrr",
    "pge",
    "mca",
    "cmov",
    "pat",
    "pse36",
    "clflush",
    "mmx",
    "fxsr",
    "sse",
    "sse2",
    "pni",
    "pclmuldq",
    "ssse3",
    "fma",
    "cx16",
    "pcid",
    "sse4.1",
    "sse4.2",
    "x2apic",
    "movbe",
    "popcnt",
    "tsc-deadline",
    "aes",
    "xsave",
    "avx",
    "f16c",
    "rdrand",
    "fsgsbase",
    "tsc_adjust",
    "bmi1",
    "hle",
    "avx2",
    "smep",
    "bmi2",
    "erms",
    "invpcid",
    "rtm",
    "mpx",
    "avx512f",
    "avx512dq",
    "rdseed",
    "adx",
    "smap",
    "avx512ifma",
    "clflushopt",
    "clwb",
    "avx512cd",
    "sha-ni",
    "avx512bw",
    "avx512vl",
    "avx512vbmi",
    "umip",
    "pku",
    "waitpkg",
    "avx512vbmi2",
    "gfni",
    "vaes",
    "vpclmulqdq",
    "avx512vnni",
    "avx512bitalg",
    "avx512-vpopcntdq",
    "la57",
    "rdpid",
    "bus-lock-detect",
    "cldemote",
    "movdiri",
    "movdir64b",
    "fsrm",
    "avx512-vp2intersect",
    "md-clear",
    "serialize",
    "tsx-ldtrk",
    "amx-bf16",
    "avx512-fp16",
    "amx-tile",
    "amx-int8",
    "arch-capabilities",
    "avx-vnni",
    "avx512-bf16",
    "xsaveopt",
    "xsavec",
    "xgetbv1",
    "xsaves",
    "syscall",
    "nx",
    "mmxext",
    "fxsr_opt",
    "pdpe1gb",
    "rdtscp",
    "lm",
    "3dnowext",
    "3dnow",
    "lahf_lm",
    "cmp_legacy",
    "cr8legacy",
    "abm",
    "sse4a",
    "misalignsse",
    "xop",
    "fma4",
    "tbm",
    "clzero",
    "wbnoinvd",
];

/// Returns libvirt's name of a flag of /proc/cpuinfo; `None` if no machine can have the feature.
pub fn feature(flag: &str, vendor: &str) -> Option<&'static str> {
    let intel = vendor == "GenuineIntel";
    // Linux uses one name for some flags that vendors have in different registers
    // (arch/x86/kernel/cpu/common.c).
    match flag {
        "tsc_deadline_timer" => return Some("tsc-deadline"),
        "pclmulqdq" => return Some("pclmuldq"),
        "ibrs" | "ibpb" if intel => return Some("spec-ctrl"),
        "ibrs" => return Some("ibrs"),
        "ibpb" => return Some("ibpb"),
        "stibp" => return Some(if intel { "stibp" } else { "amd-stibp" }),
        "ssbd" => return Some(if intel { "ssbd" } else { "amd-ssbd" }),
        _ => {}
    }
    let bare = |text: &str| -> String { text.chars().filter(|c| !"-_.".contains(*c)).collect() };
    let wanted = bare(flag);
    FEATURES.iter().find(|name| bare(name) == wanted).copied()
}

fn features_of(other: &OtherCpu<'_>) -> BTreeSet<String> {
    other
        .flags
        .iter()
        .filter_map(|flag| feature(flag, other.vendor))
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_libvirts_names() {
        for (flag, name) in [
            ("sse4_1", Some("sse4.1")),
            ("sha_ni", Some("sha-ni")),
            ("avx512_vnni", Some("avx512vnni")),
            ("avx512_vpopcntdq", Some("avx512-vpopcntdq")),
            ("ibrs", Some("spec-ctrl")),
            ("constant_tsc", None),
            ("hypervisor", None),
            ("est", None),
        ] {
            assert_eq!(feature(flag, "GenuineIntel"), name, "{flag}");
        }
        assert_eq!(feature("ssbd", "AuthenticAMD"), Some("amd-ssbd"));
    }

    #[test]
    fn servers_are_known_by_their_numbers() {
        let flags = BTreeSet::new();
        let named = |vendor, family, model, stepping| {
            super::named(&OtherCpu {
                vendor,
                family,
                model,
                stepping,
                flags: &flags,
            })
        };
        assert_eq!(named("GenuineIntel", "6", "85", "7"), "Cascadelake-Server");
        assert_eq!(named("AuthenticAMD", "25", "1", "1"), "EPYC-Milan");
        assert_eq!(named("AuthenticAMD", "15", "107", "1"), "qemu64");
        assert_eq!(named("?", "", "", ""), "qemu64");
    }

    #[test]
    fn what_libvirt_says_is_read() {
        let capabilities = "<x><mode name='maximum' supported='yes'/><mode name='host-model' supported='yes'>\
            <model fallback='forbid'>EPYC</model><vendor>AMD</vendor>\
            <feature policy='require' name='erms'/><feature policy='disable' name='vme'/></mode></x>";
        let host = host_model(capabilities).unwrap();
        assert_eq!(element(&host, "vendor").as_deref(), Some("AMD"));
        assert_eq!(required(&host), ["erms".to_string()].into());
    }
}
