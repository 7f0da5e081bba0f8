//! The machine stead runs on: where stead's files are, locks, ports.

pub mod lock;
pub mod paths;
pub mod ports;
