//! The arguments of mmdebstrap, for Debian and Ubuntu.

use std::path::Path;

use crate::{boxes::recipe::Recipe, host::shell::shell_quote};

/// What the builder has prepared for mmdebstrap.
pub(in crate::boxes) struct Prepared<'a> {
    /// Files for the root file system.
    pub overlay: &'a Path,
    /// Runs inside the root file system.
    pub customize: &'a Path,
    /// The time of files, in seconds since 1970.
    pub date: &'a str,
    /// The tar to write.
    pub out: &'a Path,
}

pub(in crate::boxes) fn arguments(recipe: &Recipe, prepared: &Prepared<'_>) -> Vec<String> {
    let shell = |path: &Path| shell_quote(&path.to_string_lossy());
    let mut all: Vec<String> = [
        "--variant=apt",
        "--format=tar",
        "--aptopt=APT::Install-Recommends \"false\"",
        "--aptopt=Acquire::Languages \"none\"",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    ]
    .map(str::to_string)
    .to_vec();
    all.push(format!("--include={}", recipe.packages.join(",")));
    // This hook runs before the recipe's packages are installed, so that their scripts find the overlay's settings.
    all.push(format!(
        "--essential-hook=tar -C {} --owner=0 --group=0 --mtime=@{} --sort=name -c . | tar -C \"$1\" --no-overwrite-dir --keep-directory-symlink -x",
        shell(prepared.overlay),
        prepared.date
    ));
    all.push(format!(
        "--customize-hook=upload {} /customize.sh",
        shell(prepared.customize)
    ));
    all.push("--customize-hook=chroot \"$1\" sh /customize.sh".to_string());
    all.push("--customize-hook=rm \"$1/customize.sh\"".to_string());
    all.push("--".to_string());
    all.push(recipe.release.clone());
    all.push(prepared.out.to_string_lossy().into_owned());
    all
}
