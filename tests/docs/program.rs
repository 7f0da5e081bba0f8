//! What the reference lists, against the program.

use std::{collections::BTreeSet, fs, path::Path};

use super::pages::{Page, files_below, has_extension, repository};

/// The names of every command that help shows: `stead box add`.
pub(crate) fn commands() -> Vec<String> {
    fn below(command: &clap::Command, name: &str, names: &mut Vec<String>) {
        for sub in command.get_subcommands() {
            if sub.get_name() == "help" || sub.is_hide_set() {
                continue;
            }
            let name = format!("{name} {}", sub.get_name());
            below(sub, &name, names);
            if !sub.has_subcommands() {
                names.push(name);
            }
        }
    }
    let mut names = Vec::new();
    below(&stead::cli::command(), "stead", &mut names);
    names
}

/// Variables that are named in the code of stead.
fn variables() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in files_below(Path::new("src")) {
        if !has_extension(&path, "rs") {
            continue;
        }
        let text = fs::read_to_string(repository().join(path)).unwrap();
        for part in text.split("\"STEAD_").skip(1) {
            let name: String = (part.chars())
                .take_while(|c| c.is_ascii_uppercase() || *c == '_')
                .collect();
            found.insert(format!("STEAD_{name}"));
        }
    }
    found
}

#[test]
fn every_command_is_in_the_reference() {
    let page = Page::read(Path::new("docs/reference/commands.md"));
    let missing: Vec<String> = (commands().into_iter())
        .filter(|name| !page.text.contains(&format!("`{name}`")))
        .collect();
    assert!(commands().len() > 40);
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_variable_is_in_the_reference() {
    let page = Page::read(Path::new("docs/reference/environment.md"));
    let found = variables();
    assert!(found.contains("STEAD_DATA_DIR"), "{found:?}");
    let missing: Vec<&String> = (found.iter())
        .filter(|name| !page.text.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
