//! What commands say to the process that is a project's network, and what it answers: a line of JSON each, on a Unix
//! socket that only the user can open.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Counts, GuestPorts, Mac, Wiring};

/// The version of this language. A process of another version is replaced by a newer stead, and left alone by an older
/// one.
pub(super) const FORMAT: u32 = 2;

/// The longest line, in bytes.
pub(super) const LONGEST_LINE: u64 = 8 << 20;

/// The name of the socket, in the folder of the cards' sockets.
pub(super) const SOCKET: &str = "control";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    /// Be this network from now on.
    Wire(Wiring),
    /// This machine has booted.
    Reached(String),
    /// Only answer.
    Look,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    pub(super) format: u32,
    /// Why the request was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    pub counts: BTreeMap<Mac, Counts>,
    /// The ports of the machines, by their names.
    #[serde(default)]
    pub ports: BTreeMap<String, GuestPorts>,
}
