//! Reaches into a VM: its keys, its seed, OpenSSH, and when it can be reached.
//!
//! OpenSSH is the client; only this room configures it.

mod cards;
mod carry;
mod certificate;
mod clean;
mod clock;
mod command;
mod connection;
mod console;
mod console_log;
mod dial;
mod ending;
mod error;
mod exec;
mod files;
mod first_contact;
mod host_session;
mod install_kernel;
mod jobs;
mod kernels;
mod listening;
mod login;
mod output;
mod reach;
mod seed;
mod ssh;
mod ssh_config;
mod terminal;

pub use cards::{
    asks_another_server, bridges_without_address, cards_command, cards_without_address,
    has_no_way_out,
};
pub use carry::carry;
pub use certificate::{certificate_answer, certificate_command, certificate_input};
pub use clean::{CLEAN_SCRIPT, KERNEL_GONE, clean_command};
pub use clock::{Clock, set_clock};
pub use command::{Remote, read_lines};
pub use connection::{PATIENCE, turn_unless_connected};
pub use console::{
    boots_since, console_length, finds_no_system, hopeless, last_line, shows_prompt, tail,
};
pub use console_log::{ConsoleReader, ConsoleWatch};
pub use dial::{DIAL_LIMIT, SILENT, dial, hand_over, hang_up, no_answer, user_at_the_other_end};
pub use ending::{END_SCRIPT, while_called};
pub use error::GuestError;
pub use exec::{Listener, UserCommand, Word, exec_script, terminal_command};
pub use files::{MachineFiles, all_for_others};
pub use first_contact::{INSECURE_PUBLIC_KEY, first_contact};
pub use host_session::{HostSession, SessionEnd, pack_script};
pub use install_kernel::{
    BootSetup, INSTALL_SCRIPT, KernelToInstall, Loader, Todo as InstallTodo, Tools as PackageTools,
    install_command, parse_boot_setup, receive_command,
};
pub use jobs::{
    Answer, Job, JobName, JobOrder, JobState, NO_SUCH_JOB, job_script, parse_answer, parse_jobs,
};
pub use kernels::{KERNELS_SCRIPT, Kernels, parse_kernels};
pub use listening::listening_script;
pub use output::{LINGER, Output, SSH_FAILED, about_connection, is_about_dial};
pub use reach::{WaitResult, answers_within, wait_for_banner, wait_for_led};
pub use seed::{
    SeedContent, end_marker_script, outcome_script, seed_device, seed_errors, write_seed,
};
pub use ssh::{scp, ssh_by};
pub use ssh_config::{SshTarget, quoted, ssh_config};
pub use terminal::terminal_name;
