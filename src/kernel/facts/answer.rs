//! Parses the answer of provisioners/guest/facts, which is not trusted.

use std::collections::{BTreeMap, BTreeSet};

use miette::Diagnostic;
use thiserror::Error;

use super::{
    check::{self, InvalidFact},
    model::{
        Cpu, FACTS_FORMAT, Facts, KernelPackage, Offer, OfferedFile, OfferedTree, Os, PackageKind,
        TEXT_LIMIT, sysctl_path,
    },
};

/// The script, for `sh -s`; [`facts_script`] completes it.
const SCRIPT: &str = include_str!("../../../provisioners/guest/facts");

/// Largest answer, in bytes; a host with every module loaded sends some hundred KiB.
pub const FACTS_LIMIT: usize = 8 << 20;

/// Returns the script with its marker before it. `nonce` consists of letters, digits and dashes and is
/// different each time, so that nothing else that a host prints can be mistaken for an answer.
pub fn facts_script(nonce: &str) -> String {
    format!("nonce={nonce}\n{SCRIPT}")
}

#[derive(Debug, PartialEq, Eq, Error, Diagnostic)]
pub enum FactsError {
    #[error("{0} sent no readable answer")]
    #[diagnostic(help("check that {0} has a POSIX shell, and that `ssh {0} sh` starts it"))]
    Silent(String),
    #[error("{0} stopped in the middle of its answer")]
    #[diagnostic(help(
        "try again; if it stops at the same place again, check what `ssh {0}` prints"
    ))]
    Truncated(String),
    #[error("{host} does not report {what}")]
    #[diagnostic(help("check that it runs Linux and has /proc mounted"))]
    Missing { host: String, what: &'static str },
    #[error("the answer of {host} was refused: {value:?} is not a valid {what}")]
    #[diagnostic(help(
        "nothing was copied; no intact system sends this: check what `ssh {host}` prints, and whether you trust that host"
    ))]
    Wrong {
        host: String,
        what: &'static str,
        value: String,
    },
}

/// Parses the answer of `host`; other output around it is ignored.
pub fn parse_facts(bytes: &[u8], nonce: &str, host: &str) -> Result<(Facts, Offer), FactsError> {
    let answer = HostAnswer::read(bytes, nonce, host)?;
    let need = |key: &str, what: &'static str| {
        let text = answer.line(key);
        if text.is_empty() {
            return Err(FactsError::Missing {
                host: host.to_string(),
                what,
            });
        }
        Ok(text)
    };
    let os = answer.pairs("os", '=');
    let unquoted = |key: &str| {
        os.get(key)
            .map(|value| value.trim_matches(['"', '\'']).to_string())
            .unwrap_or_default()
    };
    let cpu = answer.pairs("cpu", ':');
    let cpu_says = |key: &str| cpu.get(key).cloned().unwrap_or_default();
    let facts = Facts {
        format: FACTS_FORMAT,
        release: need("release", "which kernel it runs")?,
        version: need("version", "which version its kernel is")?,
        machine: need("machine", "its architecture")?,
        host: answer.line("host"),
        root: answer.line("uid") == "0",
        os: Os {
            id: unquoted("ID"),
            version_id: unquoted("VERSION_ID"),
            codename: unquoted("VERSION_CODENAME"),
            name: unquoted("PRETTY_NAME"),
        },
        banner: answer.line("proc_version"),
        cmdline: need("cmdline", "its kernel's command line")?,
        cpu: Cpu {
            vendor: cpu_says("vendor_id"),
            model_name: cpu_says("model name"),
            family: cpu_says("cpu family"),
            model: cpu_says("model"),
            stepping: cpu_says("stepping"),
            microcode: cpu_says("microcode"),
            count: answer.line("cpus").parse().unwrap_or(0),
            // arm64 calls them Features.
            flags: [cpu_says("flags"), cpu_says("Features")]
                .iter()
                .flat_map(|flags| flags.split_whitespace())
                .map(str::to_string)
                .collect(),
        },
        memory_kib: answer.line("memory").parse().unwrap_or(0),
        modules: modules(&answer),
        tainted: answer.line("tainted").parse().unwrap_or(0),
        mitigations: answer.named("vulnerabilities"),
        lsm: answer
            .line("lsm")
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_string)
            .collect(),
        thp: answer
            .named("thp")
            .into_iter()
            .filter(|(name, _)| name == "enabled" || name == "defrag")
            .map(|(name, value)| (name, chosen(&value)))
            .collect(),
        cgroup: answer.line("cgroup"),
        clocksource: answer.line("clocksource"),
        clocksources: words(&answer.line("clocksources")),
        schedulers: answer
            .named("block")
            .into_iter()
            .map(|(path, value)| {
                let device = path.split('/').next().unwrap_or_default().to_string();
                (device, chosen(&value))
            })
            .collect(),
        livepatches: answer.lines("livepatch").map(str::to_string).collect(),
        sysctl: sysctl(&answer),
        sysctl_set: answer
            .lines("sysctl_set")
            .map(|key| sysctl_path(key.trim()))
            .collect(),
        package: answer.lines("package").next().and_then(package),
        settings: BTreeMap::new(),
        hardware: BTreeSet::new(),
        foreign: BTreeSet::new(),
    };
    let places = |key: &str| answer.lines(key).filter_map(place).collect();
    let tools = |name: &str| answer.lines("tools").any(|tool| tool.ends_with(name));
    let offer = Offer {
        images: places("image"),
        configs: places("config"),
        system_maps: places("system_map"),
        tree: answer.lines("tree").next().and_then(tree_place),
        dangling: answer.lines("dangling").map(str::to_string).collect(),
        settings: places("settings"),
        tar: tools("tar"),
        gzip: tools("gzip"),
        sudo: answer.lines("tools").any(|tool| tool == "sudo"),
    };
    check::facts(&facts)
        .and_then(|()| check::offer(&offer))
        .map_err(|InvalidFact { what, value }| FactsError::Wrong {
            host: host.to_string(),
            what,
            value,
        })?;
    Ok((facts, offer))
}

