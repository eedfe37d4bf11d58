"""Many constrained relaxations at once: one batched evaluation of the potential a cycle.

Starts wait in a queue; up to `capacity` systems relax side by side, and one that is done makes room
for the next. Each ends as relaxed or with a reason, as `relax` would give it, by the same criteria.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trip_mm.errors import RelaxationError
from trip_mm.geometry.batch_evaluation import BatchEvaluator, Evaluation
from trip_mm.geometry.dihedral import set_dihedral
from trip_mm.geometry.ensemble import Ensemble, Frame, advance, frame_of, new_ensemble
from trip_mm.geometry.molecule import Molecule
from trip_mm.geometry.relax import MAX_ITERATIONS, HeldDihedral, Relaxed, check_relaxed

DEFAULT_CAPACITY = 128
"""Systems that relax side by side."""

_MAX_FRAMES = 4
# Derivatives of coordinates by positions in one stack, 8 bytes each and several copies: bounds the
# memory of large molecules.
_MAX_DERIVATIVES = 30_000_000


@dataclass(frozen=True)
class Start:
    """A relaxation to do.

    Attributes:
        molecule: where to start; bonds name the internal coordinates.
        held: a dihedral angle to hold; atoms are first turned about its axis to reach it.
    """

    molecule: Molecule
    held: HeldDihedral | None = None


@dataclass(frozen=True)
class Outcome:
    """How a relaxation ended.

    Attributes:
        relaxed: the result, None after a failure.
        error: reason of a failure, else empty.
    """

    relaxed: Relaxed | None
    error: str = ""


@dataclass
class _Job:
    """A relaxation under way: what was asked, and what earlier coordinates have cost."""

    start: Start
    n_evaluations: int = 0
    n_frames: int = 0


class BatchRelaxer:
    """Relaxes what is submitted, all together.

    Attributes:
        n_calls: batched evaluations so far.
        n_evaluations: systems evaluated so far.
    """

    def __init__(self, evaluate: BatchEvaluator, capacity: int = DEFAULT_CAPACITY) -> None:
        self._evaluate = evaluate
        self._capacity = capacity
        self._waiting: deque[int] = deque()
        self._jobs: dict[int, _Job] = {}
        self._ensembles: list[Ensemble] = []
        self._next_ticket = 0
        self.n_calls = 0
        self.n_evaluations = 0

    @property
    def n_unfinished(self) -> int:
        """Relaxations that wait or are under way."""
        return len(self._jobs)

    def submit(self, start: Start) -> int:
        """Queues a relaxation; returns its ticket.

        Raises:
            UnsupportedSystemError: the held angle lies in a ring, or its atoms are not bonded.
        """
        molecule = start.molecule
        if start.held is not None:
            turned = set_dihedral(molecule, start.held.atoms, start.held.angle_deg)
            start = Start(molecule.at(turned), start.held)
        ticket = self._next_ticket
        self._next_ticket += 1
        self._jobs[ticket] = _Job(start)
        self._waiting.append(ticket)
        return ticket

    def results(self) -> Iterator[tuple[int, Outcome]]:
        """Relaxes until nothing is left; yields tickets as they finish.

        More may be submitted while this runs.
        """
        while self._jobs:
            yield from self.cycle()

    def cycle(self) -> list[tuple[int, Outcome]]:
        """Evaluates every system under way once; returns those that finished."""
        done = self._admit()
        if not self._ensembles:
            return done
        systems = [
            ensemble.frame.molecule.at(trial)
            for ensemble in self._ensembles
            for trial in ensemble.trials
        ]
        found = self._evaluate(systems)
        self.n_calls += 1
        self.n_evaluations += len(systems)
        kept: list[Ensemble] = []
        begin = 0
        for ensemble in self._ensembles:
            part = found[begin : begin + len(ensemble)]
            begin += len(ensemble)
            ended, rest = self._advance(ensemble, part)
            done += ended
            if len(rest):
                kept.append(rest)
        self._ensembles = kept
        return done

    def _admit(self) -> list[tuple[int, Outcome]]:
        """Takes waiting systems in while there is room; returns those that cannot start."""
        room = self._capacity - sum(map(len, self._ensembles))
        stacked = sum(len(e) * e.frame.n_derivatives for e in self._ensembles)
        groups: list[tuple[Frame, list[int]]] = []
        while self._waiting and room > 0:
            ticket = self._waiting[0]
            job = self._jobs[ticket]
            held = job.start.held
            frame = frame_of(job.start.molecule, None if held is None else held.atoms)
            if stacked and stacked + frame.n_derivatives > _MAX_DERIVATIVES:
                break
            self._waiting.popleft()
            room -= 1
            stacked += frame.n_derivatives
            job.n_frames += 1
            for other, members in groups:
                if other.same_as(frame):
                    members.append(ticket)
                    break
            else:
                groups.append((frame, [ticket]))
        done: list[tuple[int, Outcome]] = []
        for frame, members in groups:
            done += self._placed(frame, members)
        return done

    def _placed(self, frame: Frame, tickets: list[int]) -> list[tuple[int, Outcome]]:
        """Starts geometries in common coordinates; returns those that these do not describe."""
        starts = [self._jobs[ticket].start for ticket in tickets]
        targets = np.array([np.radians(s.held.angle_deg) if s.held else 0.0 for s in starts])
        positions = np.stack([start.molecule.positions for start in starts])
        try:
            added = new_ensemble(frame, tickets, targets, positions)
        except RelaxationError as error:
            if len(tickets) == 1:
                return [(tickets[0], self._finished(tickets[0], None, str(error)))]
            return [ended for ticket in tickets for ended in self._placed(frame, [ticket])]
        for index, ensemble in enumerate(self._ensembles):
            if ensemble.frame.same_as(frame):
                self._ensembles[index] = ensemble.joined(added)
                return []
        self._ensembles.append(added)
        return []

    def _advance(
        self, ensemble: Ensemble, found: list[Evaluation]
    ) -> tuple[list[tuple[int, Outcome]], Ensemble]:
        """Steps an ensemble; returns what ended in it and what goes on."""
        done: list[tuple[int, Outcome]] = []
        good = np.array([not evaluation.error for evaluation in found])
        for ticket, evaluation in zip(ensemble.tickets, found, strict=True):
            if evaluation.error:
                done.append((int(ticket), self._finished(int(ticket), None, evaluation.error)))
        energies = np.array([e.energy for e in found if not e.error])
        forces = [e.forces.ravel() for e in found if not e.error]
        if not forces:
            return done, ensemble.select(good)
        state = advance(ensemble.select(good), energies, -np.stack(forces))
        slow = (state.n_evaluations >= MAX_ITERATIONS) & ~state.converged
        for index in np.flatnonzero(state.converged):
            done.append(self._relaxed(state, int(index)))
        for ticket in state.tickets[slow]:
            reason = f"did not converge in {MAX_ITERATIONS} iterations"
            done.append((int(ticket), self._finished(int(ticket), None, reason)))
        ended = state.converged | slow
        for index in np.flatnonzero(state.needs_frame & ~ended):
            done += self._moved(state, int(index))
        return done, state.select(~(ended | state.needs_frame))

    def _moved(self, state: Ensemble, index: int) -> list[tuple[int, Outcome]]:
        """Gives a system whose angles became straight new coordinates at its best geometry."""
        ticket = int(state.tickets[index])
        job = self._jobs[ticket]
        job.n_evaluations += int(state.n_evaluations[index])
        if job.n_frames >= _MAX_FRAMES:
            return [(ticket, self._finished(ticket, None, "bond angles keep becoming straight"))]
        moved = job.start.molecule.at(state.trials[index])
        job.start = Start(moved, job.start.held)
        self._waiting.append(ticket)
        return []

    def _relaxed(self, state: Ensemble, index: int) -> tuple[int, Outcome]:
        ticket = int(state.tickets[index])
        job = self._jobs[ticket]
        positions = state.positions[index]
        try:
            check_relaxed(job.start.molecule, positions, job.start.held)
        except RelaxationError as error:
            return ticket, self._finished(ticket, None, str(error))
        found = Relaxed(
            positions,
            float(state.energies[index]),
            -state.gradients[index].reshape(-1, 3),
            job.n_evaluations + int(state.n_evaluations[index]),
        )
        return ticket, self._finished(ticket, found, "")

    def _finished(self, ticket: int, relaxed: Relaxed | None, error: str) -> Outcome:
        del self._jobs[ticket]
        return Outcome(relaxed, error)


def relax_batch(
    starts: list[Start], evaluate: BatchEvaluator, capacity: int = DEFAULT_CAPACITY
) -> list[Outcome]:
    """Relaxes molecules together.

    Args:
        starts: what to relax.
        evaluate: the potential.
        capacity: systems that relax side by side.

    Returns:
        one outcome for each start, in their order.

    Raises:
        UnsupportedSystemError: a held angle lies in a ring, or its atoms are not bonded.
    """
    relaxer = BatchRelaxer(evaluate, capacity)
    tickets = [relaxer.submit(start) for start in starts]
    outcomes = dict(relaxer.results())
    return [outcomes[ticket] for ticket in tickets]
