//! ansible-playbook's arguments and environment. Pure.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::machinefile::Playbook;

/// The paths in a run's arguments: of the host, or of a guest.
#[derive(Debug, Default)]
pub(super) struct Paths {
    pub playbook: PathBuf,
    pub inventory: PathBuf,
    /// The extra variables of the Machinefile, if there are any.
    pub vars: Option<PathBuf>,
    pub vars_files: Vec<PathBuf>,
    /// The password files, in the order of the playbook's.
    pub vault: Vec<PathBuf>,
}

/// Returns the arguments of ansible-playbook. They have only paths and plain settings: the values of
/// variables, and passwords, are in files, since every user of a host can read arguments.
pub(super) fn arguments(playbook: &Playbook, paths: &Paths, limit: &[&str]) -> Vec<String> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let mut words = vec!["--inventory".to_string(), path(&paths.inventory)];
    let mut option = |name: &str, value: String| {
        words.push(name.to_string());
        words.push(value);
    };
    if !limit.is_empty() {
        option("--limit", limit.join(","));
    }
    // The last one takes precedence, so the Machinefile's own variables override those in files.
    for file in paths.vars_files.iter().chain(&paths.vars) {
        option("--extra-vars", format!("@{}", path(file)));
    }
    if !playbook.tags.is_empty() {
        option("--tags", playbook.tags.join(","));
    }
    if !playbook.skip_tags.is_empty() {
        option("--skip-tags", playbook.skip_tags.join(","));
    }
    if let Some(user) = &playbook.become_user {
        option("--become-user", user.clone());
    }
    for (vault, file) in playbook.vault.iter().zip(&paths.vault) {
        match &vault.id {
            Some(id) => option("--vault-id", format!("{id}@{}", path(file))),
            None => option("--vault-password-file", path(file)),
        }
    }
    if playbook.r#become {
        words.push("--become".into());
    }
    if playbook.verbosity > 0 {
        words.push(format!("-{}", "v".repeat(playbook.verbosity.into())));
    }
    words.extend(playbook.arguments.iter().cloned());
    words.push(path(&paths.playbook));
    words
}

/// Returns those settings of a playbook that are part of its digest, with paths relative to the project's
/// root.
pub fn settings(playbook: &Playbook) -> serde_json::Value {
    let below = |path: &PathBuf| {
        path.strip_prefix(&playbook.root)
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned()
    };
    // The passwords are not part of the digest; their ids and their order are.
    let vault: Vec<_> = playbook.vault.iter().map(|vault| &vault.id).collect();
    json!({
        "playbook": below(&playbook.playbook),
        "vars": playbook.vars.to_json(),
        "vars_files": playbook.vars_files.iter().map(below).collect::<Vec<_>>(),
        "tags": playbook.tags,
        "skip_tags": playbook.skip_tags,
        "become": playbook.r#become,
        "become_user": playbook.become_user,
        "vault": vault,
        "verbosity": playbook.verbosity,
        "arguments": playbook.arguments,
        "requirements": playbook.requirements.as_ref().map(below),
        "config": playbook.config.as_ref().map(below),
    })
}

/// The oldest `ansible-core` that stead works with.
const OLDEST: (u32, u32) = (2, 14);

/// Whether a version such as `2.14.18` or `2.19.0rc1` is new enough; `None` if it is not a version.
pub(super) fn is_new_enough(version: &str) -> Option<bool> {
    let mut numbers = version.split('.');
    let mut next = || {
        let part = numbers.next()?;
        let digits = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part[..digits].parse::<u32>().ok()
    };
    Some((next()?, next()?) >= OLDEST)
}

/// Returns the version in the first line of `ansible-playbook --version`: `ansible-playbook [core
/// 2.14.18]` or, before 2.11, `ansible-playbook 2.9.27`.
pub(super) fn version_in(line: &str) -> Option<String> {
    line.split_whitespace()
        .map(|word| word.trim_end_matches(']'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machinefile::VaultPassword, provision::ansible::files::tests::playbook};

    #[test]
    fn a_plain_run_is_short() {
        let run = playbook(Path::new("/shop"), "site.yml");
        let paths = Paths {
            playbook: "/shop/site.yml".into(),
            inventory: "/run/i.json".into(),
            ..Paths::default()
        };
        assert_eq!(
            arguments(&run, &paths, &["web"]).join(" "),
            "--inventory /run/i.json --limit web /shop/site.yml"
        );
    }

    #[test]
    fn everything_that_can_be_said_is_passed_on_and_no_value() {
        let mut run = playbook(Path::new("/shop"), "site.yml");
        run.vars.0.insert("token".into(), "s3cret".into());
        run.tags = vec!["a".into(), "b".into()];
        run.skip_tags = vec!["slow".into()];
        run.r#become = true;
        run.become_user = Some("postgres".into());
        run.verbosity = 3;
        run.arguments = vec!["--diff".into()];
        run.vault = vec![
            VaultPassword {
                id: None,
                file: "/v/plain".into(),
            },
            VaultPassword {
                id: Some("dev".into()),
                file: "/v/dev".into(),
            },
        ];
        let paths = Paths {
            playbook: "/shop/site.yml".into(),
            inventory: "/run/i.json".into(),
            vars: Some("/run/vars.json".into()),
            vars_files: vec!["/shop/more.yml".into()],
            vault: vec!["/v/plain".into(), "/v/dev".into()],
        };
        let said = arguments(&run, &paths, &["db", "web"]).join(" ");
        assert_eq!(
            said,
            "--inventory /run/i.json --limit db,web --extra-vars @/shop/more.yml --extra-vars @/run/vars.json \
             --tags a,b --skip-tags slow --become-user postgres --vault-password-file /v/plain --vault-id dev@/v/dev \
             --become -vvv --diff /shop/site.yml"
        );
    }

    #[test]
    fn versions() {
        assert_eq!(
            version_in("ansible-playbook [core 2.14.18]").unwrap(),
            "2.14.18"
        );
        assert_eq!(version_in("ansible-playbook 2.9.27").unwrap(), "2.9.27");
        assert_eq!(version_in("what"), None);
        assert_eq!(is_new_enough("2.14.18"), Some(true));
        assert_eq!(is_new_enough("2.19.0rc1"), Some(true));
        assert_eq!(is_new_enough("3.0"), Some(true));
        assert_eq!(is_new_enough("2.9.27"), Some(false));
        assert_eq!(is_new_enough("2"), None);
    }
}
