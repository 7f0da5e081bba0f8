//! Commands that users of Vagrant, Lima or Multipass know, and what stead has instead.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Returns what to use instead of an argument of another tool's.
pub(super) fn tip(error: &clap::Error, words: &[String]) -> Option<String> {
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            command(said(ContextKind::InvalidSubcommand)?).map(str::to_string)
        }
        ErrorKind::UnknownArgument => argument(said(ContextKind::InvalidArg)?, words),
        _ => None,
    }
}

fn command(word: &str) -> Option<&'static str> {
    Some(match word {
        "reload" => "`stead restart` shuts machines down and starts them again",
        "global-status" | "ls" => "`stead list` shows the machines of all projects",
        "start" | "launch" | "create" => "`stead up` creates and starts machines",
        "stop" => "`stead halt` shuts machines down",
        "delete" | "rm" => "`stead destroy` removes machines and their disks",
        "shell" => "`stead ssh` opens a shell in a machine",
        "rsync" => "`stead sync` copies the synced folders",
        "rsync-auto" => "`stead sync --watch` keeps copying changes",
        "upload" | "transfer" => "`stead copy` copies files to and from machines",
        "package" | "snapshot" | "save" => {
            "stead has no snapshots; `stead box pack MACHINE` makes a box from a machine's current state"
        }
        "suspend" | "resume" | "pause" => {
            "stead does not suspend machines; `stead halt` and `stead up` keep their disks"
        }
        "prune" => "`stead box prune` removes boxes that are long unused",
        _ => return None,
    })
}

fn argument(word: &str, words: &[String]) -> Option<String> {
    let command = words.iter().find(|word| !word.starts_with('-'))?;
    Some(match (command.as_str(), word) {
        ("up" | "provision" | "restart", "--provision-with") => {
            "`stead provision --only NAME` runs provisioners by name".to_string()
        }
        ("exec", word) if !word.starts_with('-') => {
            "write the command after `--`: `stead exec MACHINE -- COMMAND`".to_string()
        }
        (_, "--project") => {
            "`status`, `halt`, `destroy`, `ssh` and `exec` take --project; run other commands in the project's folder, or with -C DIR".to_string()
        }
        _ => return None,
    })
}
