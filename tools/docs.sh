#!/bin/sh
# The documentation site, .work/docs/html; with "linkcheck" instead, the external links of its pages (needs a network).
# Each build is a whole one: a second run of Sphinx would not repeat the warnings of pages that have not changed.
set -eu
cd "$(dirname "$0")/.."
builder=${1:-html}
site=.work/docs
pages=$site/source
rm -rf "$pages" "${site:?}/$builder"
umask 022 # antsibull-docs refuses a folder that others may write to
mkdir -p $pages/docs $pages/reference
# The same layout as in the repository, so that links are right in both.
cp ./*.md $pages
cp docs/*.md $pages/docs
cp -r docs/site/index.md docs/site/reference $pages

antsibull-docs --config-file docs/site/antsibull-docs.cfg collection --use-current --squash-hierarchy \
    --fail-on-error --dest-dir $pages/reference llmops.vllm >/dev/null
# Furo has a table of contents beside the page.
sed -i '/^\.\. contents::$/,/^$/d' $pages/reference/*.rst
# The collection's index as a page for each kind.
for kind in role module filter lookup; do
    {
        grep "#$kind>" $pages/reference/index.rst
        printf '\n.. toctree::\n   :hidden:\n\n'
        sed -n "s/^\* .*\.\(.*\)#$kind>.*/   \1 <\1_$kind>/p" $pages/reference/index.rst
    } >>$pages/reference/${kind}s.rst
done

PROJECT=$PWD sphinx-build --quiet --fresh-env --fail-on-warning \
    -c docs/site -d $site/doctrees -b "$builder" $pages "$site/$builder"
echo "docs: $site/$builder"
