//! Unpacks the archive that a host sends. The host may be broken or malicious. So only names that were requested are
//! unpacked, as plain files in folders that stead creates. Whatever their names, nothing outside of the folder is
//! written ([`Folder`]).

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    host::{beneath::Folder, free_space},
    unpack::each_entry,
};

use super::{
    error::CaptureError,
    selection::{LARGEST_SETTING, Selection},
};

/// Most bytes that are unpacked; the largest module trees have 1 GiB.
const MOST_BYTES: u64 = 4 << 30;
const MOST_FILES: usize = 100_000;

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
    let mut room = free_space::Watch::default();
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
                CopyError::Read(error) => broken(before, error),
                CopyError::Write(error) => CaptureError::io("write", full())(error),
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

/// The side of a copy that failed.
enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

fn copy(
    from: &mut impl Read,
    to: &mut File,
    room: &mut free_space::Watch,
    mut at: impl FnMut(u64),
) -> Result<u64, CopyError> {
    use io::Write;
    let mut buffer = vec![0; 128 << 10];
    let mut done = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(done),
            Ok(read) => {
                room.before(to, read as u64)
                    .and_then(|()| to.write_all(&buffer[..read]))
                    .map_err(CopyError::Write)?;
                done += read as u64;
                at(done);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::selection::tests::selection, *};

    const END: &str = "n status";

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
}
