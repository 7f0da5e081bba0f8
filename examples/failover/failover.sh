#!/bin/sh
# Makes the standby NEW the primary in place of OLD. Can be run again if it is interrupted.
set -eu
if [ $# -ne 2 ]; then
    echo "usage: $0 OLD NEW" >&2
    exit 2
fi
old=$1
new=$2

# The fence, before there is a second primary. It does not need the network, so it works while the link is cut.
stead halt --force "$old"

# The new primary has no standby yet, so it must not wait for one.
promoted=$(stead exec "$new" -- sudo -iu postgres psql -Atq --set ON_ERROR_STOP=1 \
    -c "ALTER SYSTEM SET synchronous_standby_names = ''" \
    -c "SELECT pg_reload_conf()" \
    -c "SELECT CASE WHEN pg_is_in_recovery() THEN pg_promote(wait_seconds => 300) ELSE true END" | tail -n 1)
if [ "$promoted" != t ]; then
    echo "$new is not a primary yet: run $0 again" >&2
    exit 1
fi
echo "$new is the primary"
