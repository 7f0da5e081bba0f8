#!/bin/sh
# Re-creates OLD as the standby of NEW, after failover.sh. Can be run again if it is interrupted.
set -eu
if [ $# -ne 2 ]; then
    echo "usage: $0 OLD NEW" >&2
    exit 2
fi
old=$1
new=$2

# Its data may have writes that NEW does not have, so it cannot go on from there.
stead destroy --yes "$old"
stead link restore "$old"
stead up "$old"

# From now on, the primary waits for its standby again. The copy of the data has the setting too.
for machine in "$old" "$new"; do
    stead exec "$machine" -- sudo -iu postgres psql --quiet --output=/dev/null --set ON_ERROR_STOP=1 \
        -c "ALTER SYSTEM RESET synchronous_standby_names" \
        -c "SELECT pg_reload_conf()"
done
echo "$old is the standby of $new"
