#!/bin/sh
# PostgreSQL on this machine. Its arguments are the names of both machines, of which the first one begins as primary.
# Each of them becomes the standby of the other one if that is a primary.
set -eu
export DEBIAN_FRONTEND=noninteractive

name=$(hostname)
if [ "$name" = "$1" ]; then other=$2; else other=$1; fi
domain=failover.internal
tls=/etc/stead/tls

apt-get -q update
apt-get -qy --no-install-recommends install postgresql
version=$(ls /etc/postgresql)
configuration=/etc/postgresql/$version/main
data=/var/lib/postgresql/$version/main
service=postgresql@$version-main

# The group has come with the package, and postgres is in it. From now on, stead gives it each new key.
chgrp ssl-cert $tls/key.pem
chmod 640 $tls/key.pem
cat >$tls/renewed <<RENEWED
#!/bin/sh
exec systemctl reload $service
RENEWED
chmod 755 $tls/renewed

as_postgres() {
    (cd / && exec runuser -u postgres -- "$@")
}

cat >"$configuration/conf.d/failover.conf" <<CONFIGURATION
listen_addresses = '*'
ssl_cert_file = '$tls/cert.pem'
ssl_key_file = '$tls/key.pem'
ssl_ca_file = '$tls/ca.pem'
# A primary confirms a write only when the other machine has it on its disk.
synchronous_standby_names = '"$other"'
# For a standby that was off for a while.
wal_keep_size = '64MB'
CONFIGURATION

# No passwords: the other machine shows the certificate that stead gave it.
cat >"$configuration/pg_hba.conf" <<ACCESS
local all all peer
hostssl postgres,replication replicator samenet cert map=machines
ACCESS
echo "machines $other.$domain replicator" >"$configuration/pg_ident.conf"

other_server="host=$other.$domain user=replicator application_name=$name connect_timeout=10
    sslmode=verify-full sslrootcert=$tls/ca.pem sslcert=$tls/cert.pem sslkey=$tls/key.pem"

# Nobody answers while the other one does not exist yet.
leads=$(as_postgres psql "$other_server dbname=postgres" -Atc "SELECT NOT pg_is_in_recovery()" || true)
if [ "$leads" = t ]; then
    systemctl stop "$service"
    rm -rf "$data"
    as_postgres pg_basebackup --dbname="$other_server" --pgdata="$data" --checkpoint=fast --write-recovery-conf
    systemctl restart "$service"
elif [ "$name" = "$1" ]; then
    systemctl restart "$service"
    roles=$(as_postgres psql -Atc "SELECT rolname FROM pg_roles WHERE rolname = 'replicator'")
    # The standby that this would wait for needs the role first.
    [ -n "$roles" ] || as_postgres env PGOPTIONS="-c synchronous_commit=local" createuser --replication replicator
else
    echo "$other is not a primary, so $name cannot become its standby" >&2
    exit 1
fi
