#!/bin/sh
# Answers every connection to $PORT with one line, the script's first argument. systemd listens
# and starts a service for each connection, so nothing but what the box has is needed.
set -eu
mkdir -p /var/lib/greeting
printf '%s\n' "$1" >/var/lib/greeting/line

cat >/etc/systemd/system/greeting.socket <<UNIT
[Socket]
ListenStream=$PORT
Accept=yes

[Install]
WantedBy=sockets.target
UNIT

cat >/etc/systemd/system/greeting@.service <<'UNIT'
[Service]
ExecStart=cat /var/lib/greeting/line
StandardInput=socket
UNIT

systemctl enable --quiet --now greeting.socket
echo "the greeting is served on port $PORT"
