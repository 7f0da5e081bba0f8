//! Runs qemu-img on foreign images: confined, with files that are open already and with explicit formats, so
//! that it opens no file by name and guesses no format.

use std::{fs::File, io, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    host::confine::{Access, Confined, ConfinedOutput, Isolation, Limits, RunEnd},
    store::LARGEST_FILE,
};

use super::{error::BoxError, manifest::DiskFormat};

const PROGRAM: &str = "qemu-img";
/// Limit of its address space, in bytes. The tables of a 1 TiB disk take some 200 MB.
const MEMORY: u64 = 2 << 30;
/// Limit of its CPU time in seconds: a base, plus [`TIME_PER_GIB`] for each GiB of the file. Ordinary images
/// take a tenth of that.
const LEAST_TIME: u64 = 120;
const TIME_PER_GIB: u64 = 60;

/// An open image and its backing files.
pub(super) struct Image<'a> {
    pub file: &'a File,
    /// As qemu-img calls it.
    pub format: &'a str,
    /// Each file is backed by the one behind it.
    pub backing: &'a [(File, DiskFormat)],
}

impl Image<'_> {
    /// Returns what QEMU opens: every driver and backing file is given, so that those that the image names do
    /// not count.
    fn reference(&self, run: &mut Run) -> io::Result<String> {
        let mut node = Value::Null;
        for (file, format) in self.backing.iter().rev() {
            node = block(run, file, format.name(), node)?;
        }
        let node = block(run, self.file, self.format, node)?;
        Ok(format!("json:{node}"))
    }

    fn size(&self) -> u64 {
        let size = |file: &File| file.metadata().map_or(0, |metadata| metadata.len());
        size(self.file) + self.backing.iter().map(|(file, _)| size(file)).sum::<u64>()
    }
}

fn block(run: &mut Run, file: &File, format: &str, backing: Value) -> io::Result<Value> {
    let path = run.give(file, Access::Read)?;
    let mut node = json!({
        "driver": format,
        "read-only": true,
        "file": {"driver": "file", "filename": path, "read-only": true},
    });
    // Given even if it is null: then the image's own backing file does not count.
    if format == "qcow2" {
        node["backing"] = backing;
    }
    Ok(node)
}

fn time(size: u64) -> u64 {
    LEAST_TIME.saturating_add((size >> 30).saturating_mul(TIME_PER_GIB))
}

/// A run in preparation.
struct Run {
    confined: Confined,
    given: Vec<(String, String)>,
}

impl Run {
    fn new(isolation: Isolation, cpu: u64, file: u64) -> io::Result<Self> {
        let limits = Limits {
            memory: MEMORY,
            cpu,
            file,
        };
        Ok(Run {
            confined: Confined::by(isolation, PROGRAM, limits)?,
            given: Vec::new(),
        })
    }

    fn give(&mut self, file: &File, access: Access) -> io::Result<String> {
        let path = self.confined.give(file, access)?;
        let name = match access {
            Access::Read => "the image",
            _ => "the new image",
        };
        self.given.push((path.clone(), name.into()));
        Ok(path)
    }
}

/// Checks qcow2's tables for damage. Errors name the file `name`.
pub(super) fn check(file: &File, name: &Path) -> Result<(), BoxError> {
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    check_within(file, name, time(size))
}

fn check_within(file: &File, name: &Path, cpu: u64) -> Result<(), BoxError> {
    let image = Image {
        file,
        format: "qcow2",
        backing: &[],
    };
    let run = || -> io::Result<(ConfinedOutput, Vec<(String, String)>)> {
        let mut run = Run::new(Isolation::of_host(), cpu, 0)?;
        let reference = image.reference(&mut run)?;
        run.confined.args(["check", "-q"]).arg(reference);
        Ok((run.confined.run(None)?, run.given))
    };
    let (ran, given) = run().map_err(BoxError::qemu_img(name))?;
    match ran.ended {
        // 3: leaked clusters, which are harmless (qemu-img(1)).
        RunEnd::Exit(0 | 3) => Ok(()),
        ended => {
            let why = ran.why(PROGRAM, &given);
            Err(BoxError::BadImage {
                path: name.to_path_buf(),
                message: match ended {
                    RunEnd::Exit(_) => format!("qemu-img reports damage: {why}"),
                    // Perhaps for lack of memory or threads.
                    _ => format!("qemu-img cannot check it: {why}"),
                },
            })
        }
    }
}

