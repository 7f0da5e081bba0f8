//! Reads files into KDL nodes: the Machinefile, includes, and Machinefile.local.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::kdl::{KdlDocument, KdlNode};
use miette::SourceSpan;

use crate::{
    host::{
        kdl::{self, Language, Mistake},
        open::{self, SAVE_AS_UTF8},
    },
    report::clean::Shown,
};

use super::{
    LOCAL,
    diagnostics::{Errors, MachinefileError, Source, Span},
    node::Node,
    variables::Variables,
};

/// The largest file that is read, in bytes. Real Machinefiles have at most some tens of KiB.
pub const LARGEST: u64 = 1 << 20;
/// How large all files of a project may be together, in bytes.
const LARGEST_TOGETHER: u64 = 4 << 20;
/// How many files a project may have. A file counts each time it is included: two includes in each of thirty files
/// would be a thousand million.
const MOST_FILES: usize = 256;

/// A top-level node and its file.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub node: KdlNode,
    pub file: Arc<FileInfo>,
}

#[derive(Debug)]
pub(super) struct FileInfo {
    pub source: Arc<Source>,
    /// The folder that its paths are relative to.
    pub folder: PathBuf,
    /// Whether it is Machinefile.local or was included by it.
    pub local: bool,
}

/// All files of a project.
pub(super) struct Files {
    /// The Machinefile's folder, without symlinks.
    pub root: PathBuf,
    /// The Machinefile.
    pub path: PathBuf,
    pub main: Arc<FileInfo>,
    pub items: Vec<Item>,
    /// All files: the Machinefile, its includes, Machinefile.local.
    pub read: Vec<PathBuf>,
    /// Whether all files were read completely, so that nothing is missing in `items`.
    pub whole: bool,
}

/// Reads the Machinefile, its includes, and the Machinefile.local beside it. `None` if nothing could be read.
pub(super) fn read(file: &Path, errors: &mut Errors) -> Option<Files> {
    let root = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let root = match root.canonicalize() {
        Ok(root) => root,
        Err(error) => {
            errors.push(unreadable(file, &error.to_string()));
            return None;
        }
    };
    let name = file.file_name()?;
    let path = root.join(name);
    // libvirt's XML, OpenSSH's configuration and JSON only take UTF-8.
    if path.to_str().is_none() {
        errors.push(unreadable(&path, "its path is not valid UTF-8").help(
            "rename the file, or a folder above it: its name contains other bytes (`ls -b` shows them)",
        ));
        return None;
    }
    let mut reader = Reader {
        root: &root,
        errors,
        items: Vec::new(),
        read: Vec::new(),
        open: Vec::new(),
        too_many: false,
        left: LARGEST_TOGETHER,
    };
    let main = reader.file(&path, false)?;
    let local = root.join(LOCAL);
    if local.symlink_metadata().is_ok() && local != path {
        reader.file(&local, true);
    }
    let (items, read) = (reader.items, reader.read);
    Some(Files {
        whole: errors.is_empty(),
        root,
        path,
        main,
        items,
        read,
    })
}

/// Returns an error about a file that has no text to show.
fn unreadable(path: &Path, message: &str) -> MachinefileError {
    let place = Span {
        source: Arc::new(Source::new(path.shown(), String::new())),
        range: SourceSpan::from((0, 0)),
    };
    MachinefileError::new(
        &place,
        format!("cannot read {}: {message}", path.shown()),
        "",
    )
}

