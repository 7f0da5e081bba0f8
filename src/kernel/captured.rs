//! Captures the kernel of another host: chooses the files to copy, unpacks them, and adds the kernel to the
//! store.
//!
//! The host that packs the archive may be broken or malicious. So only names that were requested are
//! unpacked, as plain files in folders that stead creates. Whatever their names, nothing outside of the
//! folder is written ([`Folder`]).

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    host::{beneath::Folder, open, room},
    report::clean::Shown,
    unpack::each_entry,
};

use super::{
    KernelError, KernelStore, Provenance, StoredKernel,
    add::Title,
    facts::{Facts, Offer, PackageKind, hardware_modules, plain},
    modules::LARGEST_TABLE,
    tree::{KernelFiles, Modules, complete, files_of, is_module, locate},
};

/// Most bytes that are unpacked; the largest module trees have 1 GiB.
const MOST_BYTES: u64 = 4 << 30;
const MOST_FILES: usize = 100_000;
/// As PATH_MAX, in bytes.
const LONGEST_PATH: usize = 4096;
/// Largest file of modprobe.d and similar folders, in bytes.
const LARGEST_SETTING: u64 = 1 << 20;

#[derive(Debug, Error, Diagnostic)]
pub enum CaptureError {
    #[error("{host} is {machine}, but this host is {here}: its kernel cannot boot a machine here")]
    #[diagnostic(help("capture on a host of that architecture"))]
    OtherArch {
        host: String,
        machine: String,
        here: String,
    },
    #[error(
        "cannot find the image of {release}, the running kernel of {host}: it is neither in /boot nor in /lib/modules/{release}"
    )]
    #[diagnostic(help(
        "if {host} is a container, capture the host that it runs on; if the image was removed since the boot, use `--facts`, which fetches the kernel's package"
    ))]
    NoImage { host: String, release: String },
    #[error("{path} on {host} can only be read by root, and sudo asks for a password there")]
    #[diagnostic(help(
        "use `--facts`, which needs no rights and fetches the kernel's package from the distribution; or log in as root; or let everybody read the image: `sudo chmod +r {path}`"
    ))]
    Unreadable { host: String, path: String },
    #[error("{host} has no tar")]
    #[diagnostic(help(
        "install it there, or use `--facts`, which fetches the kernel's package from the distribution"
    ))]
    NoTar { host: String },
    #[error(
        "{host} runs {running}, but the image on its disk is {found}: it was replaced since the boot"
    )]
    #[diagnostic(help(
        "reboot it into that image first, so that stead captures the running kernel"
    ))]
    Replaced {
        host: String,
        running: String,
        found: String,
    },
    #[error("no package on {host} contains its kernel {release}")]
    #[diagnostic(help(
        "it was built there or installed by hand: use `--full`, which copies the files themselves"
    ))]
    NoPackage { host: String, release: String },
    #[error("the transfer from {host} broke off after {got}{said}")]
    #[diagnostic(help("nothing was stored; try again"))]
    BrokeOff {
        host: String,
        got: String,
        said: String,
    },
    #[error("tar on {host} failed (exit {status}){said}")]
    #[diagnostic(help(
        "nothing was stored; fix this on {host}, or use `--facts`, which copies no files"
    ))]
    Tar {
        host: String,
        status: String,
        said: String,
    },
    #[error("the archive from {host} was refused: {name}: {why}")]
    #[diagnostic(help("nothing was stored; check which program {host} runs as tar"))]
    Refused {
        host: String,
        name: String,
        why: &'static str,
    },
    #[error("{host} did not send an archive: {message}")]
    #[diagnostic(help("nothing was stored; check whether a login to {host} prints anything"))]
    Garbled { host: String, message: String },
    #[error("cannot {doing} {path}: {source}", path = path.shown())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Kernel(#[from] KernelError),
}

impl CaptureError {
    fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| CaptureError::Io {
            doing,
            path,
            source,
        }
    }
}

