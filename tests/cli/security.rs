//! docs/security.md promises nothing that no test shows.

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

#[test]
fn every_promise_of_the_security_page_names_a_test_that_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(top.join("docs/security.md")).unwrap();
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
            if !code.contains(&format!("fn {name}(")) {
                wrong.push(format!("{file} has no test {name}: {promise}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
