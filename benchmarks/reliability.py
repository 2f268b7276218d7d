"""What is lost, doubled, torn or wrongly accepted when runs are stopped, starved or damaged.

    python benchmarks/reliability.py --kills 100
    python benchmarks/reliability.py --minutes 10 --jobs sample curriculum_ddp

First every stage of every method runs once on the miniature, undisturbed. Then each trial takes one of these commands,
lets something happen to it, and runs the same command again to its end (a fit has ``--resume auto``):

    kill     kill -9 at a random moment; every second time the next run is killed as well. Of two processes both are
             killed or one; the other has a minute to end
    SIGTERM  at a random moment; of two processes to both or to one
    disk     files may have a random number of bytes, as on a disk that gets full
    flip     a bit is another one in a file with a checksum that the command reads, or in its newest checkpoint
    two      the same command is started a second time in its folder

For five trials of the first kind there is one of each other. The products are compared with those of the undisturbed
run: tables and tensors by their bytes, checkpoints by their weights. Processes are forked from one that has imported
everything, so that a trial takes seconds; nothing else differs from the command. Linux.
"""

import argparse
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.forked_run import ForkedRun
from benchmarks.reliability_jobs import JOBS, needed, words_of
from benchmarks.reliability_trial import Trial, compare

ROOT = Path(__file__).resolve().parents[1]
FAULTS = ("kill", "SIGTERM", "disk", "flip", "two")
COUNTS = ("lost", "doubled", "torn", "accepted", "differs", "traceback", "refused", "hung")
"""``accepted``: other products from damaged input, with status 0. ``refused``: the same command did not go on."""
_MINUTE = 60.0


def run_job(main: Callable[[list[str]], int], name: str, folder: Path, limit: int | None = None) -> ForkedRun:
    """Start a job in a folder with ``inputs``; its files may have ``limit`` bytes."""
    return ForkedRun(main, words_of(name), folder, f"{name}.log", ranks=JOBS[name].ranks, limit=limit)


