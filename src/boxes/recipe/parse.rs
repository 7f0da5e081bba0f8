//! Parses a recipe.kdl.

use std::path::{Component, Path, PathBuf};

use kdl::{KdlDocument, KdlNode, KdlValue};
use reqwest::Url;

use crate::{
    boxes::seed::SeedKind,
    host::{
        self,
        names::{check_user, is_name},
    },
    report::clean::is_unseen,
};

use super::{
    distribution::{self, Tool},
    embedded::guest_names,
    model::{KeyFile, PackageSource, Recipe},
};

const KNOWN: [&str; 11] = [
    "name",
    "distribution",
    "suite",
    "repository",
    "key",
    "seed",
    "login-user",
    "boot",
    "disk",
    "packages",
    "guest",
];
/// Those of them that may be repeated.
const REPEATED: [&str; 4] = ["repository", "key", "packages", "guest"];

/// Parses the text of a recipe.kdl in `folder`. The error is one sentence.
pub(in crate::boxes) fn parse(text: &str, folder: &Path) -> Result<Recipe, String> {
    let document: KdlDocument = host::kdl::parse(text).map_err(|mistakes| {
        let line = mistakes.first.line(text);
        format!("line {line}: {}", mistakes.first.sentence())
    })?;
    check_nodes(&document)?;
    let name = one(&document, "name")?;
    check_name("name", &name)?;
    let seed = match one(&document, "seed")?.as_str() {
        "credentials" => SeedKind::Credentials,
        "cloud-init" => SeedKind::CloudInit,
        other => {
            return Err(format!(
                "unknown seed {other:?}, expected credentials or cloud-init"
            ));
        }
    };
    let cmdline = cmdline(&document)?;
    let disk = one(&document, "disk")?;
    let disk = disk
        .strip_suffix("GiB")
        .and_then(|number| number.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(1 << 30))
        .ok_or(format!("disk {disk:?} is not a size such as \"10GiB\""))?;
    let packages = all(&document, "packages")?;
    for package in &packages {
        if !is_package(package) {
            return Err(format!("{package:?} is not a package name"));
        }
    }
    let guest = all(&document, "guest")?;
    for name in &guest {
        if !guest_names().any(|known| known == name) {
            return Err(format!(
                "stead has no guest file {name:?}, expected one of: {}",
                guest_names().collect::<Vec<_>>().join(", ")
            ));
        }
    }
    let login_user = one(&document, "login-user")?;
    check_user("login-user", &login_user)?;
    let (distribution, release) = release(&document)?;
    let repositories = (nodes(&document, "repository"))
        .map(|node| repository(node, &release))
        .collect::<Result<Vec<_>, _>>()?;
    let keys = nodes(&document, "key")
        .map(key)
        .collect::<Result<Vec<_>, _>>()?;
    for (is_there, node, form) in [
        (
            !repositories.is_empty(),
            "repository",
            "NAME\" \"https://…\"",
        ),
        (!keys.is_empty(), "key", "FILE\" \"FINGERPRINT\""),
    ] {
        match (distribution.tool, is_there) {
            (Tool::Mmdebstrap, true) => {
                return Err(format!(
                    "`{node}` is not for {}, whose servers and keys mmdebstrap knows",
                    distribution.id
                ));
            }
            (Tool::Mmdebstrap, false) | (_, true) => {}
            (_, false) => {
                return Err(format!(
                    "it has no `{node}`, which {} needs: write `{node} \"{form}`",
                    distribution.id
                ));
            }
        }
    }
    for (n, repository) in repositories.iter().enumerate() {
        if repositories[..n]
            .iter()
            .any(|other| other.name == repository.name)
        {
            return Err(format!("two repositories are named {:?}", repository.name));
        }
    }
    Ok(Recipe {
        folder: folder.to_path_buf(),
        name,
        distribution: distribution.id.to_string(),
        tool: distribution.tool,
        release,
        repositories,
        keys,
        seed,
        login_user,
        cmdline,
        disk,
        packages,
        guest,
    })
}

