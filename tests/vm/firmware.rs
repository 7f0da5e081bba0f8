//! A disk that boots by UEFI only, secure boot and a TPM.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::project::{Project, archive, is_system, own_data, stead_in, text, virsh};

/// Makes `uefi.qcow2` of the box debian-12-cloud: without code for a BIOS, and with an EFI system partition, in which are
/// Debian's signed shim and GRUB. apt only fetches their packages, because installing them changes how the host boots.
const MAKE: &str = r#"
set -eu
PATH=$PATH:/usr/sbin:/sbin
apt-get -qq download shim-signed grub-efi-amd64-signed
for package in ./*.deb; do dpkg -x "$package" files; done
cat >grub.cfg <<'EOF'
search --no-floppy --label --set=root root
linux /vmlinuz root=/dev/vda2 rootfstype=ext4 ro console=ttyS0 loglevel=4
initrd /initrd.img
boot
EOF
truncate -s 16M esp
mkfs.vfat esp >/dev/null
mmd -i esp ::EFI ::EFI/BOOT ::EFI/debian
mcopy -i esp files/usr/lib/shim/shimx64.efi.signed ::EFI/BOOT/BOOTX64.EFI
mcopy -i esp files/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed ::EFI/BOOT/grubx64.efi
mcopy -i esp grub.cfg ::EFI/debian/grub.cfg

qemu-img convert -O raw "$1" disk
truncate -s +20M disk
sfdisk -q --relocate gpt-bak-std disk
sfdisk -q --delete disk 1
echo 'size=16M, type=uefi' | sfdisk -q -a disk
start=$(sfdisk --dump disk | sed -n 's/.*start= *\([0-9]*\),.*C12A7328.*/\1/p')
dd if=esp of=disk bs=512 seek="$start" conv=notrunc status=none
dd if=/dev/zero of=disk bs=440 count=1 conv=notrunc status=none
qemu-img convert -O qcow2 -c disk uefi.qcow2
rm -r disk esp files
"#;

fn disk_of(data: &Path, name: &str) -> PathBuf {
    let output = stead_in(Path::new("/"), data)
        .args(["--json", "box", "show", name])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let disk = &shown["manifest"]["disk"]["file"]["sha256"];
    data.join(format!("images/box-{}.qcow2", disk.as_str().unwrap()))
}

fn machinefile(more: &str) -> String {
    format!(
        r#"
project "uefi"
machine "vm" {{
    box "./uefi.qcow2"
    user "debian"
    memory "768MiB"
    {more}
    ready {{ timeout "900s"; }}
}}
"#
    )
}

/// Where libvirt keeps a domain's variables, and what a TPM has in it.
fn kept(domain: &str, uuid: &str) -> Vec<PathBuf> {
    let folders: [PathBuf; 2] = match is_system() {
        true => [
            "/var/lib/libvirt/qemu/nvram".into(),
            "/var/lib/libvirt/swtpm".into(),
        ],
        false => {
            let qemu = dirs::config_dir().unwrap().join("libvirt/qemu");
            [qemu.join("nvram"), qemu.join("swtpm")]
        }
    };
    let files = [
        folders[0].join(format!("{domain}_VARS.fd")),
        folders[1].join(uuid),
    ];
    files.into_iter().filter(|file| file.exists()).collect()
}

#[test]
#[ignore = "takes minutes, most of them in firmware: ./dev test --full"]
fn a_disk_that_boots_by_uefi_only_comes_up() {
    let data = own_data("uefi-data");
    let project = Project::with_data("uefi", &machinefile(""), &data);
    let archive = archive("debian-12-cloud");
    project.ok(&["box", "add", archive.to_str().unwrap()]);
    let made = Command::new("sh")
        .args(["-c", MAKE, "make"])
        .arg(disk_of(&data, "debian-12-cloud"))
        .current_dir(&project.folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));

    let plan = project.ok(&["plan"]).out;
    assert!(!plan.contains("UEFI"), "nothing is known yet: {plan}");
    project.ok(&["up"]);
    let asks = |script: &str| project.ok(&["exec", "vm", "--", "sh", "-c", script]).out;
    assert_eq!(asks("ls -d /sys/firmware/efi"), "/sys/firmware/efi\n");
    let (domain, uuid) = (project.domain("vm"), project.field("vm", "uuid"));
    let uuid = uuid.as_str().unwrap();
    assert_eq!(kept(&domain, uuid).len(), 1);

    // A variable of the guest's outlasts a halt, and another definition.
    const NAME: &str = "/sys/firmware/efi/efivars/SteadTest-12345678-1234-1234-1234-123456789abc";
    asks(&format!(
        "printf '\\007\\000\\000\\000x' | sudo tee {NAME} >/dev/null"
    ));
    project.ok(&["halt"]);
    project.write("Machinefile", &machinefile("tpm #true"));
    let plan = project.ok(&["plan"]).out;
    assert!(plan.contains(", UEFI, TPM)"), "{plan}");
    project.ok(&["up"]);
    assert_eq!(asks(&format!("tail -c 1 {NAME}")), "x");
    assert_eq!(asks("cat /sys/class/tpm/tpm0/tpm_version_major"), "2\n");
    assert_eq!(kept(&domain, uuid).len(), 2);

    // Secure boot has other variables: those with the keys.
    project.write("Machinefile", &machinefile("secure-boot #true"));
    project.ok(&["up"]).says(&[
        "secure-boot is #false, wanted #true; `stead restart vm` applies it",
        "tpm is #true, wanted #false",
    ]);
    project.ok(&["restart"]);
    assert_eq!(
        asks("od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-* | tr -d ' '"),
        "1\n"
    );
    let lost = asks(&format!("ls {NAME} 2>&1 || true"));
    assert!(lost.contains("No such"), "{lost}");

    // A definition has no TPM now; what that had in it goes with the machine all the same.
    project.ok(&["destroy", "-y"]);
    project.assert_gone("vm");
    assert_eq!(kept(&domain, uuid), [""; 0].map(PathBuf::from));
    fs::remove_file(project.folder.join("uefi.qcow2")).unwrap();
    assert!(!virsh(&["list", "--all", "--name"]).contains(&domain));
}
