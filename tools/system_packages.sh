#!/bin/sh
# What the tests need from the system: a Chromium for the page tests, kubectl for the resource API's. Without root they
# skip visibly.
set -eu
missing=""
command -v chromium >/dev/null 2>&1 || missing="chromium fonts-noto-cjk"
command -v kubectl >/dev/null 2>&1 || missing="$missing kubernetes-client"
[ -n "$missing" ] || exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
  echo "Installing $missing for the tests ..."
  apt-get update -qq >/dev/null || true
  for package in $missing; do
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null \
      || echo "$package could not be installed: the tests that need it will be skipped" >&2
  done
else
  echo "$missing missing: the tests that need it will be skipped" >&2
fi
