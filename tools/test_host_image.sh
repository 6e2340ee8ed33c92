#!/usr/bin/env bash
# Makes the images that molecule's test hosts run on, Debian 12 with systemd:
#   llmops-test-host:bookworm         without Docker
#   llmops-test-host:bookworm-docker  with Debian's Docker
# Made from packages with mmdebstrap and this machine's own apt sources, so no image registry
# is needed. Each image carries the hash of its inputs and is left alone while they stay the same.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=bookworm
image=llmops-test-host
folder=molecule/shared/host_image
packages=systemd,systemd-sysv,dbus,python3,python3-apt,python3-venv
packages+=,sudo,iproute2,ca-certificates,procps,curl,kmod,busybox-static
export OUTER_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt

say() { echo "test host image: $*"; }

# One build at a time: scenarios may start side by side.
exec 9<"$0"
flock 9

if ! docker version >/dev/null 2>&1; then
    say "no Docker daemon answers: start one first" >&2
    exit 1
fi

inputs_of() { docker image inspect --format '{{ index .Config.Labels "inputs" }}' "$1" 2>/dev/null || true; }

# An image that is replaced would stay behind without a name.
forget() { docker image rm --force "$1" >/dev/null 2>&1 || true; }

# How this machine reaches Debian: its mirrors, and the settings they need. Where it has no
# sources of this suite, mmdebstrap's own default is taken.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2016  # apt fills in $(REPO_URI) and the others
apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
    { grep -E " $suite(-updates|-security)? main\$" || true; } | sort -u >"$work/sources.list"
export OUTER_APT_CONF=$work/apt.conf
apt-config dump | { grep -E '^Acquire::(https?::Proxy|Check-|Retries)' || true; } >"$OUTER_APT_CONF"
mirror=()
if [ -s "$work/sources.list" ]; then
    mirror=("$work/sources.list")
fi

inputs=$({
    cat "$0" $folder/init $folder/customize "$work/sources.list" "$OUTER_APT_CONF"
    cat $OUTER_CA_BUNDLE 2>/dev/null || true
} | sha256sum | cut -c1-16)
if [ "$(inputs_of $image:$suite)" = "$inputs" ]; then
    say "$image:$suite is up to date"
else
    # Ubuntu has Debian's keys in a package of its own.
    missing=()
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
    fi
    say "making $image:$suite from Debian packages (about a minute)"
    mmdebstrap --quiet --variant=minbase --include=$packages \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook="$folder/customize \"\$1\"" \
        $suite "$work/root.tar" "${mirror[@]}"
    forget $image:$suite
    docker import --change "LABEL inputs=$inputs" --change 'ENV container=docker' \
        --change 'CMD ["/sbin/test-host-init"]' "$work/root.tar" $image:$suite >/dev/null
    say "made $image:$suite"
fi

inputs=$(echo "$inputs" | cat - $folder/Dockerfile | sha256sum | cut -c1-16)
if [ "$(inputs_of $image:$suite-docker)" = "$inputs" ]; then
    say "$image:$suite-docker is up to date"
else
    say "making $image:$suite-docker by adding Docker to it (about half a minute)"
    forget $image:$suite-docker
    # The classic builder: it takes the local base image as it is and needs no buildx.
    DOCKER_BUILDKIT=0 docker build --quiet --no-cache --label "inputs=$inputs" \
        --tag $image:$suite-docker - <$folder/Dockerfile >/dev/null 2>"$work/build.log" ||
        { cat "$work/build.log" >&2; exit 1; }
    say "made $image:$suite-docker"
fi
