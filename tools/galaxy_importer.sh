#!/bin/sh
# What Galaxy looks at when a collection is uploaded: galaxy-importer on the tarball, with ansible-lint and ansible-doc.
# It has an environment of its own, since its pins are others than ours. Prints its warnings and errors, and ends with an
# error when there are any.
set -eu
cd "$(dirname "$0")/.."
requirements=tools/galaxy_importer/requirements.txt
work=$PWD/.work/galaxy-importer
uv=$PWD/.venv/bin/uv
if ! cmp -s $requirements "$work/venv/requirements.txt"; then
    echo "importer: installing $(head -n 1 tools/galaxy_importer/requirements.in)"
    "$uv" venv --quiet --clear --python .venv/bin/python "$work/venv"
    VIRTUAL_ENV=$work/venv "$uv" pip install --quiet -r $requirements
    cp $requirements "$work/venv/requirements.txt"
fi
mkdir -p "$work/home"
tarball=$(tools/build.sh "$work")
# community.docker, which roles call, for ansible-lint.
collections=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ansible_collections
mkdir -p "$work/collections/ansible_collections"
ln -sfn "$collections/community" "$work/collections/ansible_collections/community"
cd "$work"
status=0
env -u ANSIBLE_CONFIG HOME="$work/home" PATH="$work/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    ANSIBLE_COLLECTIONS_PATH="$work/collections" GALAXY_IMPORTER_CONFIG="$OLDPWD/tools/galaxy_importer/galaxy-importer.cfg" \
    venv/bin/python -m galaxy_importer.main "$tarball" >importer.log 2>&1 || status=$?
if grep -E '^(WARNING|ERROR)|Traceback' importer.log || [ $status -ne 0 ]; then
    echo "importer: all of its output is in .work/galaxy-importer/importer.log" >&2
    exit 1
fi
grep -q 'Importer processing completed successfully' importer.log
echo "importer: clean"
