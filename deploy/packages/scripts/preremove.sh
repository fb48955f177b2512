#!/bin/sh
# Before the files go, and not in an upgrade: deb says remove, rpm 0.
set -e
command -v systemctl >/dev/null 2>&1 || exit 0
case "${1:-}" in
  remove | 0)
    if [ -d /run/systemd/system ]; then systemctl stop bearer-proxy.socket bearer-proxy.service || true; fi
    systemctl disable bearer-proxy.socket bearer-proxy.service || true
    ;;
esac