/// The files to copy from a host, by their path there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub release: String,
    pub image: SelectedFile,
    pub config: Option<SelectedFile>,
    pub system_map: Option<SelectedFile>,
    pub tree: Option<SelectedFile>,
    pub settings: Vec<SelectedFile>,
    /// Paths below the tree that are skipped.
    pub exclude: Vec<String>,
    /// Whether only root can read the files, so that sudo copies them.
    pub sudo: bool,
    /// Files on the host that are not copied, with the reason.
    pub left_out: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedFile {
    pub path: String,
    /// In bytes.
    pub size: u64,
    pub files: u64,
}

/// Chooses the files to copy. The error says why a full capture of this host is impossible.
pub fn pick(facts: &Facts, offer: &Offer, host: &str) -> Result<Selection, CaptureError> {
    let release = facts.release.clone();
    let file = |place: &super::facts::OfferedFile| SelectedFile {
        path: place.path.clone(),
        size: place.size,
        files: 1,
    };
    let readable = offer.images.iter().find(|image| image.readable);
    let (image, sudo) = match (readable, offer.images.first()) {
        (Some(image), _) => (image, false),
        (None, Some(image)) if offer.sudo => (image, true),
        (None, Some(image)) => {
            return Err(CaptureError::Unreadable {
                host: host.to_string(),
                path: image.path.clone(),
            });
        }
        (None, None) => {
            return Err(CaptureError::NoImage {
                host: host.to_string(),
                release,
            });
        }
    };
    if !offer.tar {
        return Err(CaptureError::NoTar {
            host: host.to_string(),
        });
    }
    let mut left_out = Vec::new();
    let mut optional = |places: &[super::facts::OfferedFile]| {
        let found = places.iter().find(|place| place.readable || sudo);
        if found.is_none() {
            left_out.extend(
                places
                    .iter()
                    .map(|place| format!("{} can only be read by root", place.path)),
            );
        }
        found.map(file)
    };
    let config = optional(&offer.configs);
    let system_map = optional(&offer.system_maps);
    // A name with a line break looks like two names, but no host has such names.
    let settings = offer
        .settings
        .iter()
        .filter(|place| place.readable && place.size <= LARGEST_SETTING)
        .map(file)
        .collect();
    let tree = offer.tree.as_ref().filter(|tree| tree.readable || sudo);
    if tree.is_none() {
        left_out.push(match &offer.tree {
            Some(tree) => format!("{} can only be read by root", tree.path),
            None => format!("there is no /lib/modules/{release}: everything is built in"),
        });
    }
    let mut exclude = Vec::new();
    if let Some(tree) = tree {
        exclude = vec![
            format!("{}/build", tree.path),
            format!("{}/source", tree.path),
        ];
        for link in &offer.dangling {
            let link = link.trim_start_matches("./");
            if !["build", "source"].contains(&link) {
                exclude.push(format!("{}/{link}", tree.path));
            }
        }
    }
    Ok(Selection {
        release,
        image: file(image),
        config,
        system_map,
        tree: tree.map(|tree| SelectedFile {
            path: tree.path.clone(),
            size: tree.kib * 1024,
            files: tree.files,
        }),
        settings,
        exclude,
        sudo,
        left_out,
    })
}

impl Selection {
    pub fn all(&self) -> Vec<&SelectedFile> {
        [
            Some(&self.image),
            self.config.as_ref(),
            self.system_map.as_ref(),
            self.tree.as_ref(),
        ]
        .into_iter()
        .flatten()
        .chain(&self.settings)
        .collect()
    }

    /// Returns where a file of the archive belongs below the folder, or why it is refused.
    fn place(&self, name: &str) -> Result<PathBuf, &'static str> {
        let release = &self.release;
        let is = |file: Option<&SelectedFile>| {
            file.is_some_and(|file| file.path.trim_start_matches('/') == name)
        };
        if name.len() > LONGEST_PATH {
            return Err("the name is too long");
        }
        if name
            .split('/')
            .any(|part| matches!(part, ".." | ".") || part.is_empty())
            || name.contains(['\0', '\\'])
            || name.chars().any(char::is_control)
        {
            return Err("it is not a plain path");
        }
        if is(Some(&self.image)) {
            return Ok(format!("boot/vmlinuz-{release}").into());
        }
        if is(self.config.as_ref()) {
            return Ok(format!("boot/config-{release}").into());
        }
        if is(self.system_map.as_ref()) {
            return Ok(format!("boot/System.map-{release}").into());
        }
        if self.settings.iter().any(|file| is(Some(file))) {
            return Ok(name.into());
        }
        if let Some(tree) = &self.tree
            && let Some(below) = name.strip_prefix(tree.path.trim_start_matches('/'))
            && (below.is_empty() || below.starts_with('/'))
        {
            return Ok(format!("lib/modules/{release}{below}").into());
        }
        Err("it was not requested")
    }
}

