#!/bin/sh
# Reads a key file from stdin, and prints the fingerprint of each key that gpg finds in it, a line "---", and these keys
# once more as gpg writes them: whatever else the file had, and apt might read, is not in there.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
gpg() { command gpg --batch --quiet --no-options --no-autostart --homedir "$home" "$@"; }
gpg --import
gpg --with-colons --list-keys | awk -F: '$1 == "pub" { primary = 1 } $1 == "fpr" && primary { print $10; primary = 0 }'
echo ---
gpg --armor --export-options export-minimal --export
