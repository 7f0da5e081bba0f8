#!/bin/bash
# Makes the disk image of a box from the tar of its root file system. Runs as root, or as the root
# of a user namespace: no loop device, no mount. Part of `stead box build`.
#
# usage: assemble.sh WORK (direct|bootloader) SIZE-IN-BYTES UUID
#   in:  WORK/root.tar, maybe WORK/version
#   out: WORK/disk.raw, WORK/version; for direct also WORK/release, WORK/vmlinuz, WORK/initrd.img
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
work=$1 boot=$2 size=$3 uuid=$4
cd "$work"

trap 'rm -rf root' EXIT
mkdir root
# The kernel fills /dev.
tar -C root --numeric-owner --xattrs --xattrs-include='*' --exclude='./dev/*' -xpf root.tar

# Sets `found` to the first of these files of the root file system that is there, for $1. A link may
# lead to a file of the host.
first_of() {
    local what=$1 file
    shift
    for file; do
        found=root/$file
        [ -L "$found" ] || [ ! -f "$found" ] || return 0
    done
    echo "the packages brought no $what; looked for: $*" >&2
    exit 1
}

# A distribution's version, unless the tool that installed its packages knows better.
if [ ! -e version ]; then
    found=root/etc/debian_version
    if [ -f "$found" ] && [ ! -L "$found" ] && ! grep -qsx 'ID=ubuntu' root/usr/lib/os-release; then
        cat "$found" >version
    else
        first_of os-release usr/lib/os-release etc/os-release
        sed -n 's/^VERSION_ID=//p' "$found" | tr -d "\"'" >version
    fi
fi

mke2fs_options=(-q -F -t ext4 -L root -U "$uuid" -m 1 -d root
    -E "hash_seed=$uuid,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0")
export E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH

truncate -s "$size" disk.raw
case $boot in
    direct)
        release=$(ls root/lib/modules)
        if [ "$(wc -w <<<"$release")" != 1 ]; then
            echo "expected the modules of one kernel in /lib/modules, found: ${release:-none}" >&2
            exit 1
        fi
        echo "$release" >release
        # As Debian, dracut, and SUSE name them.
        first_of kernel "boot/vmlinuz-$release" "lib/modules/$release/vmlinuz"
        cp "$found" vmlinuz
        first_of initrd "boot/initrd.img-$release" "boot/initramfs-$release.img" "boot/initrd-$release"
        cp "$found" initrd.img
        chmod 644 vmlinuz initrd.img
        mke2fs "${mke2fs_options[@]}" disk.raw
        ;;
    bootloader)
        # In sectors of 512 bytes: GPT, a BIOS boot partition of 1 MiB, the root to the end.
        gap=2048 start=4096 end=$((size / 512 - 2048))
        sfdisk --quiet disk.raw <<TABLE
label: gpt
label-id: $uuid
start=$gap, size=$((start - gap)), type=21686148-6449-6E6F-744E-656564454649, uuid=${uuid%?}1
start=$start, size=$((end - start)), type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=${uuid%?}2
TABLE
        mke2fs "${mke2fs_options[@]:0:${#mke2fs_options[@]}-1}" \
            "${mke2fs_options[-1]},offset=$((start * 512))" disk.raw "$(((end - start) / 2))k"
        # What grub-bios-setup does with a device: boot.img in the MBR with the sector of core.img
        # at 0x5c, and in core.img's first sector, at 0x1f4, the sector that it goes on in.
        put() { dd of=disk.raw conv=notrunc status=none bs=1 seek="$1"; }
        little_endian() {
            local value=$1 i
            for ((i = 0; i < 8; i++)); do
                printf '%b' "\\x$(printf %02x $((value & 255)))"
                value=$((value >> 8))
            done
        }
        head -c 440 root/boot/grub/boot.img | put 0
        little_endian "$gap" | put $((0x5c))
        dd if=root/boot/grub/core.img of=disk.raw bs=512 seek="$gap" conv=notrunc status=none
        little_endian $((gap + 1)) | put $((gap * 512 + 0x1f4))
        ;;
esac
