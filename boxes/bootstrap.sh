#!/bin/bash
# Installs a recipe's packages into a root file system with the distribution's own tool, and packs
# it as a tar. Runs as root, or as the root of a user namespace, with mounts and processes of its
# own (unshare). Part of `stead box build`; for Debian, mmdebstrap does all of this.
#
# Tools and package scripts see the host's programs and libraries (/usr), the way to servers, and
# WORK. The rest of the host is unmounted: settings, caches and keys of these tools, homes, sockets.
# What they may do as root is to own and write files: no mounts, no devices, no modules.
#
# usage: bootstrap.sh (dnf|zypper|pacman) WORK
#   in:  WORK/etc           what the tool finds in /etc: its settings, and the keys
#        WORK/packages      names of packages, one a line
#        WORK/releasever    the release of the distribution
#        WORK/overlay       files for the root file system
#        WORK/customize.sh  runs inside the root file system, as its root
#   out: WORK/root.tar; for pacman also WORK/version
set -euo pipefail
# In the order in which it was said.
exec 2>&1
umask 022
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
tool=$1 work=$2
root=$work/root
# What it takes to install files with their owners, to chroot, and to end what was started.
capabilities=+chown,+dac_override,+fowner,+fsetid,+setgid,+setuid,+setfcap,+setpcap,+sys_chroot,+kill

