//! Removing boxes that nobody has used for long.

use std::{collections::BTreeMap, process::ExitCode};

use clap::Args;

use crate::{
    boxes::{Store, StoredBox},
    report::bytes,
};

use super::{
    Failure, Global,
    box_command::{name, used_by},
    output,
};

#[derive(Args)]
pub struct PruneArgs {
    /// Boxes that no machine was made from or started on for so many days
    #[arg(long, value_name = "N", default_value_t = 30)]
    days: u32,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub fn run(global: &Global, store: &Store, args: &PruneArgs) -> Result<ExitCode, Failure> {
    // Without knowing who uses what, nothing can be removed.
    let users: BTreeMap<String, usize> = used_by(global)?;
    let now = jiff::Timestamp::now();
    let before = now
        .checked_sub(jiff::SignedDuration::from_hours(i64::from(args.days) * 24))
        .map_err(|_| {
            Failure::usage(
                format!("{} days ago there was no time", args.days),
                "give fewer",
            )
        })?;
    let unused: Vec<StoredBox> = (store.list()?.into_iter())
        .filter(|stored| !users.contains_key(&stored.digest.to_string()))
        .filter(|stored| store.last_used(stored) <= before)
        .collect();
    // Somebody may be at a younger one.
    let before_parts = before.min(now - jiff::SignedDuration::from_hours(1));
    let litter = store.litter(before_parts)?;
    if global.json && args.dry_run {
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
        output::say(global, "there is nothing to remove");
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if args.dry_run {
        "would remove"
    } else {
        "removes"
    };
    for stored in &unused {
        output::say(
            global,
            &format!(
                "{verb} box {} ({}, {})",
                name(stored),
                stored.digest.short(),
                bytes(store.disk_use(stored))
            ),
        );
    }
    for litter in &litter {
        output::say(
            global,
            &format!(
                "{verb} {}, which no box has ({})",
                litter.path.display(),
                bytes(litter.size)
            ),
        );
    }
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes {
        match output::ask("remove them?") {
            Some(true) => {}
            Some(false) => {
                output::say(global, "nothing was removed");
                return Ok(ExitCode::from(1));
            }
            None => {
                return Err(Failure::usage(
                    "there is no terminal to ask on",
                    "add -y to remove without a question, or --dry-run to only see",
                ));
            }
        }
    }
    let mut freed = 0;
    for stored in &unused {
        freed += store.remove(stored)?;
    }
    freed += store.remove_litter(before_parts)?;
    output::say(global, &format!("{} freed", bytes(freed)));
    Ok(ExitCode::SUCCESS)
}
