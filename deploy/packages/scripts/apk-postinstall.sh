#!/bin/sh
# Alpine: after the files are there, at an installation and at an upgrade. The service is not enabled:
# rc-update add bearer-proxy
set -e
getent group bearer-proxy >/dev/null || addgroup -S bearer-proxy
getent passwd bearer-proxy >/dev/null \
  || adduser -S -D -H -h /var/empty -s /sbin/nologin -G bearer-proxy -g bearer-proxy bearer-proxy
# Secrets may be read by the service, and written by root. The folder is not in the package: apk would give it back to
# root alone after this script.
mkdir -p /etc/bearer-proxy/secrets
chown root:bearer-proxy /etc/bearer-proxy/secrets
chmod 0750 /etc/bearer-proxy/secrets
if rc-service --quiet bearer-proxy status >/dev/null 2>&1; then rc-service bearer-proxy restart || true; fi
