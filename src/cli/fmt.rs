//! `stead fmt`: formats Machinefiles.

use std::{
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use crate::{
    failure::Failure,
    host::{file::replace, open},
    machinefile,
    report::{clean::Shown, say, stdio},
    session::{
        invocation::Invocation,
        locate::{find_machinefile, start_folder},
    },
};

use super::output;

const EXAMPLES: &str = "\
Examples:
  stead fmt          Format the project's Machinefile
  stead fmt --check  Only check it, as in CI";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FmtArgs {
    /// Files to format; `-` is standard input [default: the project's Machinefile]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only check; exit 1 if a file is not formatted
    #[arg(long)]
    check: bool,
}

pub(super) fn run(invocation: &Invocation, args: FmtArgs) -> Result<ExitCode, Failure> {
    let files = if args.files.is_empty() {
        vec![find_machinefile(invocation)?]
    } else {
        let start = match invocation.directory {
            Some(_) => start_folder(invocation)?,
            None => PathBuf::new(),
        };
        (args.files.into_iter())
            .map(|file| match file.as_os_str() == "-" {
                true => file,
                false => start.join(file),
            })
            .collect()
    };
    let mut unformatted = false;
    for file in files {
        if file.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::stdin()
                .take(machinefile::LARGEST)
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::io("read standard input", &error))?;
            let (_, formatted) = format(bytes, "standard input")?;
            // An editor gets its text back even where it is formatted already.
            if stdio::stdout_is_terminal() {
                output::data(&formatted)?;
            } else {
                output::raw(formatted.as_bytes())?;
            }
            continue;
        }
        let name = file.shown();
        let bytes = read(&file)?;
        let (text, formatted) = format(bytes, &name)?;
        if formatted == text {
            continue;
        }
        if args.check {
            unformatted = true;
            let why = match windows(&text) {
                Some(what) => format!(": it has {what}"),
                None => String::new(),
            };
            say(invocation.style, &format!("{name} is not formatted{why}"));
            continue;
        }
        write(&file, &formatted)?;
        let note = match windows(&text) {
            Some(what) => format!(", without {what}"),
            None => String::new(),
        };
        say(invocation.style, &format!("formatted {name}{note}"));
    }
    Ok(ExitCode::from(u8::from(unformatted)))
}

/// Names what an editor of Windows writes and the format does not have.
fn windows(text: &str) -> Option<&'static str> {
    match (text.starts_with('\u{feff}'), text.contains("\r\n")) {
        (true, true) => Some("a byte order mark and lines that end in CRLF"),
        (true, false) => Some("a byte order mark"),
        (false, true) => Some("lines that end in CRLF"),
        (false, false) => None,
    }
}

/// Returns the text as it is, and formatted.
fn format(bytes: Vec<u8>, name: &str) -> Result<(String, String), Failure> {
    let formatted = machinefile::read_to_format(bytes, name).and_then(|text| {
        let formatted = machinefile::format(&text, name)?;
        Ok((text, formatted))
    });
    formatted.map_err(|errors| Failure::Machinefile(Box::new(errors)))
}

/// Reads a file. A symlink came with the project, so it may lead only to files of the project: errors show lines of what
/// is read.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::io(format!("read {}", file.shown()), &error);
    let project = project_of(file).map_err(failed)?;
    let real = file.canonicalize().map_err(failed)?;
    if !real.starts_with(&project) {
        return Err(Failure::error(
            format!(
                "cannot format {}: {}",
                file.shown(),
                open::leads_out(&real, &project)
            ),
            format!("run `stead fmt {}` to format the file itself", real.shown()),
        ));
    }
    open::bytes_within(file, machinefile::LARGEST, &project).map_err(failed)
}

/// Replaces a file's content, and keeps its permissions. A symlink is kept; the file it leads to is replaced.
fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io(format!("write {}", file.shown()), &error);
    let real = file.canonicalize().map_err(failed)?;
    if !real.starts_with(project_of(file).map_err(failed)?) {
        return Err(failed(std::io::Error::other(
            "it became a symlink out of the project meanwhile",
        )));
    }
    let mode = std::fs::metadata(&real).map_err(failed)?.mode() & 0o7777;
    replace(&real, text.as_bytes(), mode).map_err(failed)
}

/// Returns the project's folder of a file, without symlinks: the nearest folder with a Machinefile,
/// or else the file's own.
fn project_of(file: &Path) -> std::io::Result<PathBuf> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize()?;
    let found = machinefile::find(&folder).and_then(|it| it.parent().map(Path::to_path_buf));
    Ok(found.unwrap_or(folder))
}
