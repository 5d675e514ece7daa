"""How quickly the command line and the package answer: `import ondol`, `ondol --help`, beside `mlflow --help`.

    python bench/cli.py [--runs 15]

Wall time of whole processes, measured in turns; `import ondol` is what it adds to an empty Python. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import ondol'": [sys.executable, "-c", "import ondol"],
    "ondol --help": [str(BIN / "ondol"), "--help"],
    "ondol status --help": [str(BIN / "ondol"), "status", "--help"],
    "mlflow --help": [str(BIN / "mlflow"), "--help"],
}
SLOW = {"mlflow --help": 2}  # runs; it takes seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=15)
    chosen = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(chosen.runs + 1):
        for name, command in COMMANDS.items():
            if turn > SLOW.get(name, chosen.runs):
                continue
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            if turn:  # the first turn fills the caches
                taken[name].append((time.perf_counter() - began) * 1000)
    figures = {name: round(statistics.median(times), 1) for name, times in taken.items()}
    figures["import ondol adds"] = round(figures["python -c 'import ondol'"] - figures["python -c pass"], 1)
    for name, milliseconds in figures.items():
        print(f"{name:28} {milliseconds:8.1f} ms")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