class Trials:
    """Runs the trials in a folder that has the undisturbed run."""

    def __init__(self, main: Callable[[list[str]], int], output: Path, seconds: dict[str, float], seed: int) -> None:
        self.main, self.output, self.whole, self.seconds, self.seed = main, output, output / "whole", seconds, seed

    def run(self, number: int, fault: str, job: str) -> Trial:
        """One trial, in a folder of its own that is kept if something is wrong."""
        trial, draw = Trial(number, fault, job), random.Random(f"{self.seed}/{number}/{fault}/{job}")
        folder = self.output / f"{fault}_{number}_{job}"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "inputs").mkdir(parents=True)
        for path in self.whole.iterdir():
            (folder / "inputs" / path.name).symlink_to(path)
        getattr(self, f"_{fault.lower()}")(trial, draw, folder)
        logs = [path.read_text(errors="replace") for path in folder.glob("*.log")]
        trial.add("traceback", sum("Traceback" in log for log in logs))
        if not trial.counts:
            shutil.rmtree(folder)
        return trial

    def _start(self, trial: Trial, folder: Path, limit: int | None = None) -> ForkedRun:
        return run_job(self.main, trial.job, folder, limit)

    def _end(self, trial: Trial, run: ForkedRun, seconds: float | None = None) -> int:
        """The status of a run that may take a minute longer than it should."""
        trial.add("hung", not run.ends(_MINUTE + 5 * self.seconds[trial.job] if seconds is None else seconds))
        assert run.status is not None
        return run.status

    def _kill(self, trial: Trial, draw: random.Random, folder: Path, what: int = signal.SIGKILL) -> None:
        again = True
        while again:
            run = self._start(trial, folder)
            if told := not run.wait(draw.random() * self.seconds[trial.job]):
                run.tell(what, draw)
            trial.hit |= told
            status = self._end(trial, run, _MINUTE)
            if what == signal.SIGTERM and status not in (0, 143, -signal.SIGTERM) and not run.several:
                trial.add("refused")
            again = told and what == signal.SIGKILL and draw.random() < 0.5
        self._finish(trial, folder)

    def _sigterm(self, trial: Trial, draw: random.Random, folder: Path) -> None:
        self._kill(trial, draw, folder, signal.SIGTERM)

    def _disk(self, trial: Trial, draw: random.Random, folder: Path) -> None:
        sizes = [path.stat().st_size for path in (self.whole / trial.job).rglob("*") if path.is_file()]
        trial.hit = self._end(trial, self._start(trial, folder, int(max(sizes) * draw.random()))) != 0
        self._finish(trial, folder)

    def _flip(self, trial: Trial, draw: random.Random, folder: Path) -> None:
        """In a file that the job reads; a fit without one is killed, and its newest checkpoint has the flip."""
        reads = JOBS[trial.job].reads
        if reads is None:
            run = self._start(trial, folder)
            if run.wait((0.3 + 0.7 * draw.random()) * self.seconds[trial.job]):
                return self._finish(trial, folder)  # it has ended, and reads none of its checkpoints any more
            run.tell(signal.SIGKILL, draw)
            self._end(trial, run, _MINUTE)
            written = sorted((folder / trial.job).rglob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
            if not written:
                return self._finish(trial, folder)
            flip(written[-1], draw)
        else:
            changed = folder / "inputs" / Path(reads).parts[0]
            changed.unlink()
            shutil.copytree(self.whole / changed.name, changed)
            flip(folder / "inputs" / reads, draw)
        trial.hit = True
        status = self._end(trial, self._start(trial, folder))
        if status == 0:
            found = Trial(0, trial.fault, trial.job)
            compare(found, self.whole, folder)
            return trial.add("accepted", bool(found.counts))
        if reads is not None:
            shutil.rmtree(changed)
            changed.symlink_to(self.whole / changed.name)
        else:
            written[-1].unlink()
        return self._finish(trial, folder)

    def _two(self, trial: Trial, draw: random.Random, folder: Path) -> None:
        first = self._start(trial, folder)
        trial.hit = not first.wait(draw.random() * self.seconds[trial.job] / 2)
        second = self._start(trial, folder)
        statuses = [self._end(trial, run) for run in (first, second)]
        trial.add("refused", 0 not in statuses)
        compare(trial, self.whole, folder)

    def _finish(self, trial: Trial, folder: Path) -> None:
        """Run the same command again, as the user would."""
        trial.add("refused", self._end(trial, self._start(trial, folder)) != 0)
        compare(trial, self.whole, folder)


def flip(path: Path, draw: random.Random) -> None:
    """Change a bit of a file."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def undisturbed(main: Callable[[list[str]], int], folder: Path, jobs: list[str]) -> dict[str, float]:
    """Run the jobs once, unless that is done; return the seconds of each."""
    times = folder.with_name("seconds.json")
    seconds: dict[str, float] = json.loads(times.read_text()) if times.is_file() else {}
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "inputs").exists():
        (folder / "inputs").symlink_to(".")
    for name in jobs:
        if name in seconds:
            continue
        start = time.monotonic()
        run = run_job(main, name, folder)
        run.wait()
        if run.status:
            raise SystemExit(f"{name}: status {run.status}\n" + (folder / f"{name}.log").read_text()[-3000:])
        seconds[name] = time.monotonic() - start
        times.write_text(json.dumps(seconds))
        print(f"{name}: {seconds[name]:.1f} s", flush=True)
    return seconds


def plan(jobs: list[str], seed: int) -> Iterator[tuple[int, str, str]]:
    """The trials in the order in which they run, without end: kinds and jobs take turns, from a random one on."""
    start = random.Random(seed).randrange(len(jobs))
    flipped = [name for name in jobs if JOBS[name].reads or JOBS[name].words.startswith("fit ")]
    for number in itertools.count():
        yield number, "kill", jobs[(start + number) % len(jobs)]
        if number % 5 == 4:
            turn = start + number // 5
            yield number, "SIGTERM", jobs[turn % len(jobs)]
            yield number, "disk", jobs[(turn + 5) % len(jobs)]
            yield number, "two", jobs[(turn + 10) % len(jobs)]
            if flipped:
                yield number, "flip", flipped[turn % len(flipped)]


def table(trials: list[Trial]) -> str:
    """The counts by kind of fault, as Markdown."""
    lines = ["| | trials | hit | " + " | ".join(COUNTS) + " |", "|---|" + "--:|" * (len(COUNTS) + 2)]
    for fault in FAULTS:
        own = [trial for trial in trials if trial.fault == fault]
        counts = [sum(trial.counts.get(name, 0) for trial in own) for name in COUNTS]
        lines.append("| " + " | ".join(map(str, [fault, len(own), sum(trial.hit for trial in own), *counts])) + " |")
    return "\n".join(lines)


def load() -> Callable[[list[str]], int]:
    """Import what every process would import itself; return the command."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "Agg"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    from rod import classes
    from rod.__main__ import VERBS, main

    classes.load()
    verbs = {VERBS[words_of(name)[0]] for name in JOBS}
    for module in (*verbs, "matplotlib.pyplot", "transformers.models.llama.modeling_llama"):
        importlib.import_module(module)
    return main


def main() -> None:
    """Run the trials and print the table; status 1 if anything was counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kills", type=int, default=None, help="trials with kills; 20 if --minutes is not given either"
    )
    parser.add_argument("--minutes", type=float, default=None, help="time for the trials")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="commands to disturb")
    parser.add_argument("--output", type=Path, default=Path("runs/reliability"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kills = options.kills if options.kills is not None else 20 if options.minutes is None else None

    command, output = load(), options.output.resolve()
    trials = Trials(command, output, undisturbed(command, output / "whole", needed(options.jobs)), options.seed)
    done: list[Trial] = []
    start = time.monotonic()
    for number, fault, job in plan(options.jobs, options.seed):
        late = options.minutes is not None and time.monotonic() - start > 60 * options.minutes
        if number == kills or late:
            break
        done.append(trials.run(number, fault, job))
        with (output / "trials.jsonl").open("a") as file:
            file.write(json.dumps(asdict(done[-1])) + "\n")
        print(f"{fault} {number}: {job} {done[-1].counts or 'ok'}", flush=True)
    print(table(done))
    sys.exit(any(trial.counts for trial in done))


if __name__ == "__main__":
    main()
