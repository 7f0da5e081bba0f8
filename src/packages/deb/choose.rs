//! Chooses the packages that make up a kernel. Pure.
//!
//! Names of kernel packages in Debian and Ubuntu:
//!
//! - `linux-image-RELEASE` contains the image, and in Debian also everything else
//! - Ubuntu has the rest in `linux-modules-RELEASE` and `linux-modules-extra-RELEASE`; Debian from 14 on in
//!   `linux-binary-RELEASE`, `linux-modules-RELEASE` and `linux-base-RELEASE`
//! - `linux-image-amd64`, `linux-generic` and similar ones are empty, and depend on the newest

use std::cmp::Ordering;

use crate::host::names;

use super::{
    super::{Repository, query::PackageQuery, search::KernelPackages},
    relation::Relation,
    stanza::Stanza,
    version,
};

/// A repository's packages of kernels, and those with the requested name.
pub(super) struct DebListing<'a> {
    pub repository: &'a Repository,
    /// The Origin in its Release file: "Debian".
    pub origin: String,
    /// Whether apt installs from it by default. False for backports, for example.
    pub automatic: bool,
    pub stanzas: Vec<Stanza>,
}

impl DebListing<'_> {
    /// Whether it belongs to the distribution, as "Debian" and "Debian Backports" do, on any mirror.
    pub(super) fn is_of(&self, id: &str) -> bool {
        let first = self.origin.split(' ').next().unwrap_or_default();
        first.eq_ignore_ascii_case(id)
    }
}

/// A package, and all listings that have it.
#[derive(Clone)]
pub(super) struct ChosenDeb<'a> {
    pub stanza: &'a Stanza,
    pub listings: Vec<&'a DebListing<'a>>,
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Contains a part of the kernel.
    Part,
    /// Only depends on others.
    Lead,
    /// Must be installed before the kernel.
    Need,
}

/// The package with the scripts that run when a kernel's package is installed.
const TOOLS: &str = "linux-base";

/// The longest chain of packages that depend on each other; no repository has one as long.
const DEEPEST: usize = 8;

/// Chooses the packages of a kernel. The requested package comes first.
pub(super) fn kernel<'a>(
    listings: &'a [DebListing<'a>],
    wanted: &PackageQuery,
) -> KernelPackages<ChosenDeb<'a>> {
    let asked = match wanted.version {
        Some(version) => Relation::exactly(wanted.name, version),
        None => Relation::any(wanted.name),
    };
    let Some(mut image) = best(listings, &asked, wanted.arch) else {
        return KernelPackages::Nothing;
    };
    // Follows packages that depend on the newest one.
    let mut led: Vec<ChosenDeb> = Vec::new();
    while let Some(next) = image.stanza.depends.iter().find(|group| {
        group.iter().any(|it| is_image(&it.name)) && !of(group, release(image.stanza))
    }) {
        if led.len() == DEEPEST {
            break;
        }
        let Some(found) = next.iter().find_map(|it| best(listings, it, wanted.arch)) else {
            return incomplete(image.stanza, next);
        };
        image.role = Role::Lead;
        led.push(std::mem::replace(&mut image, found));
    }
    let release = release(image.stanza);
    // The image, and all packages of the same release that it needs.
    let mut parts = vec![image];
    let mut at = 0;
    while at < parts.len() {
        let stanza = parts[at].stanza;
        for group in &stanza.depends {
            if !of(group, release) {
                continue;
            }
            let Some(found) = group.iter().find_map(|it| best(listings, it, wanted.arch)) else {
                return incomplete(stanza, group);
            };
            if !parts
                .iter()
                .any(|it| it.stanza.package == found.stanza.package)
            {
                parts.push(found);
            }
        }
        at += 1;
    }
    // The image only suggests this one, but kernels of servers often have it.
    let version = &parts[0].stanza.version;
    if let Some(release) = release
        && let Some(extra) = best(
            listings,
            &Relation::exactly(&format!("linux-modules-extra-{release}"), version),
            wanted.arch,
        )
        && !parts
            .iter()
            .any(|it| it.stanza.package == extra.stanza.package)
    {
        parts.push(extra);
    }
    // Backports need newer tools than the release has, and apt does not install these by default.
    let needs = parts
        .iter()
        .flat_map(|part| &part.stanza.depends)
        .flatten()
        .find(|it| it.name == TOOLS && it.versions.is_some())
        .and_then(|it| best(listings, it, wanted.arch))
        .filter(|found| found.listings.iter().all(|listing| !listing.automatic))
        .map(|found| ChosenDeb {
            role: Role::Need,
            ..found
        });
    led.extend(parts);
    led.extend(needs);
    KernelPackages::Found(led)
}