/// The answer's lines, by key, in order.
struct HostAnswer {
    lines: BTreeMap<String, Vec<String>>,
}

impl HostAnswer {
    fn read(bytes: &[u8], nonce: &str, host: &str) -> Result<Self, FactsError> {
        let bytes = &bytes[..bytes.len().min(FACTS_LIMIT)];
        let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let prefix = format!("{nonce} ");
        let mut ended = false;
        for line in bytes.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            let Some(rest) = line.trim_end_matches('\r').strip_prefix(&prefix) else {
                continue;
            };
            let (key, text) = rest.split_once(' ').unwrap_or((rest, ""));
            if key == "end" {
                ended = true;
                break;
            }
            lines
                .entry(key.to_string())
                .or_default()
                .push(harmless(text));
        }
        if lines.is_empty() {
            return Err(FactsError::Silent(host.to_string()));
        }
        if !ended {
            return Err(FactsError::Truncated(host.to_string()));
        }
        Ok(HostAnswer { lines })
    }

    fn lines(&self, key: &str) -> impl Iterator<Item = &str> {
        self.lines
            .get(key)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .filter(|line| !line.trim().is_empty())
    }

    fn line(&self, key: &str) -> String {
        self.lines(key)
            .next()
            .unwrap_or_default()
            .trim()
            .to_string()
    }

    /// Parses `NAME:TEXT`, one for each line of a file; returns the text of each file by name.
    fn named(&self, key: &str) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for line in self.lines(key) {
            let Some((name, text)) = line.split_once(':') else {
                continue;
            };
            let name = name.trim_start_matches("./").to_string();
            let value = all.entry(name).or_default();
            if !value.is_empty() {
                value.push('\n');
            }
            value.push_str(text.trim());
        }
        all
    }

    fn pairs(&self, key: &str, separator: char) -> BTreeMap<String, String> {
        self.lines(key)
            .filter_map(|line| line.split_once(separator))
            .map(|(key, value)| (key.trim().to_string(), value.trim().to_string()))
            .collect()
    }
}

/// Replaces control characters, which a terminal could obey, and limits the length.
fn harmless(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    match text.char_indices().find(|(at, _)| *at >= TEXT_LIMIT) {
        Some((at, _)) => text[..at].to_string(),
        None => text,
    }
}

