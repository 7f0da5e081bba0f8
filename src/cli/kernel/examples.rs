//! Examples in the help of `stead kernel`.

pub(super) const CHECK: &str = "\
Examples:
  stead kernel check ~/linux                              Check the build in a folder
  stead kernel check /boot/vmlinuz --config /boot/config  Check an image";

pub(super) const SHOW: &str = "\
Examples:
  stead kernel show prod";

pub(super) const VERIFY: &str = "\
Examples:
  stead kernel verify       Check all kernels in the store
  stead kernel verify prod  Check one kernel";

pub(super) const REMOVE: &str = "\
Examples:
  stead kernel remove prod";

pub(super) const EXPORT: &str = "\
Examples:
  stead kernel export prod                    Write prod.kernel.tar.zst in this folder
  stead kernel export prod /tmp/prod.tar.zst  Write another file";

pub(super) const IMPORT: &str = "\
Examples:
  stead kernel import prod.kernel.tar.zst";
