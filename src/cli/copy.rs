use std::process::ExitCode;

use clap::Args;

use crate::guest::scp;

use super::{Failure, Global, session::Session, ssh::replace};

#[derive(Args)]
pub struct CopyArgs {
    /// What to copy, then where to; MACHINE:PATH is in a machine (relative to its user's home)
    #[arg(required = true, num_args = 2.., value_name = "PATH")]
    paths: Vec<String>,
}

pub fn run(global: &Global, args: CopyArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let known: Vec<&str> = session
        .project
        .machines
        .iter()
        .map(|machine| machine.name.as_str())
        .collect();
    // As with scp, a name with a slash before the colon is a local path.
    let machine_of = |path: &str| -> Option<String> {
        let (name, _) = path.split_once(':')?;
        (!name.contains('/') && !name.is_empty()).then(|| name.to_string())
    };
    let mut machines: Vec<String> = args.paths.iter().filter_map(|path| machine_of(path)).collect();
    machines.sort();
    machines.dedup();
    let machine = match machines.as_slice() {
        [one] => one.clone(),
        [] => {
            return Err(Failure::usage(
                "neither side of the copy is in a machine",
                format!("write MACHINE:PATH for it; the machines are: {}", known.join(", ")),
            ));
        }
        _ => {
            return Err(Failure::usage(
                format!("the copy names several machines: {}", machines.join(", ")),
                "copy to the host first, then to the other machine",
            ));
        }
    };
    let (_, remote) = session.reachable(Some(&machine))?;
    let mut command = scp(&remote.ssh_config());
    command.args(["-r", "-p"]);
    if global.quiet {
        command.arg("-q");
    }
    command.arg("--");
    for path in &args.paths {
        // A local file name with a colon would be taken for a host.
        if machine_of(path).is_none() && path.contains(':') && !path.starts_with('/') {
            command.arg(format!("./{path}"));
        } else {
            command.arg(path);
        }
    }
    Err(replace(command))
}
