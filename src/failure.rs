//! Why a command fails, in any room.

use miette::Diagnostic;

use crate::{
    host::{paths::DATA_DIR_VARIABLE, remedy},
    machinefile::MachinefileErrors,
};

/// What to do if stead's data folder cannot be used.
pub fn own_folder() -> String {
    format!(
        "stead's data folder must be one that you can write in; choose it with {DATA_DIR_VARIABLE}"
    )
}

/// Why a command fails: the message, and the exit code.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Something went wrong: exit 1.
    Error {
        message: String,
        hint: Option<String>,
    },
    /// The arguments contradict each other: exit 2.
    Usage { message: String, hint: String },
    /// The Machinefile has errors: exit 2.
    Machinefile(Box<MachinefileErrors>),
    /// Ctrl-C, SIGTERM or a closed terminal between two parts of a command: exit 130.
    Interrupted { goes_on: String },
    /// The error has been printed already; this is the exit code.
    Reported(u8),
}

impl<E: Diagnostic> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        // What the system said is more exact than what is usual for this error.
        let hint = match remedy::of_causes(&error) {
            Some(remedy) => Some(remedy.to_string()),
            None => error.help().map(|help| help.to_string()),
        };
        Failure::Error { message, hint }
    }
}

impl Failure {
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::Usage {
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub fn error(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::Error {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    pub fn io(doing: impl Into<String>, error: &std::io::Error) -> Self {
        Failure::Error {
            message: format!("cannot {}: {error}", doing.into()),
            hint: remedy::of(error).map(str::to_string),
        }
    }

    /// The same, for a file in stead's data folder.
    pub fn in_data(doing: impl Into<String>, error: &std::io::Error) -> Self {
        let hint = remedy::of(error).map_or_else(own_folder, str::to_string);
        Failure::error(format!("cannot {}: {error}", doing.into()), hint)
    }

    /// Returns the error as one line.
    pub fn message(&self) -> String {
        match self {
            Failure::Error { message, .. } | Failure::Usage { message, .. } => message.clone(),
            Failure::Machinefile(errors) => errors.to_string(),
            Failure::Interrupted { .. } => "interrupted".to_string(),
            Failure::Reported(_) => String::new(),
        }
    }

    /// Returns what to do about it, if that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Failure::Error { hint, .. } => hint.as_deref(),
            Failure::Usage { hint, .. } => Some(hint),
            Failure::Machinefile(_) | Failure::Interrupted { .. } | Failure::Reported(_) => None,
        }
    }
}