fn check_nodes(document: &KdlDocument) -> Result<(), String> {
    for node in document.nodes() {
        let name = node.name().value();
        if !KNOWN.contains(&name) {
            return Err(format!(
                "unknown node {name:?}, expected one of: {}",
                KNOWN.join(", ")
            ));
        }
        let properties: &[&str] = match name {
            "boot" => &["cmdline"],
            "distribution" => &["release"],
            _ => &[],
        };
        for property in node.entries().iter().filter_map(|entry| entry.name()) {
            if !properties.contains(&property.value()) {
                return Err(format!(
                    "`{name}` has no property {:?}{}",
                    property.value(),
                    match properties {
                        [] => String::new(),
                        known => format!(", expected {}", known.join(", ")),
                    }
                ));
            }
        }
    }
    for name in KNOWN.iter().filter(|name| !REPEATED.contains(name)) {
        let count = nodes(document, name).count();
        if count > 1 {
            return Err(format!("`{name}` occurs {count} times, expected once"));
        }
    }
    Ok(())
}

fn nodes<'a>(document: &'a KdlDocument, name: &'a str) -> impl Iterator<Item = &'a KdlNode> {
    (document.nodes().iter()).filter(move |node| node.name().value() == name)
}

fn one(document: &KdlDocument, name: &str) -> Result<String, String> {
    let node = document.get(name).ok_or(format!("it has no `{name}`"))?;
    words(node)?
        .into_iter()
        .next()
        .ok_or(format!("`{name}` needs a value"))
}

fn all(document: &KdlDocument, name: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for node in nodes(document, name) {
        found.extend(words(node)?);
    }
    Ok(found)
}

fn words(node: &KdlNode) -> Result<Vec<String>, String> {
    node.entries()
        .iter()
        .filter(|entry| entry.name().is_none())
        .map(|entry| {
            entry
                .value()
                .as_string()
                .map(str::to_string)
                .ok_or(format!("`{}` takes strings", node.name().value()))
        })
        .collect()
}

/// Names become arguments of tools, some of which run what their options say, and file names.
fn check_name(what: &str, word: &str) -> Result<(), String> {
    if is_name(word) {
        return Ok(());
    }
    Err(format!(
        "{what} {word:?} is not valid: letters, digits and - . _ + ~ are allowed, but not - or . at the start"
    ))
}

fn is_package(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && (word.chars()).all(|c| c.is_ascii_alphanumeric() || "+-.:_".contains(c))
}

fn cmdline(document: &KdlDocument) -> Result<Option<String>, String> {
    let cmdline = match one(document, "boot")?.as_str() {
        "bootloader" => return Ok(None),
        "direct" => document
            .get("boot")
            .and_then(|node| node.get("cmdline"))
            .and_then(KdlValue::as_string)
            .ok_or("`boot \"direct\"` needs cmdline=\"…\"")?,
        other => {
            return Err(format!(
                "unknown boot {other:?}, expected direct or bootloader"
            ));
        }
    };
    if cmdline.contains(is_unseen) {
        return Err(format!(
            "the cmdline {cmdline:?} has characters that cannot be seen"
        ));
    }
    Ok(Some(cmdline.to_string()))
}

fn release(
    document: &KdlDocument,
) -> Result<(&'static distribution::Distribution, String), String> {
    if document.get("suite").is_some() {
        if document.get("distribution").is_some() {
            return Err(
                "`suite` is short for `distribution \"debian\" release=…`: write one of them"
                    .to_string(),
            );
        }
        let suite = one(document, "suite")?;
        check_name("suite", &suite)?;
        return Ok((distribution::find("debian")?, suite));
    }
    let found = distribution::find(&one(document, "distribution")?)?;
    let release = (document.get("distribution"))
        .and_then(|node| node.get("release"))
        .map(|value| value.as_string().ok_or("`release` takes a string"))
        .transpose()?;
    match (release, found.releases) {
        (Some(release), true) => {
            check_name("release", release)?;
            Ok((found, release.to_string()))
        }
        (None, false) => Ok((found, String::new())),
        (None, true) => Err(format!("`distribution {:?}` needs release=\"…\"", found.id)),
        (Some(_), false) => Err(format!(
            "{} has no releases: write `distribution {:?}`",
            found.id, found.id
        )),
    }
}

