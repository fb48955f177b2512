#!/bin/sh
# Alpine: before the files go. Configuration, secrets and the user stay.
if rc-service --quiet bearer-proxy status >/dev/null 2>&1; then rc-service bearer-proxy stop || true; fi
rc-update delete bearer-proxy >/dev/null 2>&1 || true
