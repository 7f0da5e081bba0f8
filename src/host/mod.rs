//! The computer that stead runs on: the paths of stead's files and how they are written, locks, running
//! programs (also in a sandbox), temporary folders, ports, sockets, free space, what to do about its errors, clocks, addresses, and folders that foreign
//! names cannot lead out of.

pub mod address;
pub mod beneath;
pub mod bounded;
pub mod changed_terminal;
pub mod clock;
pub mod confine;
pub mod digest;
pub mod file;
pub mod firmware;
pub mod free_space;
pub mod interrupt;
pub mod kdl;
pub mod lock;
pub mod names;
pub mod open;
pub mod paths;
pub mod ports;
pub mod process;
pub mod remedy;
pub mod runtime;
pub mod scratch;
pub mod shell;
pub mod socket_folder;
pub mod typed_line;
pub mod unread;
