//! The command line: reads arguments, calls a use case, prints its report.

mod adopt;
mod boxes;
mod completions;
mod console;
mod copy;
mod destroy;
mod dial;
mod doctor;
mod exec;
mod fmt;
mod global;
mod halt;
mod hosts;
mod init;
mod inventory;
mod job;
mod kernel;
mod link;
mod list;
mod logs;
mod other_tools;
mod output;
mod plan;
mod port;
mod provision;
mod render;
mod resources;
mod restart;
mod run;
mod select;
mod ssh;
mod ssh_config;
mod status;
mod sync;
mod through;
mod top;
mod trust;
mod trust_ca;
mod up;
mod url;
mod validate;
mod watch;

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};

use crate::{
    apply::fault,
    failure::Failure,
    host::{interrupt, lock, paths::DataDir},
    log::{self, Levels},
    report::{
        Event, EventKind, Style, bug, clean::words, panic_words, report_panics, reporter, stdio,
        talk, warn,
    },
    session::Invocation,
};

pub use global::Global;
pub use watch::main as watch_main;

use global::colors_are_wanted;

/// Local development VMs from a Machinefile
///
/// A project's Machinefile describes its virtual machines. `stead up` creates and boots them with
/// libvirt and QEMU, each with a kernel of your choice.
#[derive(Parser)]
#[command(
    name = "stead",
    version,
    propagate_version = true,
    infer_subcommands = false
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a commented Machinefile to start from
    Init(init::InitArgs),
    /// Start the project's machines: create, boot, sync, provision
    Up(up::UpArgs),
    /// Shut machines down; their disks are kept
    Halt(halt::HaltArgs),
    /// Restart machines, and apply changes of the Machinefile
    Restart(restart::RestartArgs),
    /// Remove machines and their disks
    Destroy(destroy::DestroyArgs),
    /// Take over the machines of a project whose folder was moved or renamed
    Adopt(adopt::AdoptArgs),
    /// Show what `up` would do
    Plan(plan::PlanArgs),
    /// Show the project's machines
    Status(status::StatusArgs),
    /// List the machines of all projects on this host
    List(list::ListArgs),
    /// Run a command in a throwaway machine, on one or more kernels
    Run(run::RunArgs),
    /// Run provisioners that are new or have changed, or run them again
    Provision(provision::ProvisionArgs),
    /// Sync folders into machines
    Sync(sync::SyncArgs),
    /// Log in to a machine, or run a command line in it
    Ssh(ssh::SshArgs),
    /// Run a command in a machine; its arguments are passed on unchanged
    Exec(exec::ExecArgs),
    /// Show, wait for and stop jobs: commands of `exec --detach`
    Job(job::JobArgs),
    /// Copy files between the host and a machine
    Copy(copy::CopyArgs),
    /// Show a machine's console
    Logs(logs::LogsArgs),
    /// Type at a machine's serial console
    Console(console::ConsoleArgs),
    /// Print OpenSSH configuration for machines
    SshConfig(ssh_config::SshConfigArgs),
    /// Print an Ansible inventory of the project
    Inventory(inventory::InventoryArgs),
    /// List which ports of the host lead to machines
    Port(port::PortArgs),
    /// Show the links between machines; degrade, cut, restore and record them
    Link(link::LinkArgs),
    /// Print the names of machines for /etc/hosts, or put them there
    Hosts(hosts::HostsArgs),
    /// Print what to open to see what a machine serves
    Url(url::UrlArgs),
    /// Check the Machinefile for errors
    Validate(validate::ValidateArgs),
    /// Format the Machinefile; comments are kept
    Fmt(fmt::FmtArgs),
    /// Manage boxes, the images that machines are made from
    #[command(name = "box")]
    Boxes(boxes::BoxArgs),
    /// Manage kernels that machines boot instead of their boxes' own
    Kernel(kernel::KernelArgs),
    /// Agree to what the project does to this computer: programs, folders, variables
    Trust(trust::TrustArgs),
    /// Show the authority of machines' certificates, or have this computer trust it
    TrustCa(trust_ca::TrustCaArgs),
    /// Show the host's CPUs and memory: total, reserved and free
    Resources(resources::ResourcesArgs),
    /// Show live CPU, memory, disk and network use of machines
    Top(top::TopArgs),
    /// Check this host and suggest fixes
    Doctor(doctor::DoctorArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Connect OpenSSH to a machine
    #[command(hide = true)]
    Dial(dial::DialArgs),
    /// Run a command in a machine for a program that speaks to it
    #[command(hide = true)]
    Through(through::ThroughArgs),
}

