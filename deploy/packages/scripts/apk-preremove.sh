#!/bin/sh
# Alpine: before the files go. Configuration, secrets and the user stay.
rc-service --ifexists bearer-proxy stop || true
rc-update delete bearer-proxy >/dev/null 2>&1 || true
