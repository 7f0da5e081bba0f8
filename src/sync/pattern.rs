//! Matches paths against rsync's patterns. stead does this itself because excluded folders are not
//! watched. The rules are in rsync's manual (rsync(1), "PATTERN MATCHING RULES"); a test compares this
//! module with rsync.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// The patterns of `exclude`, in order: the first that matches decides.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns {
    rules: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    include: bool,
    text: Vec<u8>,
    anchored: bool,
    folders_only: bool,
    /// Ends with `/***`: matches the folder itself and everything in it.
    with_folder: bool,
    slashes: usize,
    wild: bool,
    /// Has `**`, which matches slashes too.
    any: bool,
}

impl Patterns {
    pub(super) fn new(exclude: &[String]) -> Self {
        let mut rules = Vec::new();
        for text in exclude {
            match text.as_str() {
                // In rsync's patterns this drops all rules before it.
                "!" => rules.clear(),
                text => rules.extend(Pattern::parse(text)),
            }
        }
        Patterns { rules }
    }

    /// Whether a path, relative to the folder, is excluded; `None` if no pattern matches. The folders
    /// above it are not checked: if one of them is excluded, so is the path.
    pub(super) fn excludes(&self, path: &Path, is_folder: bool) -> Option<bool> {
        let path = path.as_os_str().as_bytes();
        self.rules
            .iter()
            .find(|rule| rule.matches(path, is_folder))
            .map(|rule| !rule.include)
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        // As in `--exclude`: a sign and a space may come first.
        let (include, text) = match (text.strip_prefix("+ "), text.strip_prefix("- ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => (false, text),
        };
        let mut text = text.as_bytes();
        let with_folder = text.ends_with(b"/***");
        if with_folder {
            text = &text[..text.len() - 4];
        }
        let folders_only = text.len() > 1 && text.ends_with(b"/");
        if folders_only {
            text = &text[..text.len() - 1];
        }
        let anchored = text.starts_with(b"/");
        if anchored {
            text = &text[1..];
        }
        if text.is_empty() {
            return None;
        }
        Some(Pattern {
            include,
            anchored,
            folders_only,
            with_folder,
            slashes: text.iter().filter(|byte| **byte == b'/').count(),
            wild: text.iter().any(|byte| b"*?[".contains(byte)),
            any: text.windows(2).any(|two| two == b"**"),
            text: text.to_vec(),
        })
    }

    fn matches(&self, path: &[u8], is_folder: bool) -> bool {
        if self.with_folder {
            // A folder above it matches, or the path itself if it is a folder.
            return (path.iter().enumerate())
                .filter(|(_, byte)| **byte == b'/')
                .any(|(at, _)| self.matches_whole(&path[..at]))
                || (is_folder && self.matches_whole(path));
        }
        (is_folder || !self.folders_only) && self.matches_whole(path)
    }

    fn matches_whole(&self, path: &[u8]) -> bool {
        let last = |n: usize| {
            let mut slashes = (path.iter().enumerate().rev())
                .filter(|(_, byte)| **byte == b'/')
                .map(|(at, _)| at + 1);
            match slashes.nth(n) {
                Some(at) => Some(&path[at..]),
                None => (path.iter().filter(|byte| **byte == b'/').count() == n).then_some(path),
            }
        };
        let matches = |name: &[u8]| {
            if self.wild {
                wild(&self.text, name)
            } else {
                self.text == name
            }
        };
        if self.anchored {
            return matches(path);
        }
        if !self.any {
            // The pattern is compared with as many of the last elements as it has.
            return last(self.slashes).is_some_and(matches);
        }
        if self.text.starts_with(b"**") {
            return matches(path);
        }
        matches(path)
            || (path.iter().enumerate())
                .filter(|(_, byte)| **byte == b'/')
                .any(|(at, _)| matches(&path[at + 1..]))
    }
}

/// Matches like rsync's wildmatch(): `*` and `?` stop at slashes, `**` does not.
fn wild(pattern: &[u8], name: &[u8]) -> bool {
    let Some((&first, rest)) = pattern.split_first() else {
        return name.is_empty();
    };
    match first {
        b'*' => {
            let any = rest.first() == Some(&b'*');
            let mut rest = rest;
            while rest.first() == Some(&b'*') {
                rest = &rest[1..];
            }
            let end = if any {
                name.len()
            } else {
                name.iter()
                    .position(|byte| *byte == b'/')
                    .unwrap_or(name.len())
            };
            (0..=end).any(|at| wild(rest, &name[at..]))
        }
        b'?' => name.first().is_some_and(|byte| *byte != b'/') && wild(rest, &name[1..]),
        b'[' => match (class(rest), name.split_first()) {
            (Some((accepts, after)), Some((&byte, name))) if byte != b'/' => {
                accepts(byte) && wild(after, name)
            }
            _ => false,
        },
        b'\\' if !rest.is_empty() => name.first() == Some(&rest[0]) && wild(&rest[1..], &name[1..]),
        byte => name.first() == Some(&byte) && wild(rest, &name[1..]),
    }
}

type Accepts<'a> = Box<dyn Fn(u8) -> bool + 'a>;

/// Parses a set, after its `[`. Returns which bytes it accepts, and the rest of the pattern.
fn class(text: &[u8]) -> Option<(Accepts<'_>, &[u8])> {
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    let mut named: Vec<fn(&u8) -> bool> = Vec::new();
    let start = at;
    loop {
        let mut byte = *text.get(at)?;
        if byte == b']' && at > start {
            break;
        }
        if byte == b'['
            && text.get(at + 1) == Some(&b':')
            && let Some(end) = text[at + 2..].windows(2).position(|two| two == b":]")
        {
            named.push(match &text[at + 2..at + 2 + end] {
                b"alnum" => u8::is_ascii_alphanumeric,
                b"alpha" => u8::is_ascii_alphabetic,
                b"digit" => u8::is_ascii_digit,
                b"lower" => u8::is_ascii_lowercase,
                b"upper" => u8::is_ascii_uppercase,
                b"punct" => u8::is_ascii_punctuation,
                b"space" => u8::is_ascii_whitespace,
                b"xdigit" => u8::is_ascii_hexdigit,
                b"cntrl" => u8::is_ascii_control,
                b"graph" => u8::is_ascii_graphic,
                _ => return None,
            });
            at += end + 4;
            continue;
        }
        if byte == b'\\' {
            at += 1;
            byte = *text.get(at)?;
        }
        at += 1;
        if text.get(at) == Some(&b'-') && text.get(at + 1).is_some_and(|next| *next != b']') {
            let mut last = text[at + 1];
            at += 2;
            if last == b'\\' {
                last = *text.get(at)?;
                at += 1;
            }
            ranges.push((byte, last));
        } else {
            ranges.push((byte, byte));
        }
    }
    let accepts = move |byte: u8| {
        let found = ranges
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&byte))
            || named.iter().any(|is| is(&byte));
        found != negated
    };
    Some((Box::new(accepts), &text[at + 1..]))
}