struct Reader<'a> {
    root: &'a Path,
    errors: &'a mut Errors,
    items: Vec<Item>,
    read: Vec<PathBuf>,
    /// Files that are being read, outermost first. An include of one of these is a cycle.
    open: Vec<PathBuf>,
    too_many: bool,
    /// How many more bytes the files may have.
    left: u64,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, local: bool) -> Option<Arc<FileInfo>> {
        self.read.push(path.to_path_buf());
        // A symlink of the project that leads out of it could show any file of this computer in errors.
        let bytes = match open::bytes_within(path, LARGEST, self.root) {
            Ok(bytes) => bytes,
            Err(error) => {
                let leads_out =
                    (path.canonicalize()).is_ok_and(|found| !found.starts_with(self.root));
                let error = unreadable(path, &error.to_string());
                self.errors.push(match leads_out {
                    true => error.help(
                        "copy the file into the project: the files of a project must be in it",
                    ),
                    false => error,
                });
                return None;
            }
        };
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            // Reported once, because there may be any number of them.
            if !std::mem::replace(&mut self.too_many, true) {
                let most = crate::report::bytes(LARGEST_TOGETHER);
                let message = format!("the files of the project are larger than {most} together");
                self.errors.push(unreadable(path, &message));
            }
            return None;
        };
        self.left = left;
        let name = path.strip_prefix(self.root).unwrap_or(path).shown();
        let text = match text(bytes, &name) {
            Ok(text) => text,
            Err(error) => {
                self.errors.push(*error);
                return None;
            }
        };
        let source = Arc::new(Source::new(name, text));
        let info = Arc::new(FileInfo {
            source: Arc::clone(&source),
            folder: path.parent().unwrap_or(self.root).to_path_buf(),
            local,
        });
        match parse(&source) {
            Err(errors) => self.errors.extend(errors),
            Ok(document) => {
                self.open.push(path.to_path_buf());
                for node in document.nodes() {
                    let item = Item {
                        node: node.clone(),
                        file: Arc::clone(&info),
                    };
                    if node.name().value() == "include" {
                        self.include(&item);
                    } else {
                        self.items.push(item);
                    }
                }
                self.open.pop();
            }
        }
        Some(info)
    }

    fn include(&mut self, item: &Item) {
        let none = Variables::new(&|_| None);
        let mut node = Node::new(&item.node, &item.file, &none, self.errors);
        let Some(name) = node.one_string("a path") else {
            return;
        };
        node.no_children();
        let path = item.file.folder.join(&name.value);
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) => {
                self.errors.push(MachinefileError::new(
                    &name.span,
                    format!("cannot include {}: {error}", name.value),
                    "this file",
                ));
                return;
            }
        };
        if !path.starts_with(self.root) {
            self.errors.push(
                MachinefileError::new(
                    &name.span,
                    format!("{} is outside of the project", name.value),
                    "leads out",
                )
                .help(format!("the project is {}", self.root.shown())),
            );
            return;
        }
        if let Some(what) = open::in_place_of_file(&path) {
            self.errors.push(MachinefileError::new(
                &name.span,
                format!(
                    "cannot include {}: it is {what}, not a regular file",
                    name.value
                ),
                "this file",
            ));
            return;
        }
        if self.open.contains(&path) {
            self.errors.push(MachinefileError::new(
                &name.span,
                format!("{} includes itself", name.value),
                "includes itself",
            ));
            return;
        }
        if self.read.len() >= MOST_FILES {
            // Reported once, because there may be any number of them.
            if !std::mem::replace(&mut self.too_many, true) {
                self.errors.push(MachinefileError::new(
                    &name.span,
                    format!("the project includes more than {MOST_FILES} files"),
                    "one too many",
                ));
            }
            return;
        }
        self.file(&path, item.file.local);
    }
}

/// Returns the text of a file, or an error at the byte that is not text.
pub(super) fn text(bytes: Vec<u8>, name: &str) -> Result<String, Box<MachinefileError>> {
    let is_utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    String::from_utf8(bytes).map_err(|error| {
        let place = Span {
            source: Arc::new(Source::new(
                name.to_string(),
                // Up to the invalid byte, both have the same length.
                String::from_utf8_lossy(error.as_bytes()).into_owned(),
            )),
            range: (error.utf8_error().valid_up_to(), '\u{fffd}'.len_utf8()).into(),
        };
        Box::new(if is_utf16 {
            MachinefileError::new(&place, "this file is UTF-16, not UTF-8", "here")
                .help("save it as UTF-8 (`iconv -f UTF-16 -t UTF-8` converts it)")
        } else {
            MachinefileError::new(&place, "this is not valid UTF-8", "here").help(SAVE_AS_UTF8)
        })
    })
}

