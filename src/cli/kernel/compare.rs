//! `stead kernel compare`: compares a machine with the capture that it boots.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    guest::{Remote, SSH_FAILED},
    host::{digest::nonce, runtime::runtime},
    hypervisor::feature,
    kernel::{
        KernelStore, StoredKernel,
        captured::facts_of,
        carry::Guest,
        compare::{Compared, Difference, MachineContext, Verdict, compare},
        facts::{FACTS_LIMIT, Facts, facts_script, parse_facts},
    },
    machine::Spec,
    machinefile::{Accel, CpuLike},
    report::say,
    session::{Session, invocation::Invocation},
};

use super::super::output;

const EXAMPLES: &str = "\
Examples:
  stead kernel compare web       Compare web with the capture that it boots
  stead kernel compare web prod  Compare web with the capture prod";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompareArgs {
    /// Machine to inspect
    machine: String,
    /// Capture to compare it with, by name or digest [default: the one that the machine boots]
    capture: Option<String>,
}

pub(super) fn run(invocation: &Invocation, args: CompareArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(invocation)?;
    let store = KernelStore::open(&session.data);
    let (observed, remote) = session.reachable(Some(&args.machine))?;
    let spec = &observed.record.spec;
    let booted = spec
        .kernel
        .as_ref()
        .and_then(|kernel| kernel.digest.clone());
    let (stored, there) = captured(&store, &args, booted.as_deref())?;
    let here = read_facts(&remote, there.root)?;
    let digest = stored.digest.to_string();
    let given = MachineContext {
        guest: Guest {
            cpus: spec.cpus,
            memory: spec.memory.0,
        },
        cmdline: (spec.kernel.as_ref())
            .filter(|_| booted.as_ref() == Some(&digest))
            .map(|kernel| kernel.cmdline.as_str()),
        other_cpu: other_cpu(spec),
        flag: &|name| flag(spec, &there.cpu.vendor, name),
    };
    let compared = compare(&there, &here, &given);
    let differs = compared.iter().any(|it| it.verdict() == Verdict::Different);
    if invocation.style.json {
        let subjects: Vec<_> = compared
            .iter()
            .map(|it| {
                serde_json::json!({
                    "subject": it.subject,
                    "verdict": it.verdict(),
                    "looked_at": it.looked_at,
                    "differences": it.differences,
                })
            })
            .collect();
        output::json(&serde_json::json!({
            "machine": args.machine,
            "capture": stored.manifest.name,
            "digest": digest,
            "same": !differs,
            "subjects": subjects,
        }))?;
    } else {
        output::data(&text(&compared, invocation.style.verbose))?;
        say(
            invocation.style,
            &verdict(&args.machine, &stored.manifest.name, &compared),
        );
    }
    Ok(if differs {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

/// Returns the capture to compare with, and its facts.
fn captured(
    store: &KernelStore,
    args: &CompareArgs,
    booted: Option<&str>,
) -> Result<(StoredKernel, Facts), Failure> {
    let reference = match (&args.capture, booted) {
        (Some(capture), _) => capture.as_str(),
        (None, Some(digest)) => digest,
        (None, None) => {
            return Err(Failure::usage(
                format!("machine {} boots its box's own kernel", args.machine),
                "name the capture to compare it with; `stead kernel list` lists them",
            ));
        }
    };
    let stored = store.resolve(reference)?;
    match facts_of(store, &stored)? {
        Some(facts) => Ok((stored, facts)),
        None => Err(Failure::error(
            format!(
                "kernel {} was not captured from a host, so there is nothing to compare with",
                stored.manifest.name
            ),
            "`stead kernel capture HOST` captures one",
        )),
    }
}

/// Runs the capture's script in the guest: as root if root ran it on the host, because root sees more.
fn read_facts(remote: &Remote, root: bool) -> Result<Facts, Failure> {
    let nonce = nonce().map_err(|error| Failure::io("get random bytes from the kernel", &error))?;
    let nonce = format!("stead-{nonce}");
    let script = facts_script(&nonce);
    let shell = if root { "sudo -n sh -s" } else { "sh -s" };
    let mut answer = String::new();
    let mut said = String::new();
    let status = runtime()?.block_on(remote.stream(
        shell,
        Some(script.as_bytes()),
        &mut |is_error, line| {
            let to = if is_error { &mut said } else { &mut answer };
            if to.len() < FACTS_LIMIT {
                to.push_str(line);
                to.push('\n');
            }
        },
    ))?;
    if status.code() == Some(SSH_FAILED) {
        return Err(Failure::error(
            format!(
                "machine {} cannot be reached: {}",
                remote.machine,
                said.trim()
            ),
            format!("`stead ssh {}` must work", remote.machine),
        ));
    }
    Ok(parse_facts(answer.as_bytes(), &nonce, &remote.machine)?.0)
}

const CPU_OF_HOST: &str = "the machine has the CPU of this host; `cpu` in the Machinefile";
const CPU_OF_QEMU: &str = "the machine has the CPU that QEMU emulates; `cpu` in the Machinefile";

/// Explains why the machine's CPU is not that of the captured host, unless the Machinefile asks for
/// exactly that.
fn other_cpu(spec: &Spec) -> Option<&'static str> {
    match (&spec.cpu, spec.accel) {
        (Some(cpu), _) if cpu.like == CpuLike::Exact => None,
        (Some(_), _) => Some("the nearest that this host can give"),
        (None, Accel::Kvm) => Some(CPU_OF_HOST),
        (None, Accel::Tcg) => Some(CPU_OF_QEMU),
    }
}

/// Explains why a flag of the CPU may differ.
fn flag(spec: &Spec, vendor: &str, flag: &str) -> Option<String> {
    let Some(cpu) = &spec.cpu else {
        return other_cpu(spec).map(str::to_string);
    };
    match feature(flag, vendor) {
        // The kernel derives it, or only a physical CPU has it.
        None => Some("cannot be given to a machine".into()),
        Some(name) if cpu.missing.contains(name) => {
            Some("this host does not have it, as `up` reported".into())
        }
        Some(_) => None,
    }
}

/// Number of lines to show of each subject.
const SHOWN: usize = 6;

fn text(compared: &[Compared], all: bool) -> String {
    let mut text = String::new();
    for it in compared {
        let open = (it.differences.iter())
            .filter(|it| it.announced.is_none())
            .count();
        let announced = it.differences.len() - open;
        let mut counts = Vec::new();
        if open > 0 {
            counts.push(format!("{open} different"));
        }
        if announced > 0 {
            counts.push(format!("{announced} announced"));
        }
        if it.looked_at > 1 {
            counts.push(format!("of {}", it.looked_at));
        }
        text.push_str(
            format!(
                "{:<12} {:<10} {}",
                it.subject,
                it.verdict().word(),
                counts.join(", ")
            )
            .trim_end(),
        );
        text.push('\n');
        let mut lines = 0;
        for difference in it.differences.iter().filter(|it| it.announced.is_none()) {
            lines += 1;
            if all || lines <= SHOWN {
                text.push_str(&line(difference));
            }
        }
        if !all && lines > SHOWN {
            text.push_str(&format!("  … and {} more: -v shows them\n", lines - SHOWN));
        }
        if all {
            for difference in it.differences.iter().filter(|it| it.announced.is_some()) {
                text.push_str(&line(difference));
            }
        } else {
            for (why, names) in by_reason(it) {
                let shown: Vec<&str> = names.iter().take(4).copied().collect();
                let more = if names.len() > 4 {
                    format!(", and {} more", names.len() - 4)
                } else {
                    String::new()
                };
                text.push_str(&format!("  {}{more}: {why}\n", shown.join(", ")));
            }
        }
    }
    text
}

/// Groups announced differences by their reason.
fn by_reason(compared: &Compared) -> Vec<(&str, Vec<&str>)> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for difference in &compared.differences {
        let Some(why) = &difference.announced else {
            continue;
        };
        match reasons.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, names)) => names.push(&difference.name),
            None => reasons.push((why, vec![&difference.name])),
        }
    }
    reasons
}

fn line(difference: &Difference) -> String {
    let value = |value: &Option<String>| match value {
        None => "–".to_string(),
        Some(value) => value.replace('\n', " "),
    };
    let why = match &difference.announced {
        Some(why) => format!("  ({why})"),
        None => String::new(),
    };
    format!(
        "  {}: {} → {}{why}\n",
        difference.name,
        value(&difference.there),
        value(&difference.here)
    )
}

fn verdict(machine: &str, capture: &str, compared: &[Compared]) -> String {
    let of = |verdict| {
        let subjects: Vec<&str> = compared
            .iter()
            .filter(|it| it.verdict() == verdict)
            .map(|it| it.subject)
            .collect();
        subjects.join(", ")
    };
    match (of(Verdict::Different), of(Verdict::Announced)) {
        (different, _) if !different.is_empty() => {
            format!("{machine} differs from {capture}: {different}")
        }
        (_, announced) if !announced.is_empty() => {
            format!(
                "{machine} is the same as {capture}, except for announced differences ({announced})"
            )
        }
        _ => format!("{machine} is the same as {capture}"),
    }
}
