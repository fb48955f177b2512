#!/bin/sh
# After the files are there. The unit is enabled, and runs once there is a configuration (its condition). Where systemd
# does not run, in an image that is being built, it is only enabled.
# deb: configure [OLD VERSION]; rpm: number of versions that are then installed.
set -e
command -v systemctl >/dev/null 2>&1 || exit 0
runs() { [ -d /run/systemd/system ]; }
first() {
  systemctl enable bearer-proxy.service
  if runs; then systemctl start bearer-proxy.service; fi
}
if runs; then systemctl daemon-reload; fi
if [ -e /run/bearer-proxy.removed ]; then
  rm /run/bearer-proxy.removed
  set -- configure
fi
case "$1:${2:-}" in
  # The first installation, or one after a removal. Who disabled it keeps it disabled over an upgrade.
  configure: | 1:) first ;;
  configure:* | [2-9]:) if runs; then systemctl try-restart bearer-proxy.service; fi ;;
esac || true
