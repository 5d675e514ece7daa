#!/bin/sh
# Makes .venv with uv inside, from nothing but Python >= 3.11. Changes nothing outside this folder.
set -eu
cd "$(dirname "$0")/.."
for python in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
  if command -v "$python" >/dev/null 2>&1 && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    found=$python
    break
  fi
done
if [ -z "${found:-}" ]; then
  echo "Ondol needs Python 3.11 or newer; none was found on PATH (set PYTHON=/path/to/python3)." >&2
  exit 1
fi
if [ ! -x .venv/bin/python ]; then
  # Debian ships Python without ensurepip: then a bare environment is made and uv is put into it by the system's pip.
  "$found" -m venv .venv 2>/dev/null || { rm -rf .venv; "$found" -m venv --without-pip .venv; }
fi
if [ ! -x .venv/bin/uv ]; then
  if .venv/bin/python -m pip --version >/dev/null 2>&1; then
    .venv/bin/python -m pip install -q --disable-pip-version-check uv
  elif command -v uv >/dev/null 2>&1; then
    uv pip install -q --python .venv/bin/python uv
  else
    "$found" -m pip install -q --disable-pip-version-check --target .venv/uv-bootstrap uv
    cp .venv/uv-bootstrap/bin/uv .venv/bin/uv
  fi
fi