/// Unpacks the archive that `host` sends into the empty folder `into`, and checks that it is complete: `end
/// STATUS` must follow it. `at` gets the bytes of files received so far.
pub fn unpack(
    stream: &mut dyn Read,
    selection: &Selection,
    end: &str,
    into: &Path,
    host: &str,
    at: &mut dyn FnMut(u64),
) -> Result<(), CaptureError> {
    let got = Cell::new(0);
    let refused = |name: &[u8], why| CaptureError::Refused {
        host: host.to_string(),
        name: escaped(name),
        why,
    };
    let broken = |got: u64, error: io::Error| match error.kind() {
        // The connection ended in the middle of the archive or of its compression.
        io::ErrorKind::UnexpectedEof => broke_off(host, got),
        // The tar crate's words for the same.
        _ if ["failed to read entire block", "unexpected EOF"]
            .iter()
            .any(|words| error.to_string().contains(words)) =>
        {
            broke_off(host, got)
        }
        // Errors of the tar crate quote what it read.
        _ => CaptureError::Garbled {
            host: host.to_string(),
            message: (error.to_string().chars().take(60))
                .flat_map(char::escape_debug)
                .collect(),
        },
    };
    let folder = Folder::open(into).map_err(CaptureError::io("open", into))?;
    let make_parent = |place: &Path| {
        let parent = place.parent().unwrap_or(Path::new(""));
        (folder.make_folders(parent)).map_err(CaptureError::io("create", into.join(parent)))
    };
    let mut files = 0;
    let mut room = room::Watch::default();
    let mut placed: BTreeMap<Vec<u8>, PathBuf> = BTreeMap::new();
    let unreadable = |error| broken(got.get(), error);
    each_entry(&mut *stream, &unreadable, &mut |entry| {
        let name = entry.path_bytes().into_owned();
        let trimmed = name.strip_suffix(b"/").unwrap_or(&name).to_vec();
        let text = std::str::from_utf8(&trimmed).map_err(|_| refused(&name, "it is not UTF-8"))?;
        // Below the folder.
        let place = selection.place(text).map_err(|why| refused(&name, why))?;
        let full = || into.join(&place);
        files += 1;
        if files > MOST_FILES {
            return Err(refused(&name, "there are more files than a kernel has"));
        }
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                (folder.make_folders(&place)).map_err(CaptureError::io("create", full()))?;
                return Ok(());
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {}
            // A hard link to an earlier file.
            tar::EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let from = (placed.get(&*target))
                    .ok_or_else(|| refused(&name, "it is a link to a file that was not sent"))?;
                make_parent(&place)?;
                (folder.hard_link(from, &place)).map_err(CaptureError::io("write", full()))?;
                placed.insert(trimmed, place);
                return Ok(());
            }
            _ => return Err(refused(&name, "it is neither a file nor a folder")),
        }
        let size = entry.size();
        let before: u64 = got.get();
        if before.saturating_add(size) > MOST_BYTES {
            return Err(refused(&name, "there are more bytes than a kernel has"));
        }
        make_parent(&place)?;
        let mut file = match folder.create(&place) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(refused(&name, "it occurs twice"));
            }
            Err(error) => return Err(CaptureError::io("write", full())(error)),
        };
        let copied =
            copy(entry, &mut file, &mut room, |n| at(before + n)).map_err(|error| match error {
                Copying::Read(error) => broken(before, error),
                Copying::Write(error) => CaptureError::io("write", full())(error),
            })?;
        got.set(before + copied);
        if copied != size {
            return Err(broke_off(host, got.get()));
        }
        placed.insert(trimmed, place);
        Ok(())
    })?;
    let got = got.get();
    // The padding of the archive's last block, and the line that marks the end.
    let mut rest = Vec::new();
    stream
        .take(1 << 20)
        .read_to_end(&mut rest)
        .map_err(|error| broken(got, error))?;
    let rest = String::from_utf8_lossy(&rest);
    // A line without its line break may be cut off.
    let status = rest
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .find_map(|line| {
            line.trim_start_matches('\0')
                .strip_prefix(&format!("{end} "))
        })
        .ok_or_else(|| broke_off(host, got))?;
    // 1: GNU tar noticed that a file changed while it was read, which a log in modprobe.d could.
    match status.trim() {
        "0" | "1" => Ok(()),
        status => Err(CaptureError::Tar {
            host: host.to_string(),
            status: escaped(status.as_bytes()),
            said: String::new(),
        }),
    }
}