/// Reads KDL v2; each mistake becomes an error.
pub(super) fn parse(source: &Arc<Source>) -> Result<KdlDocument, Vec<MachinefileError>> {
    kdl::parse(&source.text).map_err(|mistakes| {
        mistakes
            .all()
            .map(|mistake| error(source, mistake))
            .collect()
    })
}

/// Returns the error for a file in another language that is valid KDL by chance.
pub(super) fn in_other_language(source: &Arc<Source>) -> Option<MachinefileError> {
    Some(error(source, kdl::in_other_language(&source.text)?))
}

fn error(source: &Arc<Source>, mistake: Mistake) -> MachinefileError {
    let place = Span {
        source: Arc::clone(source),
        range: mistake.span.clone().into(),
    };
    let help = match mistake.language {
        None | Some(Language::Utf16) => ports(source, &mistake).unwrap_or(mistake.help),
        Some(Language::Vagrantfile) => {
            "a Machinefile is written in KDL: docs/guides/from-vagrant.md has a Vagrantfile and the same Machinefile; `stead init` writes one to start from, in another folder".into()
        }
        Some(_) => {
            "a Machinefile is written in KDL: `stead init` writes one to start from, in another folder".into()
        }
    };
    MachinefileError::new(&place, mistake.message, mistake.label).help(help)
}

/// `forward 8080:80`, as Docker writes ports, and ports without quotes: `forward 8000-8010 to=9000-9010`.
fn ports(source: &Source, mistake: &Mistake) -> Option<String> {
    let before = source.text.get(..mistake.span.start)?.trim_end();
    let written = source.text.get(mistake.span.clone())?;
    let of_guest = before.ends_with("to=") || written.starts_with("to=");
    if of_guest {
        let range = range(written.trim_start_matches("to="))?;
        return range.contains('-').then(|| format!("write to={range}"));
    }
    before.ends_with("forward").then_some(())?;
    forward(written).or_else(|| Some(format!("write `forward {}`", range(written)?)))
}

/// Returns what to write instead of ports as Docker has them: `[ADDRESS:]HOST:GUEST[/PROTOCOL]`.
pub(super) fn forward(ports: &str) -> Option<String> {
    let (ports, protocol, one_is_foreign) = match ports.split_once('/') {
        Some((ports, "udp")) => (ports, " protocol=\"udp\"", true),
        Some((ports, "tcp")) => (ports, "", true),
        Some(_) => return None,
        None => (ports, "", false),
    };
    let parts: Vec<&str> = ports.split(':').collect();
    let help = match parts.as_slice() {
        [address, host, guest] => {
            let address: Ipv4Addr = address.parse().ok()?;
            let (host, guest) = (range(host)?, range(guest)?);
            format!("write `forward {host} to={guest} address=\"{address}\"{protocol}`")
        }
        [host, guest] => {
            let (host, guest) = (range(host)?, range(guest)?);
            format!("write `forward {host} to={guest}{protocol}`")
        }
        [host] if one_is_foreign => format!("write `forward {}{protocol}`", range(host)?),
        _ => return None,
    };
    Some(help)
}

/// Returns a port or a range of ports as a Machinefile has it: `8080`, `"8000-8010"`.
pub(super) fn range(ports: &str) -> Option<String> {
    let port = |text: &str| text.parse::<u16>().ok();
    match ports.split_once('-') {
        Some((first, last)) => Some(format!("\"{}-{}\"", port(first)?, port(last)?)),
        None => Some(port(ports)?.to_string()),
    }
}
