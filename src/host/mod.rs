//! The machine stead runs on: where stead's files are and how they are written, locks, programs,
//! ports, free space.

pub mod file;
pub mod kdl;
pub mod lock;
pub mod paths;
pub mod ports;
pub mod process;
pub mod room;
pub mod stamp;
