//! Man pages, written from the program's own arguments. `./dev docs` takes them from here.

use std::{fs, path::Path};

/// One page per command: `stead.1`, `stead-up.1`, `stead-box-add.1`.
#[test]
fn man_pages_of_every_command() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("man");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    clap_mangen::generate_to(stead::cli::command(), &folder).unwrap();

    let mut missing = Vec::new();
    for name in super::program::commands() {
        let page = folder.join(format!("{}.1", name.replace(' ', "-")));
        let text = fs::read_to_string(&page).unwrap_or_default();
        if !text.contains(".SH SYNOPSIS") || !text.contains(".SH OPTIONS") {
            missing.push(page);
        }
    }
    assert!(missing.is_empty(), "no page, or half of one: {missing:?}");
    let first = fs::read_to_string(folder.join("stead.1")).unwrap();
    assert!(first.contains("stead\\-up(1)"), "{first}");
    // What OpenSSH calls is nobody's to read about.
    assert!(!folder.join("stead-dial.1").exists());
}
