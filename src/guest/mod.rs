//! Reaches into a VM: its keys, its seed, OpenSSH, and when it can be reached.
//!
//! OpenSSH is the client; only this room configures it.

mod cards;
mod certificate;
mod clean;
mod clock;
mod command;
mod console;
mod console_log;
mod dial;
mod error;
mod files;
mod first_contact;
mod host_session;
mod install_kernel;
mod kernels;
mod reach;
mod seed;
mod ssh;
mod ssh_config;

pub use cards::{
    asks_another_server, bridges_without_address, cards_command, cards_without_address,
    has_no_way_out,
};
pub use certificate::{certificate_answer, certificate_command, certificate_input};
pub use clean::{CLEAN_SCRIPT, KERNEL_GONE, clean_command};
pub use clock::{Clock, set_clock};
pub use command::{Output, Remote, SSH_FAILED, read_lines};
pub use console::{hopeless, last_line, tail};
pub use console_log::{ConsoleReader, ConsoleWatch};
pub use dial::{dial, hand_over, no_answer, user_at_the_other_end};
pub use error::GuestError;
pub use files::MachineFiles;
pub use first_contact::{INSECURE_PUBLIC_KEY, first_contact};
pub use host_session::{HostSession, SessionEnd, pack_script};
pub use install_kernel::{
    BootSetup, INSTALL_SCRIPT, KernelToInstall, Loader, Todo as InstallTodo, Tools as PackageTools,
    install_command, parse_boot_setup, receive_command,
};
pub use kernels::{KERNELS_SCRIPT, Kernels, parse_kernels};
pub use reach::{WaitResult, wait_for_banner, wait_for_led};
pub use seed::{
    SeedContent, end_marker_script, outcome_script, seed_device, seed_errors, write_seed,
};
pub use ssh::{scp, ssh_by};
pub use ssh_config::{SshTarget, ssh_config};
