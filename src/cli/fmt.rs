use std::{io::Read, os::unix::fs::MetadataExt, path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    host::file::replace,
    machinefile,
    report::{clean::Shown, stdio},
};

use super::{Failure, Global, output, session::find_machinefile};

#[derive(Args)]
pub struct FmtArgs {
    /// Files to format; none means the project's Machinefile, - means standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write nothing; exit 1 if a file would change
    #[arg(long)]
    check: bool,
}

pub fn run(global: &Global, args: FmtArgs) -> Result<ExitCode, Failure> {
    let files = if args.files.is_empty() {
        vec![find_machinefile(global)?]
    } else {
        args.files
    };
    let mut unformatted = false;
    for file in files {
        if file.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::io("read standard input", &error))?;
            let formatted = format(&text, "standard input")?;
            // An editor gets the file as it is.
            if stdio::stdout_is_terminal() {
                output::data(&formatted)?;
            } else {
                output::raw(formatted.as_bytes())?;
            }
            continue;
        }
        let name = file.shown();
        let text = std::fs::read_to_string(&file)
            .map_err(|error| Failure::io(format!("read {name}"), &error))?;
        let formatted = format(&text, &name)?;
        if formatted == text {
            continue;
        }
        if args.check {
            unformatted = true;
            output::say(global, &format!("{name} is not formatted"));
            continue;
        }
        write(&file, &formatted)?;
        output::say(global, &format!("formatted {name}"));
    }
    Ok(ExitCode::from(u8::from(unformatted)))
}

fn format(text: &str, name: &str) -> Result<String, Failure> {
    machinefile::format(text, name).map_err(|errors| Failure::Machinefile(Box::new(errors)))
}

/// Replaces a file whole, keeping its permissions.
fn write(file: &std::path::Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io(format!("write {}", file.shown()), &error);
    // The file itself and not a link to it.
    let file = file.canonicalize().map_err(failed)?;
    let mode = std::fs::metadata(&file).map_err(failed)?.mode() & 0o7777;
    replace(&file, text.as_bytes(), mode).map_err(failed)
}
