//! `boxes`: what stead adds to fetching and unpacking a box by the usual programs.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Result, Trouble, While,
    figure::{Figure, Unit},
    https,
    project::Ground,
    timing::{in_turn, output, peak_memory, seconds},
};

const GROUP: &str = "boxes";
const MIB: u64 = 1 << 20;
/// Of the image that is fetched, in bytes.
const FETCHED: u64 = 1024 * MIB;
/// Of the images that are unpacked.
const UNPACKED: u64 = 512 * MIB;

pub(crate) fn measure(runs: usize) -> Result<Vec<Figure>> {
    let ground = Ground::without_box()?;
    let mut figures = fetch(&ground, runs)?;
    let image = ground.path().join("unpacked.raw");
    write_image(&image, UNPACKED, true)?;
    for (ending, pack, unpack) in [
        ("xz", ["xz", "-T2", "-1", "-k"].as_slice(), "xz"),
        ("zst", ["zstd", "-q", "-T2", "-k"].as_slice(), "zstd"),
    ] {
        figures.push(add(&ground, runs, &image, ending, pack, unpack)?);
    }
    Ok(figures)
}

/// A raw image with a partition table's mark. Its content does not compress, or by about half.
fn write_image(path: &Path, size: u64, compressible: bool) -> Result<()> {
    let mut file = File::create(path).during(path.display())?;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut block = vec![0u8; MIB as usize];
    for n in 0..size / MIB {
        for word in block.chunks_exact_mut(8) {
            // xorshift64: no run of it compresses.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let keep = if compressible {
                0x0f0f_0f0f_0f0f_0f0f
            } else {
                u64::MAX
            };
            word.copy_from_slice(&(state & keep).to_le_bytes());
        }
        if n == 0 {
            block[510..512].copy_from_slice(b"\x55\xaa");
        }
        file.write_all(&block).during(path.display())?;
    }
    Ok(())
}

fn sha256(path: &Path) -> Result<String> {
    let said = output(Command::new("sha256sum").arg(path))?;
    said.split_whitespace()
        .next()
        .map(str::to_string)
        .ok_or_else(|| Trouble("sha256sum said nothing".into()))
}

fn shell(script: &str, arguments: &[&Path]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-euc", script, "sh"]).args(arguments);
    command
}

/// Everything of the ground's store.
fn forget_boxes(ground: &Ground) -> Result<()> {
    match fs::remove_dir_all(ground.data()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).during(ground.data().display())
        }
        _ => Ok(()),
    }
}

fn fetch(ground: &Ground, runs: usize) -> Result<Vec<Figure>> {
    let image = ground.path().join("fetched.raw");
    write_image(&image, FETCHED, false)?;
    let digest = sha256(&image)?;
    let server = https::serve(&image, ground.path())?;
    let stead = || {
        let mut command = ground.stead_in(ground.path());
        command
            .args(["-q", "box", "add", &server.url, "--sha256", &digest])
            .env("SSL_CERT_FILE", &server.certificate);
        command
    };
    let to = ground.path().join("by-curl.raw");
    let script = format!(
        "curl --silent --fail --cacert \"$1\" --output \"$2\" {}; sha256sum \"$2\"",
        server.url
    );
    eprintln!("figures: a box of 1 GiB from a server");
    let pairs = in_turn(
        runs,
        || {
            forget_boxes(ground)?;
            seconds(&mut stead())
        },
        || {
            let _ = fs::remove_file(&to);
            seconds(&mut shell(&script, &[&server.certificate, &to]))
        },
    )?;
    let _ = fs::remove_file(&to);
    forget_boxes(ground)?;
    let memory = peak_memory(&stead())?;
    let before = bytes_in(&ground.data().join("images"))?;
    let mut times = Vec::new();
    for _ in 0..20 {
        times.push(seconds(&mut stead())? * 1000.0);
    }
    let after = bytes_in(&ground.data().join("images"))?;
    if before != after {
        return Err(Trouble(format!(
            "a box that was here already took {} bytes",
            after - before
        )));
    }
    fs::remove_file(&image).during(image.display())?;
    Ok(vec![
        Figure::ratio(GROUP, "1 GiB over curl and sha256sum", &pairs, 1.05)?,
        Figure::of(GROUP, "its memory", Unit::Mebibytes, vec![memory], 64.0)?,
        Figure::of(
            GROUP,
            "a box that is here already",
            Unit::Milliseconds,
            times,
            50.0,
        )?,
    ])
}

/// That the files of a folder take up on the disk.
fn bytes_in(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in fs::read_dir(folder).during(folder.display())? {
        let entry = entry.during(folder.display())?;
        sum += entry.metadata().during(entry.path().display())?.blocks() * 512;
    }
    Ok(sum)
}

fn add(
    ground: &Ground,
    runs: usize,
    image: &Path,
    ending: &str,
    pack: &[&str],
    unpack: &str,
) -> Result<Figure> {
    eprintln!("figures: an image packed as .{ending}");
    let packed = PathBuf::from(format!("{}.{ending}", image.display()));
    let [program, options @ ..] = pack else {
        return Err(Trouble("no program to pack with".into()));
    };
    output(Command::new(program).args(options).arg(image))?;
    let to = ground.path().join("unpacked-by-program.raw");
    let script = format!("{unpack} -dc \"$1\" >\"$2\"; sha256sum \"$2\"");
    let pairs = in_turn(
        runs,
        || {
            forget_boxes(ground)?;
            let mut command = ground.stead_in(ground.path());
            seconds(command.args(["-q", "box", "add"]).arg(&packed))
        },
        || {
            let _ = fs::remove_file(&to);
            seconds(&mut shell(&script, &[&packed, &to]))
        },
    )?;
    let _ = fs::remove_file(&to);
    forget_boxes(ground)?;
    Figure::ratio(
        GROUP,
        &format!("add of .{ending} over {unpack} and sha256sum"),
        &pairs,
        1.1,
    )
}
