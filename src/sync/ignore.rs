//! Translates patterns of rsync and git for unison: to regular expressions over whole paths, relative
//! to the folder. Everything below an ignored folder is ignored too.

use std::{fs, path::Path};

use crate::host::open;

use super::filter::LARGEST;

/// Translates a pattern of rsync's (rsync(1), "PATTERN MATCHING RULES"): with a slash at its start it is
/// anchored at the folder, otherwise it matches the end of any path.
pub(super) fn unison_regex(pattern: &str) -> String {
    let body = pattern.trim_end_matches('/');
    match body.strip_prefix('/') {
        Some(anchored) => regex(anchored),
        None => format!("(.*/)?{}", regex(body)),
    }
}

/// Returns the patterns of a folder's `.gitignore` files (gitignore(5)). Negated patterns (`!`) are
/// skipped: unison would have to scan ignored folders for such exceptions.
pub(super) fn git_ignores(folder: &Path) -> Vec<String> {
    let mut found = vec![unison_regex(".git")];
    walk(folder, "", &mut found);
    found
}

fn walk(folder: &Path, below: &str, found: &mut Vec<String>) {
    if let Ok(text) = open::text(&folder.join(".gitignore"), LARGEST) {
        found.extend(text.lines().filter_map(|line| git_regex(line, below)));
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some(name) = entry.file_name().to_str().map(str::to_string) else {
            continue;
        };
        if name != ".git" && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), &format!("{below}{name}/"), found);
        }
    }
}

/// Translates a line of a `.gitignore` in the folder `below` (empty, or with a slash at its end).
fn git_regex(line: &str, below: &str) -> Option<String> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with(['#', '!']) {
        return None;
    }
    let line = line.strip_prefix('\\').unwrap_or(line);
    let body = line.trim_end_matches('/');
    let below = regex(below);
    // A slash anywhere but at the end anchors the pattern.
    Some(
        match body
            .strip_prefix('/')
            .or(body.contains('/').then_some(body))
        {
            Some(anchored) => format!("{below}{}", regex(anchored)),
            None => format!("{below}(.*/)?{}", regex(body)),
        },
    )
}

/// Translates a shell pattern to an extended regular expression.
fn regex(pattern: &str) -> String {
    let mut text = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                if chars.peek() == Some(&'/') {
                    chars.next();
                    text.push_str("(.*/)?");
                } else {
                    text.push_str(".*");
                }
            }
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            '[' => {
                let mut set = String::new();
                for c in chars.by_ref() {
                    if c == ']' && !set.is_empty() && set != "^" {
                        break;
                    }
                    set.push(if c == '!' && set.is_empty() { '^' } else { c });
                }
                text.push_str(&format!("[{set}]"));
            }
            '\\' => {
                if let Some(next) = chars.next() {
                    text.push('\\');
                    text.push(next);
                }
            }
            '.' | '(' | ')' | '{' | '}' | '|' | '^' | '$' | '+' => {
                text.push('\\');
                text.push(c);
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_rsync() {
        for (pattern, wanted) in [
            (".git", "(.*/)?\\.git"),
            ("/target/", "target"),
            ("*.o", "(.*/)?[^/]*\\.o"),
            ("a/b", "(.*/)?a/b"),
            ("/x/**/y", "x/(.*/)?y"),
            ("[!a]?", "(.*/)?[^a][^/]"),
        ] {
            assert_eq!(unison_regex(pattern), wanted, "{pattern}");
        }
    }

    #[test]
    fn patterns_of_git() {
        assert_eq!(git_regex("# words", ""), None);
        assert_eq!(git_regex("!kept", ""), None);
        assert_eq!(git_regex("/target", "").as_deref(), Some("target"));
        assert_eq!(
            git_regex("*.pyc", "a/").as_deref(),
            Some("a/(.*/)?[^/]*\\.pyc")
        );
        assert_eq!(git_regex("doc/out/", "").as_deref(), Some("doc/out"));
    }
}
