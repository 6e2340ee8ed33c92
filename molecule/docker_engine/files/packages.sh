#!/bin/sh
# Makes the packages of Docker's own repository from those that Debian has: their names and versions are stubs, their
# Docker is real.
#
#   packages.sh FOLDER VERSION...
set -eu
folder=$1
shift
cd "$(mktemp -d)"
mkdir -p "$folder"
chmod 0777 .
apt-get download -qq docker.io containerd

repack() { # OLD NEW VERSION DEPENDS
    dpkg-deb -R "$1"_*.deb root
    depends=$(sed -n 's/^Depends: //p' root/DEBIAN/control | tr ',' '\n' | grep -v containerd | paste -sd,)
    sed -i -E -e '/^(Source|Breaks|Conflicts|Replaces|Recommends|Suggests|Depends|Enhances):/d' \
        -e "s/^Package: .*/Package: $2/" -e "s/^Version: .*/Version: $3/" root/DEBIAN/control
    echo "Depends: $depends$4" >>root/DEBIAN/control
    # A colon does not belong into the name of a file. Packing them tightly takes longer than all else here.
    dpkg-deb --root-owner-group -Znone -b root "$folder/$2_${3#*:}_amd64.deb" >/dev/null
    rm -rf root
}

stub() { # NAME VERSION
    mkdir -p root/DEBIAN
    printf 'Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: tests <tests@example.com>\nDescription: stub\n' \
        "$1" "$2" >root/DEBIAN/control
    dpkg-deb --root-owner-group -b root "$folder/$1_${2#*:}_amd64.deb" >/dev/null
    rm -rf root
}

for version; do
    repack docker.io docker-ce "$version" ', containerd.io, docker-ce-cli'
    stub docker-ce-cli "$version"
done
repack containerd containerd.io 1.7.2-1 ''
stub docker-buildx-plugin 0.13.1-1
