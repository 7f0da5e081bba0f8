//! What people type who come from Vagrant, Lima or Multipass, and what it is called here.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The way to go, where an argument is known from elsewhere.
pub fn tip(error: &clap::Error, words: &[String]) -> Option<String> {
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
        "reload" => "`stead restart` halts machines and boots them again",
        "global-status" | "ls" => "`stead list` shows the machines of all projects",
        "start" | "launch" | "create" => "`stead up` makes and boots machines",
        "stop" => "`stead halt` shuts machines down",
        "delete" | "rm" => "`stead destroy` removes machines and their disks",
        "shell" => "`stead ssh` gives a shell in a machine",
        "rsync" => "`stead sync` copies the synced folders",
        "rsync-auto" => "`stead sync --watch` goes on copying what changes",
        "upload" | "transfer" => "`stead copy` copies files to and from machines",
        "package" | "snapshot" | "save" => {
            "there are no snapshots; `stead box pack MACHINE` makes a box of a machine as it is"
        }
        "suspend" | "resume" | "pause" => {
            "machines are not suspended; `stead halt` and `stead up` keep their disks"
        }
        "prune" => "`stead box prune` removes boxes that have not been used for long",
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
            "the command goes behind `--`: `stead exec MACHINE -- COMMAND`".to_string()
        }
        (_, "--project") => {
            "`status`, `halt`, `destroy`, `ssh` and `exec` take --project; others work in the project's folder, or with -C DIR".to_string()
        }
        _ => return None,
    })
}
