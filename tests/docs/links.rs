//! Links between pages, and mentions of pages in the program.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use super::pages::{Page, code_spans, files_below, repository};

/// As GitHub and mdbook name a heading.
fn anchor(heading: &str) -> String {
    let mut anchor = String::new();
    for c in heading.trim().chars() {
        match c {
            ' ' => anchor.push('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => anchor.extend(c.to_lowercase()),
            _ => {}
        }
    }
    anchor
}

fn anchors(page: &Page) -> BTreeSet<String> {
    (page.prose().iter())
        .filter_map(|(_, line)| {
            let heading = line.trim_start_matches('#');
            (heading.len() < line.len() && heading.starts_with(' ')).then(|| anchor(heading))
        })
        .collect()
}

/// The targets of the links in a paragraph.
fn targets(paragraph: &str) -> Vec<String> {
    let (_, prose) = code_spans(paragraph);
    (prose.split("](").skip(1))
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_string()))
        .collect()
}

/// `a/b/../c` is `a/c`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if plain.pop() => {}
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// Why a link of a page leads nowhere.
fn objection(page: &Path, target: &str) -> Option<String> {
    if target.contains("://") {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let file = match file {
        "" => page.to_path_buf(),
        file => plain(&page.parent().unwrap().join(file)),
    };
    if !repository().join(&file).exists() {
        return Some(format!("{} does not exist", file.display()));
    }
    if page.starts_with("docs") && !file.starts_with("docs") {
        return Some("leads out of docs/, and the site has no other pages".into());
    }
    if heading.is_empty() || anchors(&Page::read(&file)).contains(heading) {
        return None;
    }
    Some(format!("{} has no heading #{heading}", file.display()))
}

#[test]
fn a_link_that_leads_nowhere_is_seen() {
    let page = Path::new("docs/README.md");
    for (target, why) in [
        ("nowhere.md", "does not exist"),
        ("../README.md", "leads out of docs/"),
        ("concepts/glossary.md#nothing", "has no heading"),
    ] {
        let said = objection(page, target).unwrap();
        assert!(said.contains(why), "{target}: {said}");
    }
    assert_eq!(objection(page, "concepts/glossary.md#glossary"), None);
    assert_eq!(objection(page, "https://example.org/nowhere"), None);
    assert_eq!(anchor("What `box \"…\"` may name"), "what-box--may-name");
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in Page::all() {
        for (n, paragraph) in page.paragraphs() {
            for target in targets(&paragraph) {
                seen += 1;
                if let Some(why) = objection(&page.path, &target) {
                    wrong.push(format!("{}:{n}: {target}: {why}", page.path.display()));
                }
            }
        }
    }
    assert!(seen > 100, "found only {seen} links");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The site has the pages that SUMMARY.md lists.
#[test]
fn every_page_is_in_the_summary_once() {
    let summary = Page::read(Path::new("docs/SUMMARY.md"));
    let mut listed: Vec<PathBuf> = (summary.prose().iter())
        .flat_map(|(_, line)| targets(line))
        .map(|target| Path::new("docs").join(target))
        .collect();
    listed.sort();
    let pages: Vec<PathBuf> = (Page::all().into_iter())
        .map(|page| page.path)
        .filter(|path| path.starts_with("docs") && *path != summary.path)
        .collect();
    assert_eq!(listed, pages);
}

/// Errors, comments and recipes send people to pages.
#[test]
fn pages_that_files_mention_exist() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut files = vec![PathBuf::from("Machinefile.example"), PathBuf::from("dev")];
    for folder in ["src", "boxes", "examples", "provisioners", "tests", "docs"] {
        files.extend(files_below(Path::new(folder)));
    }
    for file in files {
        let Ok(text) = fs::read_to_string(repository().join(&file)) else {
            continue;
        };
        // This one has names of pages that are not there.
        if file.starts_with("tests/docs") || file == Path::new("src/trust/tests.rs") {
            continue;
        }
        for (n, line) in text.lines().enumerate() {
            for (at, _) in line.match_indices("docs/") {
                // A part of a longer path is somebody else's.
                let before = line[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || "/.-_".contains(c)) {
                    continue;
                }
                let path: String = (line[at..].chars())
                    .take_while(|c| c.is_alphanumeric() || "/.-_".contains(*c))
                    .collect();
                let path = path.trim_end_matches('.');
                if !path.ends_with(".md") {
                    continue;
                }
                seen += 1;
                if !repository().join(path).exists() {
                    wrong.push(format!("{}:{}: {path}", file.display(), n + 1));
                }
            }
        }
    }
    assert!(seen > 20, "found only {seen} mentions");
    assert!(wrong.is_empty(), "no such pages:\n{}", wrong.join("\n"));
}
