//! Chooses the packages that make up a kernel. Pure.
//!
//! Fedora and Enterprise Linux split a kernel into packages of one version: `kernel-core` contains the image,
//! `kernel-modules-core`, `kernel-modules` and `kernel-modules-extra` the modules, and `kernel` is empty. Other kernels
//! (`kernel-rt`, `kernel-64k`, `kernel-debug`) are split in the same way.

use crate::host::names;

use super::{
    super::{Repository, query::PackageQuery, search::KernelPackages},
    repodata::Package,
    version::Evr,
};

/// A repository's packages of kernels, and those with the requested name.
pub(super) struct RpmListing<'a> {
    pub repository: &'a Repository,
    pub packages: Vec<Package>,
}

/// A package, and all listings that have it.
pub(super) struct ChosenRpm<'a> {
    pub package: &'a Package,
    pub listings: Vec<&'a RpmListing<'a>>,
}

/// The other packages of a kernel, from those that are always needed to those that few need.
const PARTS: [&str; 3] = ["-modules-core", "-modules", "-modules-extra"];
const IMAGE: &str = "-core";

/// Chooses the packages of a kernel. The package with the image comes first.
pub(super) fn kernel<'a>(
    listings: &'a [RpmListing<'a>],
    wanted: &PackageQuery,
) -> KernelPackages<ChosenRpm<'a>> {
    let with_core = format!("{}{IMAGE}", wanted.name);
    let Some(asked) = best(listings, |package| asked(package, wanted))
        // Some mirrors lack the empty package.
        .or_else(|| {
            best(listings, |package| {
                package.name == with_core && version_fits(package, wanted)
            })
        })
    else {
        return KernelPackages::Nothing;
    };
    let base = kernel_of(&asked.package.name);
    let evr = &asked.package.evr;
    let part = |ending: &str| {
        let name = format!("{base}{ending}");
        best(listings, |package| {
            package.name == name && package.evr == *evr && package.arch == wanted.arch
        })
    };
    let Some(image) = part(IMAGE) else {
        let image = format!("{base}{IMAGE}");
        let is_split = listings
            .iter()
            .flat_map(|listing| &listing.packages)
            .any(|package| package.name == image);
        return match is_split {
            true => KernelPackages::Incomplete {
                package: asked.package.name.clone(),
                version: evr.text(),
                missing: format!("{image} {}", evr.text()),
            },
            // A kernel in one package, as users build them.
            false => KernelPackages::Found(vec![asked]),
        };
    };
    let mut parts = vec![image];
    parts.extend(PARTS.iter().filter_map(|ending| part(ending)));
    KernelPackages::Found(parts)
}

/// Returns the kernel's name in a package's name: `kernel-rt` for `kernel-rt-modules-extra`.
fn kernel_of(name: &str) -> &str {
    PARTS
        .iter()
        .chain([&IMAGE])
        .find_map(|ending| name.strip_suffix(ending))
        .unwrap_or(name)
}

/// Whether a package is the requested one, by its name, or by its name, version and architecture as `rpm -q` prints them.
fn asked(package: &Package, wanted: &PackageQuery) -> bool {
    let by_all = || {
        wanted
            .name
            .strip_prefix(package.name.as_str())
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|rest| rest != package.evr.version && package.evr.is(rest, wanted.arch))
    };
    version_fits(package, wanted) && (package.name == wanted.name || by_all())
}

fn version_fits(package: &Package, wanted: &PackageQuery) -> bool {
    (package.arch == wanted.arch || package.arch == "noarch")
        && wanted
            .version
            .is_none_or(|version| package.evr.is(version, wanted.arch))
}

/// Returns the newest package that fits. Among equal ones, the first counts.
fn best<'a>(
    listings: &'a [RpmListing<'a>],
    fits: impl Fn(&Package) -> bool,
) -> Option<ChosenRpm<'a>> {
    let all = || {
        listings.iter().flat_map(|listing| {
            listing
                .packages
                .iter()
                .map(move |package| (listing, package))
        })
    };
    let mut best: Option<&Package> = None;
    for (_, package) in all().filter(|(_, package)| fits(package)) {
        if best.is_none_or(|best| package.evr.compare(&best.evr).is_gt()) {
            best = Some(package);
        }
    }
    let package = best?;
    Some(ChosenRpm {
        package,
        listings: all()
            .filter(|(_, other)| other.name == package.name && other.sha256 == package.sha256)
            .map(|(listing, _)| listing)
            .collect(),
    })
}

