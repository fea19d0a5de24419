#!/bin/sh
# Debian's source and binary packages of the last commit: sh tools/packaging/deb.sh FOLDER. Needs
# dpkg-dev and debhelper. DEB_BUILD_OPTIONS and DEB_CFLAGS_APPEND have their usual meaning.
set -eu
out=$1
mkdir -p "$out"
make -s dist
version=$(sed -n 's/^#define MEGABYTE_VERSION_STRING "\(.*\)"/\1/p' megabyte.h)
cp "megabyte-$version.tar.gz" "$out/megabyte_$version.orig.tar.gz"
tar -C "$out" -xf "megabyte-$version.tar.gz"
cd "$out/megabyte-$version"
cp -R tools/packaging/debian debian
dpkg-buildpackage -us -uc