fn incomplete<'a>(stanza: &Stanza, missing: &[Relation]) -> KernelPackages<ChosenDeb<'a>> {
    let names: Vec<&str> = missing.iter().map(|it| it.name.as_str()).collect();
    KernelPackages::Incomplete {
        package: stanza.package.clone(),
        version: stanza.version.clone(),
        missing: names.join(" or "),
    }
}

fn is_image(name: &str) -> bool {
    name.starts_with("linux-image-")
}

/// Returns the kernel release in a package's name, such as `6.1.0-47-cloud-amd64`.
fn release(stanza: &Stanza) -> Option<&str> {
    let release = stanza.package.strip_prefix("linux-image-")?;
    let release = release.strip_prefix("unsigned-").unwrap_or(release);
    Some(release.strip_suffix("-unsigned").unwrap_or(release))
}

/// Whether one of these is a package of that release.
fn of(group: &[Relation], release: Option<&str>) -> bool {
    release.is_some_and(|release| {
        group.iter().any(|it| {
            it.name.strip_suffix(release).is_some_and(|rest| {
                // With digits, as in `linux-image-6.1.0-47-`, it is another release that only ends like this one.
                rest.starts_with("linux-")
                    && rest.ends_with('-')
                    && !rest.contains(|c: char| c.is_ascii_digit())
            })
        })
    })
}

/// Returns the newest package that is accepted, preferably from where apt would install it. Among equal ones, the first
/// counts.
fn best<'a>(
    listings: &'a [DebListing<'a>],
    wanted: &Relation,
    arch: &str,
) -> Option<ChosenDeb<'a>> {
    let mut best: Option<(&DebListing, &Stanza)> = None;
    let fits = |stanza: &&Stanza| {
        stanza.package == wanted.name
            && (stanza.arch == arch || stanza.arch == "all")
            && wanted.accepts(&stanza.version)
    };
    let all = || {
        listings
            .iter()
            .flat_map(|listing| listing.stanzas.iter().map(move |stanza| (listing, stanza)))
            .filter(|(_, stanza)| fits(stanza))
    };
    for (listing, stanza) in all() {
        let better = best.is_none_or(|(other, chosen)| {
            listing
                .automatic
                .cmp(&other.automatic)
                .then_with(|| version::compare(&stanza.version, &chosen.version))
                == Ordering::Greater
        });
        if better {
            best = Some((listing, stanza));
        }
    }
    let (_, stanza) = best?;
    Some(ChosenDeb {
        stanza,
        listings: all()
            .filter(|(_, other)| other.version == stanza.version && other.sha256 == stanza.sha256)
            .map(|(listing, _)| listing)
            .collect(),
        role: Role::Part,
    })
}