fn broke_off(host: &str, got: u64) -> CaptureError {
    CaptureError::BrokeOff {
        host: host.to_string(),
        got: crate::report::bytes(got),
        said: String::new(),
    }
}

impl CaptureError {
    /// Adds what the host or ssh printed, if anything.
    pub fn with_words(mut self, words: &str) -> Self {
        if let CaptureError::BrokeOff { said, .. } | CaptureError::Tar { said, .. } = &mut self
            && !words.is_empty()
        {
            *said = format!(": {words}");
        }
        self
    }
}

enum Copying {
    Read(io::Error),
    Write(io::Error),
}

fn copy(
    from: &mut impl Read,
    to: &mut File,
    room: &mut room::Watch,
    mut at: impl FnMut(u64),
) -> Result<u64, Copying> {
    use io::Write;
    let mut buffer = vec![0; 128 << 10];
    let mut done = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(done),
            Ok(read) => {
                room.before(to, read as u64)
                    .and_then(|()| to.write_all(&buffer[..read]))
                    .map_err(Copying::Write)?;
                done += read as u64;
                at(done);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Copying::Read(error)),
        }
    }
}

/// Quotes and escapes bytes for printing.
fn escaped(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut text: String = text
        .chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect();
    text.insert(0, '"');
    text.push('"');
    text
}

/// Returns the text of the unpacked settings files, by names such as `modprobe.d/x.conf`. Nothing uses those
/// of sysctl.d, because the facts have the values that are set.
pub fn settings_of(
    folder: &Path,
    selection: &Selection,
) -> Result<BTreeMap<String, String>, CaptureError> {
    let mut settings = BTreeMap::new();
    let unpacked = Folder::open(folder).map_err(CaptureError::io("open", folder))?;
    for file in &selection.settings {
        let name = file.path.strip_prefix("/etc/").unwrap_or(&file.path);
        let below = Path::new(file.path.trim_start_matches('/'));
        let path = folder.join(below);
        let mut bytes = Vec::new();
        let read = (unpacked.read(below))
            .and_then(|file| file.take(LARGEST_SETTING).read_to_end(&mut bytes));
        match read {
            Ok(_) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                settings.insert(name.to_string(), text);
            }
            // The host deleted it between the survey and the transfer.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(CaptureError::io("read", path)(error)),
        }
    }
    Ok(settings)
}

/// Finds the kernel in an unpacked folder.
pub fn found_in(folder: &Path, selection: &Selection) -> Result<KernelFiles, CaptureError> {
    let release = &selection.release;
    let tree = folder.join("lib/modules").join(release);
    let image = folder.join(format!("boot/vmlinuz-{release}"));
    let tree = tree.is_dir().then_some(tree.as_path());
    Ok(locate(&image, tree, None, std::env::consts::ARCH)?)
}

