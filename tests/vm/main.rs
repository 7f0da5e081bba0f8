//! Real VMs, as people run them: the binary, libvirt, QEMU, OpenSSH.
//!
//! `./dev test` runs this twice, as an ordinary user on qemu:///session and, of it what the two do not do
//! alike, as root on qemu:///system. It says by environment variables where things are:
//!
//! - `STEAD_BIN`: the stead to try
//! - `STEAD_TEST_BOXES`: a folder with the archives of the recipes' boxes
//! - `STEAD_TEST_MODE`: `session` or `system`
//! - `STEAD_TEST_REPO`: a checkout, for its examples
//! - `STEAD_TEST_OLD_BIN`: an older stead, for a test of `--full`
//!
//! Without `STEAD_BIN` there is nothing to run on, and every test fails and says so.

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

mod ansible;
mod belonging;
mod boxes;
mod bridges;
mod capture;
mod console;
mod crashes;
mod faults;
mod fetched;
mod firmware;
mod guarantees;
mod kernels;
mod lifecycle;
mod networks;
mod packed;
mod power;
mod project;
#[path = "../registry/server.rs"]
#[expect(dead_code, reason = "tests/registry uses the rest of it")]
mod registry;
mod resources;
#[path = "../fetch/server.rs"]
#[expect(dead_code, reason = "tests/fetch uses the rest of it")]
mod server;
mod shares;
#[path = "../fetch/signer.rs"]
mod signer;
mod soak;
mod states;
mod sync;
mod trouble;