/// Returns other versions of the package, or similar names, for an error.
pub(super) fn nearest(listings: &[DebListing], wanted: &PackageQuery) -> String {
    const MOST: usize = 5;
    let stanzas = || listings.iter().flat_map(|listing| &listing.stanzas);
    let mut versions: Vec<&str> = stanzas()
        .filter(|stanza| stanza.package == wanted.name)
        .map(|stanza| stanza.version.as_str())
        .collect();
    versions.sort_by(|a, b| version::compare(b, a));
    versions.dedup();
    if !versions.is_empty() {
        versions.truncate(MOST);
        return format!("; its versions are {}", versions.join(", "));
    }
    let mut others: Vec<&str> = stanzas()
        .map(|stanza| stanza.package.as_str())
        .filter(|name| !name.ends_with("-unsigned"))
        .collect();
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

    fn stanza(package: &str, version: &str, depends: &str) -> Stanza {
        Stanza {
            package: package.into(),
            version: version.into(),
            arch: "amd64".into(),
            depends: super::super::relation::parse(depends),
            filename: format!("pool/{package}_{version}.deb"),
            size: 1,
            sha256: "0".repeat(64),
        }
    }

    fn repository() -> Repository {
        Repository {
            url: "https://example.org/".parse().unwrap(),
            layout: RepositoryFormat::Rpm,
            keys: Vec::new(),
            origin: RepositoryOrigin::Given,
            may_be_old: false,
        }
    }

    fn listing<'a>(
        repository: &'a Repository,
        automatic: bool,
        stanzas: Vec<Stanza>,
    ) -> DebListing<'a> {
        DebListing {
            repository,
            origin: "Debian".into(),
            automatic,
            stanzas,
        }
    }

    fn distribution() -> Distribution {
        Distribution {
            id: "debian".into(),
            release: "x".into(),
            arch: "x86_64".into(),
        }
    }

    fn choose<'a>(
        listings: &'a [DebListing<'a>],
        name: &str,
        version: Option<&str>,
    ) -> Result<Vec<String>, String> {
        let distribution = distribution();
        let wanted = PackageQuery {
            name,
            version,
            distribution: &distribution,
            arch: "amd64",
        };
        match kernel(listings, &wanted) {
            KernelPackages::Found(found) => Ok(found
                .iter()
                .map(|it| {
                    let mark = match it.role {
                        Role::Part => "",
                        Role::Lead => "→",
                        Role::Need => "+",
                    };
                    format!("{}{mark} {}", it.stanza.package, it.stanza.version)
                })
                .collect()),
            KernelPackages::Incomplete { missing, .. } => Err(format!("incomplete: {missing}")),
            KernelPackages::Nothing => Err(nearest(listings, &wanted)),
        }
    }

    #[test]
    fn debian() {
        let repository = repository();
        let listings = [
            listing(
                &repository,
                true,
                vec![
                    stanza(
                        "linux-image-cloud-amd64",
                        "6.1.176-1",
                        "linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)",
                    ),
                    stanza(
                        "linux-image-6.1.0-50-cloud-amd64",
                        "6.1.176-1",
                        "kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool",
                    ),
                    stanza("linux-base", "4.9", ""),
                ],
            ),
            listing(
                &repository,
                true,
                vec![
                    stanza(
                        "linux-image-cloud-amd64",
                        "6.1.192-2",
                        "linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)",
                    ),
                    stanza(
                        "linux-image-6.1.0-56-cloud-amd64",
                        "6.1.192-2",
                        "kmod, linux-base",
                    ),
                ],
            ),
            listing(
                &repository,
                false,
                vec![stanza(
                    "linux-image-cloud-amd64",
                    "6.12.1-1~bpo12+1",
                    "linux-image-6.12.1+bpo-cloud-amd64 (= 6.12.1-1~bpo12+1)",
                )],
            ),
        ];
        assert_eq!(
            choose(&listings, "linux-image-cloud-amd64", None).unwrap(),
            [
                "linux-image-cloud-amd64→ 6.1.192-2",
                "linux-image-6.1.0-56-cloud-amd64 6.1.192-2"
            ]
        );
        assert_eq!(
            choose(&listings, "linux-image-cloud-amd64", Some("6.1.176-1")).unwrap(),
            [
                "linux-image-cloud-amd64→ 6.1.176-1",
                "linux-image-6.1.0-50-cloud-amd64 6.1.176-1"
            ]
        );
        assert_eq!(
            choose(
                &listings,
                "linux-image-cloud-amd64",
                Some("6.12.1-1~bpo12+1")
            )
            .unwrap_err(),
            "incomplete: linux-image-6.12.1+bpo-cloud-amd64"
        );
        assert_eq!(
            choose(&listings, "linux-image-cloud-amd64", Some("5")).unwrap_err(),
            "; its versions are 6.12.1-1~bpo12+1, 6.1.192-2, 6.1.176-1"
        );
        assert_eq!(
            choose(&listings, "linux-image-6.1.0-51-cloud-amd64", None).unwrap_err(),
            "; similar names are linux-image-6.1.0-50-cloud-amd64, linux-image-6.1.0-56-cloud-amd64, linux-image-cloud-amd64"
        );
    }

    #[test]
    fn tools_for_a_backport_come_from_backports_too() {
        let repository = repository();
        let image = |name: &str, version: &str, needs: &str| stanza(name, version, needs);
        let listings = [
            listing(
                &repository,
                true,
                vec![
                    image("linux-image-6.1", "6.1-1", "kmod, linux-base (>= 4.3~)"),
                    stanza("linux-base", "4.9", ""),
                ],
            ),
            listing(
                &repository,
                false,
                vec![
                    image("linux-image-6.12", "6.12-1", "linux-base (>= 4.12~), kmod"),
                    stanza("linux-base", "4.12.1~bpo12+1", ""),
                ],
            ),
        ];
        assert_eq!(
            choose(&listings, "linux-image-6.12", None).unwrap(),
            ["linux-image-6.12 6.12-1", "linux-base+ 4.12.1~bpo12+1"]
        );
        assert_eq!(
            choose(&listings, "linux-image-6.1", None).unwrap(),
            ["linux-image-6.1 6.1-1"]
        );
    }

    #[test]
    fn debian_14_and_ubuntu_split_kernels() {
        let repository = repository();
        let debian = [listing(
            &repository,
            true,
            vec![
                stanza(
                    "linux-image-amd64",
                    "7.2.13-1",
                    "linux-base-amd64 (= 7.2.13-1), linux-image-7.2.13+deb14-amd64 (= 7.2.13-1)",
                ),
                stanza("linux-base-amd64", "7.2.13-1", ""),
                stanza(
                    "linux-image-7.2.13+deb14-amd64",
                    "7.2.13-1",
                    "dracut | linux-initramfs-tool, linux-base-7.2.13+deb14-amd64 (= 7.2.13-1), linux-binary-7.2.13+deb14-amd64 (= 7.2.13-1), linux-modules-7.2.13+deb14-amd64 (= 7.2.13-1)",
                ),
                stanza("linux-base-7.2.13+deb14-amd64", "7.2.13-1", ""),
                stanza("linux-binary-7.2.13+deb14-amd64", "7.2.13-1", ""),
                stanza(
                    "linux-modules-7.2.13+deb14-amd64",
                    "7.2.13-1",
                    "kmod, linux-base-7.2.13+deb14-amd64 (= 7.2.13-1)",
                ),
            ],
        )];
        let names: Vec<String> = choose(&debian, "linux-image-amd64", None)
            .unwrap()
            .iter()
            .map(|it| it.split(' ').next().unwrap().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "linux-image-amd64→",
                "linux-image-7.2.13+deb14-amd64",
                "linux-base-7.2.13+deb14-amd64",
                "linux-binary-7.2.13+deb14-amd64",
                "linux-modules-7.2.13+deb14-amd64"
            ]
        );
        let ubuntu = [listing(
            &repository,
            true,
            vec![
                stanza(
                    "linux-generic",
                    "6.8.0-31.31",
                    "linux-image-generic (= 6.8.0-31.31), linux-headers-generic (= 6.8.0-31.31)",
                ),
                stanza(
                    "linux-image-generic",
                    "6.8.0-31.31",
                    "linux-image-6.8.0-31-generic, linux-modules-extra-6.8.0-31-generic, linux-firmware",
                ),
                stanza(
                    "linux-image-6.8.0-31-generic",
                    "6.8.0-31.31",
                    "kmod, linux-base, linux-modules-6.8.0-31-generic",
                ),
                stanza("linux-modules-6.8.0-31-generic", "6.8.0-31.31", ""),
                stanza(
                    "linux-modules-extra-6.8.0-31-generic",
                    "6.8.0-31.31",
                    "linux-image-6.8.0-31-generic | linux-image-unsigned-6.8.0-31-generic",
                ),
            ],
        )];
        let names: Vec<String> = choose(&ubuntu, "linux-generic", None)
            .unwrap()
            .iter()
            .map(|it| it.split(' ').next().unwrap().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "linux-generic→",
                "linux-image-generic→",
                "linux-image-6.8.0-31-generic",
                "linux-modules-6.8.0-31-generic",
                "linux-modules-extra-6.8.0-31-generic"
            ]
        );
    }

    #[test]
    fn circles_end() {
        let repository = repository();
        let listings = [listing(
            &repository,
            true,
            vec![
                stanza("linux-image-a", "1", "linux-image-b"),
                stanza("linux-image-b", "1", "linux-image-a"),
            ],
        )];
        assert!(choose(&listings, "linux-image-a", None).is_ok());
    }
}
