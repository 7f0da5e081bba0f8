//! A way for tests to die at a chosen step boundary, as a power cut or the OOM killer would.

/// `MACHINE/STEP`: the process kills itself before that step; `MACHINE/end`: after the last one.
const KILL_AT_VARIABLE: &str = "STEAD_TEST_KILL_AT";

/// The end of a machine's steps, for [`boundary`].
pub const END: &str = "end";

/// Every step boundary passes here.
pub fn boundary(machine: &str, step: &str) {
    let Ok(at) = std::env::var(KILL_AT_VARIABLE) else {
        return;
    };
    if at.split_once('/') == Some((machine, step)) {
        // SIGKILL cannot be caught, so this does not return.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}
