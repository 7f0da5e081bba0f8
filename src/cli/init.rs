//! `stead init`: writes a Machinefile to start from.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    host::file,
    machinefile,
    report::{clean::Shown, say},
    session::{invocation::Invocation, locate::start_folder},
};

const EXAMPLES: &str = "\
Examples:
  stead init       Name the project after its folder
  stead init shop  Name the project shop";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InitArgs {
    /// The project's name [default: the folder's name]
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

pub(super) fn run(invocation: &Invocation, args: InitArgs) -> Result<ExitCode, Failure> {
    let folder = start_folder(invocation)?;
    let name = match args.name {
        Some(name) => name,
        None => slug(
            &folder
                .canonicalize()
                .ok()
                .and_then(|path| {
                    path.file_name()
                        .map(|name| name.to_string_lossy().into_owned())
                })
                .unwrap_or_default(),
        ),
    };
    if slug(&name) != name {
        return Err(Failure::usage(
            format!("invalid project name {name:?}"),
            format!(
                "use lower-case ASCII letters, digits and dashes: {}",
                slug(&name)
            ),
        ));
    }
    let path = folder.join("Machinefile");
    let text = machinefile::template(&name);
    file::create(&path, text.as_bytes(), file::READABLE).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::error(
            format!("{} exists already, and is kept as it is", path.shown()),
            "`stead validate` checks it",
        ),
        _ => Failure::io(format!("write {}", path.shown()), &error),
    })?;
    say(
        invocation.style,
        &format!("wrote {}; `stead up` starts its machine", path.shown()),
    );
    Ok(ExitCode::SUCCESS)
}

/// Makes a hostname label (RFC 1123) from any text.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.to_lowercase().chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    slug.truncate(30);
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() {
        "project".into()
    } else {
        slug.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names_become_labels() {
        assert_eq!(slug("My Shop (2)"), "my-shop-2");
        assert_eq!(slug("Übung"), "bung");
        assert_eq!(slug("…"), "project");
        assert_eq!(slug("web-1"), "web-1");
    }
}
