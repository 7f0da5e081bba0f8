//! Lets tests kill stead at a chosen step, like a power cut or the OOM killer, or make it panic there.

/// `MACHINE/STEP`: the process kills itself before that step; `MACHINE/end`: after the last one.
const KILL_AT_VARIABLE: &str = "STEAD_TEST_KILL_AT";

/// Like [`KILL_AT_VARIABLE`], but with a panic.
const PANIC_AT_VARIABLE: &str = "STEAD_TEST_PANIC_AT";

/// The end of a machine's steps, for [`boundary`].
pub const END: &str = "end";

/// Every step calls this before it starts.
#[expect(clippy::panic, reason = "a test asks for it")]
pub fn boundary(machine: &str, step: &str) {
    let is_here = |variable| {
        std::env::var(variable).is_ok_and(|at| at.split_once('/') == Some((machine, step)))
    };
    if is_here(PANIC_AT_VARIABLE) {
        std::panic::panic_any(format!("{PANIC_AT_VARIABLE} is {machine}/{step}"));
    }
    if is_here(KILL_AT_VARIABLE) {
        // SIGKILL cannot be caught, so this does not return.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}