# What programs expect in /dev: in the folder $1.
devices() {
    mount -t tmpfs -o mode=755,nosuid dev "$1"
    local name
    for name in null zero full random urandom tty; do
        : >"$1/$name"
        mount --bind "/dev/$name" "$1/$name"
    done
    ln -s /proc/self/fd "$1/fd"
    for name in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${name%:*}" "$1/${name#*:}"; done
    mkdir -m 1777 "$1/shm"
}

# Binds the folder $1 of the host at $2, read-only. A user namespace may not drop a mount's flags.
bind_read_only() {
    mkdir -p "$2"
    mount --rbind "$1" "$2"
    mount -o "remount,bind,ro,$(findmnt -n -o VFS-OPTIONS --target "$1" | sed 's/\brw\b/ro/')" "$2"
}

# Makes `view` the root folder of this script, and goes on there.
enter_view() {
    local view=$work/view name
    mkdir "$view" "$root" "$work/tmp"
    mount -t tmpfs -o mode=755,nosuid view "$view"
    mkdir -p "$view"/{dev,proc,run,root,var/{cache,lib,log,tmp},tmp,old} "$view$work"
    for name in bin sbin lib lib32 lib64 libx32; do
        if [ -L "/$name" ]; then
            cp -P "/$name" "$view/$name"
        elif [ -d "/$name" ]; then
            bind_read_only "/$name" "$view/$name"
        fi
    done
    bind_read_only /usr "$view/usr"
    cp -r "$work/etc" "$view/etc"
    for name in resolv.conf hosts ld.so.cache; do
        [ ! -e "/etc/$name" ] || cp -L "/etc/$name" "$view/etc/$name"
    done
    for name in alternatives ssl/certs ca-certificates pki/tls pki/ca-trust; do
        [ ! -d "/etc/$name" ] || bind_read_only "/etc/$name" "$view/etc/$name"
    done
    devices "$view/dev"
    mount -t proc -o nosuid,nodev,noexec proc "$view/proc"
    mount --bind "$work" "$view$work"
    mount --bind "$work/tmp" "$view/tmp"
    cd "$view"
    pivot_root . old
    umount -l /old
    rmdir /old
    cd "$work"
}

# What package scripts expect to be mounted. rpm leaves these folders alone (etc/rpm/macros).
mount_for_scripts() {
    mkdir -p "$root"/{proc,sys,dev,run,tmp}
    chmod 555 "$root/proc" "$root/sys"
    chmod 1777 "$root/tmp"
    devices "$root/dev"
    mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
}

# The guest's rpm may keep its database elsewhere, and in a format that the host's cannot write.
hand_over_rpm_database() {
    [ -x "$root/usr/bin/rpmdb" ] || return 0
    rpmdb --root "$root" --exportdb >"$work/headers"
    find "$root$(rpm -E %_dbpath)" -mindepth 1 -delete
    chroot "$root" rpmdb --initdb
    chroot "$root" rpmdb --importdb <"$work/headers"
    chroot "$root" rpm --query "${packages[0]}"
}

with_dnf() {
    dnf --installroot="$root" --releasever="$(<"$work/releasever")" --assumeyes install "${packages[@]}"
    rm -rf "$root"/var/cache/dnf "$root"/var/log/{dnf*,hawkey.log}
    hand_over_rpm_database
}

with_zypper() {
    local key zypper=(zypper --non-interactive --root "$root" --reposd-dir /etc/zypp/repos.d)
    for key in /etc/stead-keys/*; do rpm --root "$root" --import "$key"; done
    # By itself, so that it ends with what is wrong with a repository: installing would go on without it.
    "${zypper[@]}" refresh
    "${zypper[@]}" --no-refresh install --no-recommends --auto-agree-with-licenses "${packages[@]}"
    rm -rf "$root"/var/cache/zypp "$root/var/lib/zypp/AnonymousUniqueId" "$root/run/zypp.pid"
    hand_over_rpm_database
}

# What pacman-key does with a distribution's keyring (--populate): beside NAME.gpg are NAME-trusted
# with the fingerprints of keys whose signatures on other keys count, and maybe NAME-revoked.
accept_keyring() {
    local gpg=(gpg --homedir /etc/pacman.d/gnupg --batch --quiet --no-auto-check-trustdb) name=${1%.gpg} key
    pacman-key --add "$1"
    while IFS=: read -r key _; do pacman-key --lsign-key "$key"; done <"$name-trusted"
    "${gpg[@]}" --import-ownertrust "$name-trusted"
    if [ -s "$name-revoked" ]; then
        while read -r key; do
            printf 'disable\nquit\n' | "${gpg[@]}" --command-fd 0 --edit-key "$key"
        done <"$name-revoked"
    fi
    pacman-key --updatedb
}

with_pacman() {
    local newest=archlinux-keyring pacman=(pacman --root "$root" --cachedir "$work/cache" --noconfirm) file day
    chmod 700 /etc/pacman.d/gnupg
    pacman-key --init
    for file in /etc/stead-keys/*.gpg; do accept_keyring "$file"; done
    mkdir -p "$root/var/lib/pacman" "$work/cache"
    # A keyring is older than the packages of a distribution without releases. The newest one comes
    # as a package, which a key of the older one has signed.
    if grep -qx "$newest" "$work/packages"; then
        "${pacman[@]}" -Sywdd "$newest"
        for file in "$work/cache/$newest"-*.pkg.tar.*; do
            [[ $file == *.sig ]] || tar -C "$work/tmp" -xf "$file" usr/share/pacman/keyrings
        done
        accept_keyring "$work/tmp/usr/share/pacman/keyrings/archlinux.gpg"
    fi
    "${pacman[@]}" -Sy "${packages[@]}"
    # There are no releases: the version is the day of the newest list of packages.
    day=$(stat -c %Y "$root"/var/lib/pacman/sync/*.db | sort -n | tail -n1)
    date --utc --date="@$day" +%Y.%m.%d >"$work/version"
    rm -rf "$root"/var/lib/pacman/sync/*
}

if [ "${3-}" = install ]; then
    mapfile -t packages <"$work/packages"
    "with_$tool"
    tar -C "$work/overlay" --owner=0 --group=0 --mtime="@$SOURCE_DATE_EPOCH" --sort=name -c . |
        tar -C "$root" --no-overwrite-dir --keep-directory-symlink -x
    cp "$work/customize.sh" "$root/customize.sh"
    chroot "$root" sh /customize.sh
    rm "$root/customize.sh"
    exit
fi

# Who starts this may not remove what is another user's there.
remove_root() {
    umount -l -R "$root/proc" "$root/dev" 2>/dev/null || :
    rm -rf --one-file-system "$root"
}

enter_view
trap remove_root EXIT
mount_for_scripts
setpriv --inh-caps=-all --bounding-set="-all,$capabilities" bash "$work/bootstrap.sh" "$tool" "$work" install
umount -l -R "$root/proc" "$root/dev"
tar -C "$root" --numeric-owner --sort=name --mtime="@$SOURCE_DATE_EPOCH" --clamp-mtime \
    --xattrs --xattrs-include=security.capability -cpf "$work/root.tar" .
