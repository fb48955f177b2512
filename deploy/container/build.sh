#!/bin/sh
# build.sh ARCHITECTURE FILE [static|dynamic]: the program with all features but `demo`, for amd64 or arm64, from the
# root of the sources; static unless it says otherwise. The other architecture is cross-compiled and needs its GCC
# (gcc-aarch64-linux-gnu or gcc-x86-64-linux-gnu). AUDITABLE=auditable puts the list of crates into it (cargo-auditable),
# and PROFILE names another profile than release.
set -eu
architecture=$1 file=$2 linkage=${3:-static} profile=${PROFILE:-release}
case $architecture in
  amd64) cpu=x86_64 name=X86_64 ;;
  arm64) cpu=aarch64 name=AARCH64 ;;
  *) echo "error: $architecture is neither amd64 nor arm64" >&2; exit 2 ;;
esac
case $linkage in
  static) RUSTFLAGS='-C target-feature=+crt-static' ;;
  dynamic) RUSTFLAGS= ;;
  *) echo "error: $linkage is neither static nor dynamic" >&2; exit 2 ;;
esac
case $profile in dev) folder=debug ;; *) folder=$profile ;; esac
target=$cpu-unknown-linux-gnu
if [ "$cpu" != "$(uname -m)" ]; then
  gcc=$(echo "$cpu" | tr _ -)-linux-gnu-gcc
  export "CARGO_TARGET_${name}_UNKNOWN_LINUX_GNU_LINKER=$gcc" "CC_${cpu}_unknown_linux_gnu=$gcc"
fi
# Paths of this machine are no part of the program: every folder and every home gives the same bytes.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
for map in "$cargo_home=/cargo" "$PWD=/src" "$(rustc --print sysroot)=/rust"; do
  RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$map"
  CFLAGS="${CFLAGS:-} -ffile-prefix-map=$map"
done
export RUSTFLAGS CFLAGS
# shellcheck disable=SC2086 # without AUDITABLE there is no word
cargo ${AUDITABLE:-} build --profile "$profile" --locked --target "$target" \
  --no-default-features --features keyring,aws,azure,vault,redis,kubernetes,pkcs12
cp "${CARGO_TARGET_DIR:-target}/$target/$folder/bearer-proxy" "$file"