/// The whole command line. `stead --help` shows the global options; the short help of a command
/// leaves them to `--help`.
pub fn command() -> clap::Command {
    let root = Cli::command();
    let global: Vec<Arg> = (root.get_arguments())
        .filter(|option| option.is_global_set())
        .map(|option| option.clone().hide_short_help(true))
        .collect();
    root.mut_subcommands(|command| command.args(&global))
}

/// The whole command line, to print its help: lines break around code in backticks, not within.
fn to_help() -> clap::Command {
    fn unbroken(command: clap::Command) -> clap::Command {
        let about = command
            .get_about()
            .map(|text| as_one_word(&text.to_string()));
        let command = match about {
            Some(about) => command.about(about),
            None => command,
        };
        let argument = |argument: Arg| {
            let help = argument
                .get_help()
                .map(|text| as_one_word(&text.to_string()));
            let long = argument
                .get_long_help()
                .map(|text| as_one_word(&text.to_string()));
            let argument = match help {
                Some(help) => argument.help(help),
                None => argument,
            };
            match long {
                Some(long) => argument.long_help(long),
                None => argument,
            }
        };
        command.mut_args(argument).mut_subcommands(unbroken)
    }
    unbroken(command())
}

/// In place of a space within code. It is a space again when the help is printed.
const NO_BREAK: char = '\u{a0}';

fn as_one_word(text: &str) -> String {
    let mut is_code = false;
    text.chars()
        .map(|c| {
            is_code ^= c == '`';
            if is_code && c == ' ' { NO_BREAK } else { c }
        })
        .collect()
}

fn parse() -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let matches = (command.try_get_matches_from_mut(std::env::args_os())).or_else(|error| {
        // To hide options takes as long as all the rest of parsing, and only help shows it.
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                to_help().try_get_matches_from(std::env::args_os())
            }
            _ => Err(error),
        }
    })?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Parses the process's arguments, runs the command and prints its error, if any.
pub fn main() -> ExitCode {
    report_panics(log::keep);
    if let Err(error) = interrupt::install(last_words) {
        warn(&format!("signals are not handled: {error}"));
    }
    let json = Cell::new(false);
    match catch_unwind(AssertUnwindSafe(|| start(&json))) {
        Ok(code) => code,
        Err(payload) => {
            if json.get() {
                report_panic(&panic_words(&*payload));
            }
            ExitCode::from(1)
        }
    }
}

/// Runs before a signal ends the process: ends the line that the terminal is at.
fn last_words() {
    if stdio::stderr_is_terminal() {
        talk("\n");
    }
}

/// Reports a command's panic as an event, for readers of events who do not see stderr.
fn report_panic(reason: &str) {
    let style = Style {
        json: true,
        quiet: false,
        live: false,
        color: false,
        verbose: false,
        dated: false,
    };
    let failed = EventKind::StepFailed {
        step: "stead".into(),
        error: format!("stead itself failed: {reason}"),
        hint: Some(bug(log::keep().as_deref())),
        console: Vec::new(),
    };
    reporter(style, &[]).event(&Event::now("", failed));
}

fn start(json: &Cell<bool>) -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = error.exit_code();
            // The message quotes arguments, which may be file names that a shell's wildcard matched.
            let mut text = error.render().ansi().to_string().replace(NO_BREAK, " ");
            let words: Vec<String> = (std::env::args_os().skip(1))
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            if let Some(tip) = other_tools::tip(&error, &command(), &words) {
                text.push_str(&format!("\n  tip: {tip}\n"));
            }
            let wanted = colors_are_wanted();
            if error.use_stderr() {
                stdio::talk_in_color(&text, wanted && stdio::stderr_is_terminal());
            } else {
                let _ = stdio::data_in_color(&text, wanted && stdio::stdout_is_terminal());
            }
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    let invocation = cli.global.invocation();
    json.set(invocation.style.json);
    if let Err(failure) = start_log(&cli) {
        return render::render(&failure, invocation.style);
    }
    lock::name_command(cli.command.name());
    fault::boundary("stead", "begin");
    match run(cli.command, &invocation) {
        Ok(code) => code,
        Err(failure) => render::render(&failure, invocation.style),
    }
}

/// Starts the log: on stderr as `STEAD_LOG` or `-vv` asks, and in a file if the command may change
/// something.
fn start_log(cli: &Cli) -> Result<(), Failure> {
    let command = &cli.command;
    // OpenSSH and rsync show the output of these as their own.
    if matches!(command, Command::Dial(_) | Command::Through(_)) {
        return Ok(());
    }
    let shown = log_levels(&cli.global)?;
    let data = command.may_change().then(DataDir::find).flatten();
    if shown.is_some() || data.is_some() {
        log::start(command.name(), shown, data);
    }
    if command.changes() {
        log::keep();
    }
    Ok(())
}

