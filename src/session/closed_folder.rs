//! Whether QEMU can reach the images of machines, where it runs as a user of its own.

use crate::{
    host::{paths::DataDir, shell::shell_quote},
    hypervisor::Connection,
    report::clean::Shown,
};

/// Returns which folder keeps QEMU's user out, and how to let it in; `None` if none does, or QEMU runs as this user.
pub fn closed_folder(connection: &Connection, data: &DataDir) -> Option<(String, String)> {
    if !connection.uri().is_system() {
        return None;
    }
    let (user, group) = connection.qemu_ids()?;
    let (folder, mode) = data.closed_to(user, group)?;
    let name = match nix::unistd::User::from_uid(user.into()) {
        Ok(Some(user)) => user.name,
        _ => format!("user {user}"),
    };
    let path = shell_quote(&folder.to_string_lossy());
    Some((
        format!(
            "QEMU runs as {name}, who cannot enter {} (mode {mode:03o}), unless an access control list allows it, so machines do not start",
            folder.shown()
        ),
        format!(
            "run `chmod o+x {path}`, or set STEAD_DATA_DIR to a folder that others can pass through"
        ),
    ))
}
