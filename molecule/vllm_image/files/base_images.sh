#!/bin/sh
# Makes the base images of the Dockerfiles in history.sh: one program, and 24 MB of noise by which it shows which layers
# are moved.
set -eu
mkdir -p /srv/base/bin
cp /bin/busybox /srv/base/bin/
for name in sh cat echo sleep test; do ln -sf busybox "/srv/base/bin/$name"; done
head -c 24000000 /dev/urandom >/srv/base/noise
tar -C /srv/base -c . | docker import --change 'ENV CUDA_VERSION=12.4.1' - llmops-test/cuda:12.4.1-devel >/dev/null
docker tag llmops-test/cuda:12.4.1-devel llmops-test/cuda:12.9.1-devel
