//! The page of messages has messages that stead prints.

use std::{fs, path::Path};

use crate::pages::{Page, code_spans, files_below, has_extension, repository};

/// Shorter pieces of a message are anywhere by chance.
const SHORTEST: usize = 8;

/// All source, with one space in place of each white space and of each end of a line in a string.
fn source() -> String {
    let mut text = String::new();
    for path in files_below(Path::new("src")) {
        if has_extension(&path, "rs") {
            text.push_str(&fs::read_to_string(repository().join(path)).unwrap());
        }
    }
    let text = text.replace("\\\"", "\"");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_message_is_one_of_steads() {
    let page = Page::read(Path::new("docs/troubleshooting.md"));
    let source = source();
    let mut count = 0;
    for line in page.text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 3, "{line}");
        let (spans, _) = code_spans(cells[0]);
        for message in spans {
            count += 1;
            let pieces = message.split('…').map(str::trim);
            for piece in pieces.filter(|piece| piece.chars().count() >= SHORTEST) {
                assert!(source.contains(piece), "stead does not say {piece:?}");
            }
        }
    }
    assert!(count > 50, "{count}");
}