/// Checks that the image is that of the running kernel: the same release may have been built again.
pub fn check_running(found: &KernelFiles, facts: &Facts, host: &str) -> Result<(), CaptureError> {
    let same_release = found.release == facts.release;
    let same_build = (found.image.banner.as_ref())
        .is_none_or(|banner| squeeze(banner).contains(&squeeze(&facts.version)));
    if same_release && same_build {
        return Ok(());
    }
    Err(CaptureError::Replaced {
        host: host.to_string(),
        running: format!("{} {}", facts.release, facts.version),
        found: (found.image.banner.clone()).unwrap_or_else(|| found.release.clone()),
    })
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Adds a captured kernel to the store, with its facts, which the module tree completes.
pub fn keep(
    store: &KernelStore,
    mut found: KernelFiles,
    mut facts: Facts,
    work: &Path,
    host: &str,
    name: &str,
) -> Result<StoredKernel, CaptureError> {
    if let Some(modules) = &found.modules
        && let Some(tree) = complete(modules, &found.release, work)?
    {
        let alias = tree.join("modules.alias");
        let text = open::bytes(&alias, LARGEST_TABLE).map_err(CaptureError::io("read", alias))?;
        let alias = String::from_utf8_lossy(&text);
        facts.hardware = hardware_modules(&alias);
        let has: BTreeSet<String> = files_of(&tree)?
            .iter()
            .filter(|file| is_module(&file.name))
            .filter_map(|file| {
                let file = file.name.rsplit('/').next()?;
                Some(plain(file.split_once(".ko")?.0))
            })
            .collect();
        facts.foreign = (facts.modules.keys())
            .filter(|name| !has.contains(*name))
            .cloned()
            .collect();
        found.modules = Some(Modules::Installed(tree));
    } else {
        facts.foreign = facts.modules.keys().cloned().collect();
    }
    let bytes = facts.to_bytes().map_err(|error| KernelError::Manifest {
        source_name: name.to_string(),
        message: error.to_string(),
    })?;
    Ok(store.add(
        &found,
        &Title {
            name,
            from: Provenance::Capture {
                host: host.to_string(),
            },
            facts: Some(&bytes),
        },
    )?)
}

/// Returns the distribution, name and version of the package that contains a host's kernel, for
/// [`crate::packages::resolve`].
pub fn package_of(
    facts: &Facts,
    host: &str,
) -> Result<(crate::packages::Distribution, String, String), CaptureError> {
    let Some(package) = &facts.package else {
        return Err(CaptureError::NoPackage {
            host: host.to_string(),
            release: facts.release.clone(),
        });
    };
    Ok((
        crate::packages::Distribution {
            id: facts.os.id.clone(),
            release: match package.kind {
                PackageKind::Dpkg => facts.os.codename.clone(),
                PackageKind::Rpm => facts.os.version_id.clone(),
            },
            arch: facts.machine.clone(),
        },
        package.name.clone(),
        package.version.clone(),
    ))
}

/// Returns the facts of the captured host; `None` for a kernel that was not captured.
pub fn facts_of(store: &KernelStore, stored: &StoredKernel) -> Result<Option<Facts>, KernelError> {
    let Some(entry) = &stored.manifest.facts else {
        return Ok(None);
    };
    let path = store.file(entry, super::Part::Other);
    let bytes = fs::read(&path).map_err(KernelError::io("read", &path))?;
    Facts::parse(&bytes)
        .map(Some)
        .map_err(|message| KernelError::Manifest {
            source_name: path.shown(),
            message,
        })
}

/// Returns a name for a kernel of `host`: the host's short name.
pub fn short_name(host: &str, facts: &Facts) -> String {
    let host = host.strip_prefix("ssh://").unwrap_or(host);
    let host = host.rsplit('@').next().unwrap_or(host);
    let is_address = host.parse::<std::net::Ipv4Addr>().is_ok() || host.contains(['[', ']']);
    let host = host.split(':').next().unwrap_or(host);
    let is_address = is_address || host.parse::<std::net::Ipv4Addr>().is_ok() || host.is_empty();
    let long = if is_address { &facts.host } else { host };
    let short = long.split('.').next().unwrap_or(long);
    let short: String = short
        .chars()
        .map(|c| {
            if crate::host::names::is_name(&c.to_string()) || c == '-' {
                c
            } else {
                '-'
            }
        })
        .take(60)
        .collect();
    let short = short.trim_matches('-');
    if short.is_empty() { "capture" } else { short }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::facts::tests::{NONCE, answer};

    const END: &str = "n status";

    fn selection() -> Selection {
        let (facts, offer) = crate::kernel::facts::parse_facts(
            answer(
                "image yes 5 /boot/vmlinuz-6.1.0-47-amd64\n\
                 config yes 5 /boot/config-6.1.0-47-amd64\n\
                 system_map no 5 /boot/System.map-6.1.0-47-amd64\n\
                 tree yes 1 1 /lib/modules/6.1.0-47-amd64\n\
                 settings yes 5 /etc/modprobe.d/a.conf\ntools /bin/tar",
            )
            .as_bytes(),
            NONCE,
            "db1",
        )
        .unwrap();
        pick(&facts, &offer, "db1").unwrap()
    }

    fn sent(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        let mut bytes = builder.into_inner().unwrap();
        bytes.extend_from_slice(format!("\n{END} 0\n").as_bytes());
        bytes
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, name: &[u8], kind: tar::EntryType) {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(if kind == tar::EntryType::Regular {
            5
        } else {
            0
        });
        header.set_mode(0o644);
        header.set_cksum();
        let content: &[u8] = if kind == tar::EntryType::Regular {
            b"12345"
        } else {
            b""
        };
        builder.append(&header, content).unwrap();
    }

    fn unpacked(bytes: &[u8]) -> Result<tempfile::TempDir, CaptureError> {
        let folder = tempfile::tempdir().unwrap();
        unpack(
            &mut &*bytes,
            &selection(),
            END,
            folder.path(),
            "db1",
            &mut |_| {},
        )?;
        Ok(folder)
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;

    #[test]
    fn what_was_asked_for_is_unpacked() {
        let bytes = sent(|to| {
            add(to, b"boot/vmlinuz-6.1.0-47-amd64", FILE);
            add(
                to,
                b"lib/modules/6.1.0-47-amd64/",
                tar::EntryType::Directory,
            );
            add(to, b"lib/modules/6.1.0-47-amd64/kernel/a.ko", FILE);
            add(to, b"etc/modprobe.d/a.conf", FILE);
        });
        let folder = unpacked(&bytes).unwrap();
        for name in [
            "boot/vmlinuz-6.1.0-47-amd64",
            "lib/modules/6.1.0-47-amd64/kernel/a.ko",
        ] {
            assert_eq!(fs::read(folder.path().join(name)).unwrap(), b"12345");
        }
        let settings = settings_of(folder.path(), &selection()).unwrap();
        assert_eq!(settings["modprobe.d/a.conf"], "12345");
    }

    #[test]
    fn nothing_else_is() {
        let refused = |name: &[u8], kind, why: &str| {
            let error = unpacked(&sent(|to| add(to, name, kind))).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, CaptureError::Refused { .. }), "{text}");
            assert!(text.contains(why), "{text}");
            assert!(!text.contains('\x1b'), "{text:?}");
        };
        refused(b"/boot/vmlinuz-6.1.0-47-amd64", FILE, "not a plain path");
        refused(b"../boot/x", FILE, "not a plain path");
        refused(
            b"lib/modules/6.1.0-47-amd64/../../../x",
            FILE,
            "not a plain path",
        );
        refused(b"etc/shadow", FILE, "not requested");
        refused(b"etc/modprobe.d/b.conf", FILE, "not requested");
        refused(b"boot/initrd.img-6.1.0-47-amd64", FILE, "not requested");
        refused(b"lib/modules/6.1.0-47-amd64x/a", FILE, "not requested");
        refused(
            b"lib/modules/6.1.0-47-amd64/\x1b[2Jx",
            FILE,
            "not a plain path",
        );
        refused(b"lib/modules/6.1.0-47-amd64/\xff", FILE, "UTF-8");
        refused(
            b"lib/modules/6.1.0-47-amd64/l",
            tar::EntryType::Symlink,
            "neither",
        );
        refused(
            b"lib/modules/6.1.0-47-amd64/f",
            tar::EntryType::Fifo,
            "neither",
        );
        refused(
            b"lib/modules/6.1.0-47-amd64/h",
            tar::EntryType::Link,
            "link to a file that was not sent",
        );
        let twice = sent(|to| {
            add(to, b"boot/vmlinuz-6.1.0-47-amd64", FILE);
            add(to, b"boot/vmlinuz-6.1.0-47-amd64", FILE);
        });
        assert!(unpacked(&twice).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn a_release_that_leads_out_writes_nothing_outside() {
        let outer = tempfile::tempdir().unwrap();
        let into = outer.path().join("host");
        fs::create_dir(&into).unwrap();
        // As if nobody had checked the host's answer.
        let selection = Selection {
            release: "x/../../../evil".into(),
            ..selection()
        };
        for name in [
            "boot/vmlinuz-6.1.0-47-amd64",
            "lib/modules/6.1.0-47-amd64/autostart/x.desktop",
        ] {
            let bytes = sent(|to| add(to, name.as_bytes(), FILE));
            let error =
                unpack(&mut &*bytes, &selection, END, &into, "db1", &mut |_| {}).unwrap_err();
            assert!(matches!(error, CaptureError::Io { .. }), "{error}");
        }
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
        assert!(settings_of(&into, &selection).unwrap().is_empty());
    }

    #[test]
    fn settings_are_read_from_what_came_alone() {
        let outer = tempfile::tempdir().unwrap();
        let into = outer.path().join("host");
        fs::create_dir(&into).unwrap();
        fs::write(outer.path().join("id_ed25519"), "the host's own").unwrap();
        let mut selection = selection();
        selection.settings[0].path = "/../id_ed25519".into();
        assert!(settings_of(&into, &selection).is_err());
    }

    #[test]
    fn what_breaks_off_anywhere_is_not_taken_for_whole() {
        let bytes = sent(|to| {
            add(to, b"boot/vmlinuz-6.1.0-47-amd64", FILE);
            add(to, b"lib/modules/6.1.0-47-amd64/a", FILE);
        });
        for length in 0..bytes.len() - 1 {
            let error = unpacked(&bytes[..length]).unwrap_err();
            assert!(
                matches!(error, CaptureError::BrokeOff { .. }),
                "{length}: {error}"
            );
        }
        let failed = [&bytes[..bytes.len() - 2], b"2\n"].concat();
        assert!(matches!(unpacked(&failed), Err(CaptureError::Tar { .. })));
        assert!(matches!(
            unpacked(&b"x".repeat(2048)),
            Err(CaptureError::Garbled { .. })
        ));
    }

    #[test]
    fn only_what_can_be_read_is_picked() {
        let selection = selection();
        assert_eq!(selection.system_map, None);
        assert_eq!(
            selection.left_out,
            ["/boot/System.map-6.1.0-47-amd64 can only be read by root"]
        );
        let offer = |text: &str| {
            crate::kernel::facts::parse_facts(answer(text).as_bytes(), NONCE, "db1").unwrap()
        };
        let (facts, closed) = offer("image no 5 /boot/vmlinuz-6.1.0-47-amd64\ntools /bin/tar");
        let error = pick(&facts, &closed, "db1").unwrap_err();
        assert!(matches!(error, CaptureError::Unreadable { .. }), "{error}");
        let (_, by_sudo) =
            offer("image no 5 /boot/vmlinuz-6.1.0-47-amd64\ntools /bin/tar\ntools sudo");
        assert!(pick(&facts, &by_sudo, "db1").unwrap().sudo);
        let (_, none) = offer("tools /bin/tar");
        assert!(matches!(
            pick(&facts, &none, "db1"),
            Err(CaptureError::NoImage { .. })
        ));
    }

    #[test]
    fn hosts_have_short_names() {
        let (facts, _) =
            crate::kernel::facts::parse_facts(answer("").as_bytes(), NONCE, "x").unwrap();
        for (host, name) in [
            ("prod-db.example.org", "prod-db"),
            ("root@web", "web"),
            ("ssh://me@web.example:2222", "web"),
            ("10.0.0.7", "db1"),
            ("ssh://10.0.0.7:22", "db1"),
            ("[::1]", "db1"),
        ] {
            assert_eq!(short_name(host, &facts), name, "{host}");
        }
    }
}
