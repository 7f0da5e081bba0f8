#!/bin/sh
# Makes this machine a member of an etcd cluster. Its arguments are the names of all members.
set -eu

name=$(hostname)
members=
for member in "$@"; do
    members=$members${members:+,}$member=http://$member:2380
done

# The package would start a cluster of one.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install etcd-server etcd-client
rm /usr/sbin/policy-rc.d

# The times are for computers without KVM, where a machine is slow to answer.
cat >/etc/default/etcd <<CONFIGURATION
ETCD_NAME=$name
ETCD_DATA_DIR=/var/lib/etcd/cluster
ETCD_INITIAL_CLUSTER=$members
ETCD_INITIAL_CLUSTER_STATE=new
ETCD_INITIAL_ADVERTISE_PEER_URLS=http://$name:2380
ETCD_ADVERTISE_CLIENT_URLS=http://$name:2379
ETCD_LISTEN_PEER_URLS=http://0.0.0.0:2380
ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379
ETCD_HEARTBEAT_INTERVAL=500
ETCD_ELECTION_TIMEOUT=5000
CONFIGURATION

systemctl --quiet enable etcd
# It has started once most members have, so this does not wait.
systemctl --no-block restart etcd
