#!/bin/sh
# build.sh ARCHITECTURE FILE: the static program with all features but `demo`, for amd64 or arm64, from the root of
# the sources. The other architecture is cross-compiled and needs its GCC (gcc-aarch64-linux-gnu or
# gcc-x86-64-linux-gnu).
set -eu
architecture=$1 file=$2
case $architecture in
  amd64) cpu=x86_64 name=X86_64 ;;
  arm64) cpu=aarch64 name=AARCH64 ;;
  *) echo "error: $architecture is neither amd64 nor arm64" >&2; exit 2 ;;
esac
target=$cpu-unknown-linux-gnu
if [ "$cpu" != "$(uname -m)" ]; then
  gcc=$(echo "$cpu" | tr _ -)-linux-gnu-gcc
  export "CARGO_TARGET_${name}_UNKNOWN_LINUX_GNU_LINKER=$gcc" "CC_${cpu}_unknown_linux_gnu=$gcc"
fi
# Paths of this machine are no part of the program: every folder and every home gives the same bytes.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
RUSTFLAGS='-C target-feature=+crt-static'
for map in "$cargo_home=/cargo" "$PWD=/src" "$(rustc --print sysroot)=/rust"; do
  RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$map"
  CFLAGS="${CFLAGS:-} -ffile-prefix-map=$map"
done
export RUSTFLAGS CFLAGS
cargo build --release --locked --no-default-features --features keyring,aws,azure,redis,pkcs12 --target "$target"
cp "${CARGO_TARGET_DIR:-target}/$target/release/bearer-proxy" "$file"
