//! Checks foreign names before they reach programs, files and tables of this host.

use crate::report::clean::is_unseen;

/// Whether it is a valid name of a user or a group, as for useradd(8). It has no character that a shell, ssh,
/// rsync or a template treats specially.
pub fn is_user(name: &str) -> bool {
    name.len() <= 32
        && name
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
}

/// Checks a login user, which becomes part of ssh's configuration and Ansible's inventory.
pub fn check_user(what: &str, name: &str) -> Result<(), String> {
    if is_user(name) {
        return Ok(());
    }
    Err(format!(
        "{what} {name:?} is not a valid user name: lower-case letters, digits, - and _ are allowed, 32 at most"
    ))
}

/// The longest name, in characters. People's names for things have some tens.
const LONGEST: usize = 100;

/// Whether it is a valid name, version or release. Those are used in references, tables and file names, so
/// they must not be paths or look like options.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._+~".contains(c);
    !name.is_empty()
        && name.len() <= LONGEST
        && name.chars().all(plain)
        && !name.starts_with(['-', '.'])
}

/// Like [`is_name`], but with several parts: Vagrant's boxes have names like `generic/debian12`.
pub fn is_name_in_parts(name: &str) -> bool {
    name.len() <= LONGEST && name.split('/').all(is_name)
}

/// Whether it is a plain file name, which cannot lead out of its folder.
pub fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && !name.contains(|c| matches!(c, '/' | '\\') || is_unseen(c))
}

/// Whether it can be the name of a network interface of this host (the kernel's dev_valid_name(), without characters that
/// programs treat specially).
pub fn is_interface(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    (1..=15).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['-', '.'])
}

/// Returns the message about an invalid `what`. The invalid text is quoted, and shortened if it is long.
pub fn not_valid(what: &str, found: &str, expected: &str) -> String {
    let start: String = found.chars().take(LONGEST).collect();
    let cut = if start.len() < found.len() { "…" } else { "" };
    format!("the {what} {start:?}{cut} is not valid: expected {expected}")
}

/// Checks a name with [`is_name`].
///
/// # Errors
/// The message about what is wrong.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    checked(is_name(name), what, name, PLAIN)
}

/// Checks a name with [`is_name_in_parts`].
///
/// # Errors
/// The message about what is wrong.
pub fn check_name_in_parts(what: &str, name: &str) -> Result<(), String> {
    let expected = format!("{PLAIN}; a / may join several such parts");
    checked(is_name_in_parts(name), what, name, &expected)
}

/// Checks a file name with [`is_file_name`].
///
/// # Errors
/// The message about what is wrong.
pub fn check_file_name(name: &str) -> Result<(), String> {
    checked(
        is_file_name(name),
        "file name",
        name,
        "the name of a file in the same folder, without / and control characters, not starting with .",
    )
}

/// What [`is_name`] accepts.
const PLAIN: &str =
    "at most 100 letters, digits and - . _ + ~, starting with a letter, a digit or _ + ~";

fn checked(is_valid: bool, what: &str, found: &str, expected: &str) -> Result<(), String> {
    match is_valid {
        true => Ok(()),
        false => Err(not_valid(what, found, expected)),
    }
}

/// Returns the known name that is most similar, if one is similar enough.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    // The time grows with the product of both lengths, and nobody mistypes a name of so many characters.
    if length > LONGEST {
        return None;
    }
    let limit = (length / 3).max(1);
    known
        .filter(|candidate| candidate.len() <= 4 * (length + limit))
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns `a, b or c`.
pub fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_string(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Checks the release of a kernel (`uname -r`), which is used as a directory name in the guest and in paths here.
pub fn check_release(release: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._+~".contains(c);
    if release.is_empty()
        || release.len() > 64
        || release.starts_with('.')
        || !release.chars().all(plain)
    {
        return Err(format!("{release:?} is not a kernel release"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces() {
        for good in ["br0", "br-lan.100", "a", "fifteen-letters"] {
            assert!(is_interface(good), "{good}");
        }
        let bad = [
            "",
            ".",
            "..",
            "-a",
            "a/b",
            "a b",
            "a\n",
            "br0'",
            "br<0",
            "a:b",
            "é",
            "sixteen-letters0",
        ];
        for bad in bad {
            assert!(!is_interface(bad), "{bad}");
        }
    }

    #[test]
    fn names_lead_nowhere_and_break_no_line() {
        for good in [
            "debian-12",
            "12.13",
            "6.1.0-47-amd64",
            "1+b2~rc1",
            "_x",
            &"a".repeat(100),
        ] {
            assert!(is_name(good) && is_name_in_parts(good), "{good}");
        }
        assert!(is_name_in_parts("generic/debian12") && !is_name("generic/debian12"));
        for bad in [
            "",
            ".",
            "..",
            "../../x",
            "a/../b",
            "/a",
            "a/",
            "a//b",
            "a/-b",
            "-a",
            ".a",
            "a b",
            "a\nb",
            "a\u{1b}[2J",
            "a\u{202e}b",
            "ü",
            "a:b",
            "a\\b",
            &"a".repeat(101),
        ] {
            assert!(!is_name(bad) && !is_name_in_parts(bad), "{bad:?}");
            let said = check_name_in_parts("name", bad).unwrap_err();
            assert!(!said.contains(|c: char| is_unseen(c)), "{said:?}");
        }
        let said = check_name("version", &"x".repeat(1 << 20)).unwrap_err();
        assert!(
            said.len() < 400 && said.contains("the version \"xxx"),
            "{said}"
        );
    }

    #[test]
    fn files_of_a_folder_are_in_it() {
        for good in ["disk.qcow2", "vmlinuz-6.1", "my disk.img", "a..b"] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "a/b",
            "a\\b",
            "a\0",
            "a\nb",
            "\u{1b}c",
            &"a".repeat(256),
        ] {
            assert!(!is_file_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn users_are_plain_words() {
        for good in ["root", "_apt", "dev-1", &"a".repeat(32)] {
            assert!(is_user(good), "{good}");
        }
        for bad in [
            "",
            "-oProxyCommand=id",
            "Dev",
            "1a",
            "a b",
            "a\tb",
            "a\n",
            "a;id",
            "a/b",
            "a:b",
            "a@b",
            "{{lookup('pipe','id')}}",
            "a${IFS}b",
            "ü",
            &"a".repeat(33),
        ] {
            assert!(!is_user(bad), "{bad:?}");
        }
    }

    #[test]
    fn near_names_are_found_and_far_ones_not() {
        let known = ["memory", "machine", "cpus"];
        assert_eq!(nearest("memroy", known.into_iter()), Some("memory"));
        assert_eq!(nearest("cpu", known.into_iter()), Some("cpus"));
        assert_eq!(nearest("volume", known.into_iter()), None);
    }
}
