#!/bin/sh
# What the tests need from the system: a Chromium for the page tests. Without root they skip visibly.
set -eu
command -v chromium >/dev/null 2>&1 && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
  echo "Installing chromium for the page tests ..."
  apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk >/dev/null \
    || echo "chromium could not be installed: the page tests will be skipped" >&2
else
  echo "chromium is missing: the page tests will be skipped" >&2
fi
