//! Recognises kernel images by their first bytes.

use std::{fmt, path::Path};

use crate::report::clean::Shown;

/// Bytes of an image that are enough to recognise it: the x86 header and its text are in the first sectors of
/// the setup code, which ends within 64 sectors.
pub(super) const HEAD: usize = 64 << 10;

/// An image that QEMU can load by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub format: Format,
    /// As `uname -m` prints it.
    pub arch: &'static str,
    /// As `uname -r` prints it, if the image contains it.
    pub release: Option<String>,
    /// The release, the builder and the date, if the image contains them.
    pub banner: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// x86: Documentation/arch/x86/boot.rst.
    BzImage,
    /// arm64: Documentation/arch/arm64/booting.rst.
    Arm64,
    /// arm64, as an EFI program that uncompresses itself (drivers/firmware/efi/libstub/zboot).
    EfiZboot,
}

/// Why a file is not an image that can be booted directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAnImage {
    /// An ELF file, with its architecture.
    Vmlinux(&'static str),
    Gzip,
    /// A unified kernel image: kernel, initrd and command line in one EFI program.
    Unified,
    Unknown,
    Empty,
}

impl fmt::Display for NotAnImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotAnImage::Vmlinux(arch) => {
                write!(f, "it is a vmlinux (ELF, {arch}), not a boot image")
            }
            NotAnImage::Gzip => f.write_str("it is compressed with gzip"),
            NotAnImage::Unified => f.write_str("it is a unified kernel image"),
            NotAnImage::Unknown => f.write_str("it is not a Linux kernel image"),
            NotAnImage::Empty => f.write_str("it is empty"),
        }
    }
}

impl NotAnImage {
    /// Returns what to do about it.
    pub fn remedy(&self, path: &Path) -> String {
        match self {
            NotAnImage::Vmlinux("x86_64" | "i686") => {
                let tree = path.parent().unwrap_or(Path::new("."));
                format!(
                    "give the bzImage of the same build: {}, or the build's folder itself",
                    tree.join("arch/x86/boot/bzImage").shown()
                )
            }
            NotAnImage::Vmlinux(_) => "give the boot image of the same build (arch/…/boot/Image)".into(),
            NotAnImage::Gzip => format!("uncompress it: zcat {} > Image", path.shown()),
            NotAnImage::Unified => {
                "extract the kernel from it: objcopy -O binary --only-section=.linux FILE vmlinuz".into()
            }
            NotAnImage::Unknown | NotAnImage::Empty => {
                "give a bzImage, such as /boot/vmlinuz-$(uname -r) or arch/x86/boot/bzImage of a build".into()
            }
        }
    }
}

/// Recognises an image by its first [`HEAD`] bytes.
pub(super) fn identify(head: &[u8]) -> Result<Image, NotAnImage> {
    if head.is_empty() {
        return Err(NotAnImage::Empty);
    }
    if head.get(0x202..0x206) == Some(b"HdrS") {
        return Ok(bz_image(head));
    }
    // struct linux_efi_zboot_header.
    if head.starts_with(b"MZ") && head.get(4..8) == Some(b"zimg") {
        return Ok(Image {
            format: Format::EfiZboot,
            arch: "aarch64",
            release: None,
            banner: None,
        });
    }
    if head.get(0x38..0x3c) == Some(b"ARM\x64") {
        return Ok(Image {
            format: Format::Arm64,
            arch: "aarch64",
            release: None,
            banner: None,
        });
    }
    Err(if head.starts_with(b"\x7fELF") {
        NotAnImage::Vmlinux(elf_machine(head))
    } else if head.starts_with(&[0x1f, 0x8b]) {
        NotAnImage::Gzip
    } else if head.starts_with(b"MZ") && has_section(head, b".linux\0\0") {
        NotAnImage::Unified
    } else {
        NotAnImage::Unknown
    })
}

fn bz_image(head: &[u8]) -> Image {
    let number = |at: usize| {
        head.get(at..at + 2)
            .map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    };
    // kernel_version: offset of the text from 0x200; xloadflags bit 0: a 64-bit kernel.
    let text = match number(0x20e) {
        0 => None,
        offset => head.get(usize::from(offset) + 0x200..),
    };
    let banner = text.and_then(|text| {
        let end = text.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(&text[..end]).ok()?.trim();
        (!text.is_empty() && text.len() < 512).then(|| text.to_string())
    });
    let wide = number(0x206) >= 0x20c && number(0x236) & 1 == 1;
    Image {
        format: Format::BzImage,
        arch: if wide { "x86_64" } else { "i686" },
        release: banner
            .as_deref()
            .and_then(|banner| banner.split_whitespace().next())
            .map(str::to_string),
        banner,
    }
}

/// e_machine of elf(5).
fn elf_machine(head: &[u8]) -> &'static str {
    match head.get(18..20) {
        Some([0x3e, 0]) => "x86_64",
        Some([0x03, 0]) => "i686",
        Some([0xb7, 0]) => "aarch64",
        Some([0xf3, 0]) => "riscv64",
        Some([0x15, 0] | [0, 0x15]) => "ppc64le",
        Some([0, 0x16]) => "s390x",
        _ => "unknown",
    }
}

/// Whether the section table of a PE file has this section.
fn has_section(head: &[u8], name: &[u8]) -> bool {
    head.windows(name.len()).any(|window| window == name)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The head of a bzImage with this banner.
    pub(crate) fn bz_image(banner: &str) -> Vec<u8> {
        let mut head = vec![0; 0x4000];
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        head[0x20e..0x210].copy_from_slice(&0x3000u16.to_le_bytes());
        head[0x236] = 1;
        head[0x3200..0x3200 + banner.len()].copy_from_slice(banner.as_bytes());
        head
    }

    #[test]
    fn a_bz_image_says_its_release() {
        let banner =
            "6.1.0-47-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP Debian 6.1.170-3";
        let image = identify(&bz_image(banner)).unwrap();
        assert_eq!(image.arch, "x86_64");
        assert_eq!(image.release.as_deref(), Some("6.1.0-47-cloud-amd64"));
        assert_eq!(image.banner.as_deref(), Some(banner));
    }

    #[test]
    fn what_is_no_image_is_told_apart() {
        let mut elf = vec![0; 64];
        elf[..4].copy_from_slice(b"\x7fELF");
        elf[18] = 0x3e;
        assert_eq!(identify(&elf), Err(NotAnImage::Vmlinux("x86_64")));
        assert_eq!(identify(b"\x1f\x8b\x08"), Err(NotAnImage::Gzip));
        assert_eq!(identify(b""), Err(NotAnImage::Empty));
        assert_eq!(identify(b"hello"), Err(NotAnImage::Unknown));
        let mut unified = b"MZ".to_vec();
        unified.extend([0; 100]);
        unified.extend(b".linux\0\0");
        assert_eq!(identify(&unified), Err(NotAnImage::Unified));
        let mut arm = vec![0; 64];
        arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert_eq!(identify(&arm).unwrap().arch, "aarch64");
        // A header that points behind the end.
        let mut short = bz_image("");
        short.truncate(0x300);
        assert_eq!(identify(&short).unwrap().release, None);
    }
}
