"""`make bench` runs every benchmark, `make bench-serving` one of them; results go to bench/results.

Each benchmark is a module here with a `main()` that prints what it measures; its last line is one JSON object.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def names() -> list[str]:
    """Return the benchmarks there are."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("run", "__init__"))


def run(name: str) -> bool:
    """Run one benchmark and keep its last line; return whether it ended well."""
    print(f"== {name}", flush=True)
    process = subprocess.Popen([sys.executable, str(HERE / f"{name}.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line.strip() or last
    if process.wait() != 0:
        return False
    try:
        figures = json.loads(last)
    except ValueError:
        print(f"{name}: the last line is not JSON", file=sys.stderr)
        return False
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    (results / f"{name}.json").write_text(json.dumps({"at": when, "figures": figures}, indent=2) + "\n")
    return True


if __name__ == "__main__":
    wanted = sys.argv[1:] or names()
    if unknown := [one for one in wanted if one not in names()]:
        sys.exit(f"no benchmark {unknown[0]!r}; there are: {', '.join(names())}")
    sys.exit(0 if all(list(map(run, wanted))) else 1)
