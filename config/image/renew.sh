#!/bin/sh
# Pins what the image is built of: the newest releases that pyproject.toml allows, with the hashes of all their files.
# Needs pip-tools (pip install pip-tools) and the Python of the image, 3.11: what is needed depends on it.
set -eu
cd "$(dirname "$0")/../.."
made=$(mktemp)
trap 'rm -f "$made"' EXIT

pin() {
    file=$1
    shift
    : >"$made" # what was pinned before has no say
    pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file "$made" "$@" pyproject.toml
    {
        echo "# Every release that the image is built with, and the hashes of its files. Written by config/image/renew.sh,"
        echo "# which pins the newest ones. pip takes no file with another hash (--require-hashes)."
        cat "$made"
    } >"config/image/$file"
}

pin requirements.txt
pin requirements-otel.txt --extra otel
pin requirements-build.txt --build-deps-for wheel --only-build-deps
