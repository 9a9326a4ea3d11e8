"""Run the paper's experiments, and some beyond them: all that benchmarks/paper.yaml lists, cheap ones first.

    python benchmarks/paper.py [--only fig06 fig11-alloy ...] [--most-minutes 10] [--jobs 2] [--out paper] [--list]
                               [--data ../shared/data/micrographs] [--judge ../shared/judge/judge.py]
                               [--experiments benchmarks/paper.yaml]

Each run is a process of its own, `mcrdist reconstruct ... run.dir=OUT/NAME resume=true`: what is finished is kept, what
was cut short goes on, so this can be interrupted and started again. Runs that are estimated to take longer than
`--most-minutes` are left out, and so are those whose micrographs are absent. `--jobs` of them go on at a time, each
with its share of the cores: that gets more done than all cores for one. Those whose times are compared run alone,
afterwards. The rounded volumes are judged by a program that shares no code with this one (lags up to 16), where there
is one.

Prints one JSON line a run. Its record is OUT/NAME.json and the picture of its volume OUT/NAME.png, for
benchmarks/results_page.py.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import _records as records
import torch
from _experiments import DATA, LIST, OUT, ROOT, Experiment, Figure, load, runs
from _measured import gram_errors, judged
from _pictures import volume as draw

import mcrdist
from mcrdist.store.checksums import is_finished

#: Estimated minutes of the longest runs that are done unasked.
MOST = 10.0
#: What is printed of a record.
TOLD = ("seconds", "memory_GB", "threads", "judged")
#: Matplotlib's settings belong to the process.
DRAWING = threading.Lock()


def chosen(figures: list[Figure], only: list[str] | None) -> list[Experiment]:
    """The runs of the figures, or with the names, that were asked for; ValueError for a name that nothing has."""
    if only is None:
        return runs(figures)
    known = {figure.id for figure in figures} | {run.name for run in runs(figures)}
    for name in only:
        if name not in known:
            raise ValueError(f"--only {name}: expected one of {', '.join(sorted(known))}")
    wanted = {run.name for figure in figures if figure.id in only for run in figure.runs} | set(only)
    return [run for run in runs(figures) if run.name in wanted]


class Runs:
    """The runs that go on. Whoever ends this program means them: they save themselves and go on another time."""

    def __init__(self) -> None:
        self.stopped = False
        self._going: set[subprocess.Popen[str]] = set()
        # Again and again, by the thread that has it already: a signal may come while another one is handled.
        self._lock = threading.RLock()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._stop)

    def _stop(self, number: int, _: object) -> None:
        with self._lock:
            self.stopped = True
            if number != signal.SIGINT:  # which a terminal sends to them too
                for process in self._going:
                    process.send_signal(number)

    def carry_out(self, command: Sequence[str]) -> tuple[str, str]:
        """How a run ended, and what it said where it did not end well."""
        with self._lock:
            if self.stopped:
                return "interrupted", ""
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            self._going.add(process)
            if self.stopped:  # meanwhile, in this very thread
                process.terminate()
        told = process.communicate()[1]
        with self._lock:
            self._going.discard(process)
        if process.returncode == 0:
            return "complete", ""
        said = told.strip().splitlines()[-1] if told.strip() else f"exit status {process.returncode}"
        # One that had only begun has nothing to save, and dies of a signal.
        interrupted = process.returncode == 130 or (self.stopped and process.returncode < 0)
        return ("interrupted", "") if interrupted else ("failed", said)


def record(run: Experiment, going: Runs, threads: int, data: Path, out: Path, judge: Path) -> dict[str, Any]:
    """Carry a run out, as far as that is not done yet, and say what came of it."""
    place, kept = out / run.name, out / f"{run.name}.json"
    facts: dict[str, Any] = {"run": run.name, "command": run.command, "preset": run.preset}
    absent = run.absent(data)
    if absent:
        return facts | {"status": "absent", "message": f"no {', '.join(absent)} in {data.name}"}
    before: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    if not is_finished(place) or not records.is_of(run, before):
        before = {}
        kept.unlink(missing_ok=True)
        settings = [*run.overrides(data, out), "resume=true", f"runtime.threads={threads}"]
        # It refuses to go on with a run that was made with other settings.
        status, message = going.carry_out([sys.executable, "-m", "mcrdist", "reconstruct", *settings])
        if status != "complete":
            return facts | {"status": status, "message": message}
    done = mcrdist.open(place)
    facts |= records.figures(done, curve="curve" in run.measure)
    if "gram" in run.measure:
        facts["gram"] = before.get("gram") or gram_errors(done)
    facts["judged"] = before.get("judged") or judged(done, judge)
    picture = kept.with_suffix(".png")
    if not before or not picture.is_file():
        with DRAWING:
            draw(done, picture)
    kept.write_text(json.dumps(facts) + "\n")
    return {"run": run.name, "status": "complete"} | {name: facts[name] for name in TOLD}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="figures, or single runs")
    parser.add_argument("--most-minutes", type=float, default=MOST)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--judge", type=Path, default=ROOT.parent / "shared" / "judge" / "judge.py")
    parser.add_argument("--experiments", type=Path, default=LIST)
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    arguments = parser.parse_args()
    try:
        wanted = chosen(load(arguments.experiments), arguments.only)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.list:
        for run in wanted:
            print(f"{run.minutes:5g} min  {run.command}")
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    going, cores = Runs(), os.cpu_count() or 1
    jobs = max(1, min(arguments.jobs, cores))
    torch.set_num_threads(cores // jobs)

    def each(run: Experiment) -> dict[str, Any]:
        if run.minutes > arguments.most_minutes:
            return {"run": run.name, "status": "left out", "message": f"some {run.minutes:g} minutes"}
        if not going.stopped:
            print(f"{run.name}: some {run.minutes:g} minutes", file=sys.stderr, flush=True)
        threads = cores if run.alone else cores // jobs
        return record(run, going, threads, arguments.data, arguments.out, arguments.judge)

    ended = set()
    for facts in in_turn(wanted, each, jobs):
        print(json.dumps(facts), flush=True)
        ended.add(facts["status"])
    return 130 if "interrupted" in ended else int("failed" in ended)


def in_turn(
    wanted: Sequence[Experiment], each: Callable[[Experiment], dict[str, Any]], jobs: int
) -> Iterator[dict[str, Any]]:
    """What `each` says of all runs: so many at a time, and then those that want to be alone."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(each, [run for run in wanted if not run.alone])
    yield from map(each, [run for run in wanted if run.alone])


if __name__ == "__main__":
    sys.exit(main())