/// Writes an image into the empty file `to`, in the format that `options` set (qemu-img(1)). The inner `Err`
/// is why qemu-img failed.
pub(super) fn convert(
    image: &Image<'_>,
    options: &[&str],
    to: &File,
) -> io::Result<Result<(), String>> {
    convert_by(Isolation::of_host(), image, options, to)
}

fn convert_by(
    isolation: Isolation,
    image: &Image<'_>,
    options: &[&str],
    to: &File,
) -> io::Result<Result<(), String>> {
    let (run, given) = conversion(isolation, image, options, to)?;
    let ran = run.run(Some(to))?;
    Ok(match ran.ended {
        RunEnd::Exit(0) => Ok(()),
        RunEnd::NoRoom => {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                ran.why(PROGRAM, &given),
            ));
        }
        _ => Err(ran.why(PROGRAM, &given)),
    })
}

/// Returns the same conversion as a command, for callers that wait for it themselves.
pub(super) fn convert_command(
    image: &Image<'_>,
    options: &[&str],
    to: &File,
) -> io::Result<Command> {
    conversion(Isolation::of_host(), image, options, to)?
        .0
        .into_command()
}

fn conversion(
    isolation: Isolation,
    image: &Image<'_>,
    options: &[&str],
    to: &File,
) -> io::Result<(Confined, Vec<(String, String)>)> {
    let mut run = Run::new(isolation, time(image.size()), LARGEST_FILE)?;
    let reference = image.reference(&mut run)?;
    let out = run.give(to, Access::Write)?;
    run.confined
        .arg("convert")
        .args(options.iter().copied())
        .arg(reference)
        .arg(out);
    Ok((run.confined, run.given))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read, os::unix::fs::FileExt};

    use super::*;

    /// Returns every kind of isolation that this host has.
    fn every_isolation() -> Vec<Isolation> {
        let mut all = Vec::new();
        if let Isolation::Landlock(version) = Isolation::of_host() {
            // Debian 12's kernel has version 2.
            all.extend(
                (1..=version.min(2))
                    .chain([version])
                    .map(Isolation::Landlock),
            );
        }
        if Isolation::namespaces_work() {
            all.push(Isolation::Namespaces);
        }
        all
    }

    /// Converts an unchecked image; returns what a guest would find on the disk.
    fn converted(isolation: Isolation, image: &Path, format: &str) -> Result<Vec<u8>, String> {
        let from = File::open(image).unwrap();
        let to = tempfile::NamedTempFile::new_in(image.parent().unwrap()).unwrap();
        let image = Image {
            file: &from,
            format,
            backing: &[],
        };
        convert_by(isolation, &image, &["-O", "raw"], to.as_file()).unwrap()?;
        let mut bytes = Vec::new();
        File::open(to.path())
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        Ok(bytes)
    }

    fn has(bytes: &[u8], words: &[u8]) -> bool {
        memchr::memmem::find(bytes, words).is_some()
    }

    const SECRET: &[u8] = b"HOST-SECRET";

    /// A VMDK whose header leads to a descriptor that names a file of the host.
    fn reaching(secret: &Path) -> Vec<u8> {
        let mut bytes = vec![0; 2048];
        bytes[..5].copy_from_slice(b"KDMV\x01");
        bytes[28] = 1;
        bytes[36] = 2;
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=ffffffff\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\nRW 8 FLAT \"{}\" 0\n\nddb.adapterType = \"ide\"\n",
            secret.display()
        );
        bytes[512..512 + text.len()].copy_from_slice(text.as_bytes());
        bytes
    }

    #[test]
    fn an_unchecked_image_reads_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, SECRET.repeat(500)).unwrap();
        let vmdk = folder.path().join("image.vmdk");
        fs::write(&vmdk, reaching(&secret)).unwrap();
        // The attack is real: unconfined, qemu-img reads the file.
        let leaked = converted(Isolation::Nothing, &vmdk, "vmdk").unwrap();
        assert!(has(&leaked, SECRET));
        for isolation in every_isolation() {
            let said = converted(isolation, &vmdk, "vmdk").unwrap_err();
            let refused = ["Permission denied", "No such file"];
            assert!(
                refused.iter().any(|it| said.contains(it)),
                "{isolation:?}: {said}"
            );
        }
    }

    #[test]
    fn only_backing_files_that_stead_names_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, SECRET.repeat(6000)).unwrap();
        let path = folder.path().join("image.qcow2");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .args([&secret, &path])
            .status();
        assert!(made.unwrap().success());
        // The backing file that is passed counts; the one that the image names does not.
        let with = {
            let file = File::open(&path).unwrap();
            let backing = [(File::open(&secret).unwrap(), DiskFormat::Raw)];
            let image = Image {
                file: &file,
                format: "qcow2",
                backing: &backing,
            };
            let to = tempfile::NamedTempFile::new().unwrap();
            convert(&image, &["-O", "raw"], to.as_file())
                .unwrap()
                .unwrap();
            fs::read(to.path()).unwrap()
        };
        assert!(has(&with, SECRET));
        for isolation in every_isolation().into_iter().chain([Isolation::Nothing]) {
            let bytes = converted(isolation, &path, "qcow2").unwrap();
            assert!(!has(&bytes, SECRET), "{isolation:?}");
        }
    }

    #[test]
    fn every_isolation_converts_valid_images() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("from.raw");
        let content: Vec<u8> = (0..1u32 << 20).map(|n| (n / 7) as u8).collect();
        fs::write(&raw, &content).unwrap();
        for (format, name) in [
            ("vmdk", "a.vmdk"),
            ("vpc", "a.vhd"),
            ("vhdx", "a.vhdx"),
            ("qcow2", "a.qcow2"),
        ] {
            let image = folder.path().join(name);
            let made = Command::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", format])
                .args([&raw, &image])
                .status();
            assert!(made.unwrap().success());
            for isolation in every_isolation().into_iter().chain([Isolation::Nothing]) {
                let bytes = converted(isolation, &image, format).unwrap();
                assert!(bytes.starts_with(&content), "{format} {isolation:?}");
            }
        }
    }

    /// All entries of a 32 MiB table lead to the same other table: a small file that takes for ever to check.
    #[test]
    fn a_check_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.qcow2");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&path)
            .arg("1M")
            .status();
        assert!(made.unwrap().success());
        let file = File::options().read(true).write(true).open(&path).unwrap();
        check(&file, &path).unwrap();
        let (tables, entries) = (1u64 << 20, 4u32 << 20);
        file.write_all_at(&entries.to_be_bytes(), 36).unwrap();
        file.write_all_at(&tables.to_be_bytes(), 40).unwrap();
        let other = (1u64 << 63 | (tables + (32 << 20))).to_be_bytes();
        file.write_all_at(&other.repeat(entries as usize), tables)
            .unwrap();
        file.set_len(tables + (32 << 20) + (64 << 10)).unwrap();
        assert!(qcow2_objection(&file).is_none());
        let error = check_within(&file, &path, 1).unwrap_err().to_string();
        assert!(error.contains("killed after 1 s"), "{error}");
    }

    fn qcow2_objection(file: &File) -> Option<String> {
        super::super::qcow2::objection(file).unwrap()
    }
}
