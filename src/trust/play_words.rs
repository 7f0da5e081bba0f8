//! Splits a text that Ansible reads (YAML, JSON, INI, Jinja) into words that may be paths. This is not a parser, and
//! need not be one: a word that is not a path names no file.

use super::interpreters;

/// A word, without quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PlayWord {
    pub text: String,
    /// The text right before it is computed at run time.
    pub head: bool,
    /// The text right after it is computed at run time, or the word is part of such an expression.
    pub tail: bool,
    /// It is in a place where a folder is named.
    pub folder: bool,
    /// It is after a word that runs files.
    pub runs: bool,
}

/// After these, a bare word may name a folder.
const FOLDER_KEYS: [&str; 3] = ["src", "dir", "with_filetree"];

/// Variables whose value is a folder of the project.
const KNOWN: [&str; 6] = [
    "playbook_dir",
    "role_path",
    "inventory_dir",
    "dirname",
    "CWD",
    "PWD",
];

/// Keys whose value names a file that Ansible includes.
const TAKES: [&str; 13] = [
    "import_playbook",
    "import_role",
    "import_tasks",
    "include",
    "include_role",
    "include_tasks",
    "include_vars",
    "roles",
    "script",
    "vars_files",
    "with_filetree",
    "with_fileglob",
    "with_first_found",
];

/// Keys below [`TAKES`] that name the file.
const WHICH: [&str; 13] = [
    "cmd",
    "defaults_from",
    "dir",
    "file",
    "files",
    "free_form",
    "handlers_from",
    "name",
    "paths",
    "role",
    "src",
    "tasks_from",
    "vars_from",
];

/// Returns all words, each once.
pub(super) fn pieces(text: &str) -> Vec<PlayWord> {
    let mut found = split(text);
    if text.contains('\\') {
        let text = unescaped(text);
        found.extend(split(&text));
        values(&text, &mut found);
    }
    values(text, &mut found);
    found.sort();
    found.dedup();
    found
}

fn separates(c: char) -> bool {
    c.is_whitespace() || "\"'`;|&()<>[]{}=,#@:!\\".contains(c)
}

fn split(text: &str) -> Vec<PlayWord> {
    let mut found = Vec::new();
    let mut word = String::new();
    // The last character before the word, except for quotes; the last character; whether this is within `{{ }}`.
    let (mut before, mut last, mut inside) = ('\n', '\n', false);
    let (mut head, mut folder, mut known, mut runs) = (false, false, false, false);
    let mut chars = text.chars().chain(['\n']).peekable();
    while let Some(c) = chars.next() {
        if !separates(c) {
            if word.is_empty() {
                head = "})~+".contains(before);
            }
            word.push(c);
            last = c;
            continue;
        }
        if !word.is_empty() {
            let text = std::mem::take(&mut word);
            let is_key = FOLDER_KEYS.contains(&text.as_str());
            let is_runner = interpreters::is_runner(interpreters::last(&text));
            // Options may come between the program and the file.
            let still = runs && text.starts_with('-');
            let is_known = KNOWN.contains(&text.trim_start_matches('$'));
            let opens = c == '{' && matches!(chars.peek(), Some('{' | '%'));
            let tail = inside || opens || text.ends_with('$');
            found.push(PlayWord {
                text,
                head,
                tail,
                folder: folder || (head && known),
                runs,
            });
            runs = is_runner || still;
            (folder, known) = (is_key, is_known);
            before = if last == '~' || last == '+' {
                last
            } else {
                'a'
            };
        }
        runs &= c != '\n';
        match c {
            '{' if matches!(chars.peek(), Some('{' | '%')) => inside = true,
            '}' if matches!(last, '}' | '%') => inside = false,
            _ => {}
        }
        if c.is_whitespace() {
            before = if inside { before } else { ' ' };
        } else if !"\"'".contains(c) {
            before = c;
        }
        last = c;
    }
    found
}

/// Adds texts that are in quotes, after a key or alone on a line. A path in them may have spaces.
fn values(text: &str, found: &mut Vec<PlayWord>) {
    for line in text.lines() {
        let line = line.trim();
        let mut all: Vec<&str> = Vec::new();
        for quote in ['"', '\''] {
            if line.contains(quote) {
                all.extend(line.split(quote));
            }
        }
        let bare = line.trim_start_matches(['-', ' ']);
        let value = (bare.split_once(": "))
            .or_else(|| bare.split_once('='))
            .map_or(bare, |it| it.1);
        for value in [bare, value] {
            all.push(value);
            all.extend(value.split_once(" #").map(|it| it.0));
        }
        for value in all {
            let value = value.trim();
            if value.len() <= 1024 && value.contains(separates) && !value.contains("{{") {
                found.push(PlayWord {
                    text: value.to_string(),
                    ..PlayWord::default()
                });
            }
        }
    }
}

