#!/bin/sh
# Makes stubs of the four packages of the toolkit, at each of the given versions. What they do not have is the hardware:
# the hook writes down what Docker asked it for, and the specification gives a container a variable instead of a device.
#
#   packages.sh FOLDER VERSION...
set -eu
folder=$1
shift

package() { # NAME DEPENDS; its files are in ./root
    mkdir -p root/DEBIAN
    cat >root/DEBIAN/control <<END
Package: $1
Version: $version
Architecture: amd64
Maintainer: llmops.vllm tests <tests@example.com>
Description: stub of $1
END
    if [ -n "$2" ]; then
        echo "Depends: $2" >>root/DEBIAN/control
    fi
    if [ -d root/etc ]; then
        (cd root && find etc -type f | sed 's#^#/#') >root/DEBIAN/conffiles
    fi
    dpkg-deb --root-owner-group -b root "$folder/$1_${version}_amd64.deb" >/dev/null
    rm -rf root
}

program() { # NAME; its text is on stdin
    mkdir -p root/usr/bin
    sed "s/@VERSION@/$version/" >"root/usr/bin/$1"
    chmod 0755 "root/usr/bin/$1"
}

cd "$(mktemp -d)"
mkdir -p "$folder"
for version; do
    package libnvidia-container1 ''

    program nvidia-container-cli <<'END'
#!/bin/sh
echo "cli-version: @VERSION@"
END
    package libnvidia-container-tools "libnvidia-container1 (>= $version)"

    program nvidia-container-runtime <<'END'
#!/bin/sh
exec runc "$@"
END
    program nvidia-ctk <<'END'
#!/bin/sh
spec=/var/run/cdi/nvidia.yaml
uuids() { nvidia-smi -L 2>/dev/null | sed -n 's/.*(UUID: \(GPU-[^)]*\))/\1/p'; }
case "$1 ${2-}" in
    "--version ")
        echo "NVIDIA Container Toolkit CLI version @VERSION@" ;;
    "cdi list")
        [ -e $spec ] || spec=/dev/null
        sed -n 's/^  - name: "\(.*\)"$/nvidia.com\/gpu=\1/p' $spec ;;
    "cdi generate")
        [ -n "$(uuids)" ] || { echo "failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND" >&2; exit 1; }
        mkdir -p /var/run/cdi
        {
            printf 'cdiVersion: "0.6.0"\nkind: nvidia.com/gpu\ndevices:\n'
            number=0
            for name in $(uuids) all; do
                printf '  - name: "%s"\n    containerEdits:\n      env: ["GPU_BY_CDI=%s"]\n' "$name" "$name"
                number=$((number + 1))
            done
        } >$spec.new
        mv $spec.new $spec ;;
esac
END
    mkdir -p root/etc/nvidia-container-runtime root/lib/systemd/system
    printf '#swarm-resource = "DOCKER_RESOURCE_GPU"\n\n[nvidia-container-cli]\n#no-cgroups = false\n' \
        >root/etc/nvidia-container-runtime/config.toml
    printf '[Service]\nType=oneshot\nExecStart=/usr/bin/nvidia-ctk cdi generate\n' \
        >root/lib/systemd/system/nvidia-cdi-refresh.service
    printf '[Path]\nPathChanged=/lib/modules\n[Install]\nWantedBy=multi-user.target\n' \
        >root/lib/systemd/system/nvidia-cdi-refresh.path
    package nvidia-container-toolkit-base ''

    program nvidia-container-runtime-hook <<'END'
#!/bin/sh
# Docker gives it the container's state on stdin; what GPUs are wanted stands in the container's own description.
bundle=$(sed -n 's/.*"bundle": *"\([^"]*\)".*/\1/p')
echo "@VERSION@ $* $(grep -o 'NVIDIA_VISIBLE_DEVICES=[^"]*' "$bundle/config.json")" >>/var/log/nvidia-hook.log
END
    package nvidia-container-toolkit "nvidia-container-toolkit-base (= $version), libnvidia-container-tools (= $version)"
done
