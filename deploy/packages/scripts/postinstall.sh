#!/bin/sh
# After the files are there. The unit is enabled, and runs once there is a configuration (its condition).
# deb: configure [OLD VERSION]; rpm: number of versions that are then installed; apk: the version.
set -e
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
case "$1:${2:-}" in
  # The first installation. Who disabled it keeps it disabled over an upgrade.
  configure: | 1:) systemctl enable bearer-proxy.service && systemctl start bearer-proxy.service ;;
  configure:* | [2-9]:) systemctl try-restart bearer-proxy.service ;;
esac || true
