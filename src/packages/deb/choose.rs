//! Which packages make up the kernel that a name stands for. Pure.
//!
//! Names of kernel packages, as Debian and Ubuntu have them:
//!
//! - `linux-image-RELEASE` holds the image, and in Debian all else
//! - Ubuntu has the rest in `linux-modules-RELEASE` and `linux-modules-extra-RELEASE`; Debian from
//!   14 on has `linux-binary-RELEASE`, `linux-modules-RELEASE` and `linux-base-RELEASE`
//! - `linux-image-amd64`, `linux-generic` and their like hold nothing and depend on the newest

use std::cmp::Ordering;

use crate::host::names;

use super::{
    super::{Repository, Wanted},
    relation::Relation,
    stanza::Stanza,
    version,
};

/// What a repository has of kernels, and of the name that was asked for.
pub struct Shelf<'a> {
    pub repository: &'a Repository,
    /// As it says it itself: "Debian".
    pub origin: String,
    /// Not so where apt takes from it only what is asked for by name, such as backports.
    pub automatic: bool,
    pub stanzas: Vec<Stanza>,
}

impl Shelf<'_> {
    /// Whether it is the distribution's own, or a mirror of it ("Debian Backports" is one, too).
    pub fn is_of(&self, id: &str) -> bool {
        let first = self.origin.split(' ').next().unwrap_or_default();
        first.eq_ignore_ascii_case(id)
    }
}

/// A package, and all shelves that have it.
#[derive(Clone)]
pub struct Chosen<'a> {
    pub stanza: &'a Stanza,
    pub shelves: Vec<&'a Shelf<'a>>,
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Holds some of the kernel.
    Part,
    /// Only led to others.
    Lead,
    /// Has to be there to install the kernel.
    Need,
}

pub enum Choice<'a> {
    /// What was asked for comes first.
    Packages(Vec<Chosen<'a>>),
    /// It is there, and what it needs is not.
    Incomplete {
        package: String,
        version: String,
        missing: String,
    },
    Nothing,
}

/// What runs as a kernel's package is installed.
const TOOLS: &str = "linux-base";

/// Packages that depend on packages that depend …: more than any archive has.
const DEEPEST: usize = 8;