fn repository(node: &KdlNode, release: &str) -> Result<PackageSource, String> {
    let words = words(node)?;
    let [name, address] = words.as_slice() else {
        return Err(
            "`repository` takes a name and an address: `repository \"base\" \"https://…\"`"
                .to_string(),
        );
    };
    check_name("repository", name)?;
    // Sections of their settings.
    if ["main", "options"].contains(&name.as_str()) {
        return Err(format!(
            "repository {name:?} is not valid: dnf and pacman keep that name for themselves"
        ));
    }
    // The variables of dnf and zypper, and those of pacman.
    let arch = std::env::consts::ARCH;
    let mut filled = address.clone();
    for (variable, value) in [
        ("$releasever", release),
        ("$basearch", arch),
        ("$repo", name),
        ("$arch", arch),
    ] {
        filled = filled.replace(variable, value);
    }
    // dnf takes several addresses with commas between them, of which only the first would be judged; zypper takes settings
    // of the connection in a query (libzypp's Url). `Url` drops line breaks.
    let is_one = !filled.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control());
    let url = Url::parse(&filled).ok().filter(|url| {
        is_one
            && ["http", "https"].contains(&url.scheme())
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    match url {
        Some(url) => Ok(PackageSource {
            name: name.clone(),
            url,
        }),
        None => Err(format!(
            "the address {address:?} of repository {name:?} is not valid: expected one address, https://… or http://…, without `?` and `#`"
        )),
    }
}

fn key(node: &KdlNode) -> Result<KeyFile, String> {
    let mut words = words(node)?.into_iter();
    let file = words
        .next()
        .ok_or("`key` needs a file, and may have fingerprints: `key \"FILE\" \"FINGERPRINT\"`")?;
    let path = PathBuf::from(&file);
    let fingerprints = words
        .map(|word| fingerprint(&word))
        .collect::<Result<Vec<_>, _>>()?;
    if path.is_absolute() {
        // Its content is the host's, and may change.
        if fingerprints.is_empty() {
            return Err(format!(
                "key {file:?} is not in the recipe's folder, so it needs the fingerprints of the keys that count"
            ));
        }
    } else if file.is_empty()
        || !path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(format!(
            "key {file:?} is not valid: expected a file in the recipe's folder, or an absolute path"
        ));
    }
    Ok(KeyFile { path, fingerprints })
}

