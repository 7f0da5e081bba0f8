//! `stead link`: shows, degrades, cuts, restores and records the links between machines.

mod record;
mod show;

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};

use crate::{
    failure::Failure,
    host::names::{nearest, one_of},
    machinefile::duration,
    network::{Delay, Loss, Rate, Settings},
    report::{clean::words, say},
    session::{
        invocation::Invocation,
        links::{Ends, open, set},
    },
};

const EXAMPLES: &str = "\
Examples:
  stead link                                   Show the links and their conditions
  stead link set web db latency=80ms loss=2%   Make the link of web and db slow and lossy
  stead link cut db --for 30s                  Cut db off from the other machines for 30 s
  stead link restore                           Go back to what the Machinefile says
  stead link record web | tshark -r -          Read what web sends and gets";

const SET_EXAMPLES: &str = "\
Examples:
  stead link set web db latency=80ms jitter=10ms loss=2% rate=10mbit
  stead link set web db loss=5% --one-way      Lose what web sends to db, and nothing else
  stead link set web latency=1s --for 1m       Slow down all links of web for a minute
  stead link set latency=5ms                   Slow down all links of the project";

const CUT_EXAMPLES: &str = "\
Examples:
  stead link cut db web             No frame passes between db and web
  stead link cut db web --one-way   No frame of db reaches web
  stead link cut db --for 30s       No frame passes between db and any machine for 30 s";

const RESTORE_EXAMPLES: &str = "\
Examples:
  stead link restore         Restore all links
  stead link restore db web  Restore the link of db and web
  stead link restore db      Restore all links of db";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LinkArgs {
    #[command(subcommand)]
    command: Option<LinkCommand>,
}

#[derive(Subcommand)]
enum LinkCommand {
    /// Set latency, jitter, loss and rate of links
    Set(SetArgs),
    /// Let nothing pass between machines
    Cut(CutArgs),
    /// Go back to the conditions of the Machinefile
    Restore(RestoreArgs),
    /// Record the frames of a machine's network cards, as pcap
    Record(record::RecordArgs),
}

/// What limits the links that machines name.
#[derive(Args)]
struct ScopeArgs {
    /// Only links on this network [default: all networks]
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// Only what the first machine sends [default: both directions]
    #[arg(long)]
    one_way: bool,
}

#[derive(Args)]
#[command(after_help = SET_EXAMPLES)]
struct SetArgs {
    /// Two machines, one for all its links, or none for all links; then conditions: latency=80ms,
    /// jitter=10ms (either way; in us, ms or s), loss=2%, rate=10mbit (kbit, mbit, gbit or `none`)
    #[arg(value_name = "MACHINE|CONDITION=VALUE", required = true)]
    words: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// How long it holds, such as 30s or 5m [default: until `restore`, or until the last machine halts]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
}

#[derive(Args)]
#[command(after_help = CUT_EXAMPLES)]
struct CutArgs {
    /// Two machines, or one machine to cut it off from all others
    #[arg(value_name = "MACHINE", required = true, num_args = 1..=2)]
    machines: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// How long it holds, such as 30s or 5m [default: until `restore`, or until the last machine halts]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
}

#[derive(Args)]
#[command(after_help = RESTORE_EXAMPLES)]
struct RestoreArgs {
    /// Two machines, or one machine for all its links [default: all links]
    #[arg(value_name = "MACHINE", num_args = 0..=2)]
    machines: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
}

pub(super) fn run(invocation: &Invocation, args: LinkArgs) -> Result<ExitCode, Failure> {
    match args.command {
        None => show::run(invocation),
        Some(LinkCommand::Set(args)) => {
            let (machines, settings) = parse(&args.words)?;
            let ends = ends(machines, args.scope)?;
            change(invocation, &ends, Some(settings), args.time)
        }
        Some(LinkCommand::Cut(args)) => {
            let settings = Settings {
                cut: true,
                ..Settings::default()
            };
            let ends = ends(args.machines, args.scope)?;
            change(invocation, &ends, Some(settings), args.time)
        }
        Some(LinkCommand::Restore(args)) => {
            let ends = ends(args.machines, args.scope)?;
            change(invocation, &ends, None, None)
        }
        Some(LinkCommand::Record(args)) => record::run(invocation, args),
    }
}

fn ends(machines: Vec<String>, scope: ScopeArgs) -> Result<Ends, Failure> {
    if scope.one_way && machines.is_empty() {
        return Err(Failure::usage(
            "--one-way needs the machine that sends",
            "name it, and the machine that gets it if only one is meant",
        ));
    }
    Ok(Ends {
        machines,
        network: scope.network,
        one_way: scope.one_way,
    })
}

