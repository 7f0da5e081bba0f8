//! docs/concepts/security.md promises nothing that no test shows.

use std::{fs, path::Path};

/// Where a promise names its test: `tests/vm/trouble.rs` `a_test`, or several, at the end of its paragraph.
fn tests_named(promise: &str) -> Vec<(&str, &str)> {
    let words: Vec<&str> = promise.split('`').skip(1).step_by(2).collect();
    words
        .windows(2)
        .filter(|pair| pair[0].ends_with(".rs"))
        .map(|pair| (pair[0], pair[1]))
        .collect()
}

/// The promises of the page: its list items, each with the lines that continue it.
fn promises(page: &str) -> Vec<String> {
    let mut promises: Vec<String> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("- ") {
            promises.push(rest.to_string());
            open = true;
        } else if open && line.starts_with("  ") {
            let last = promises.last_mut().unwrap();
            last.push(' ');
            last.push_str(line.trim());
        } else {
            open = false;
        }
    }
    promises
}

/// The attributes of a function; `None` where there is none of that name.
fn attributes<'a>(code: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    let at = lines.iter().position(|line| {
        line.split_once(&head).is_some_and(|(before, _)| {
            (before.split_whitespace()).all(|word| word == "async" || word.starts_with("pub"))
        })
    })?;
    Some(
        lines[..at]
            .iter()
            .rev()
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
            .filter(|line| line.starts_with("#["))
            .copied()
            .collect(),
    )
}

/// Why a function shows nothing, if it is no test, or one that does not run as the page says.
fn objection(code: &str, name: &str, page: &str) -> Option<String> {
    let Some(attributes) = attributes(code, name) else {
        return Some(format!("has no test {name}"));
    };
    let is_test = |it: &&str| *it == "#[test]" || it.starts_with("#[tokio::test");
    if !attributes.iter().any(is_test) {
        return Some(format!("has {name}, which is not a test"));
    }
    let ignored = attributes.iter().find(|it| it.starts_with("#[ignore"))?;
    // Its reason says by which command it runs, and the page that this one runs them all.
    let runs = ignored
        .split_once("./dev ")
        .map(|(_, command)| command.trim_end_matches("\"]"));
    match runs {
        Some(command) if page.contains(&format!("`./dev {command}`")) => None,
        _ => Some(format!(
            "has {name}, which is ignored, and the page does not say how it runs"
        )),
    }
}

#[test]
fn what_only_looks_like_a_test_shows_nothing() {
    let page = "`./dev test --full` runs them all";
    let code = "\
#[test]
fn good() {}

/// Words.
#[tokio::test(flavor = \"multi_thread\")]
// Why.
async fn waits() {}

#[test]
#[ignore = \"costs minutes: ./dev test --full\"]
fn long() {}

#[test]
#[ignore]
fn never() {}

#[test]
#[ignore = \"needs a host: ./dev other\"]
fn elsewhere() {}

fn helper() {}

#[test]
fn other() {
    // as fn only_words() does
}
";
    for good in ["good", "waits", "long"] {
        assert_eq!(objection(code, good, page), None, "{good}");
    }
    for (bad, why) in [
        ("never", "is ignored"),
        ("elsewhere", "is ignored"),
        ("helper", "not a test"),
        ("only_words", "no test"),
        ("goo", "no test"),
        ("none", "no test"),
    ] {
        let said = objection(code, bad, page).unwrap();
        assert!(said.contains(why), "{bad}: {said}");
    }
}

#[test]
fn every_promise_of_the_security_page_names_a_test_that_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(top.join("docs/concepts/security.md")).unwrap();
    let promises = promises(&page);
    assert!(promises.len() > 30, "found only {}", promises.len());
    let mut wrong = Vec::new();
    for promise in &promises {
        let tests = tests_named(promise);
        if tests.is_empty() {
            wrong.push(format!("no test: {promise}"));
        }
        for (file, name) in tests {
            let code = fs::read_to_string(top.join(file)).unwrap_or_default();
            if let Some(why) = objection(&code, name, &page) {
                wrong.push(format!("{file} {why}: {promise}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
