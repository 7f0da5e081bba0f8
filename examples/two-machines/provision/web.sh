#!/bin/sh
# Serves the synced folder's page on port 80, with what the database says put into it.
set -eu

cat >/etc/systemd/system/site.socket <<'UNIT'
[Socket]
ListenStream=80
Accept=yes

[Install]
WantedBy=sockets.target
UNIT

cat >/etc/systemd/system/site@.service <<UNIT
[Service]
Environment=DATABASE=$DATABASE
ExecStart=bash /srv/site/answer
StandardInput=socket
UNIT

systemctl enable --quiet --now site.socket
echo "the site is served on port 80"
