#!/usr/bin/env bash
# A Debian package of what is built: `make_deb.sh VERSION VARIANT` writes build/steerd_VERSION_ARCH.deb. What it depends on is read
# from the program. The package starts nothing: `systemctl enable --now steerd` does. DEBFULLNAME and DEBEMAIL name who made it.
set -euo pipefail
version=${1:?usage: make_deb.sh VERSION VARIANT}
variant=${2:-release}
if ! command -v dpkg-shlibdeps >/dev/null; then
  echo 'make deb needs dpkg-shlibdeps: apt-get install dpkg-dev' >&2
  exit 1
fi
architecture=$(dpkg --print-architecture)
maintainer="${DEBFULLNAME:-the authors of steerd} <${DEBEMAIL:-steerd@localhost}>"
# The commit's time where there is one, so that the same commit makes the same package.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

make -s install VARIANT="$variant" PREFIX=/usr DESTDIR="$root"
strip --strip-unneeded "$root/usr/bin/steerd" $(find "$root/usr/lib/steerd" -name '*.so' 2>/dev/null)
gzip -9n "$root/usr/share/man/man1/steerd.1"
install -D -m 644 config/steerd.ini "$root/etc/steerd/steerd.ini"
install -D -m 644 config/debian/overrides "$root/usr/share/lintian/overrides/steerd"

# The README's links lead into docs/, here too.
papers="$root/usr/share/doc/steerd"
install -D -m 644 config/debian/copyright "$papers/copyright"
install -m 644 README.md "$papers"
cp -r docs "$papers/" && rm "$papers/docs/steerd.1" && find "$papers" -name __pycache__ -prune -exec rm -r {} +
chmod -R u=rwX,go=rX "$papers"
printf '%s\n' "steerd ($version) unstable; urgency=medium" '' '  * Built from its repository, whose log says what changed.' '' \
  " -- $maintainer  $(date -uRd "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$papers/changelog.gz"

# dpkg-shlibdeps wants a source package's control file; an empty one will do.
mkdir -p "$root/debian" && touch "$root/debian/control"
depends=$(cd "$root" && dpkg-shlibdeps -O usr/bin/steerd 2>/dev/null | sed 's/^shlibs:Depends=//')
rm -r "$root/debian"

install -D -m 755 -t "$root/DEBIAN" config/debian/postinst config/debian/prerm config/debian/postrm
cat >"$root/DEBIAN/control" <<CONTROL
Package: steerd
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Depends: $depends
Recommends: curl, ca-certificates
Section: science
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Description: opens up a language model while it runs
 A daemon that loads a transformer and sparse dictionaries (SAEs,
 transcoders) and answers Neuronpedia-like requests: steering, features
 of a text, activations, edits at any point, at full generation speed.
CONTROL
echo /etc/steerd/steerd.ini >"$root/DEBIAN/conffiles"
chmod 755 "$root"
package=build/steerd_${version}_$architecture.deb
# Weights hardly shrink: xz would take fifteen times as long for a tenth of the size.
dpkg-deb -Zgzip --build --root-owner-group "$root" "$package" >/dev/null
echo "$package"
