"""One sitting: every case in a process of its own, their steps in turns, and what came out.

All cases of a system are alive together and measured in turns (A B C A B C ...), so that a
disturbance of the machine meets all alike. A process a case makes its peak memory its own.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trip_mm.benchmark import peer_worker_path
from trip_mm.benchmark.cases import OPENMM_ML_PREFIX, Case, Settings
from trip_mm.benchmark.dense import dense_rate
from trip_mm.benchmark.systems import BenchmarkSystem, build_system
from trip_mm.errors import EvaluationError, MissingDependencyError

Announce = Callable[[str], None]

_SECONDS_PER_DAY = 86400.0
_FEMTOSECONDS_PER_NANOSECOND = 1e6
_PACKAGES = {"mace": "mace", "nequip": "nequip"}


@dataclass(frozen=True)
class Measurement:
    """What was found for one case; `problem` says why there is nothing else.

    Attributes:
        case: what was measured.
        n_atoms: atoms of the system.
        seconds: wall time of every step, in the order of the turns.
        cpu_seconds: CPU time of every step, over all threads, waiting in loops included: what
            else the machine does disturbs it least.
        n_edges: ordered pairs within the model's cutoff; None if the model does not tell.
        energy_ev: of the starting structure.
        flop: operations of a step, of `flops.operations`; None for peers.
        dense_flop_per_s: median rate of a dense product in the same sitting.
        peak_memory_mib: largest resident memory of the process.
        neighbors_s: mean time of the neighbour search in a step.
        call_s: median time of a direct call of the same potential in the same sitting.
        problem: why the case could not be measured.
    """

    case: Case
    n_atoms: int
    seconds: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    n_edges: int | None = None
    energy_ev: float | None = None
    flop: float | None = None
    dense_flop_per_s: float | None = None
    peak_memory_mib: float | None = None
    neighbors_s: float | None = None
    call_s: float | None = None
    problem: str | None = None

    def quantile(self, share: float) -> float:
        """Returns a quantile of the step times, s."""
        return float(np.quantile(self.seconds, share))

    def ns_per_day(self, timestep_fs: float) -> float:
        """Returns the simulated time of a day at the median step."""
        steps = _SECONDS_PER_DAY / self.quantile(0.5)
        return steps * timestep_fs / _FEMTOSECONDS_PER_NANOSECOND

    @property
    def dense_share(self) -> float | None:
        """Rate of operations as a share of the dense product's."""
        if self.flop is None or self.dense_flop_per_s is None:
            return None
        return self.flop / self.quantile(0.5) / self.dense_flop_per_s

    @property
    def time_shares(self) -> dict[str, float] | None:
        """Shares of a step in neighbours, network and OpenMM."""
        if self.neighbors_s is None or self.call_s is None:
            return None  # a peer, or the direct call was not measured in the same sitting
        step = self.quantile(0.5)
        return {
            "neighbors": self.neighbors_s / step,
            "network": (self.call_s - self.neighbors_s) / step,
            "openmm": 1.0 - self.call_s / step,
        }


