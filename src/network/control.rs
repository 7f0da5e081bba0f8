//! What commands say to the process that is a project's network, and what it answers: a line of JSON each, on a Unix
//! socket that only the user can open.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::host::ports::HostPort;

use super::{Counts, GuestPorts, Mac, Refusals, WayIn, Wiring, conditions::ByHand};

/// The version of this language. A process of another version is replaced by a newer stead, and left alone by an older
/// one. An older process ignores fields that it does not know, so raise it with each field that changes what is meant.
///
/// 4: QEMU listens, and frames are in a stream. 5: a request says its version, and a process does nothing of what another
/// version asks. 6: ports of the host lead to guests. 7: guests are asked whether they take connections.
pub(super) const FORMAT: u32 = 7;

/// The longest line, in bytes.
pub(super) const LONGEST_LINE: u64 = 8 << 20;

/// The name of the socket, in the folder of the cards' sockets.
pub(super) const SOCKET: &str = "control";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    /// Be this network from now on.
    Wire(Wiring),
    /// These ports of the host lead to a machine from now on.
    Lead(WayIn),
    /// This machine has booted.
    Reached(String),
    /// Ask the guest with this card whether it takes connections at a TCP port.
    Probe(Mac, u16),
    /// Only answer.
    Look,
    /// Answer with the links too.
    Links,
    /// Lay this over the conditions of links.
    Set(ByHand),
    /// Send the frames of these cards after the answer, until the command closes its side.
    Record(Vec<Mac>),
}

/// What every version says, whatever else it means by a line.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// A request as it is sent.
#[derive(Serialize, Deserialize)]
struct Asked<Of> {
    format: u32,
    request: Of,
}

impl Request {
    /// The request as a line.
    pub(super) fn line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(&Asked {
            format: FORMAT,
            request: self,
        })?;
        line.push(b'\n');
        Ok(line)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// If it is no request, or one of another version, in words.
    pub(super) fn read(line: &[u8]) -> Result<Self, String> {
        let cannot = |error| format!("cannot read what to do: {error}");
        let Version { format } = serde_json::from_slice(line).map_err(cannot)?;
        if format != FORMAT {
            return Err(format!(
                "a stead of another release asks: its version is {format}, and this one's is {FORMAT}"
            ));
        }
        let asked: Asked<Request> = serde_json::from_slice(line).map_err(cannot)?;
        Ok(asked.request)
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    pub(super) format: u32,
    /// Why the request was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    pub counts: BTreeMap<Mac, Counts>,
    /// The ports of the machines, by their names.
    #[serde(default)]
    pub ports: BTreeMap<String, GuestPorts>,
    /// What was refused to machines that may not reach everything, by their names.
    #[serde(default)]
    pub refusals: BTreeMap<String, Refusals>,
    /// Why networks have no way out, by their names.
    #[serde(default)]
    pub ways_out: BTreeMap<String, String>,
    /// The machines to which ports of the host lead.
    #[serde(default)]
    pub led: Vec<String>,
    /// The ports of the host that cannot be opened, by the names of the machines that they are to lead to.
    #[serde(default)]
    pub unopened: BTreeMap<String, Vec<Unopened>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) probed: Option<Probed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Links>,
}

impl Reply {
    /// Reads a line. Of another version's, only which one it is.
    pub(super) fn read(line: &[u8]) -> serde_json::Result<Self> {
        match serde_json::from_slice(line)? {
            Version { format: FORMAT } => serde_json::from_slice(line),
            Version { format } => Ok(Reply {
                format,
                ..Reply::default()
            }),
        }
    }
}

/// What a guest does with connections to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probed {
    Takes,
    Refuses,
    /// It does not answer: it is away, has no address, or drops what comes.
    Silent,
}

/// A port that cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unopened {
    pub host: HostPort,
    /// What the system says.
    pub said: String,
}

/// The links of a network: what it was told last, and what `stead link` has laid over it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Links {
    pub wiring: Wiring,
    pub by_hand: Vec<ByHand>,
}
