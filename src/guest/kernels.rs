//! Finds out which kernel runs in a guest, and which are installed there.

use std::collections::BTreeSet;

/// A shell script that lists them. It never fails, because it runs at the end of a login that stead waits
/// for.
pub const KERNELS_SCRIPT: &str = "\
echo \"stead-kernel running $(uname -r)\"
for image in /boot/vmlinuz-* /lib/modules/*/vmlinuz; do
    [ -e \"$image\" ] || continue
    release=${image#/boot/vmlinuz-}
    release=${release#/lib/modules/}
    echo \"stead-kernel installed ${release%/vmlinuz}\"
done
true";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernels {
    /// The output of `uname -r`.
    pub running: Option<String>,
    pub installed: BTreeSet<String>,
}

/// Parses the script's output. Other lines are ignored.
pub fn parse_kernels(output: &str) -> Kernels {
    let mut kernels = Kernels::default();
    for line in output.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("stead-kernel") {
            continue;
        }
        match (words.next(), words.next()) {
            (Some("running"), Some(release)) => kernels.running = Some(release.to_string()),
            // Fedora keeps a rescue kernel, which is not a release.
            (Some("installed"), Some(release)) if !release.contains("rescue") => {
                kernels.installed.insert(release.to_string());
            }
            _ => {}
        }
    }
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_may_print_what_it_likes() {
        let kernels = parse_kernels(
            "Welcome!\r\nstead-kernel running 6.1.0-47-amd64\r\nstead-kernel installed 6.1.0-47-amd64\n\
             stead-kernel installed 0-rescue-abc\nstead-kernel\n",
        );
        assert_eq!(kernels.running.as_deref(), Some("6.1.0-47-amd64"));
        assert_eq!(kernels.installed.len(), 1);
    }
}
