//! Decodes `kernel`: what a machine boots in place of its box's own kernel.

use std::path::PathBuf;

use crate::{
    host::names::is_name,
    machinefile::{
        diagnostics::{MachinefileError, Spanned},
        model::{Cmdline, Kernel, KernelBoot, KernelSource},
        node::Node,
        syntax::FileInfo,
    },
};

use super::values::{choice, twice};

const SOURCES: [&str; 5] = ["box", "path", "package", "host", "capture"];
const KNOWN: [&str; 6] = ["box", "path", "package", "host", "capture", "cmdline"];

pub(super) fn kernel(node: &mut Node<'_>, file: &FileInfo) -> Spanned<Kernel> {
    let foreign = node.foreign_properties(&|name, value| {
        (SOURCES.contains(&name) || name == "cmdline").then(|| match value {
            "#true" => format!("write `kernel {{ {name}; }}`"),
            value => format!("write `kernel {{ {name} {value}; }}`"),
        })
    });
    if !foreign {
        node.properties(&["boot"]);
    }
    node.at_most_or(0, |written| {
        let name = written.first()?;
        Some(format!("write `kernel {{ package {name}; }}`"))
    });
    let is_elsewhere = foreign || !node.is_without_arguments();
    let here = node.here();
    let boot = node.property_string("boot").and_then(|word| {
        choice(
            node,
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
    for inner in node.children() {
        let name = inner.name().value();
        if !KNOWN.contains(&name) {
            node.unknown_child(inner, &KNOWN);
            continue;
        }
        let mut child = node.child(inner);
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
    if node.children().is_empty() && !is_elsewhere {
        node.error(
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
        node.error(
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

fn source(node: &mut Node<'_>, file: &FileInfo) -> Option<KernelSource> {
    match node.name() {
        "box" => {
            node.properties(&[]);
            node.at_most(0);
            Some(KernelSource::Box)
        }
        "host" => {
            node.properties(&[]);
            node.at_most(0);
            Some(KernelSource::Host)
        }
        "path" => {
            node.properties(&["modules", "config"]);
            let modules = node.property_string("modules");
            let config = node.property_string("config");
            let image = node.one_string("the path of a kernel image or of a build")?;
            Some(KernelSource::Path {
                image: path(node, &image, file)?,
                modules: match modules {
                    Some(modules) => Some(path(node, &modules, file)?),
                    None => None,
                },
                config: match config {
                    Some(config) => Some(path(node, &config, file)?),
                    None => None,
                },
            })
        }
        "package" => {
            node.properties(&["version", "distribution", "from", "key"]);
            let version = node.property_string("version");
            let distribution = node.property_string("distribution");
            let from = node.property_string("from");
            let key = node.property_string("key");
            let name = node.one_string("the name of a package")?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "-+._:~".contains(c);
            if name.value.is_empty() || !name.value.chars().all(plain) {
                node.error(MachinefileError::new(
                    &name.span,
                    format!("{:?} is not a valid name of a package", name.value),
                    "here",
                ));
                return None;
            }
            if let Some(distribution) = &distribution
                && !distribution.value.contains('/')
            {
                node.error(
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
                    Some(key) => Some(path(node, &key, file)?),
                    None => None,
                },
            })
        }
        _ => {
            node.properties(&[]);
            let name = node.one_string("the name of a capture")?;
            if !is_name(&name.value) && !name.value.starts_with("sha256:") {
                node.error(
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
fn path(node: &mut Node<'_>, path: &Spanned<String>, file: &FileInfo) -> Option<PathBuf> {
    let text = path.value.as_str();
    if text.is_empty() {
        node.error(MachinefileError::new(
            &path.span,
            "the path is empty",
            "expected a path",
        ));
        return None;
    }
    if let Some(rest) = text.strip_prefix("~/") {
        let Some(home) = dirs::home_dir() else {
            node.error(MachinefileError::new(
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

fn cmdline(node: &mut Node<'_>) -> Option<Cmdline> {
    node.properties(&["replace"]);
    let replace = node.property_bool("replace");
    let text = node.one_string("options for the kernel")?;
    if text.value.len() > LONGEST || text.value.contains(['\n', '\0']) {
        node.error(MachinefileError::new(
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
