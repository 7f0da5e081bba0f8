//! `stead link record`: writes what a machine's network cards send and get.

use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use tempfile::NamedTempFile;

use crate::{
    failure::Failure,
    host::file,
    machinefile::duration,
    network::pcap,
    report::{clean::Shown, counted, say, stdio},
    session::{
        Session,
        invocation::Invocation,
        links::{Counted, open, record, subject},
        pack::folder_of,
    },
};

use super::super::output;

const EXAMPLES: &str = "\
Examples:
  stead link record web | tshark -r -           Print what web sends and gets
  stead link record web | wireshark -k -i -     Look at it in Wireshark
  stead link record web --write web.pcap --for 10s";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RecordArgs {
    /// Machine to record
    #[arg(value_name = "MACHINE")]
    machine: String,
    /// Only its card on this network [default: all networks]
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// File to write when the recording ends [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// How long to record, such as 10s [default: until Ctrl-C, or until the machine stops]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
}

pub(super) fn run(invocation: &Invocation, args: RecordArgs) -> Result<ExitCode, Failure> {
    let Some(to) = &args.write else {
        return to_stdout(invocation, &args);
    };
    let out = output::file(invocation, to, "--write")?;
    let session = open(invocation)?;
    let counted = to_file(&session, &args, &out)?;
    if invocation.style.json {
        output::json(&serde_json::json!({
            "machine": args.machine,
            "file": out,
            "frames": counted.frames,
            "missed": counted.missed,
        }))?;
    }
    report(invocation, &args.machine, counted);
    Ok(ExitCode::SUCCESS)
}

fn to_file(session: &Session, args: &RecordArgs, out: &Path) -> Result<Counted, Failure> {
    let writing = |error| Failure::io(format!("write {}", out.shown()), &error);
    let subject = subject(session, &args.machine, args.network.as_deref())?;
    let mut writer = BufWriter::new(file::temporary(folder_of(out)).map_err(writing)?);
    writer.write_all(&pcap::header()).map_err(writing)?;
    let counted = record(subject, args.time, &mut |at, frame| {
        writer
            .write_all(&pcap::packet(at, frame))
            .map_err(writing)?;
        Ok(true)
    })?;
    let whole: NamedTempFile = writer
        .into_inner()
        .map_err(|error| writing(error.into_error()))?;
    file::persist(whole, out, file::PRIVATE).map_err(writing)?;
    Ok(counted)
}

fn to_stdout(invocation: &Invocation, args: &RecordArgs) -> Result<ExitCode, Failure> {
    if invocation.style.json {
        return Err(Failure::usage(
            "frames are not JSON",
            "add --write FILE, and --json prints what was recorded",
        ));
    }
    if stdio::stdout_is_terminal() {
        return Err(Failure::usage(
            "a terminal cannot show frames",
            format!(
                "pipe them, as in `stead link record {} | tshark -r -`, or add --write FILE",
                args.machine
            ),
        ));
    }
    let session = open(invocation)?;
    let subject = subject(&session, &args.machine, args.network.as_deref())?;
    // Other programs open it before the first frame comes.
    if !output::raw(&pcap::header())? {
        return Ok(ExitCode::SUCCESS);
    }
    let counted = record(subject, args.time, &mut |at, frame| {
        output::raw(&pcap::packet(at, frame))
    })?;
    report(invocation, &args.machine, counted);
    Ok(ExitCode::SUCCESS)
}

fn report(invocation: &Invocation, machine: &str, it: Counted) {
    let mut line = format!("{} of {machine} recorded", counted(it.frames, "frame"));
    if it.missed > 0 {
        line.push_str(&format!(
            ", {} missed because the reader was slow",
            it.missed
        ));
    }
    say(invocation.style, &line);
}
