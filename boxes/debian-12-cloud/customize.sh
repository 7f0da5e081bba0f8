#!/bin/sh
# Runs inside the new root file system, as its root, after the packages are
# installed and files/ is laid over it. The login user is made by cloud-init.
set -eu

passwd -l root >/dev/null

# Every machine gets its own host keys, host name and machine id.
rm -f /etc/ssh/ssh_host_*
echo localhost >/etc/hostname
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id

systemctl --quiet enable systemd-networkd.service systemd-resolved.service ssh.service \
    serial-getty@ttyS0.service stead-time.timer
systemctl --quiet disable systemd-timesyncd.service || :
systemctl --quiet mask \
    apt-daily.timer apt-daily-upgrade.timer man-db.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-pstore.service \
    systemd-networkd-wait-online.service
systemctl --quiet set-default multi-user.target

# What the bootloader's first stages are made of, for whoever puts them into the
# gap of the disk.
grub-mkimage --format=i386-pc --prefix='(hd0,gpt2)/boot/grub' --output=/boot/grub/core.img \
    biosdisk part_gpt ext2 normal linux configfile search search_label serial terminal echo
cp /usr/lib/grub/i386-pc/boot.img /boot/grub/boot.img

update-initramfs -u -k all
