"""How long does `ovseg --help` take, beside Python alone and `import typer`? CPU seconds, median of repeats.

python benchmarks/startup.py [--repeats 15]
"""

import argparse
import resource
import statistics
import subprocess
import sys


def cpu_seconds(command: list[str]) -> float:
    """CPU seconds (user + system) of one child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main() -> None:
    """Measure the commands in turn, so that a busy moment hits all of them alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    run = [sys.executable, "-c"]
    ovseg = [sys.executable, "-m", "ovseg_cli.app"]
    commands = {
        "python -c pass": [*run, "pass"],
        "python -c 'import typer'": [*run, "import typer"],
        "ovseg --version": [*ovseg, "--version"],
        "ovseg --help": [*ovseg, "--help"],
        "ovseg eval --help": [*ovseg, "eval", "--help"],
        "python -c 'import torch'": [*run, "import torch"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(repeats + 1):
        for name, command in commands.items():
            seconds = cpu_seconds(command)
            if turn:  # the first turn warms the file cache
                times[name].append(seconds)
        print(f"\rturn {turn}/{repeats}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    base = statistics.median(times["python -c 'import typer'"])
    print(f"{'command':28} {'CPU s':>7} {'min':>7} {'ratio to import typer':>22}")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:28} {middle:7.3f} {min(values):7.3f} {middle / base:22.1f}")


if __name__ == "__main__":
    main()
