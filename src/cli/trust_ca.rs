//! `stead trust-ca`: how this computer comes to trust the certificates of machines.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use crate::{
    failure::Failure,
    host::paths::DataDir,
    report::{clean::Shown, counted, say, warn},
    session::{
        certificates::{change_browsers, change_system, is_in_system, manual, manual_browsers},
        invocation::Invocation,
        locate::data_dir,
    },
    tls::{Authority, DOMAIN, NETWORKS},
};

use super::output;

const EXAMPLES: &str = "\
Examples:
  stead trust-ca            Show the authority, and the commands
  stead trust-ca --install  Have this computer and your browsers trust it
  stead trust-ca --remove   Undo that";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TrustCaArgs {
    /// Add the authority to the system's store, through sudo, and to those of Firefox and Chromium
    #[arg(long, conflicts_with = "remove")]
    install: bool,
    /// Remove it from them
    #[arg(long)]
    remove: bool,
}

pub(super) fn run(invocation: &Invocation, args: TrustCaArgs) -> Result<ExitCode, Failure> {
    let data = data_dir()?;
    data.prepare()
        .map_err(|error| Failure::io("make stead's data folder", &error))?;
    if args.remove {
        return remove(invocation);
    }
    let authority = Authority::get(&data, Timestamp::now())?;
    if args.install {
        install(invocation, &data, &authority)?;
    }
    if invocation.style.json {
        output::json(&serde_json::json!({
            "path": Authority::certificate_file(&data),
            "fingerprint": authority.fingerprint(),
            "not_after": authority.not_after(),
        }))?;
    } else if !args.install {
        output::data(&shown(&data, &authority))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(data: &DataDir, authority: &Authority) -> String {
    let networks: Vec<String> = (NETWORKS.iter())
        .map(|(address, prefix)| format!("{address}/{prefix}"))
        .collect();
    let mut text = format!(
        "{}\n\n  certificate  {}\n  SHA-256      {}\n  valid until  {}\n  speaks for   names below .{DOMAIN}, and addresses of {}; for nothing else\n",
        authority.name(),
        Authority::certificate_file(data).shown(),
        authority.fingerprint(),
        authority.not_after().strftime("%Y-%m-%d"),
        networks.join(", "),
    );
    text.push_str("\n`stead trust-ca --install` has this computer trust it. By hand:\n");
    let systems = manual(data);
    for system in &systems {
        if systems.len() > 1 {
            text.push_str(&format!("\n{}:\n", system.system));
        } else {
            text.push('\n');
        }
        for command in &system.commands {
            text.push_str(&format!("  {command}\n"));
        }
    }
    let browsers = manual_browsers(data);
    if !browsers.is_empty() {
        text.push_str("\nFirefox and Chromium, with certutil of Debian's libnss3-tools:\n\n");
        for command in browsers {
            text.push_str(&format!("  {command}\n"));
        }
    }
    text
}

fn install(invocation: &Invocation, data: &DataDir, authority: &Authority) -> Result<(), Failure> {
    change_system(authority.certificate())?;
    let browsers = change_browsers(Some(&Authority::certificate_file(data)));
    say_failed(&browsers.failed);
    let with = match browsers.changed {
        0 => String::new(),
        n => format!(
            ", and so {} {}",
            if n == 1 { "does" } else { "do" },
            counted(n, "profile of browsers")
        ),
    };
    say(
        invocation.style,
        &format!("this computer trusts \"{}\"{with}", authority.name()),
    );
    Ok(())
}

fn remove(invocation: &Invocation) -> Result<ExitCode, Failure> {
    let was_there = is_in_system();
    if was_there {
        change_system("")?;
    }
    let browsers = change_browsers(None);
    say_failed(&browsers.failed);
    say(
        invocation.style,
        match was_there || browsers.changed > 0 {
            true => "this computer no longer trusts the authority",
            false => "this computer does not trust the authority",
        },
    );
    Ok(ExitCode::SUCCESS)
}

fn say_failed(databases: &[String]) {
    for failed in databases {
        warn(&format!("a browser's database is as it was: {failed}"));
    }
}