class _Worker:
    """A process that makes the steps of one case."""

    def __init__(self, case: Case, command: list[str], threads: int, log: Path) -> None:
        self.case = case
        self.log = log
        environment = os.environ | {
            name: str(threads)
            for name in (
                "OMP_NUM_THREADS",
                "MKL_NUM_THREADS",
                "OPENBLAS_NUM_THREADS",
                "NUMBA_NUM_THREADS",
            )
        }
        # Idle workers must sleep while another has its turn.
        environment.setdefault("GOMP_SPINCOUNT", "2000")
        with log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env=environment,
            )  # fmt: skip
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.facts: dict[str, Any] = {}

    def answer(self) -> dict[str, Any]:
        """Waits for the next answer.

        Raises:
            EvaluationError: the process ended; with the last line that it wrote.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            text = self.log.read_text(encoding="utf-8", errors="replace").strip()
            last = text.splitlines()[-1] if text else "no message"
            reason = last.partition("Error: ")[2] or last
            raise EvaluationError(f"worker ended with {self.process.returncode}: {reason}")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Sends an order and returns the answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        return self.answer()

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def interpreter_with(package: str, candidates: Sequence[str]) -> str:
    """Returns the first interpreter that can import a package.

    Raises:
        MissingDependencyError: none can.
    """
    for python in candidates:
        check = (
            f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{package}') is None)"
        )
        try:
            done = subprocess.run([python, "-c", check], capture_output=True, check=False)
        except OSError as error:
            raise MissingDependencyError(f"--peer-python {python}: {error.strerror}") from error
        if done.returncode == 0:
            return python
    raise MissingDependencyError(
        f"no interpreter has the package {package}; install it, or name one that has it with "
        "--peer-python"
    )


def _command(case: Case, settings: Settings, task_file: Path) -> list[str]:
    if case.form == "peer" and not case.model.startswith(OPENMM_ML_PREFIX):
        package = _PACKAGES[case.model.partition("-")[0]]
        python = interpreter_with(package, (sys.executable, *settings.peer_pythons))
        return [python, str(peer_worker_path()), str(task_file)]
    return [sys.executable, "-m", "trip_mm.benchmark.worker", str(task_file)]


@contextmanager
def _started(
    case: Case, settings: Settings, system_file: Path, folder: Path, number: int
) -> Iterator[_Worker]:
    task = {
        "model": case.model,
        "backend": case.backend,
        "form": case.form,
        "system_file": str(system_file),
        "threads": settings.threads,
        "warm_up": settings.warm_up,
        "timestep_fs": settings.timestep_fs,
        "precision": settings.precision,
        "seed": settings.seed,
    }
    task_file = folder / f"task-{number}.json"
    task_file.write_text(json.dumps(task), encoding="utf-8")
    command = _command(case, settings, task_file)
    worker = _Worker(case, command, settings.threads, folder / f"worker-{number}.log")
    try:
        worker.facts = worker.answer()
        yield worker
    finally:
        worker.close()


def _measure_system(
    system: BenchmarkSystem, cases: Sequence[Case], settings: Settings, announce: Announce
) -> list[Measurement]:
    """Measures all cases of one system in turns."""
    n_atoms = len(system.atomic_numbers)
    problems: dict[Case, str] = {}
    rates: list[float] = []
    with tempfile.TemporaryDirectory(prefix="trip-mm-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        system_file = folder / "system.npz"
        system.save(system_file)
        workers: list[_Worker] = []
        for number, case in enumerate(cases):
            announce(f"{system.label}: starting {case.label}")
            try:
                entered = _started(case, settings, system_file, folder, number)
                workers.append(stack.enter_context(entered))
            except (EvaluationError, MissingDependencyError) as error:
                problems[case] = str(error)
                announce(f"{system.label}: {case.label}: {error}")
        for turn in range(settings.rounds):
            announce(f"{system.label}: round {turn + 1} of {settings.rounds}")
            rates.append(dense_rate(settings.threads, settings.precision))
            for worker in workers:
                if worker.case not in problems:
                    _take_turn(worker, settings, problems)
        rate = float(np.median(rates))
        found: list[Measurement] = []
        for worker in workers:
            if worker.case in problems:
                continue
            try:
                found.append(_finish(worker, n_atoms, rate))
            except EvaluationError as error:
                problems[worker.case] = str(error)
        found += [Measurement(case, n_atoms, problem=why) for case, why in problems.items()]
    return _with_shares(sorted(found, key=lambda measurement: cases.index(measurement.case)))


def _take_turn(worker: _Worker, settings: Settings, problems: dict[Case, str]) -> None:
    try:
        order = {"steps": settings.steps, "seconds": settings.seconds}
        answer = worker.ask(order)
        worker.seconds += answer["seconds"]
        worker.cpu_seconds += answer["cpu_seconds"]
    except EvaluationError as error:
        problems[worker.case] = str(error)


def _finish(worker: _Worker, n_atoms: int, rate: float) -> Measurement:
    ending = worker.ask({"finish": True})
    facts = worker.facts | ending
    return Measurement(
        worker.case,
        n_atoms,
        tuple(worker.seconds),
        tuple(worker.cpu_seconds),
        facts.get("n_edges"),
        facts.get("energy_ev"),
        facts.get("flop"),
        rate,
        facts.get("peak_memory_mib"),
        facts.get("neighbors_s"),
    )


def _with_shares(found: Sequence[Measurement]) -> list[Measurement]:
    """Gives the cases inside OpenMM what the direct call of the same potential took."""
    direct = {
        (m.case.model, m.case.form): m
        for m in found
        if m.case.backend == "direct" and m.problem is None
    }
    completed: list[Measurement] = []
    for measurement in found:
        call = direct.get((measurement.case.model, measurement.case.form))
        if call is not None and measurement.problem is None:
            measurement = replace(
                measurement, neighbors_s=call.neighbors_s, call_s=call.quantile(0.5)
            )
        completed.append(measurement)
    return completed


def run_session(
    cases: Sequence[Case],
    settings: Settings,
    announce: Announce,
    keep: Callable[[Sequence[Measurement]], None] = lambda found: None,
) -> tuple[Measurement, ...]:
    """Measures every case; one that fails is recorded with its reason.

    Args:
        cases: of `cases.expand`.
        settings: turns, steps, threads.
        announce: is told what happens.
        keep: gets what was found so far after each system, to write it down.

    Raises:
        ConfigError: a system that does not exist.
        UnsupportedSystemError: a system that cannot be built.
    """
    found: list[Measurement] = []
    for label in dict.fromkeys(case.system for case in cases):
        system = build_system(label, settings.seed)
        mine = [case for case in cases if case.system == label]
        found += _measure_system(system, mine, settings, announce)
        keep(found)
    return tuple(found)