/// Returns other versions of the package, or similar names, for an error.
pub(super) fn nearest(listings: &[RpmListing], wanted: &PackageQuery) -> String {
    const MOST: usize = 5;
    let packages = || {
        listings
            .iter()
            .flat_map(|listing| &listing.packages)
            .filter(|package| package.arch == wanted.arch)
    };
    let mut versions: Vec<&Evr> = packages()
        .filter(|package| package.name == wanted.name)
        .map(|package| &package.evr)
        .collect();
    versions.sort_by(|a, b| b.compare(a));
    versions.dedup();
    if !versions.is_empty() {
        let texts: Vec<String> = versions.iter().take(MOST).map(|it| it.text()).collect();
        return format!("; its versions are {}", texts.join(", "));
    }
    // With versions too, because users also write names with versions.
    let known: Vec<String> = packages()
        .flat_map(|package| {
            [
                package.name.clone(),
                format!("{}-{}", package.name, package.evr.text()),
            ]
        })
        .collect();
    let mut others: Vec<&str> = known.iter().map(String::as_str).collect();
    others.sort_unstable();
    others.dedup();
    let mut near = Vec::new();
    while near.len() < MOST
        && let Some(name) = names::nearest(wanted.name, others.iter().copied())
    {
        near.push(name);
        others.retain(|other| *other != name);
    }
    match near.as_slice() {
        [] => String::new(),
        near => format!("; similar names are {}", near.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::{Distribution, RepositoryFormat, RepositoryOrigin};

    fn package(name: &str, version: &str, release: &str) -> Package {
        Package {
            name: name.into(),
            arch: "x86_64".into(),
            evr: Evr {
                epoch: 0,
                version: version.into(),
                release: release.into(),
            },
            sha256: format!("{name}{version}{release}"),
            size: 1,
            path: "x".into(),
        }
    }

    fn choose(
        packages: Vec<Package>,
        name: &str,
        version: Option<&str>,
    ) -> Result<Vec<String>, String> {
        let repository = Repository {
            url: "https://example.org/".parse().unwrap(),
            layout: RepositoryFormat::Rpm,
            keys: Vec::new(),
            origin: RepositoryOrigin::Given,
            may_be_old: false,
        };
        let listings = [RpmListing {
            repository: &repository,
            packages,
        }];
        let distribution = Distribution {
            id: "fedora".into(),
            release: "41".into(),
            arch: "x86_64".into(),
        };
        let wanted = PackageQuery {
            name,
            version,
            distribution: &distribution,
            arch: "x86_64",
        };
        match kernel(&listings, &wanted) {
            KernelPackages::Found(found) => Ok(found
                .iter()
                .map(|it| format!("{} {}", it.package.name, it.package.evr.text()))
                .collect()),
            KernelPackages::Incomplete { missing, .. } => Err(missing),
            KernelPackages::Nothing => Err(nearest(&listings, &wanted)),
        }
    }

    fn fedora() -> Vec<Package> {
        let mut found = Vec::new();
        for (version, release) in [("6.11.4", "301.fc41"), ("6.11.10", "300.fc41")] {
            for name in [
                "kernel",
                "kernel-core",
                "kernel-modules",
                "kernel-modules-core",
                "kernel-debug-core",
            ] {
                found.push(package(name, version, release));
            }
        }
        found.push(package("kernel-modules-extra", "6.11.10", "300.fc41"));
        found.push(package("kernel", "6.11.11", "300.fc41"));
        found
    }

    #[test]
    fn all_parts_of_one_version() {
        let newest = [
            "kernel-core 6.11.10-300.fc41",
            "kernel-modules-core 6.11.10-300.fc41",
            "kernel-modules 6.11.10-300.fc41",
            "kernel-modules-extra 6.11.10-300.fc41",
        ];
        let older = [
            "kernel-core 6.11.4-301.fc41",
            "kernel-modules-core 6.11.4-301.fc41",
            "kernel-modules 6.11.4-301.fc41",
        ];
        assert_eq!(choose(fedora(), "kernel-core", None).unwrap(), newest);
        for (name, version) in [
            ("kernel", Some("6.11.4-301.fc41")),
            ("kernel-modules", Some("6.11.4-301.fc41.x86_64")),
            ("kernel-core-6.11.4-301.fc41.x86_64", None),
            ("kernel-6.11.4-301.fc41", None),
        ] {
            assert_eq!(choose(fedora(), name, version).unwrap(), older, "{name}");
        }
        assert_eq!(
            choose(fedora(), "kernel-debug", None).unwrap(),
            ["kernel-debug-core 6.11.10-300.fc41"]
        );
        assert_eq!(
            choose(vec![package("acme", "1", "1")], "acme", None).unwrap(),
            ["acme 1-1"]
        );
    }

    #[test]
    fn what_is_not_there() {
        assert_eq!(
            choose(fedora(), "kernel", None).unwrap_err(),
            "kernel-core 6.11.11-300.fc41"
        );
        assert_eq!(
            choose(fedora(), "kernel-core", Some("5.0")).unwrap_err(),
            "; its versions are 6.11.10-300.fc41, 6.11.4-301.fc41"
        );
        let near = choose(fedora(), "kernel-core-6.11.5-301.fc41", None).unwrap_err();
        assert!(
            near.starts_with("; similar names are kernel-core-6.11.4-301.fc41"),
            "{near}"
        );
        assert_eq!(choose(fedora(), "zzz", None).unwrap_err(), "");
    }
}