/// Returns a pattern that matches this path of the folder and no other. rsync takes a backslash
/// literally only in a pattern without wildcards.
pub(super) fn anchored(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    let mut text = vec![b'/'];
    if bytes.iter().any(|byte| b"*?[".contains(byte)) {
        for byte in bytes {
            if b"*?[\\".contains(byte) {
                text.push(b'\\');
            }
            text.push(*byte);
        }
    } else {
        text.extend_from_slice(bytes);
    }
    OsString::from_vec(text)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, process::Command};

    use super::*;

    const FILES: [&str; 18] = [
        "a.o",
        "src/a.o",
        "src/b.c",
        "src/deep/er/c.txt",
        "target/x",
        "src/target/y",
        "src/[odd]",
        "src/st*r",
        "src/back\\slash",
        "src/back\\sl*sh",
        "file",
        "logs/1.log",
        "logs/keep.log",
        "x/src/b.c",
        "x1",
        "x2",
        "xa",
        "new\nline",
    ];

    /// Returns the files that rsync copies, and the files that these patterns do not exclude.
    fn both(exclude: &[&str]) -> (BTreeSet<String>, BTreeSet<String>) {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        for file in FILES {
            let path = from.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let status = Command::new("rsync")
            .arg("-a")
            .args(exclude.iter().map(|it| format!("--exclude={it}")))
            .arg("--")
            .arg(format!("{}/", from.path().display()))
            .arg(to.path())
            .status()
            .unwrap();
        assert!(status.success());
        let patterns = Patterns::new(&exclude.iter().map(ToString::to_string).collect::<Vec<_>>());
        let left = FILES.iter().filter(|file| {
            let path = Path::new(file);
            !path
                .ancestors()
                .any(|it| it != Path::new("") && patterns.excludes(it, it != path).unwrap_or(false))
        });
        (
            FILES
                .iter()
                .filter(|file| to.path().join(file).exists())
                .map(ToString::to_string)
                .collect(),
            left.map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn they_match_what_rsync_matches() {
        for exclude in [
            &["*.o"][..],
            &["target"],
            &["target/"],
            &["/target"],
            &["/src/*.o"],
            &["src/*.c"],
            &["src/b.c"],
            &["/src/b.c"],
            &["src/**/c.txt"],
            &["**/er"],
            &["src/**"],
            &["src/***"],
            &["/src/***"],
            &["deep/***"],
            &["x[0-9]"],
            &["x[!0-9]"],
            &["x[[:digit:]]"],
            &["x?"],
            &["file/"],
            &["+ keep.log", "*.log"],
            &["- *.log"],
            &["*.log", "!", "*.o"],
            &["new*"],
            &["back\\slash"],
            &["back\\\\sl*"],
            &["s*/b.c"],
            &["*/b.c"],
            &["**/b.c"],
            &["s**r"],
            &["/**/b.c"],
        ] {
            let (rsync, ours) = both(exclude);
            assert_eq!(rsync, ours, "{exclude:?}");
        }
    }

    #[test]
    fn an_anchored_pattern_means_one_path() {
        for file in FILES {
            let pattern = anchored(Path::new(file)).into_string().unwrap();
            let (rsync, ours) = both(&[&pattern]);
            let all: BTreeSet<String> = (FILES.iter().filter(|it| **it != file))
                .map(ToString::to_string)
                .collect();
            assert_eq!(rsync, all, "{pattern}");
            assert_eq!(ours, all, "{pattern}");
        }
    }
}
