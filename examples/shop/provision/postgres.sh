#!/bin/sh
set -eu
# Stands for what sets up PostgreSQL.
echo "postgres ${PGVERSION} for ${PGUSER}: $*"
touch /var/lib/postgres-is-set-up
systemd-run --unit=shop-db python3 -c 'import socket, time
s = socket.create_server(("", 5432))
while True: s.accept()[0].close()'