pub fn kernel<'a>(shelves: &'a [Shelf<'a>], wanted: &Wanted) -> Choice<'a> {
    let asked = match wanted.version {
        Some(version) => Relation::exactly(wanted.name, version),
        None => Relation::any(wanted.name),
    };
    let Some(mut image) = best(shelves, &asked, wanted.arch) else {
        return Choice::Nothing;
    };
    // From a package that names the newest to that one.
    let mut led: Vec<Chosen> = Vec::new();
    while let Some(next) = image.stanza.depends.iter().find(|group| {
        group.iter().any(|it| is_image(&it.name)) && !of(group, release(image.stanza))
    }) {
        if led.len() == DEEPEST {
            break;
        }
        let Some(found) = next.iter().find_map(|it| best(shelves, it, wanted.arch)) else {
            return incomplete(image.stanza, next);
        };
        image.role = Role::Lead;
        led.push(std::mem::replace(&mut image, found));
    }
    let release = release(image.stanza);
    // It, and what of the same release it needs.
    let mut parts = vec![image];
    let mut at = 0;
    while at < parts.len() {
        let stanza = parts[at].stanza;
        for group in &stanza.depends {
            if !of(group, release) {
                continue;
            }
            let Some(found) = group.iter().find_map(|it| best(shelves, it, wanted.arch)) else {
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
    // Only suggested by it, and what a kernel in use on a server often has.
    let version = &parts[0].stanza.version;
    if let Some(release) = release
        && let Some(extra) = best(
            shelves,
            &Relation::exactly(&format!("linux-modules-extra-{release}"), version),
            wanted.arch,
        )
        && !parts
            .iter()
            .any(|it| it.stanza.package == extra.stanza.package)
    {
        parts.push(extra);
    }
    // Backports want newer tools than the release has, and apt does not take them by itself.
    let needs = parts
        .iter()
        .flat_map(|part| &part.stanza.depends)
        .flatten()
        .find(|it| it.name == TOOLS && it.versions.is_some())
        .and_then(|it| best(shelves, it, wanted.arch))
        .filter(|found| found.shelves.iter().all(|shelf| !shelf.automatic))
        .map(|found| Chosen {
            role: Role::Need,
            ..found
        });
    led.extend(parts);
    led.extend(needs);
    Choice::Packages(led)
}

fn incomplete<'a>(stanza: &Stanza, missing: &[Relation]) -> Choice<'a> {
    let names: Vec<&str> = missing.iter().map(|it| it.name.as_str()).collect();
    Choice::Incomplete {
        package: stanza.package.clone(),
        version: stanza.version.clone(),
        missing: names.join(" or "),
    }
}

fn is_image(name: &str) -> bool {
    name.starts_with("linux-image-")
}

/// `6.1.0-47-cloud-amd64` of a package that is called by it.
fn release(stanza: &Stanza) -> Option<&str> {
    let release = stanza.package.strip_prefix("linux-image-")?;
    let release = release.strip_prefix("unsigned-").unwrap_or(release);
    Some(release.strip_suffix("-unsigned").unwrap_or(release))
}

/// Whether these are packages of that release.
fn of(group: &[Relation], release: Option<&str>) -> bool {
    release.is_some_and(|release| {
        group.iter().any(|it| {
            it.name.strip_suffix(release).is_some_and(|rest| {
                // `linux-image-6.1.0-47-` is a release that only ends as that one.
                rest.starts_with("linux-")
                    && rest.ends_with('-')
                    && !rest.contains(|c: char| c.is_ascii_digit())
            })
        })
    })
}

/// The newest that will do, from where apt would take it; the first of the same.
fn best<'a>(shelves: &'a [Shelf<'a>], wanted: &Relation, arch: &str) -> Option<Chosen<'a>> {
    let mut best: Option<(&Shelf, &Stanza)> = None;
    let fits = |stanza: &&Stanza| {
        stanza.package == wanted.name
            && (stanza.arch == arch || stanza.arch == "all")
            && wanted.takes(&stanza.version)
    };
    let all = || {
        shelves
            .iter()
            .flat_map(|shelf| shelf.stanzas.iter().map(move |stanza| (shelf, stanza)))
            .filter(|(_, stanza)| fits(stanza))
    };
    for (shelf, stanza) in all() {
        let better = best.is_none_or(|(other, chosen)| {
            shelf
                .automatic
                .cmp(&other.automatic)
                .then_with(|| version::compare(&stanza.version, &chosen.version))
                == Ordering::Greater
        });
        if better {
            best = Some((shelf, stanza));
        }
    }
    let (_, stanza) = best?;
    Some(Chosen {
        stanza,
        shelves: all()
            .filter(|(_, other)| other.version == stanza.version && other.sha256 == stanza.sha256)
            .map(|(shelf, _)| shelf)
            .collect(),
        role: Role::Part,
    })
}

/// What is there instead, for an error: other versions, or similar names.
pub fn nearest(shelves: &[Shelf], wanted: &Wanted) -> String {
    const MOST: usize = 5;
    let stanzas = || shelves.iter().flat_map(|shelf| &shelf.stanzas);
    let mut versions: Vec<&str> = stanzas()
        .filter(|stanza| stanza.package == wanted.name)
        .map(|stanza| stanza.version.as_str())
        .collect();
    versions.sort_by(|a, b| version::compare(b, a));
    versions.dedup();
    if !versions.is_empty() {
        versions.truncate(MOST);
        return format!(
            "; there is {}",
            names::one_of(&versions).replace(" or ", " and ")
        );
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
        near => format!("; near to that are {}", near.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::{Distribution, Layout, Origin};

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
            layout: Layout::Rpm,
            keys: Vec::new(),
            origin: Origin::Given,
            may_be_old: false,
        }
    }

    fn shelf<'a>(repository: &'a Repository, automatic: bool, stanzas: Vec<Stanza>) -> Shelf<'a> {
        Shelf {
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
        shelves: &'a [Shelf<'a>],
        name: &str,
        version: Option<&str>,
    ) -> Result<Vec<String>, String> {
        let distribution = distribution();
        let wanted = Wanted {
            name,
            version,
            distribution: &distribution,
            arch: "amd64",
        };
        match kernel(shelves, &wanted) {
            Choice::Packages(found) => Ok(found
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
            Choice::Incomplete { missing, .. } => Err(format!("incomplete: {missing}")),
            Choice::Nothing => Err(nearest(shelves, &wanted)),
        }
    }

    #[test]
    fn debian() {
        let repository = repository();
        let shelves = [
            shelf(
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
            shelf(
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
            shelf(
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
            choose(&shelves, "linux-image-cloud-amd64", None).unwrap(),
            [
                "linux-image-cloud-amd64→ 6.1.192-2",
                "linux-image-6.1.0-56-cloud-amd64 6.1.192-2"
            ]
        );
        assert_eq!(
            choose(&shelves, "linux-image-cloud-amd64", Some("6.1.176-1")).unwrap(),
            [
                "linux-image-cloud-amd64→ 6.1.176-1",
                "linux-image-6.1.0-50-cloud-amd64 6.1.176-1"
            ]
        );
        assert_eq!(
            choose(
                &shelves,
                "linux-image-cloud-amd64",
                Some("6.12.1-1~bpo12+1")
            )
            .unwrap_err(),
            "incomplete: linux-image-6.12.1+bpo-cloud-amd64"
        );
        assert_eq!(
            choose(&shelves, "linux-image-cloud-amd64", Some("5")).unwrap_err(),
            "; there is 6.12.1-1~bpo12+1, 6.1.192-2 and 6.1.176-1"
        );
        assert_eq!(
            choose(&shelves, "linux-image-6.1.0-51-cloud-amd64", None).unwrap_err(),
            "; near to that are linux-image-6.1.0-50-cloud-amd64, linux-image-6.1.0-56-cloud-amd64, linux-image-cloud-amd64"
        );
    }

    #[test]
    fn what_installs_a_backport_comes_boxes_from_too() {
        let repository = repository();
        let image = |name: &str, version: &str, needs: &str| stanza(name, version, needs);
        let shelves = [
            shelf(
                &repository,
                true,
                vec![
                    image("linux-image-6.1", "6.1-1", "kmod, linux-base (>= 4.3~)"),
                    stanza("linux-base", "4.9", ""),
                ],
            ),
            shelf(
                &repository,
                false,
                vec![
                    image("linux-image-6.12", "6.12-1", "linux-base (>= 4.12~), kmod"),
                    stanza("linux-base", "4.12.1~bpo12+1", ""),
                ],
            ),
        ];
        assert_eq!(
            choose(&shelves, "linux-image-6.12", None).unwrap(),
            ["linux-image-6.12 6.12-1", "linux-base+ 4.12.1~bpo12+1"]
        );
        assert_eq!(
            choose(&shelves, "linux-image-6.1", None).unwrap(),
            ["linux-image-6.1 6.1-1"]
        );
    }

    #[test]
    fn debian_14_and_ubuntu_split_kernels() {
        let repository = repository();
        let debian = [shelf(
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
        let ubuntu = [shelf(
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
        let shelves = [shelf(
            &repository,
            true,
            vec![
                stanza("linux-image-a", "1", "linux-image-b"),
                stanza("linux-image-b", "1", "linux-image-a"),
            ],
        )];
        assert!(choose(&shelves, "linux-image-a", None).is_ok());
    }
}
