//! The line in the user's own configuration of OpenSSH by which other programs find the machines.
//!
//! Each machine has a file for such programs beside its other ones, which is written when stead's own is. So one line is
//! enough for all machines of all projects, and a machine that is gone is gone there too.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    failure::Failure,
    guest::{all_for_others, quoted},
    host::{file, paths::CLOSED, paths::DataDir},
    report::clean::Shown,
};

/// The line above stead's own one.
const NOTE: &str = "# `stead ssh-config --install` put the next line here, and `stead ssh-config --remove` takes it out.";

/// Puts the line at the start of ~/.ssh/config: further down, it would belong to a `Host`, and options before it would
/// count. Returns the file, and whether it changed.
///
/// # Errors
/// If the file cannot be read or written.
pub fn install(data: &DataDir) -> Result<(PathBuf, bool), Failure> {
    let pattern = quoted(&all_for_others(data).to_string_lossy());
    change(|text| format!("{NOTE}\nInclude {pattern}\n{}", without(text)))
}

/// Takes the line out again. Returns the file, and whether it changed.
///
/// # Errors
/// If the file cannot be read or written.
pub fn remove() -> Result<(PathBuf, bool), Failure> {
    change(without)
}

fn change(edit: impl Fn(&str) -> String) -> Result<(PathBuf, bool), Failure> {
    let Some(home) = dirs::home_dir() else {
        return Err(Failure::error(
            "your home folder is not known, so neither is its .ssh/config",
            "set HOME",
        ));
    };
    let path = home.join(".ssh/config");
    let failed =
        |doing: &str, error: &io::Error| Failure::io(format!("{doing} {}", path.shown()), error);
    // Many have it elsewhere, and a link to it.
    let place = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    let old = match fs::read_to_string(&place) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed("read", &error)),
    };
    let new = edit(&old);
    if new == old {
        return Ok((path, false));
    }
    let write = || {
        file::create_folder(place.parent().unwrap_or(Path::new("/")), CLOSED)?;
        file::replace(&place, new.as_bytes(), mode_of(&place))
    };
    write().map_err(|error| failed("write", &error))?;
    Ok((path, true))
}

fn mode_of(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map_or(file::PRIVATE, |metadata| metadata.mode() & 0o777)
}

/// Returns the text without the note and the line behind it.
fn without(text: &str) -> String {
    let mut lines = text.split_inclusive('\n');
    let mut rest = String::new();
    while let Some(line) = lines.next() {
        match line.trim_end() == NOTE {
            true => drop(lines.next()),
            false => rest.push_str(line),
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_taken_out_and_nothing_else() {
        let own = "# mine\r\nHost a\n  User b\n\nHost *\n  Port 2";
        assert_eq!(without(own), own);
        assert_eq!(without(&format!("{NOTE}\nInclude \"/x\"\n{own}")), own);
        assert_eq!(without(&format!("Host a\n{NOTE}\nInclude x")), "Host a\n");
        assert_eq!(without(NOTE), "");
    }
}
