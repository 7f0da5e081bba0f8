//! Recognises files in other languages.

use std::ops::Range;

use super::chars::is_forbidden;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Vagrantfile,
    Terraform,
    Compose,
    CloudConfig,
    Yaml,
    Toml,
    Json,
    Dockerfile,
    Script,
    WebPage,
    Xml,
    Utf16,
    Binary,
}

impl Language {
    pub fn name(self) -> &'static str {
        match self {
            Language::Vagrantfile => "a Vagrantfile",
            Language::Terraform => "Terraform's language (HCL)",
            Language::Compose => "a Compose file",
            Language::CloudConfig => "cloud-init's configuration",
            Language::Yaml => "YAML",
            Language::Toml => "TOML",
            Language::Json => "JSON",
            Language::Dockerfile => "a Dockerfile",
            Language::Script => "a script",
            Language::WebPage => "a web page",
            Language::Xml => "XML",
            Language::Utf16 => "UTF-16",
            Language::Binary => "a binary file",
        }
    }
}

/// How much of a file is inspected, in lines and in bytes.
const LINES: usize = 300;
const BYTES: usize = 64 << 10;
/// How much of a file is inspected to tell text from binary data, in bytes.
const HEAD: usize = 1 << 10;

/// Blocks with which files of Terraform and Packer begin.
const TERRAFORM: [&str; 9] = [
    "terraform",
    "resource",
    "provider",
    "variable",
    "module",
    "data",
    "locals",
    "output",
    "packer",
];

struct Line<'a> {
    /// Without spaces and the line end after it.
    text: &'a str,
    span: Range<usize>,
}

impl Line<'_> {
    fn is_indented(&self) -> bool {
        self.text.starts_with([' ', '\t'])
    }
}

/// Returns the language of a text, and the line that shows it. `None` for a KDL file with single lines of another language:
/// those are mistakes of their lines.
pub(super) fn language(text: &str) -> Option<(Language, Range<usize>)> {
    let start = &text[..text.floor_char_boundary(BYTES)];
    let head = &start[..start.floor_char_boundary(HEAD)];
    let odd = head.matches(is_forbidden).count();
    if odd * 10 > head.len() {
        let wide = head.matches('\0').count() * 3 > head.len();
        let language = if wide {
            Language::Utf16
        } else {
            Language::Binary
        };
        return Some((language, 0..head.chars().next().map_or(0, char::len_utf8)));
    }
    let lines = lines(start);
    let first = lines
        .iter()
        .find(|line| !line.text.trim_start_matches('\u{feff}').is_empty())?;
    let is_comment = |line: &&Line| {
        let text = line.text.trim_start_matches(['\u{feff}', ' ', '\t']);
        text.starts_with('#') || text.starts_with("//") || text.is_empty()
    };
    let content: Vec<&Line> = lines.iter().filter(|line| !is_comment(line)).collect();
    let found = |language, line: &Line| Some((language, line.span.clone()));

    let vagrant = |line: &&&Line| {
        let text = line.text.trim_start();
        text.starts_with("Vagrant.configure") || text.starts_with("config.vm.")
    };
    if let Some(line) = content.iter().find(vagrant) {
        return found(Language::Vagrantfile, line);
    }
    let start = first.text.trim_start_matches('\u{feff}');
    if start.starts_with("#!") && !start.contains("stead") {
        return found(Language::Script, first);
    }
    if start.starts_with("#cloud-config") {
        return found(Language::CloudConfig, first);
    }
    let line = *content.first()?;
    let begin = line.text.trim_start_matches(['\u{feff}', ' ', '\t']);
    let lower: String = begin
        .chars()
        .take(16)
        .collect::<String>()
        .to_ascii_lowercase();
    if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        return found(Language::WebPage, line);
    }
    if lower.starts_with("<?xml") || (lower.starts_with('<') && begin.ends_with('>')) {
        return found(Language::Xml, line);
    }
    if is_json(&content) {
        return found(Language::Json, line);
    }
    let top: Vec<&&Line> = content.iter().filter(|line| !line.is_indented()).collect();
    let all = |of: fn(&str) -> bool| !top.is_empty() && top.iter().all(|line| of(line.text));
    if all(is_yaml) {
        let is_compose = top.iter().any(|line| line.text == "services:");
        let language = if is_compose {
            Language::Compose
        } else {
            Language::Yaml
        };
        return found(language, line);
    }
    if all(is_toml)
        && top
            .iter()
            .any(|line| is_section(line.text) || top.len() > 1)
    {
        return found(Language::Toml, line);
    }
    let word = begin.split([' ', '\t', '{']).next().unwrap_or_default();
    let assigns = |line: &&Line| {
        line.text
            .split_once('=')
            .is_some_and(|(key, _)| is_key(key.trim()))
    };
    if TERRAFORM.contains(&word) && begin.ends_with('{') && content.iter().any(assigns) {
        return found(Language::Terraform, line);
    }
    if word == "FROM" {
        return found(Language::Dockerfile, line);
    }
    None
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut at = 0;
    text.split_inclusive('\n')
        .take(LINES)
        .map(|line| {
            let start = at;
            at += line.len();
            let text = line.trim_end();
            let indentation = text.len() - text.trim_start().len();
            Line {
                text,
                span: start + indentation..start + text.len(),
            }
        })
        .collect()
}

fn is_json(content: &[&Line]) -> bool {
    let mut text = content
        .iter()
        .map(|line| line.text.trim().trim_start_matches('\u{feff}'));
    let first = text.next().unwrap_or_default();
    let Some(after) = first.strip_prefix(['{', '[']) else {
        return false;
    };
    // `[section]` and `[[section]]` are TOML's.
    let next = match after.trim_start() {
        "" => text.next().unwrap_or_default(),
        after => after,
    };
    next.starts_with(['"', '}']) || (first.starts_with('[') && next.starts_with('{'))
}

/// Whether this is `key:`, `key: value`, `- item` or `---`.
fn is_yaml(line: &str) -> bool {
    let is_item = line == "-" || line.starts_with("- ");
    let is_mark = matches!(line, "---" | "...") || line.starts_with("%YAML");
    let is_key = line.split_once(':').is_some_and(|(key, value)| {
        is_plain(key.trim_matches(['"', '\''])) && (value.is_empty() || value.starts_with(' '))
    });
    is_item || is_mark || is_key
}

fn is_plain(key: &str) -> bool {
    let good = |c: char| c.is_alphanumeric() || "-_./ ".contains(c);
    !key.is_empty() && key.chars().all(good) && !key.contains(" \"")
}

/// Whether this is `[section]`, `key = value`, or the end of an array or a text.
fn is_toml(line: &str) -> bool {
    let is_end = line.starts_with([']', '"', '}', '\'']);
    let is_assignment = line
        .split_once('=')
        .is_some_and(|(key, value)| is_key(key.trim()) && !value.trim_end().ends_with('{'));
    is_section(line) || is_assignment || is_end
}

fn is_key(key: &str) -> bool {
    let good = |c: char| c.is_alphanumeric() || "-_.\"'".contains(c);
    !key.is_empty() && key.chars().all(good)
}

fn is_section(line: &str) -> bool {
    let inside = line
        .strip_prefix('[')
        .and_then(|line| line.strip_suffix(']'));
    inside.is_some_and(|name| {
        let name = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        is_key(&name.replace(' ', "")) && !name.starts_with(['"', '\''])
    })
}
