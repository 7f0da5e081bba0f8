#!/bin/sh
# Runs inside the new root file system, as its root, after the packages are
# installed and files/ is laid over it. One script for AlmaLinux, openSUSE and
# Arch Linux, which have systemd; what differs depends on what is there.
set -eu
units=/usr/lib/systemd/system

useradd --create-home --shell /bin/bash --uid 1000 stead
mkdir -p /etc/sudoers.d
echo 'stead ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/90-stead-stead
chmod 440 /etc/sudoers.d/90-stead-stead
usermod --lock root

# Every machine gets its own host key, host name, machine id and seed of randomness.
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /var/lib/systemd/random-seed
echo localhost >/etc/hostname
: >/etc/machine-id

# Settings of sshd in its folder come first, whatever its own file says.
if [ -e /etc/ssh/sshd_config ] && ! grep -q '^Include /etc/ssh/sshd_config.d/' /etc/ssh/sshd_config; then
    sed -i '1i Include /etc/ssh/sshd_config.d/*.conf' /etc/ssh/sshd_config
fi

enable='stead-seed.service sshd.service serial-getty@ttyS0.service stead-time.timer'
if [ -e /etc/systemd/system/stead-resolver.path ]; then
    # Name servers come by DHCP: see stead-resolver.
    ln -sf ../run/stead/resolv.conf /etc/resolv.conf
    enable="$enable systemd-networkd.service stead-resolver.path"
else
    # A clone keeps no address of the machine it was made from.
    mkdir -p /etc/NetworkManager/conf.d
    printf '[connection]\nipv4.dhcp-client-id=mac\n' >/etc/NetworkManager/conf.d/10-stead.conf
    enable="$enable NetworkManager.service"
fi
# The agent starts with its device, or with a rule of udev's.
! grep -qs '^WantedBy=' "$units/qemu-guest-agent.service" || enable="$enable qemu-guest-agent.service"

# stead-time.timer starts the time client a while after the boot.
if [ ! -e "$units/systemd-timesyncd.service" ]; then
    mkdir -p /etc/systemd/system/stead-time.timer.d
    printf '[Timer]\nUnit=chronyd.service\n' >/etc/systemd/system/stead-time.timer.d/chronyd.conf
fi

if command -v pacman-key >/dev/null; then
    # Packages ship neither a server nor the keyring, whose own key must be the machine's. Who logs in
    # finds both.
    echo "Server = https://geo.mirror.pkgbuild.com/\$repo/os/\$arch" >/etc/pacman.d/mirrorlist
    cat >/etc/systemd/system/pacman-keyring.service <<'UNIT'
[Unit]
Description=Make the keyring of pacman
ConditionPathExists=!/etc/pacman.d/gnupg/trustdb.gpg
Before=sshd.service

[Service]
Type=oneshot
ExecStart=/usr/bin/pacman-key --init
ExecStart=/usr/bin/pacman-key --populate

[Install]
WantedBy=multi-user.target
UNIT
    rm -rf /etc/pacman.d/gnupg
    enable="$enable pacman-keyring.service"
fi

# shellcheck disable=SC2086 # names of units, without spaces
systemctl --quiet enable $enable
for unit in getty@tty1.service systemd-network-generator.service systemd-timesyncd.service \
    systemd-resolved.service chronyd.service; do
    if [ "$unit" = getty@tty1.service ] || [ -e "$units/$unit" ]; then systemctl --quiet disable "$unit"; fi
done
# What makes host keys of other kinds, or waits, or works in the background.
for unit in sshd-keygen.target sshdgenkeys.service systemd-networkd-wait-online.service \
    NetworkManager-wait-online.service systemd-pstore.service fstrim.timer dnf-makecache.timer; do
    systemctl --quiet mask "$unit" 2>/dev/null
done
systemctl --quiet set-default multi-user.target

# Logins are good as soon as sshd is up: nothing later in the boot is needed.
mkdir -p /etc/tmpfiles.d
ln -sf /dev/null /etc/tmpfiles.d/systemd-nologin.conf

# The initramfs has only what finds a virtio disk with ext4, and no trace of this host.
release=$(ls /usr/lib/modules)
rm -f /boot/initramfs-* /boot/initrd*
if command -v dracut >/dev/null; then
    mkdir -p /etc/dracut.conf.d
    printf '%s\n' 'hostonly="no"' 'drivers=" virtio_pci virtio_blk ext4 qemu_fw_cfg "' >/etc/dracut.conf.d/10-stead.conf
    # It needs no device nodes: the kernel makes them.
    DRACUT_NO_MKNOD=1 dracut --force --kver "$release" "/boot/initramfs-$release.img"
else
    mkdir -p /etc/mkinitcpio.conf.d
    printf '%s\n' 'MODULES=(virtio_pci virtio_blk ext4 qemu_fw_cfg)' 'HOOKS=(base udev)' >/etc/mkinitcpio.conf.d/10-stead.conf
    mkinitcpio --kernel "$release" --generate "/boot/initramfs-$release.img"
fi
