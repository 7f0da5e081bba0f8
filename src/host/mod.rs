//! The machine stead runs on: where stead's files are and how they are written, locks, programs,
//! confined ones, ports, free space, folders that others' names cannot lead out of.

pub mod beneath;
pub mod bounded;
pub mod confine;
pub mod file;
pub mod interrupt;
pub mod kdl;
pub mod lock;
pub mod names;
pub mod open;
pub mod paths;
pub mod ports;
pub mod process;
pub mod room;
pub mod shell;
pub mod stamp;
