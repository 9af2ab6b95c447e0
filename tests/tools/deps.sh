#!/usr/bin/env bash
# What steerd needs from Debian: `deps.sh --report` says what is missing, `--install` prints and installs what building
# and serving need, `--install-tests` also what the tests need (a browser among it).
# Without root (or sudo that asks nothing) it says the command to run and stops.
set -euo pipefail

packages=(gcc make pkg-config curl libmicrohttpd-dev libjansson-dev libsqlite3-dev libinih-dev libpcre2-dev zlib1g-dev)
tests=(g++ libcmocka-dev python3-pytest python3-requests python3-numpy python3-pandas python3-selenium chromium chromium-driver)
[ "${1:-}" = --install ] || packages+=("${tests[@]}")

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done

if [ ${#missing[@]} -eq 0 ]; then
  [ "${1:-}" = --report ] && echo '  packages   all there'
  exit 0
fi
if [ "${1:-}" = --report ]; then
  echo "  packages   missing: ${missing[*]} (make demo and make test install what they need)"
  exit 0
fi

command='apt-get install -y --no-install-recommends'
if [ "$(id -u)" = 0 ]; then
  as_root=
elif sudo -n true 2>/dev/null; then
  as_root='sudo env DEBIAN_FRONTEND=noninteractive' # sudo keeps no such variable
else
  echo 'packages are missing, and installing them takes root, or a sudo that asks for no password; run this first:' >&2
  echo "  sudo apt-get update && sudo $command ${missing[*]}" >&2
  exit 1
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
$as_root $command "${missing[@]}" >/dev/null 2>&1 || {
  $as_root apt-get update -qq
  $as_root $command "${missing[@]}"
}
