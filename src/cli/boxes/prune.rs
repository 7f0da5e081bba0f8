//! Removes boxes that are long unused and can be fetched again, and what killed commands left.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use crate::{
    boxes::{Litter, Store, StoredBox, build_litter, remove_build_litter},
    failure::Failure,
    host::paths::DataDir,
    report::{ask, bytes, clean::Shown, say},
    session::{invocation::Invocation, store_users::InUse},
};

use super::{super::output, describe::name};

const EXAMPLES: &str = "\
Examples:
  stead box prune --dry-run        Show what would be removed
  stead box prune --days 90 --yes  Remove boxes unused for 90 days";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PruneArgs {
    /// Remove boxes that no machine was made from or started on for this many days
    #[arg(long, value_name = "N", default_value_t = 30)]
    days: u32,
    /// Show what would be removed; remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
}

pub(super) fn run(
    invocation: &Invocation,
    store: &Store,
    data: &DataDir,
    args: &PruneArgs,
) -> Result<ExitCode, Failure> {
    let now = Timestamp::now();
    let before = now
        .checked_sub(jiff::SignedDuration::from_hours(i64::from(args.days) * 24))
        .map_err(|_| {
            Failure::usage(
                format!("{} days is too long ago for a date", args.days),
                "give fewer --days",
            )
        })?;
    // Another command may still use a younger one.
    let before_parts = before.min(now - jiff::SignedDuration::from_hours(1));
    // Nothing is removed unless everything that may use it is known.
    let in_use = InUse::observe(invocation, data)?;
    let (unused, kept) = unused(store, &in_use, before)?;
    let litter = litter(store, &in_use, before_parts)?;
    for stored in &kept {
        say(
            invocation.style,
            &format!(
                "keeping box {} ({}), which cannot be fetched again; `stead box remove {}` removes it",
                name(stored),
                stored.digest.short(),
                stored.digest.short()
            ),
        );
    }
    if invocation.style.json && args.dry_run {
        output::json(&serde_json::json!({
            "boxes": unused.iter().map(|stored| serde_json::json!({
                "name": stored.manifest.name,
                "version": stored.manifest.version,
                "digest": stored.digest.to_string(),
                "disk_use_bytes": store.disk_use(stored),
                "last_used": store.last_used(stored),
            })).collect::<Vec<_>>(),
            "files": litter.iter().map(|litter| serde_json::json!({
                "path": litter.path,
                "disk_use_bytes": litter.size,
            })).collect::<Vec<_>>(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if unused.is_empty() && litter.is_empty() {
        say(invocation.style, "there is nothing to remove");
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if args.dry_run {
        "would remove"
    } else {
        "will remove"
    };
    for stored in &unused {
        say(
            invocation.style,
            &format!(
                "{verb} box {} ({}, {})",
                name(stored),
                stored.digest.short(),
                bytes(store.disk_use(stored))
            ),
        );
    }
    for litter in &litter {
        say(
            invocation.style,
            &format!(
                "{verb} {}, which belongs to no box ({})",
                litter.path.shown(),
                bytes(litter.size)
            ),
        );
    }
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes {
        match ask("remove them?") {
            Some(true) => {}
            Some(false) => {
                say(invocation.style, "nothing was removed");
                return Ok(ExitCode::from(1));
            }
            None => {
                return Err(Failure::usage(
                    "cannot ask: standard input is not a terminal",
                    "add -y to remove without being asked, or --dry-run to only list",
                ));
            }
        }
    }
    // A box that was unused when the question was asked may be in use by now.
    let _held = InUse::lock(data)?;
    let in_use = InUse::observe(invocation, data)?;
    let mut freed = 0;
    for stored in &unused {
        if in_use.of_box(store, stored)?.is_empty() {
            freed += store.remove(stored)?;
        }
    }
    freed += store.remove_litter(before_parts, &|path| in_use.needs(path))?;
    freed += remove_build_litter()?;
    say(invocation.style, &format!("{} freed", bytes(freed)));
    Ok(ExitCode::SUCCESS)
}

/// Returns boxes that are not needed and not used since `before`: those that can be fetched again,
/// and those that cannot, which `prune` keeps.
fn unused(
    store: &Store,
    in_use: &InUse,
    before: Timestamp,
) -> Result<(Vec<StoredBox>, Vec<StoredBox>), Failure> {
    let named = store.named()?;
    let (mut unused, mut kept) = (Vec::new(), Vec::new());
    for stored in store.list()? {
        if store.last_used(&stored) > before || !in_use.of_box(store, &stored)?.is_empty() {
            continue;
        }
        match store.is_only_here(&stored, &named) {
            true => kept.push(stored),
            false => unused.push(stored),
        }
    }
    Ok((unused, kept))
}

fn litter(store: &Store, in_use: &InUse, before: Timestamp) -> Result<Vec<Litter>, Failure> {
    let mut litter = store.litter(before)?;
    litter.retain(|litter| !in_use.needs(&litter.path));
    litter.extend(build_litter());
    Ok(litter)
}
