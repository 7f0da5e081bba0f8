//! What unison is told, and what it says. Pure.

use std::{ffi::OsString, path::Path};

use crate::{machinefile::SyncFolder, sync::ignore::unison_regex};

/// The protocol that does not send OCaml's own values came with 2.52.
pub(super) fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= (2, 52),
        _ => false,
    }
}

/// Returns the arguments of `unison`.
pub(super) fn arguments(
    folder: &SyncFolder,
    machine: &str,
    connection: &Path,
    ignored: &[String],
) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![
        folder.from.clone().into_os_string(),
        format!("ssh://{machine}/{}", folder.to).into(),
    ];
    words.extend(["-sshcmd".into(), connection.into()]);
    let mut push = |text: &str| words.push(text.into());
    // No questions, and plain lines.
    for word in ["-ui", "text", "-batch", "-dumbtty", "-contactquietly"] {
        push(word);
    }
    push("-times");
    // If both sides changed a file, the newer version gets the name, and the older one is kept beside it.
    // If one side edited a file and the other deleted it, the edit is kept.
    for word in ["-prefer", "newer", "-copyonconflict"] {
        push(word);
    }
    // A file that the other side replaced or deleted is kept once, in `backup` beside the archives.
    for word in [
        "-backup",
        "Name *",
        "-backuploc",
        "central",
        "-maxbackups",
        "1",
    ] {
        push(word);
    }
    // If one side is suddenly empty, the other side is not emptied.
    push("-confirmbigdel");
    // The machine's lock is held, so a lock of unison's was left by one that was killed.
    push("-ignorelocks");
    push("-log=false");
    for pattern in &folder.exclude {
        push("-ignore");
        push(&format!("Regex {}", unison_regex(pattern)));
    }
    for regex in ignored {
        push("-ignore");
        push(&format!("Regex {regex}"));
    }
    words
}

/// Returns the paths of conflicts in unison's output: lines with a double arrow, `changed  <==== changed
/// PATH`, or with a question mark in the arrow, for files that it skipped.
pub(super) fn conflicts(said: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in said.split(['\n', '\r']) {
        let arrow = ["<====", "====>", "<-?->"]
            .iter()
            .find_map(|arrow| line.split_once(arrow));
        let Some((left, right)) = arrow else { continue };
        if left.len() > 12 {
            continue;
        }
        // One or two words in a column of fixed width, then the path and two spaces.
        let path = right.get(12..).unwrap_or(right).trim();
        if !path.is_empty() && !found.iter().any(|it| it == path) {
            found.push(path.to_string());
        }
    }
    found
}

/// Returns the paths of pipes, sockets and devices in unison's output: lines such as
/// `  skipped: run/sock (path /srv/app/run/sock has unknown file type)`.
pub(super) fn skipped(said: &str) -> Vec<String> {
    (said.split(['\n', '\r']))
        .filter_map(|line| {
            let rest = line.trim().strip_prefix("skipped: ")?;
            let rest = rest.strip_suffix(" has unknown file type)")?;
            Some(rest.split_once(" (path ")?.0.to_string())
        })
        .collect()
}

pub(super) fn last_words(said: &str) -> String {
    let lines: Vec<&str> = (said.split(['\n', '\r']))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(3)..].join(" ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::machinefile::SyncKind;

    pub(in crate::sync::two_way) fn folder() -> SyncFolder {
        SyncFolder {
            from: "/home/é b/app".into(),
            to: "/srv/app".into(),
            kind: SyncKind::TwoWay,
            exclude: vec![".git".into(), "/target/".into(), "*.o".into()],
            delete: true,
            gitignore: false,
            owner: None,
            readonly: false,
            watch: false,
            at: "Machinefile:3:5".into(),
        }
    }

    #[test]
    fn how_unison_is_run() {
        let words = arguments(
            &folder(),
            "web",
            Path::new("/home/é b/.local/share/stead/machines/1/unison/01234567/connection"),
            &["a".into()],
        );
        let words: Vec<_> = words.iter().map(|it| it.to_string_lossy()).collect();
        insta::assert_snapshot!(words.join("\n"));
    }

    #[test]
    fn conflicts_are_found_among_what_unison_says() {
        let said = "Looking for changes\n| m/1     \rReconciling changes\n\
            deleted  <==== chgd dir   d  \n\
            changed  <==== changed    with two words  \n\
            new dir  ---->            e  \n\
            new file <-?-> new file   n  \n\
            changed  ====> deleted    h  \n\
            [END] Copying <==== odd\n";
        assert_eq!(conflicts(said), ["d", "with two words", "n", "h"]);
    }

    #[test]
    fn what_unison_skips_is_found() {
        let said = "Synchronization complete at 18:05:40  (0 items transferred, 3 skipped, 0 failed)\n  \
            skipped: a pipe (path /srv/app/a pipe has unknown file type)\n  \
            skipped: f (contents changed on both sides)\n  \
            skipped: run/sock (path /srv/app/run/sock has unknown file type)\n";
        assert_eq!(skipped(said), ["a pipe", "run/sock"]);
    }

    #[test]
    fn versions_that_take_ocamls_values_are_refused() {
        for (version, wanted) in [
            ("2.52.1", true),
            ("2.53.7", true),
            ("3.0", true),
            ("2.51.5", false),
            ("2.48.4", false),
            ("new", false),
        ] {
            assert_eq!(is_new_enough(version), wanted, "{version}");
        }
    }
}
