#!/usr/bin/env bash
# A Debian package of what is built: `make_deb.sh VERSION VARIANT` writes build/steerd_VERSION_ARCH.deb. What it depends on is read
# from the program. The package starts nothing: `systemctl enable --now steerd` does.
set -euo pipefail
version=${1:?usage: make_deb.sh VERSION VARIANT}
variant=${2:-release}
if ! command -v dpkg-shlibdeps >/dev/null; then
  echo 'make deb needs dpkg-shlibdeps: apt-get install dpkg-dev' >&2
  exit 1
fi
architecture=$(dpkg --print-architecture)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

make -s install VARIANT="$variant" PREFIX=/usr DESTDIR="$root"
install -D -m 644 config/steerd.ini "$root/etc/steerd/steerd.ini"
install -D -m 644 LICENSE "$root/usr/share/doc/steerd/copyright"
install -D -m 644 -t "$root/usr/share/doc/steerd" README.md docs/*.md
cp -r docs/examples "$root/usr/share/doc/steerd/" && chmod -R u=rwX,go=rX "$root/usr/share/doc/steerd"
strip --strip-unneeded "$root/usr/bin/steerd"

# dpkg-shlibdeps wants a source package's control file; an empty one will do.
mkdir -p "$root/debian" && touch "$root/debian/control"
depends=$(cd "$root" && dpkg-shlibdeps -O usr/bin/steerd 2>/dev/null | sed 's/^shlibs:Depends=//')
rm -r "$root/debian"

mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: steerd
Version: $version
Architecture: $architecture
Maintainer: the authors of steerd <steerd@localhost>
Depends: $depends
Section: science
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Description: opens up a language model while it runs
 A daemon that loads a transformer and sparse dictionaries (SAEs, transcoders) and answers Neuronpedia-like
 requests: steering, features of a text, activations, edits at any point, at full generation speed.
CONTROL
echo /etc/steerd/steerd.ini >"$root/DEBIAN/conffiles"
chmod 755 "$root"
package=build/steerd_${version}_$architecture.deb
dpkg-deb --build --root-owner-group "$root" "$package" >/dev/null
echo "$package"
