//! The network between the machines of a project on qemu:///session: a switch, DHCP and DNS in one small program,
//! stead-net, which needs no root.
//!
//! Each card of a machine is a Unix socket that only the user can open: QEMU listens on it, and the program connects to
//! it. When the program is killed, QEMU listens again, and the guest keeps its link. What a guest sends is untrusted. A
//! card can send only from the MAC and the address that it was given.

mod addresses;
mod appearances;
mod background;
mod conditions;
mod control;
mod dhcp;
mod dns;
mod egress;
mod frame;
#[cfg(test)]
#[path = "../../tests/network/frames.rs"]
mod frames;
mod framing;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod gate;
mod gates;
mod gateway;
mod inward;
mod line;
mod listeners;
mod measures;
mod orders;
pub mod outward;
mod own_addresses;
mod packet;
mod packets;
mod passage;
pub mod pcap;
mod ports;
mod record;
mod refusal;
mod resolver;
mod serve;
mod state;
mod subnet;
mod switch;
mod taps;
mod time;
mod way_out;
mod wiring;

pub use addresses::{Wanted, assign, host_address, mac_of, mac_on_bridge, subnet_of};
pub use background::{Keeper, NetworkError, ensure, stop};
pub use conditions::{ByHand, Direction, Held, InForce, Rule, Scope, Settings, in_force};
pub use control::{Links, Probed, Reply, Unopened};
pub use egress::{Destination, DestinationError, Egress};
pub use gate::{Refusal, Refusals};
pub use line::socket_of_qemu;
pub use listeners::{GuestPort, GuestPorts, listening_at};
pub use measures::{Delay, Loss, Rate};
pub use orders::{links, look, probe, record, set};
pub use ports::{Ssh, is_shown};
pub use record::{Recorded, Recording};
pub use serve::serve_main;
pub use state::{NetworkFiles, State};
pub use subnet::{Subnet, SubnetError};
pub use taps::{bridges, exists as interface_exists, is_own_bridge, tap_of};
pub use wiring::{
    Cable, Card, Counts, Guest, Mac, Network, PortForward, WayIn, Wiring, domain_of, own_network_of,
};

/// The domain below which all names of machines are. Nobody registers names there (ICANN, 2024).
const PRIVATE: &str = "internal";
