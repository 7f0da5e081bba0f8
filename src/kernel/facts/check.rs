//! Checks the facts that a host sends. They become names of files and packages and lines of configuration on
//! this host, so all of them are checked once, before anything uses them.

use crate::host::names::{check_release, is_name};

use super::model::{Facts, Offer, TEXT_LIMIT};

/// An invalid value that a host sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidFact {
    pub what: &'static str,
    pub value: String,
}

/// As PATH_MAX, in bytes.
const LONGEST_PATH: usize = 4096;

type Checked = Result<(), InvalidFact>;

fn need(what: &'static str, value: &str, good: bool) -> Checked {
    match good {
        true => Ok(()),
        false => Err(InvalidFact {
            what,
            value: value.chars().take(80).collect(),
        }),
    }
}

pub(super) fn facts(facts: &Facts) -> Checked {
    need(
        "kernel release",
        &facts.release,
        check_release(&facts.release).is_ok(),
    )?;
    need("architecture", &facts.machine, is_word(&facts.machine))?;
    for (what, value) in [
        ("ID in os-release", &facts.os.id),
        ("VERSION_ID in os-release", &facts.os.version_id),
        ("VERSION_CODENAME in os-release", &facts.os.codename),
    ] {
        need(what, value, value.is_empty() || is_name(value))?;
    }
    if let Some(package) = &facts.package {
        need("package name", &package.name, is_name(&package.name))?;
        need(
            "package version",
            &package.version,
            is_version(&package.version),
        )?;
        need(
            "package architecture",
            &package.arch,
            is_word(&package.arch),
        )?;
    }
    for (what, value) in [
        ("kernel version", &facts.version),
        ("host name", &facts.host),
        ("name in os-release", &facts.os.name),
        ("/proc/version", &facts.banner),
        ("kernel command line", &facts.cmdline),
        ("cgroup version", &facts.cgroup),
        ("clock source", &facts.clocksource),
    ] {
        need(what, value, is_line(value))?;
    }
    let cpu = &facts.cpu;
    for value in [
        &cpu.vendor,
        &cpu.model_name,
        &cpu.family,
        &cpu.model,
        &cpu.stepping,
        &cpu.microcode,
    ] {
        need("CPU", value, is_line(value))?;
    }
    for flag in &cpu.flags {
        need("CPU flag", flag, is_token(flag))?;
    }
    let users = facts.modules.values().flatten();
    let modules = facts.modules.keys().chain(users);
    for module in modules.chain(&facts.hardware).chain(&facts.foreign) {
        need("module", module, is_token(module))?;
    }
    for (name, value) in &facts.mitigations {
        need("vulnerability of the CPU", name, is_token(name))?;
        need("mitigation", value, is_text(value))?;
    }
    for (name, value) in facts.thp.iter().chain(&facts.schedulers) {
        need("device", name, is_token(name))?;
        need("setting of a device", value, is_line(value))?;
    }
    for word in (facts.lsm.iter())
        .chain(&facts.clocksources)
        .chain(&facts.livepatches)
    {
        need("LSM, clock source or live patch", word, is_line(word))?;
    }
    for (key, value) in &facts.sysctl {
        need("sysctl", key, is_sysctl(key))?;
        need("value of a sysctl", value, is_text(value))?;
    }
    for key in &facts.sysctl_set {
        need("sysctl in a file", key, is_line(key))?;
    }
    for (name, text) in &facts.settings {
        need("settings file", name, is_setting(name))?;
        need("text of a settings file", text, text.len() <= SETTING_LIMIT)?;
    }
    Ok(())
}

/// Largest settings file in bytes: a capture's limit, and some more for replaced bytes that are not UTF-8.
const SETTING_LIMIT: usize = 3 << 20;

pub(super) fn offer(offer: &Offer) -> Checked {
    for place in (offer.images.iter())
        .chain(&offer.configs)
        .chain(&offer.system_maps)
    {
        need("path of a kernel's file", &place.path, is_path(&place.path))?;
    }
    for place in &offer.settings {
        let path = &place.path;
        let name = path.strip_prefix("/etc/");
        need(
            "path of a settings file",
            path,
            is_path(path) && name.is_some_and(is_setting),
        )?;
    }
    if let Some(tree) = &offer.tree {
        need("path of the modules", &tree.path, is_path(&tree.path))?;
    }
    for link in &offer.dangling {
        let below = link.strip_prefix("./").unwrap_or(link);
        need("link among the modules", link, is_relative(below))?;
    }
    Ok(())
}

/// `x86_64`, `amd64`.
fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    !text.is_empty() && text.len() <= 32 && text.chars().all(plain) && !text.starts_with('-')
}

fn is_version(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".+-~:_^".contains(c);
    !text.is_empty() && text.len() <= 128 && text.chars().all(plain) && !text.starts_with('-')
}

/// A name without blanks and slashes that does not begin with a dash or a dot.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 256
        && !text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '/')
        && !text.starts_with(['-', '.'])
}

