#!/bin/sh
# Before the files go, and not in an upgrade: deb says remove, rpm 0.
set -e
[ -d /run/systemd/system ] || exit 0
case "${1:-}" in
  remove | 0) systemctl disable --now bearer-proxy.socket bearer-proxy.service || true ;;
esac
