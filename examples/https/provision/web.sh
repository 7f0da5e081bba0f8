#!/bin/sh
# nginx with the machine's certificate. NAME is the machine's name with its domain.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends nginx-light

cat >/etc/nginx/sites-available/default <<SITE
server {
    listen 443 ssl;
    # The host shows ports from 1024 up only.
    listen 8443 ssl;
    server_name $NAME;
    ssl_certificate /etc/stead/tls/cert.pem;
    ssl_certificate_key /etc/stead/tls/key.pem;
    root /var/www/html;
}
SITE
echo "hello from $NAME" >/var/www/html/index.html

# stead runs it when it has renewed the certificate.
cat >/etc/stead/tls/renewed <<'RENEWED'
#!/bin/sh
exec systemctl reload nginx
RENEWED
chmod 755 /etc/stead/tls/renewed

systemctl restart nginx
