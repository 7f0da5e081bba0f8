#!/bin/sh
# Runs inside the new root file system, as its root, after the packages are
# installed and files/ is laid over it.
set -eu

useradd --create-home --shell /bin/bash --uid 1000 stead
echo 'stead ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/90-stead-stead
chmod 440 /etc/sudoers.d/90-stead-stead
passwd -l root >/dev/null

# Every machine gets its own host key, host name and machine id.
rm -f /etc/ssh/ssh_host_*
echo localhost >/etc/hostname
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id

# Name servers come by DHCP: see stead-resolver.
ln -sf ../run/stead/resolv.conf /etc/resolv.conf

systemctl --quiet enable systemd-networkd.service stead-seed.service \
    stead-resolver.path ssh.service \
    serial-getty@ttyS0.service stead-time.timer
systemctl --quiet disable getty@tty1.service systemd-network-generator.service \
    systemd-timesyncd.service || :
systemctl --quiet mask \
    apt-daily.timer apt-daily-upgrade.timer man-db.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    systemd-networkd-wait-online.service systemd-pstore.service \
    getty-static.service
systemctl --quiet set-default multi-user.target

# Logins are good as soon as sshd is up: nothing later in the boot is needed.
ln -sf /dev/null /etc/tmpfiles.d/systemd-nologin.conf

update-initramfs -u -k all
