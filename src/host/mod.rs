//! The machine stead runs on: where stead's files are, locks, ports, free space.

pub mod lock;
pub mod paths;
pub mod ports;
pub mod process;
pub mod room;
pub mod stamp;