/// `always [madvise] never` → `madvise`.
fn chosen(text: &str) -> String {
    text.split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or(text, |(chosen, _)| chosen)
        .to_string()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

/// Parses lines of /proc/modules (`nf_nat 57344 2 xt_MASQUERADE,nft_chain_nat,`) that were reduced to name and
/// users.
fn modules(answer: &HostAnswer) -> BTreeMap<String, Vec<String>> {
    answer
        .lines("modules")
        .map(|line| {
            let (name, users) = line.split_once(' ').unwrap_or((line, ""));
            let users = users
                .split(',')
                .map(str::trim)
                .filter(|user| !user.is_empty() && *user != "-" && !user.starts_with('['))
                .map(str::to_string)
                .collect();
            (name.to_string(), users)
        })
        .collect()
}

fn sysctl(answer: &HostAnswer) -> BTreeMap<String, String> {
    answer
        .named("sysctl")
        .into_iter()
        // Separate numbers by one space, whatever the kernel prints.
        .map(|(key, value)| {
            let lines: Vec<String> = value.lines().map(|line| words(line).join(" ")).collect();
            (key, lines.join("\n"))
        })
        .collect()
}

fn package(line: &str) -> Option<KernelPackage> {
    let words = words(line);
    let [kind, name, version, arch] = words.as_slice() else {
        return None;
    };
    Some(KernelPackage {
        kind: match kind.as_str() {
            "dpkg" => PackageKind::Dpkg,
            "rpm" => PackageKind::Rpm,
            _ => return None,
        },
        name: name.clone(),
        version: version.clone(),
        arch: arch.clone(),
    })
}

fn place(line: &str) -> Option<OfferedFile> {
    let mut parts = line.splitn(3, ' ');
    let readable = yes(parts.next()?)?;
    let size = parts.next()?.parse().ok()?;
    Some(OfferedFile {
        readable,
        size,
        path: parts.next()?.to_string(),
    })
}

fn tree_place(line: &str) -> Option<OfferedTree> {
    let mut parts = line.splitn(4, ' ');
    Some(OfferedTree {
        readable: yes(parts.next()?)?,
        kib: parts.next()?.parse().ok()?,
        files: parts.next()?.parse().ok()?,
        path: parts.next()?.to_string(),
    })
}

fn yes(word: &str) -> Option<bool> {
    match word {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{
        super::{hardware::hardware_modules, model::sysctl_name},
        *,
    };

    pub(crate) const NONCE: &str = "stead-0123";

    /// An answer with the required lines, and these after them.
    pub(crate) fn answer(lines: &str) -> String {
        let base = "release 6.1.0-47-amd64\nversion #1 SMP Debian 6.1.170-1\nmachine x86_64\n\
                    host db1.example.org\ncmdline root=/dev/sda1 ro quiet\n";
        let mut text = String::new();
        for line in base.lines().chain(lines.lines()) {
            text.push_str(&format!("{NONCE} {line}\n"));
        }
        text + &format!("{NONCE} end\n")
    }

    fn facts(lines: &str) -> Facts {
        parse_facts(answer(lines).as_bytes(), NONCE, "db1")
            .unwrap()
            .0
    }

    #[test]
    fn an_answer_among_noise() {
        let noisy = format!(
            "Welcome!\r\n\x1b[1mmotd\x1b[0m $ \n{}\x1b]0;title\x07bye\n",
            answer(
                "uid 1000\nmodules ext4 -\nmodules jbd2 ext4,\nthp ./enabled:always [madvise] never"
            )
            .replace('\n', "\r\n")
        );
        let (facts, _) = parse_facts(noisy.as_bytes(), NONCE, "db1").unwrap();
        assert_eq!(facts.release, "6.1.0-47-amd64");
        assert_eq!(facts.modules["jbd2"], ["ext4"]);
        assert!(facts.modules["ext4"].is_empty());
        assert_eq!(facts.thp["enabled"], "madvise");
        assert!(!facts.root);
    }

    #[test]
    fn what_is_cut_off_or_forged_is_no_answer() {
        let whole = answer("");
        let cut = &whole[..whole.len() - 5];
        assert_eq!(
            parse_facts(cut.as_bytes(), NONCE, "db1"),
            Err(FactsError::Truncated("db1".into()))
        );
        assert_eq!(
            parse_facts(b"release 6.1\nend\n", NONCE, "db1"),
            Err(FactsError::Silent("db1".into()))
        );
        let other = format!("{NONCE} host x\n{NONCE} end\n");
        assert!(matches!(
            parse_facts(other.as_bytes(), NONCE, "db1"),
            Err(FactsError::Missing { .. })
        ));
        // An answer that is too long is cut off.
        let long = format!("{NONCE} sysctl a/b:{}\n", "x".repeat(FACTS_LIMIT));
        assert!(parse_facts(long.as_bytes(), NONCE, "db1").is_err());
        let mut bytes = answer("").into_bytes();
        bytes.splice(0..0, [0xff, 0xfe, b'\n', 0]);
        assert!(parse_facts(&bytes, NONCE, "db1").is_err() || !bytes.is_empty());
    }

    #[test]
    fn values_may_hold_anything() {
        let facts = facts(
            "sysctl kernel/core_pattern:|/usr/bin/x %p: %h\n\
             sysctl net/ipv4/conf/eth0.5/mtu:1500\n\
             sysctl net/ipv4/tcp_mem:1\t2\t3\n\
             sysctl a/b:one\nsysctl a/b:two\nsysctl c/d:\x1b[31mred\n\
             sysctl_set vm.swappiness \nsysctl_set net.ipv4.conf.eth0/5.mtu\n\
             package dpkg linux-image-6.1.0-47-amd64 6.1.170-1 amd64",
        );
        assert_eq!(facts.sysctl["kernel/core_pattern"], "|/usr/bin/x %p: %h");
        assert_eq!(facts.sysctl["net/ipv4/conf/eth0.5/mtu"], "1500");
        assert_eq!(facts.sysctl["net/ipv4/tcp_mem"], "1 2 3");
        assert_eq!(facts.sysctl["a/b"], "one\ntwo");
        assert!(!facts.sysctl["c/d"].contains('\x1b'));
        assert!(facts.sysctl_set.contains("vm/swappiness"));
        assert!(facts.sysctl_set.contains("net/ipv4/conf/eth0.5/mtu"));
        assert_eq!(
            sysctl_name("net/ipv4/conf/eth0.5/mtu"),
            "net.ipv4.conf.eth0/5.mtu"
        );
        assert_eq!(facts.package.unwrap().version, "6.1.170-1");
    }

    #[test]
    fn what_can_be_had_is_told_from_what_cannot() {
        let (_, offer) = parse_facts(
            answer(
                "image no 8000 /boot/vmlinuz-6.1.0-47-amd64\nconfig yes 9 /boot/config with space\n\
                 tree yes 300 42 /lib/modules/6.1.0-47-amd64\ntools /bin/tar\ntools sudo\nimage what",
            )
            .as_bytes(),
            NONCE,
            "db1",
        )
        .unwrap();
        assert_eq!(offer.images.len(), 1);
        assert!(!offer.images[0].readable);
        assert_eq!(offer.configs[0].path, "/boot/config with space");
        assert_eq!(offer.tree.as_ref().unwrap().files, 42);
        assert!(offer.tar && offer.sudo && !offer.gzip);
    }

    #[test]
    fn facts_survive_their_bundle() {
        let facts = facts("cpu flags\t\t: fpu vme\nvulnerabilities ./meltdown:Mitigation: PTI");
        assert_eq!(facts.mitigations["meltdown"], "Mitigation: PTI");
        assert_eq!(Facts::parse(&facts.to_bytes().unwrap()).unwrap(), facts);
    }

    #[test]
    fn drivers_are_told_by_what_asks_for_them() {
        let hardware = hardware_modules(
            "# Aliases\nalias pci:v00008086d* e1000e\nalias acpi*:PNP0C0C:* button\nalias virtio:d00000001v* virtio_net\nalias fs-ext4 ext4\nalias net-pf-10 ipv6\n\
             alias cpu:type:x86,* kvm-intel\nalias devname:fuse fuse\n",
        );
        let names: Vec<&str> = hardware.iter().map(String::as_str).collect();
        assert_eq!(names, ["button", "e1000e", "kvm_intel", "virtio_net"]);
    }

    /// Runs the script itself on this host.
    #[test]
    fn this_host_answers() {
        let mut child = std::process::Command::new("sh")
            .arg("-s")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        use std::io::Write;
        let script = facts_script(NONCE);
        child
            .stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let (facts, _) = parse_facts(&output.stdout, NONCE, "here").unwrap();
        assert!(!facts.cmdline.is_empty() && facts.cpu.count > 0);
        assert!(facts.sysctl.contains_key("vm/swappiness"));
        assert!(
            !facts
                .sysctl
                .keys()
                .any(|key| key.ends_with("/stable_secret") || key.starts_with("fs/binfmt_misc"))
        );
    }
}