fn is_line(text: &str) -> bool {
    text.len() <= TEXT_LIMIT && !text.chars().any(|c| c.is_control() && c != '\t')
}

fn is_text(text: &str) -> bool {
    text.lines().all(is_line)
}

/// A path below /proc/sys. Names of network interfaces may contain anything except blanks and slashes.
fn is_sysctl(key: &str) -> bool {
    is_relative(key) && !key.chars().any(char::is_whitespace)
}

fn is_setting(name: &str) -> bool {
    let Some((folder, file)) = name.split_once('/') else {
        return false;
    };
    ["modprobe.d", "modules-load.d", "sysctl.d"].contains(&folder)
        && is_relative(file)
        && !file.contains('/')
}

fn is_path(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(is_relative)
}

fn is_relative(path: &str) -> bool {
    path.len() <= LONGEST_PATH
        && is_line(path)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::super::answer::{
        FactsError, parse_facts,
        tests::{NONCE, answer},
    };
    use super::*;

    fn said(lines: &str) -> Result<(Facts, Offer), FactsError> {
        parse_facts(answer(lines).as_bytes(), NONCE, "db1")
    }

    fn with_release(release: &str) -> String {
        answer("").replace("6.1.0-47-amd64", release)
    }

    #[test]
    fn a_release_that_leads_elsewhere_is_refused_where_it_is_read() {
        for release in [
            "x/../../../../.config/autostart/evil.desktop",
            "..",
            ".hidden",
            "/etc/cron.d/x",
            "6.1;id",
            "6.1 x",
        ] {
            let error = parse_facts(with_release(release).as_bytes(), NONCE, "db1").unwrap_err();
            assert_eq!(
                error,
                FactsError::Wrong {
                    host: "db1".into(),
                    what: "kernel release",
                    value: release.chars().take(80).collect(),
                }
            );
        }
    }

    #[test]
    fn so_is_every_other_word_that_becomes_a_name() {
        for line in [
            "os ID=../../x",
            "os VERSION_ID=9/../../x",
            "os VERSION_CODENAME=a b",
            "package dpkg ../x 1 amd64",
            "package rpm kernel 1/2 x86_64",
            "package dpkg linux-image 1 ../x",
            "modules ../../x -",
            "modules ok ../x,",
            "sysctl ../../etc/passwd:x",
            "sysctl a//b:x",
            "thp ./enabled:always [x\ty] never\nvulnerabilities ./../x:y",
            "image yes 1 /boot/../etc/shadow",
            "image yes 1 boot/vmlinuz",
            "config yes 1 //x",
            "system_map yes 1 /boot/./x",
            "tree yes 1 1 /lib/modules/..",
            "settings yes 1 /etc/modprobe.d/../../home/me/.ssh/id_ed25519",
            "settings yes 1 /home/me/.ssh/id_ed25519",
            "settings yes 1 /etc/modprobe.d/a/b.conf",
            "dangling ./../../x",
        ] {
            let error = said(line).unwrap_err();
            assert!(matches!(error, FactsError::Wrong { .. }), "{line}: {error}");
        }
    }

    #[test]
    fn what_hosts_do_say_is_not() {
        said(
            "os ID=debian\nos VERSION_ID=\"12\"\nos VERSION_CODENAME=bookworm\nos PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n\
             package rpm kernel-core 5.14.0-503.el9_5.x86_64 x86_64\nmodules nf_nat xt_MASQUERADE,nft_chain_nat,\n\
             sysctl net/ipv4/conf/eth0.5/mtu:1500\nsysctl dev/cdrom/info:CD-ROM\nsysctl dev/cdrom/info:\nsysctl_set net.ipv4.conf.*.rp_filter\n\
             image yes 1 /usr/lib/modules/6.1.0/vmlinuz\ndangling ./weak-updates/x y.ko\nsettings yes 3 /etc/modprobe.d/my blacklist.conf\n\
             block ./sda/queue/scheduler:[none] mq-deadline\nvulnerabilities ./itlb_multihit:KVM: Mitigation: VMX disabled",
        )
        .unwrap();
    }

    #[test]
    fn a_bundle_is_read_with_the_same_suspicion() {
        let (mut facts, _) = said("").unwrap();
        let read = |facts: &Facts| Facts::parse(&facts.to_bytes().unwrap());
        facts
            .settings
            .insert("modprobe.d/a.conf".into(), "x".into());
        assert!(read(&facts).is_ok());
        let mut evil = facts.clone();
        evil.settings.insert("../../x".into(), "x".into());
        assert!(read(&evil).unwrap_err().contains("settings file"));
        let mut evil = facts.clone();
        evil.release = "x/../..".into();
        assert!(read(&evil).unwrap_err().contains("kernel release"));
        let mut evil = facts.clone();
        evil.thp.insert("enabled".into(), "x\nf /etc/passwd".into());
        assert!(read(&evil).is_err());
        facts.host = "\x1b]52;c;x\x07".into();
        assert!(read(&facts).unwrap_err().contains("host name"));
    }
}
