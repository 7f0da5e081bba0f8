//! Which modules drive hardware.

use std::collections::BTreeSet;

/// Returns the modules that udev loads for a device, CPU or platform, from `modules.alias`. Aliases that
/// programs and file systems request have other forms.
pub fn hardware_modules(modules_alias: &str) -> BTreeSet<String> {
    modules_alias
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            if words.next() != Some("alias") {
                return None;
            }
            let (alias, name) = (words.next()?, words.next()?);
            // The name of ACPI's bus ends with a star: "acpi*:PNP0C0C:*".
            let bus = alias.split_once(':')?.0.trim_end_matches('*');
            BUSES.contains(&bus).then(|| plain(name))
        })
        .collect()
}

/// Buses, with which aliases of devices begin (scripts/mod/file2alias.c). Aliases without a colon (`fs-ext4`,
/// `net-pf-10`, `crypto-crc32c`, `char-major-10-200`) are requested by programs, and `devname:` by nothing.
const BUSES: [&str; 52] = [
    "acpi",
    "amba",
    "ap",
    "auxiliary",
    "bcma",
    "ccw",
    "cpu",
    "css",
    "dfl",
    "dmi",
    "eisa",
    "fsl-mc",
    "hdaudio",
    "hid",
    "i2c",
    "i3c",
    "ib",
    "ieee1394",
    "input",
    "ipack",
    "isa",
    "macio",
    "mdio",
    "mei",
    "mhi",
    "nd",
    "of",
    "parisc",
    "pci",
    "pcmcia",
    "platform",
    "pnp",
    "rapidio",
    "rpmsg",
    "scsi",
    "sdio",
    "sdw",
    "serio",
    "slim",
    "spi",
    "ssb",
    "tbsvc",
    "tee",
    "typec",
    "ulpi",
    "usb",
    "vio",
    "virtio",
    "vmbus",
    "wmi",
    "xen",
    "zorro",
];

/// Returns a module's name, which has underscores where its file name may have dashes.
pub fn plain(module: &str) -> String {
    module.replace('-', "_")
}