/// Returns the filter of the log on stderr.
fn log_levels(global: &Global) -> Result<Option<Levels>, Failure> {
    match std::env::var(log::VARIABLE) {
        Ok(text) if !text.is_empty() => match Levels::parse(&text) {
            Ok(levels) => Ok(Some(levels)),
            Err(why) => Err(Failure::usage(
                format!("{}: {}", log::VARIABLE, words(&why)),
                "set it to a level such as `debug`, or to `PART=LEVEL`, with commas between several",
            )),
        },
        _ => Ok((global.verbose > 1).then(Levels::debug)),
    }
}

impl Command {
    /// Returns the command's name for the names of logs.
    fn name(&self) -> &'static str {
        match self {
            Command::Up(_) => "up",
            Command::Halt(_) => "halt",
            Command::Restart(_) => "restart",
            Command::Destroy(_) => "destroy",
            Command::Adopt(_) => "adopt",
            Command::Run(_) => "run",
            Command::Provision(_) => "provision",
            Command::Sync(_) => "sync",
            Command::Boxes(_) => "box",
            Command::Kernel(_) => "kernel",
            _ => "stead",
        }
    }

    /// Whether it may change machines, boxes or kernels.
    fn may_change(&self) -> bool {
        match self {
            Command::Up(_)
            | Command::Halt(_)
            | Command::Restart(_)
            | Command::Destroy(_)
            | Command::Adopt(_)
            | Command::Run(_)
            | Command::Provision(_)
            | Command::Sync(_) => true,
            Command::Boxes(args) => args.changes(),
            Command::Kernel(args) => args.changes(),
            _ => false,
        }
    }

    /// Whether it always does. The other commands call [`log::keep`] before they change something.
    fn changes(&self) -> bool {
        match self {
            Command::Adopt(_) => true,
            Command::Boxes(args) => args.changes(),
            Command::Kernel(args) => args.changes(),
            _ => false,
        }
    }
}

fn run(command: Command, invocation: &Invocation) -> Result<ExitCode, Failure> {
    match command {
        Command::Init(args) => init::run(invocation, args),
        Command::Up(args) => up::run(invocation, args),
        Command::Halt(args) => halt::run(invocation, args),
        Command::Restart(args) => restart::run(invocation, args),
        Command::Destroy(args) => destroy::run(invocation, args),
        Command::Adopt(args) => adopt::run(invocation, args),
        Command::Plan(args) => plan::run(invocation, args),
        Command::Status(args) => status::run(invocation, args),
        Command::List(args) => list::run(invocation, args),
        Command::Run(args) => run::run(invocation, args),
        Command::Provision(args) => provision::run(invocation, args),
        Command::Sync(args) => sync::run(invocation, args),
        Command::Ssh(args) => ssh::run(invocation, args),
        Command::Exec(args) => exec::run(invocation, args),
        Command::Job(args) => job::run(invocation, args),
        Command::Copy(args) => copy::run(invocation, args),
        Command::Logs(args) => logs::run(invocation, args),
        Command::Console(args) => console::run(invocation, args),
        Command::SshConfig(args) => ssh_config::run(invocation, args),
        Command::Inventory(args) => inventory::run(invocation, args),
        Command::Port(args) => port::run(invocation, args),
        Command::Hosts(args) => hosts::run(invocation, args),
        Command::Url(args) => url::run(invocation, args),
        Command::Validate(args) => validate::run(invocation, args),
        Command::Fmt(args) => fmt::run(invocation, args),
        Command::Boxes(args) => boxes::run(invocation, args),
        Command::Kernel(args) => kernel::run(invocation, args),
        Command::Trust(args) => trust::run(invocation, args),
        Command::TrustCa(args) => trust_ca::run(invocation, args),
        Command::Resources(args) => resources::run(invocation, args),
        Command::Link(args) => link::run(invocation, args),
        Command::Top(args) => top::run(invocation, args),
        Command::Doctor(args) => doctor::run(invocation, args),
        Command::Completions(args) => completions::run(args),
        Command::Dial(args) => dial::run(args, invocation),
        Command::Through(args) => through::run(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_the_help_breaks_within_code() {
        fn each(command: &mut clap::Command, lines: &mut Vec<String>) {
            for help in [command.render_help(), command.render_long_help()] {
                lines.extend(help.to_string().lines().map(ToString::to_string));
            }
            command.get_subcommands_mut().for_each(|it| each(it, lines));
        }
        for width in [60, 80, 100] {
            let mut command = to_help().term_width(width);
            command.build();
            let mut lines = Vec::new();
            each(&mut command, &mut lines);
            assert!(lines.len() > 1_000);
            for line in lines {
                assert!(line.matches('`').count() % 2 == 0, "{width}: {line}");
            }
        }
    }
}