fn change(
    invocation: &Invocation,
    ends: &Ends,
    settings: Option<Settings>,
    time: Option<Duration>,
) -> Result<ExitCode, Failure> {
    let session = open(invocation)?;
    set(&session, ends, settings, time)?;
    let arrow = if ends.one_way { "→" } else { "↔" };
    let link = match ends.machines.as_slice() {
        [] => "all links".to_string(),
        [one] => format!("{one} {arrow} all"),
        [one, other, ..] => format!("{one} {arrow} {other}"),
    };
    let what = settings.map_or_else(
        || "as the Machinefile says".to_string(),
        |settings| settings.to_string(),
    );
    say(invocation.style, &words(&format!("{link}: {what}")));
    Ok(ExitCode::SUCCESS)
}

/// Reads machines, and then conditions.
fn parse(all: &[String]) -> Result<(Vec<String>, Settings), Failure> {
    const NAMES: [&str; 4] = ["latency", "jitter", "loss", "rate"];
    let mut machines = Vec::new();
    let mut settings = Settings::default();
    for word in all {
        let Some((name, value)) = word.split_once('=') else {
            machines.push(word.clone());
            continue;
        };
        fn put<T>(
            place: &mut Option<T>,
            (name, value): (&str, &str),
            parse: fn(&str) -> Result<T, String>,
        ) -> Result<(), Failure> {
            let parsed = parse(value).map_err(|why| {
                Failure::usage(
                    format!("{} is not a value for {name}: {why}", words(value)),
                    "`stead link set --help` shows which values there are",
                )
            })?;
            match place.replace(parsed) {
                None => Ok(()),
                Some(_) => Err(Failure::usage(
                    format!("{name} is given twice"),
                    "keep one of them",
                )),
            }
        }
        match name {
            "latency" => put(&mut settings.latency, (name, value), Delay::parse)?,
            "jitter" => put(&mut settings.jitter, (name, value), Delay::parse)?,
            "loss" => put(&mut settings.loss, (name, value), Loss::parse)?,
            "rate" => put(&mut settings.rate, (name, value), Rate::parse)?,
            other => {
                return Err(Failure::usage(
                    format!("there is no condition {}", words(other)),
                    // tc-netem(8) calls it so.
                    match (other == "delay")
                        .then_some("latency")
                        .or_else(|| nearest(other, NAMES.into_iter()))
                    {
                        Some(near) => format!("did you mean {near}={}?", words(value)),
                        None => format!("the conditions are {}", one_of(&NAMES)),
                    },
                ));
            }
        }
    }
    if settings.is_empty() {
        return Err(Failure::usage(
            "no condition is given",
            "add latency=, jitter=, loss= or rate=: stead link set web db latency=80ms",
        ));
    }
    if machines.len() > 2 {
        return Err(Failure::usage(
            format!(
                "{} machines are given, but a link has two ends",
                machines.len()
            ),
            "name two machines, or one machine for all its links",
        ));
    }
    Ok((machines, settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(Vec<String>, String), String> {
        let all: Vec<String> = line.split(' ').map(ToString::to_string).collect();
        parse(&all)
            .map(|(machines, settings)| (machines, settings.to_string()))
            .map_err(|failure| failure.message())
    }

    #[test]
    fn machines_and_conditions_are_told_apart() {
        let (machines, settings) =
            parsed("web db latency=80ms jitter=10ms loss=2% rate=10mbit").unwrap();
        assert_eq!(machines, ["web", "db"]);
        assert_eq!(settings, "latency 80ms, jitter 10ms, loss 2%, rate 10mbit");
        assert_eq!(parsed("loss=0% web").unwrap().0, ["web"]);
        assert_eq!(parsed("rate=none").unwrap().1, "rate none");
        for (line, said) in [
            ("web db", "no condition is given"),
            (
                "a b c loss=1%",
                "3 machines are given, but a link has two ends",
            ),
            ("web delay=1ms", "there is no condition delay"),
            ("web loss=2", "2 is not a value for loss: it needs a %"),
            ("web loss=2% loss=3%", "loss is given twice"),
            (
                "web latency=-1ms",
                "-1ms is not a value for latency: must not be negative",
            ),
        ] {
            assert_eq!(parsed(line).unwrap_err(), said, "{line}");
        }
    }
}
