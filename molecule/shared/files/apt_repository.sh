#!/bin/sh
# Makes a signed apt repository of stub packages, as a vendor's is laid out.
#
#   apt_repository.sh FOLDER SUITE  of the packages below FOLDER; the suite / makes a flat one
#
# Beside it stand key.asc, the key that signed it, and other.asc, which did not.
set -eu
cd "$1"
suite=$2
export GNUPGHOME="$PWD/.gnupg"
mkdir -m 0700 "$GNUPGHOME" 2>/dev/null || test -d "$GNUPGHOME"
for name in key other; do
    if [ ! -e $name.asc ]; then
        gpg --batch --quiet --passphrase '' --quick-generate-key "$name <$name@example.com>" ed25519 sign never
        gpg --batch --armor --export "$name@example.com" >$name.asc
    fi
done
gpg --batch --with-colons --show-keys key.asc | awk -F: '$1 == "fpr" { print $10; exit }' >fingerprint
if [ "$suite" = / ]; then
    release=.
else
    release=dists/$suite
    mkdir -p "$release/stable/binary-amd64"
fi
if [ "$suite" = / ]; then
    apt-ftparchive packages . >Packages
else
    apt-ftparchive packages . >"$release/stable/binary-amd64/Packages"
fi
rm -f "$release/Release" "$release/InRelease"
apt-ftparchive -o APT::FTPArchive::Release::Suite="$suite" -o APT::FTPArchive::Release::Codename="$suite" \
    -o APT::FTPArchive::Release::Components=stable -o APT::FTPArchive::Release::Architectures=amd64 \
    release "$release" >"$release.Release"
mv "$release.Release" "$release/Release"
gpg --batch --yes --local-user key@example.com --clearsign --output "$release/InRelease" "$release/Release"