/// Returns a fingerprint of version 4 or 6 (RFC 9580, section 5.5.4) in lower-case hex digits.
fn fingerprint(word: &str) -> Result<String, String> {
    let digits: String = word.split_whitespace().collect();
    if ![40, 64].contains(&digits.len()) || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(format!(
            "{word:?} is not a fingerprint: expected 40 or 64 hex digits (`gpg --show-keys FILE` prints them)"
        ));
    }
    Ok(digits.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_recipe_is_reported() {
        let error = parse("name \"x\"\ncolour \"red\"\n", Path::new("/r")).unwrap_err();
        assert!(
            error.contains("colour") && error.contains("packages"),
            "{error}"
        );
        let error = parse("name \"x\"\n", Path::new("/r")).unwrap_err();
        assert!(error.contains("seed"), "{error}");
        let user = "name \"x\"\nsuite \"s\"\nseed \"cloud-init\"\nboot \"bootloader\"\ndisk \"1GiB\"\nlogin-user \"{{x}}\"\n";
        let error = parse(user, Path::new("/r")).unwrap_err();
        assert!(error.contains("not a valid user name"), "{error}");
        let valid = "name \"x\"\nsuite \"bookworm\"\nseed \"cloud-init\"\nboot \"direct\" cmdline=\"quiet\"\ndisk \"1GiB\"\nlogin-user \"me\"\n";
        parse(valid, Path::new("/r")).unwrap();
        for (good, bad, says) in [
            (
                "bookworm",
                "--setup-hook=id",
                "suite \"--setup-hook=id\" is not valid",
            ),
            ("bookworm", "a b", "suite \"a b\" is not valid"),
            ("\"x\"", "\"../../x\"", "name \"../../x\" is not valid"),
            ("\"x\"", "\"x\\u{1b}[31m\"", "is not valid"),
            ("quiet", "quiet\\n", "cannot be seen"),
            (
                "login-user",
                "name \"y\"\nlogin-user",
                "`name` occurs 2 times",
            ),
        ] {
            let error = parse(&valid.replacen(good, bad, 1), Path::new("/r")).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
        let error = parse("name \"x\"\nseed = \"y\"\n", Path::new("/r")).unwrap_err();
        assert_eq!(
            error,
            "line 2: `seed` takes its value without `=`: write `seed \"y\"`"
        );
    }

    const ALMA: &str = "name \"x\"\ndistribution \"almalinux\" release=\"9\"\n\
        repository \"base\" \"https://e.org/$releasever/$repo/$basearch/os/\"\n\
        key \"keys/a.asc\" \"BF18 AC28 7617 8908 D6E7 1267 D36C B86C B86B 3716\"\n\
        seed \"credentials\"\nboot \"bootloader\"\ndisk \"1GiB\"\nlogin-user \"me\"\n";

    #[test]
    fn a_recipe_names_its_distribution() {
        let recipe = parse(ALMA, Path::new("/r")).unwrap();
        assert_eq!((recipe.tool, recipe.release.as_str()), (Tool::Dnf, "9"));
        let address = format!("https://e.org/9/base/{}/os/", std::env::consts::ARCH);
        assert_eq!(recipe.repositories[0].url.as_str(), address);
        assert_eq!(
            recipe.keys[0].fingerprints,
            ["bf18ac2876178908d6e71267d36cb86cb86b3716"]
        );
        let long = "distribution \"debian\" release=\"bookworm\"";
        let debian = |node| {
            format!(
                "name \"x\"\n{node}\nseed \"credentials\"\nboot \"bootloader\"\ndisk \"1GiB\"\nlogin-user \"me\"\n"
            )
        };
        assert_eq!(
            parse(&debian(long), Path::new("/r")).unwrap(),
            parse(&debian("suite \"bookworm\""), Path::new("/r")).unwrap()
        );
    }

    #[test]
    fn a_mistake_of_a_distribution_is_reported() {
        for (good, bad, says) in [
            (
                "almalinux",
                "alpine",
                "unknown distribution \"alpine\", expected one of: debian,",
            ),
            (
                " release=\"9\"",
                "",
                "`distribution \"almalinux\"` needs release",
            ),
            ("\"almalinux\"", "\"arch\"", "arch has no releases"),
            (
                "release=\"9\"",
                "release=\"--x\"",
                "release \"--x\" is not valid",
            ),
            (
                "release=",
                "suite=",
                "`distribution` has no property \"suite\", expected release",
            ),
            (
                "repository",
                "guest \"stead-seed\" //",
                "it has no `repository`, which almalinux needs",
            ),
            (
                "key",
                "guest \"stead-seed\" //",
                "it has no `key`, which almalinux needs",
            ),
            ("https", "file", "the address \"file://e.org"),
            ("$basearch/os/", "x,http://e.net", "expected one address"),
            ("$basearch/os/", "os?proxy=e.net", "expected one address"),
            ("$basearch/os/", "a b", "expected one address"),
            ("\"base\"", "\"main\"", "dnf and pacman keep that name"),
            ("\"base\"", "\"a]b\"", "repository \"a]b\" is not valid"),
            ("\"base\" ", "", "`repository` takes a name and an address"),
            ("keys/a.asc", "../a.asc", "key \"../a.asc\" is not valid"),
            ("3716\"", "37\"", "is not a fingerprint"),
            ("seed", "suite \"x\"\nseed", "write one of them"),
            (
                "seed",
                "packages \"-x\"\nseed",
                "\"-x\" is not a package name",
            ),
            (
                "\"almalinux\"",
                "\"ubuntu\"",
                "`repository` is not for ubuntu, whose servers and keys mmdebstrap knows",
            ),
            (
                "seed",
                "key \"/usr/share/a.gpg\"\nseed",
                "needs the fingerprints of the keys that count",
            ),
            (
                "seed",
                "repository \"base\" \"https://e.org\"\nseed",
                "two repositories are named \"base\"",
            ),
        ] {
            assert!(ALMA.contains(good), "{good}");
            let error = parse(&ALMA.replacen(good, bad, 1), Path::new("/r")).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
