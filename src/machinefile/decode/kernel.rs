//! Decodes `kernel`: what a machine boots in place of its box's own kernel.

use std::path::PathBuf;

use crate::{
    host::names::is_name,
    machinefile::{
        block::Block,
        diagnostics::{MachinefileError, Spanned},
        model::{Cmdline, Kernel, KernelBoot, KernelSource},
        syntax::FileInfo,
    },
};

use super::values::{choice, twice};

const SOURCES: [&str; 5] = ["box", "path", "package", "host", "capture"];
const KNOWN: [&str; 6] = ["box", "path", "package", "host", "capture", "cmdline"];

pub(super) fn kernel(block: &mut Block<'_>, file: &FileInfo) -> Spanned<Kernel> {
    block.properties(&["boot"]);
    block.at_most(0);
    let here = block.here();
    let boot = block.property_string("boot").and_then(|word| {
        choice(
            block,
            &word,
            &[
                ("direct", KernelBoot::Direct),
                ("installed", KernelBoot::Installed),
            ],
        )
        .map(|boot| Spanned::new(boot, word.span))
    });
    let mut source = None;
    let mut cmdline = None;
    for node in block.children() {
        let name = node.name().value();
        if !KNOWN.contains(&name) {
            block.unknown_child(node, &KNOWN);
            continue;
        }
        let mut child = block.child(node);
        child.no_children();
        let child_here = child.here();
        if name == "cmdline" {
            if cmdline.is_some() {
                child.error(twice(&child_here, "cmdline"));
            }
            cmdline = self::cmdline(&mut child);
            continue;
        }
        if source.is_some() {
            child.error(
                MachinefileError::new(&child_here, "a machine boots one kernel", "the second one")
                    .help("keep one of them"),
            );
        }
        source = self::source(&mut child, file).or(source);
    }
    // Invalid children have been reported.
    if block.children().is_empty() {
        block.error(
            MachinefileError::new(&here, "`kernel` is empty", "empty").help(format!(
                "put one of {} in its braces, or a `cmdline`",
                SOURCES.join(", ")
            )),
        );
    }
    if let Some(boot) = &boot
        && boot.value == KernelBoot::Installed
        && !matches!(source, Some(KernelSource::Package { .. }))
    {
        block.error(
            MachinefileError::new(
                &boot.span,
                "only a `package` can be installed in a machine",
                "this is not a package",
            )
            .help("remove boot=: QEMU loads this kernel, and its modules are on a disk"),
        );
    }
    Spanned::new(
        Kernel {
            source: source.unwrap_or(KernelSource::Box),
            cmdline,
            boot: boot.map_or(KernelBoot::Direct, |boot| boot.value),
            at: here.text(),
        },
        here,
    )
}

fn source(block: &mut Block<'_>, file: &FileInfo) -> Option<KernelSource> {
    match block.name() {
        "box" => {
            block.properties(&[]);
            block.at_most(0);
            Some(KernelSource::Box)
        }
        "host" => {
            block.properties(&[]);
            block.at_most(0);
            Some(KernelSource::Host)
        }
        "path" => {
            block.properties(&["modules", "config"]);
            let modules = block.property_string("modules");
            let config = block.property_string("config");
            let image = block.one_string("the path of a kernel image or of a build")?;
            Some(KernelSource::Path {
                image: path(block, &image, file)?,
                modules: match modules {
                    Some(modules) => Some(path(block, &modules, file)?),
                    None => None,
                },
                config: match config {
                    Some(config) => Some(path(block, &config, file)?),
                    None => None,
                },
            })
        }
        "package" => {
            block.properties(&["version", "distribution", "from", "key"]);
            let version = block.property_string("version");
            let distribution = block.property_string("distribution");
            let from = block.property_string("from");
            let key = block.property_string("key");
            let name = block.one_string("the name of a package")?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "-+._:~".contains(c);
            if name.value.is_empty() || !name.value.chars().all(plain) {
                block.error(MachinefileError::new(
                    &name.span,
                    format!("{:?} is not a valid name of a package", name.value),
                    "here",
                ));
                return None;
            }
            if let Some(distribution) = &distribution
                && !distribution.value.contains('/')
            {
                block.error(
                    MachinefileError::new(
                        &distribution.span,
                        format!("{:?} is not a distribution", distribution.value),
                        "here",
                    )
                    .help(
                        "write its ID and release: \"debian/12\", \"ubuntu/24.04\", \"fedora/41\"",
                    ),
                );
            }
            Some(KernelSource::Package {
                name: name.value,
                version: version.map(|version| version.value),
                distribution: distribution.map(|it| it.value),
                from: from.map(|from| from.value),
                key: match key {
                    Some(key) => Some(path(block, &key, file)?),
                    None => None,
                },
            })
        }
        _ => {
            block.properties(&[]);
            let name = block.one_string("the name of a capture")?;
            if !is_name(&name.value) && !name.value.starts_with("sha256:") {
                block.error(
                    MachinefileError::new(
                        &name.span,
                        format!("{:?} is not a valid name of a capture", name.value),
                        "here",
                    )
                    .help("`stead kernel list` lists the kernels and captures on this host"),
                );
                return None;
            }
            Some(KernelSource::Capture { name: name.value })
        }
    }
}

/// Resolves the path of a kernel, which is often outside the project. Whether it exists is checked when the machine
/// boots, because a colleague who uses another machine does not need it.
fn path(block: &mut Block<'_>, path: &Spanned<String>, file: &FileInfo) -> Option<PathBuf> {
    let text = path.value.as_str();
    if text.is_empty() {
        block.error(MachinefileError::new(
            &path.span,
            "the path is empty",
            "expected a path",
        ));
        return None;
    }
    if let Some(rest) = text.strip_prefix("~/") {
        let Some(home) = dirs::home_dir() else {
            block.error(MachinefileError::new(
                &path.span,
                "cannot resolve ~: no home folder is known",
                "here",
            ));
            return None;
        };
        return Some(home.join(rest));
    }
    Some(file.folder.join(text))
}

/// The kernel's limit on the text (COMMAND_LINE_SIZE of x86), minus what stead adds.
const LONGEST: usize = 1900;

fn cmdline(block: &mut Block<'_>) -> Option<Cmdline> {
    block.properties(&["replace"]);
    let replace = block.property_bool("replace");
    let text = block.one_string("options for the kernel")?;
    if text.value.len() > LONGEST || text.value.contains(['\n', '\0']) {
        block.error(MachinefileError::new(
            &text.span,
            format!("a kernel command line must be one line of at most {LONGEST} bytes"),
            "here",
        ));
        return None;
    }
    Some(Cmdline {
        text: text.value,
        replace: replace.is_some_and(|replace| replace.value),
    })
}
