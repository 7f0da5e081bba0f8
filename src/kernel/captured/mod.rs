//! Captures the kernel of another host: chooses the files to copy, unpacks them, and adds the kernel to the
//! store.

mod archive;
mod error;
mod selection;

use std::{collections::BTreeSet, fs, path::Path};

pub use archive::{settings_of, unpack};
pub use error::CaptureError;
pub use selection::{SelectedFile, Selection, pick};

use crate::{
    host::{names::is_name, open},
    packages::Distribution,
    report::clean::Shown,
};

use super::{
    KernelError, KernelFileRole, KernelStore, Provenance, StoredKernel,
    add::Title,
    facts::{Facts, PackageKind, hardware_modules, plain},
    modules::LARGEST_TABLE,
    tree::{KernelFiles, Modules, complete, files_of, is_module, locate},
};

/// Finds the kernel in an unpacked folder.
pub fn found_in(folder: &Path, selection: &Selection) -> Result<KernelFiles, CaptureError> {
    let release = &selection.release;
    let tree = folder.join("lib/modules").join(release);
    let image = folder.join(format!("boot/vmlinuz-{release}"));
    let tree = tree.is_dir().then_some(tree.as_path());
    Ok(locate(&image, tree, None, std::env::consts::ARCH)?)
}

/// Checks that the image is that of the running kernel: the same release may have been built again.
pub fn check_running(found: &KernelFiles, facts: &Facts, host: &str) -> Result<(), CaptureError> {
    let same_release = found.release == facts.release;
    let same_build = (found.image.banner.as_ref())
        .is_none_or(|banner| squeeze(banner).contains(&squeeze(&facts.version)));
    if same_release && same_build {
        return Ok(());
    }
    Err(CaptureError::Replaced {
        host: host.to_string(),
        running: format!("{} {}", facts.release, facts.version),
        found: (found.image.banner.clone()).unwrap_or_else(|| found.release.clone()),
    })
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Adds a captured kernel to the store, with its facts, which the module tree completes.
pub fn keep(
    store: &KernelStore,
    mut found: KernelFiles,
    mut facts: Facts,
    work: &Path,
    host: &str,
    name: &str,
) -> Result<StoredKernel, CaptureError> {
    if let Some(modules) = &found.modules
        && let Some(tree) = complete(modules, &found.release, work)?
    {
        let alias = tree.join("modules.alias");
        let text = open::bytes(&alias, LARGEST_TABLE).map_err(CaptureError::io("read", alias))?;
        let alias = String::from_utf8_lossy(&text);
        facts.hardware = hardware_modules(&alias);
        let has: BTreeSet<String> = files_of(&tree)?
            .iter()
            .filter(|file| is_module(&file.name))
            .filter_map(|file| {
                let file = file.name.rsplit('/').next()?;
                Some(plain(file.split_once(".ko")?.0))
            })
            .collect();
        facts.foreign = (facts.modules.keys())
            .filter(|name| !has.contains(*name))
            .cloned()
            .collect();
        found.modules = Some(Modules::Installed(tree));
    } else {
        facts.foreign = facts.modules.keys().cloned().collect();
    }
    let bytes = facts.to_bytes().map_err(|error| KernelError::Manifest {
        source_name: name.to_string(),
        message: error.to_string(),
    })?;
    Ok(store.add(
        &found,
        &Title {
            name,
            from: Provenance::Capture {
                host: host.to_string(),
            },
            facts: Some(&bytes),
        },
    )?)
}

/// Returns the distribution, name and version of the package that contains a host's kernel, for
/// [`crate::packages::resolve`].
pub fn package_of(
    facts: &Facts,
    host: &str,
) -> Result<(Distribution, String, String), CaptureError> {
    let Some(package) = &facts.package else {
        return Err(CaptureError::NoPackage {
            host: host.to_string(),
            release: facts.release.clone(),
        });
    };
    Ok((
        Distribution {
            id: facts.os.id.clone(),
            release: match package.kind {
                PackageKind::Dpkg => facts.os.codename.clone(),
                PackageKind::Rpm => facts.os.version_id.clone(),
            },
            arch: facts.machine.clone(),
        },
        package.name.clone(),
        package.version.clone(),
    ))
}

/// Returns the facts of the captured host; `None` for a kernel that was not captured.
pub fn facts_of(store: &KernelStore, stored: &StoredKernel) -> Result<Option<Facts>, KernelError> {
    let Some(entry) = &stored.manifest.facts else {
        return Ok(None);
    };
    let path = store.file(entry, KernelFileRole::Other);
    let bytes = fs::read(&path).map_err(KernelError::io("read", &path))?;
    Facts::parse(&bytes)
        .map(Some)
        .map_err(|message| KernelError::Manifest {
            source_name: path.shown(),
            message,
        })
}

/// Returns a name for a kernel of `host`: the host's short name.
pub fn short_name(host: &str, facts: &Facts) -> String {
    let host = host.strip_prefix("ssh://").unwrap_or(host);
    let host = host.rsplit('@').next().unwrap_or(host);
    let is_address = host.parse::<std::net::Ipv4Addr>().is_ok() || host.contains(['[', ']']);
    let host = host.split(':').next().unwrap_or(host);
    let is_address = is_address || host.parse::<std::net::Ipv4Addr>().is_ok() || host.is_empty();
    let long = if is_address { &facts.host } else { host };
    let short = long.split('.').next().unwrap_or(long);
    let short: String = short
        .chars()
        .map(|c| {
            if is_name(&c.to_string()) || c == '-' {
                c
            } else {
                '-'
            }
        })
        .take(60)
        .collect();
    let short = short.trim_matches('-');
    if short.is_empty() { "capture" } else { short }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::facts::{
        parse_facts,
        tests::{NONCE, answer},
    };

    #[test]
    fn hosts_have_short_names() {
        let (facts, _) = parse_facts(answer("").as_bytes(), NONCE, "x").unwrap();
        for (host, name) in [
            ("prod-db.example.org", "prod-db"),
            ("root@web", "web"),
            ("ssh://me@web.example:2222", "web"),
            ("10.0.0.7", "db1"),
            ("ssh://10.0.0.7:22", "db1"),
            ("[::1]", "db1"),
        ] {
            assert_eq!(short_name(host, &facts), name, "{host}");
        }
    }
}
