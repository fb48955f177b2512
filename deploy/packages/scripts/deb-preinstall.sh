#!/bin/sh
# deb, before the files are there: `install` with an old version says that the package was removed, and not purged.
set -e
case "$1:${2:-}" in
  install:?*) touch /run/bearer-proxy.removed ;;
esac