/// Replaces the escapes of a YAML text in double quotes.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        let digits = match chars.next() {
            Some('\n') => {
                while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
                continue;
            }
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some(other) => {
                plain.push(other);
                continue;
            }
            None => break,
        };
        let mut code = 0u32;
        for _ in 0..digits {
            if let Some(digit) = chars.peek().and_then(|c| c.to_digit(16)) {
                code = code.wrapping_mul(16).wrapping_add(digit);
                chars.next();
            }
        }
        plain.extend(char::from_u32(code));
    }
    plain
}

/// Whether the name of an included file is computed at run time.
pub(super) fn makes_up(text: &str) -> bool {
    let mut inside = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.is_empty() {
            continue;
        }
        let indent = line.len() - trimmed.len();
        let column = line.len() - line.trim_start_matches([' ', '\t', '-']).len();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
        let takes = line.split(|c| !is_name(c)).any(|word| {
            word.rsplit('.')
                .next()
                .is_some_and(|it| TAKES.contains(&it))
        });
        if takes {
            inside = Some(column);
        } else {
            inside =
                inside.filter(|at| indent > *at || (trimmed.starts_with('-') && indent >= *at));
        }
        let rest = ["{{ playbook_dir }}/", "{{ role_path }}/"]
            .iter()
            .fold(line.to_string(), |line, known| line.replace(known, ""));
        if inside.is_none() || !(rest.contains("{{") || rest.contains("{%")) {
            continue;
        }
        let key = (trimmed.split(':').next().unwrap_or_default())
            .trim_matches(|c: char| !is_name(c))
            .to_string();
        if takes
            || WHICH.contains(&key.as_str())
            || trimmed
                .trim_start_matches(['-', ' ', '"', '\''])
                .starts_with('{')
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_quotes_lists_and_escapes() {
        for (text, word) in [
            ("- import_playbook: sub/pb.yml", "sub/pb.yml"),
            ("x: >-\n  sub/pb.yml\n", "sub/pb.yml"),
            ("[{\"include\":\"sub\\/pb.yml\"}]", "sub/pb.yml"),
            ("x: \"sub/\\\n  pb.yml\"", "sub/pb.yml"),
            ("x: \"\\x73ub/pb\\u002eyml\"", "sub/pb.yml"),
            ("x: &a sub/pb.yml", "sub/pb.yml"),
            ("x: 'sub/my pb.yml'", "sub/my pb.yml"),
            ("- import_playbook: sub/my pb.yml # x", "sub/my pb.yml"),
            ("vars_files: [a.yml,sub/pb.yml]", "sub/pb.yml"),
            ("roles_path=a:sub/pb.yml", "sub/pb.yml"),
        ] {
            assert!(
                pieces(text).iter().any(|it| it.text == word),
                "{text}: {:?}",
                pieces(text)
            );
        }
        let of = |text: &str, word: &str| {
            let found = pieces(text).into_iter().find(|it| it.text == word);
            let found = found.unwrap();
            (found.head, found.tail, found.folder)
        };
        assert_eq!(of("{{ playbook_dir }}/sub", "/sub"), (true, false, true));
        assert_eq!(of("x: {{ a }}/sub", "/sub"), (true, false, false));
        assert_eq!(of("sub/{{ x }}.yml", "sub/"), (false, true, false));
        assert_eq!(of("{{ 'sub/p' ~ x }}", "sub/p"), (false, true, false));
        assert_eq!(of("{{ x ~ '/sub' }}", "/sub"), (true, true, false));
        assert_eq!(of("{{ x + \"/sub\" }}", "/sub"), (true, true, false));
        assert_eq!(of("{{ f('x', '/sub') }}", "/sub"), (false, true, false));
        assert_eq!(of("{ \"sub/\": { a: 1 } }", "sub/"), (false, false, false));
        assert_eq!(of("copy: src=sub dest=/x", "sub"), (false, false, true));
        assert_eq!(of("copy: src=sub dest=/x", "/x"), (false, false, false));
    }

    #[test]
    fn what_is_made_up_is_told_from_what_is_only_a_value() {
        for text in [
            "- include_tasks: \"{{ x }}.yml\"",
            "- ansible.builtin.include_vars:\n    file: '{{ x }}'",
            "  vars_files:\n  - \"{{ x }}.yml\"",
            "- import_role:\n    name: \"{{ x }}\"",
        ] {
            assert!(makes_up(text), "{text}");
        }
        for text in [
            "- include_tasks: x.yml\n  loop: \"{{ y }}\"",
            "  roles:\n  - role: x\n    port: \"{{ y }}\"",
            "- import_role:\n    name: x\n  vars:\n    y: \"{{ z }}\"",
            "- include_tasks: \"{{ playbook_dir }}/x.yml\"",
            "- debug: msg=\"{{ x }}\"",
        ] {
            assert!(!makes_up(text), "{text}");
        }
    }
}
