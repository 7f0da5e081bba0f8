//! The documentation against the program: every link leads somewhere, every Machinefile validates, every command
//! is one that stead has.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test that cannot go on panics"
)]

mod commands;
mod examples;
mod json;
mod links;
mod man;
mod messages;
mod pages;
mod program;
