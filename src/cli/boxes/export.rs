//! `stead box export`: writes a box's disk in a format of other software.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::{Args, builder::PossibleValuesParser};

use crate::{
    boxes::{self, Boot, ExportFormat, FileRole, Manifest, Store},
    failure::Failure,
    report::{bytes, clean::Shown, elapsed, say, warn},
    session::{
        invocation::Invocation,
        pack::{folder_of, one_disk},
    },
};

use super::super::output;

const EXAMPLES: &str = "\
Examples:
  stead box export web:1.0 --format vmdk --output web.vmdk";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExportArgs {
    /// Box to convert: NAME, NAME:VERSION, or at least 6 digits of the digest
    #[arg(value_name = "BOX")]
    reference: String,
    /// Format to write
    #[arg(long, value_parser = PossibleValuesParser::new(ExportFormat::NAMES))]
    format: String,
    /// File to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn run(
    invocation: &Invocation,
    store: &Store,
    args: ExportArgs,
) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let out = output::file(invocation, &args.output, "--output")?;
    let format = format(&args.format)?;
    let stored = store.resolve(&args.reference)?;
    format.check(&stored.manifest)?;
    one_disk(&stored.manifest)?;
    warn_if_it_does_not_boot(&stored.manifest);
    store.ensure_intact(&stored)?;
    let disk = &stored.manifest.disk;
    if !format.is_compressed() {
        boxes::ensure_room(folder_of(&out), store.disk_use(&stored))?;
    }
    let from = store.file(&disk.file, FileRole::Disk(disk.format));
    boxes::export(&stored.manifest, &from, disk.format, format, &out)?;
    say_written(invocation, &out, started);
    Ok(ExitCode::SUCCESS)
}

/// Returns the format of that name. clap has checked the name already.
pub(super) fn format(name: &str) -> Result<ExportFormat, Failure> {
    ExportFormat::from_name(name).ok_or_else(|| {
        Failure::usage(
            format!("unknown format {name:?}"),
            format!("the formats are: {}", ExportFormat::NAMES.join(", ")),
        )
    })
}

/// Warns that an image of a box that boots directly has no bootloader.
pub(super) fn warn_if_it_does_not_boot(manifest: &Manifest) {
    if let Boot::Direct { .. } = manifest.boot {
        warn(&format!(
            "box {} boots a kernel that is not on its disk, so the image does not boot by itself; use a box with its own bootloader, such as debian-12-cloud",
            manifest.name
        ));
    }
}

pub(super) fn say_written(invocation: &Invocation, out: &Path, started: Instant) {
    use std::os::unix::fs::MetadataExt;
    let size = std::fs::metadata(out).map_or(0, |metadata| metadata.blocks() * 512);
    say(
        invocation.style,
        &format!(
            "wrote {} ({}) in {}",
            out.shown(),
            bytes(size),
            elapsed(started.elapsed())
        ),
    );
}
