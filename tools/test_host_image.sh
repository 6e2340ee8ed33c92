#!/usr/bin/env bash
# Makes the images that molecule's test hosts run on, Debian with systemd.
#
#   tools/test_host_image.sh [TAG...]  make llmops-test-host:TAG; without a tag, the two of bookworm
#
#   bookworm, trixie                   Debian 12 and 13, without Docker
#   bookworm-docker, trixie-docker     with Debian's Docker: 20.10, and 26 with buildx
#
# Made from packages with mmdebstrap and this machine's own apt sources, so no image registry
# is needed. Each image carries the hash of its inputs and is left alone while they stay the same.
set -euo pipefail
cd "$(dirname "$0")/.."
image=llmops-test-host
folder=molecule/shared/host_image
packages=systemd,systemd-sysv,dbus,python3,python3-apt,python3-venv
packages+=,sudo,iproute2,ca-certificates,procps,curl,kmod,busybox-static
declare -A docker_packages=(
    [bookworm]="docker.io iptables python3-requests"
    [trixie]="docker.io docker-cli docker-buildx iptables git python3-requests"
)
export OUTER_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt

say() { echo "test host image: $*"; }

[ $# -gt 0 ] || set -- bookworm bookworm-docker
for tag; do
    if [ -z "${docker_packages[${tag%-docker}]-}" ]; then
        say "there is no $tag" >&2
        exit 2
    fi
done

# One build at a time: scenarios may start side by side.
exec 9<"$0"
flock 9

if ! docker version >/dev/null 2>&1; then
    say "no Docker daemon answers: start one first" >&2
    exit 1
fi

# How this machine reaches Debian: its mirrors, and the settings they need.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2016  # apt fills in $(REPO_URI) and the others
apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' 2>/dev/null | sort -u >"$work/sources.list"
export OUTER_APT_CONF=$work/apt.conf
apt-config dump | { grep -E '^Acquire::(https?::Proxy|Check-|Retries)' || true; } >"$OUTER_APT_CONF"

# Where it has no sources of the suite, its mirrors have that one as well. Prints nothing where
# it has none of Debian at all: mmdebstrap then takes its own default.
sources_of() {
    grep -E " $1(-updates|-security)? main\$" "$work/sources.list" ||
        sed -nE "s/ [a-z]+(-updates|-security)? main\$/ $1\1 main/p" "$work/sources.list" | sort -u
}

hash_of() { sha256sum | cut -c1-16; }
inputs_of() { docker image inspect --format '{{ index .Config.Labels "inputs" }}' "$1" 2>/dev/null || true; }

is_up_to_date() { # IMAGE INPUTS
    if [ "$(inputs_of "$1")" != "$2" ]; then
        return 1
    fi
    say "$1 is up to date"
}

# An image that is replaced would stay behind without a name.
forget() { docker image rm --force "$1" >/dev/null 2>&1 || true; }

# Ubuntu has Debian's keys in a package of its own.
install_mmdebstrap() {
    local missing=()
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
    fi
}

make_plain() { # SUITE
    local made=$image:$1 sources=$work/$1.list mirror=() inputs
    sources_of "$1" >"$sources"
    inputs=$({
        cat "$0" $folder/init $folder/customize "$sources" "$OUTER_APT_CONF"
        cat $OUTER_CA_BUNDLE 2>/dev/null || true
    } | hash_of)
    if is_up_to_date "$made" "$inputs"; then
        return
    fi
    install_mmdebstrap
    if [ -s "$sources" ]; then
        mirror=("$sources")
    fi
    say "making $made from Debian packages (about a minute)"
    mmdebstrap --quiet --variant=minbase --include=$packages \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook="$folder/customize \"\$1\"" \
        "$1" "$work/root.tar" "${mirror[@]}"
    forget "$made"
    docker import --change "LABEL inputs=$inputs" --change 'ENV container=docker' \
        --change 'CMD ["/sbin/test-host-init"]' "$work/root.tar" "$made" >/dev/null
    rm "$work/root.tar"
    say "made $made"
}

add_docker() { # SUITE, of which the plain image is there
    local made=$image:$1-docker inputs
    inputs=$({
        inputs_of "$image:$1"
        cat $folder/Dockerfile
    } | hash_of)
    if is_up_to_date "$made" "$inputs"; then
        return
    fi
    say "making $made by adding Docker to $image:$1 (about half a minute)"
    forget "$made"
    # The classic builder: it takes the local base image as it is and needs no buildx.
    DOCKER_BUILDKIT=0 docker build --quiet --no-cache --label "inputs=$inputs" --build-arg "BASE=$image:$1" \
        --build-arg "PACKAGES=${docker_packages[$1]}" --tag "$made" - <$folder/Dockerfile >/dev/null 2>"$work/build.log" ||
        { cat "$work/build.log" >&2; exit 1; }
    say "made $made"
}

for suite in $(printf '%s\n' "${@%-docker}" | sort -u); do
    make_plain "$suite"
done
for tag; do
    if [[ $tag == *-docker ]]; then
        add_docker "${tag%-docker}"
    fi
done
