"""The minimiser that the configuration names, on objectives that look at other slices as it goes on.

A line search and curvature need one function, so L-BFGS works in bursts of a few iterations, the objective turning in
between; Adam needs no function that stays, and the objective turns in every iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from mcrdist.config import OptimizerConfig
from mcrdist.errors import InputError
from mcrdist.journal import Journal
from mcrdist.objective import Evaluation, Objective
from mcrdist.optimize import adam, lbfgsb, scipy_lbfgsb
from mcrdist.optimize.minimizer import Callback, Function, Memory, Minimizer, Options, Result, State
from mcrdist.optimize.planes import Gather, Map

#: Optimisers that hold the whole field in one process.
ALONE = ("scipy", "yeong_torquato")


def check_ranks(name: str, ranks: int) -> InputError | None:
    """What is wrong with this many processes for the optimiser `name`, if anything."""
    if name not in ALONE or ranks == 1:
        return None
    return InputError(
        f"optimizer.name: expected lbfgsb or adam with several processes, found {name} with {ranks}; it works on "
        "the whole volume in one: start one process, without torchrun"
    )


def check_phases(name: str, phases: int) -> InputError | None:
    """What is wrong with a material of this many phases (1: one against the rest), if anything."""
    if name != "yeong_torquato" or phases == 1:
        return None
    return InputError(
        f"optimizer.name: expected another one than yeong_torquato, which swaps two phases, for a micrograph of "
        f"{phases}; take lbfgsb, or one phase against the rest, e.g. micrograph.phase=1"
    )


class Descent:
    """Minimises objectives, one after the other.

    Parameters
    ----------
    config : OptimizerConfig
        Its `name` is one of the gradient methods.
    gather, planes_map
        As for `lbfgsb.minimize`.
    journal : Journal, optional
        Of the level; every call of a minimiser is an entry.
    """

    def __init__(
        self,
        config: OptimizerConfig,
        gather: Gather,
        planes_map: Map,
        journal: Journal | None = None,
    ) -> None:
        self._config, self._gather, self._planes_map = config, gather, planes_map
        self._journal = Journal() if journal is None else journal
        self._round = 0

    def __call__(
        self, objective: Objective, function: Function, x: Tensor, options: Options, callback: Callback
    ) -> Result:
        """Minimise `function`, which evaluates `objective`, in place."""
        if not objective.rotates:
            return self._minimized(objective, function, x, options, callback)
        if self._config.name == "adam":

            def turning(field: Tensor) -> tuple[float, Tensor]:
                self.turn(objective)
                return function(field)

            return self._minimized(objective, turning, x, options, callback)
        return self._bursts(objective, function, x, options, callback)

    def watching(self, objective: Objective) -> Callable[[Tensor, Tensor], Evaluation]:
        """Evaluate `objective` again and again; every `rotate` times it turns, if it does."""
        if not objective.rotates:
            return objective

        def look(field: Tensor, gradient: Tensor) -> Evaluation:
            if objective.evaluations % self._config.rotate == 0:
                self.turn(objective)
            return objective(field, gradient)

        return look

    def turn(self, objective: Objective) -> None:
        """Let the objective look at the next slices; over all objectives, each slice has its turn."""
        objective.rotate(self._round)
        self._round += 1

    def standing(self, objective: Objective, repeats: int = 0) -> dict[str, int]:
        """How far an objective has come; plain data for `recall`. The last `repeats` evaluations will be made again."""
        return {"evaluations": objective.evaluations - repeats, "round": self._round}

    def kept(self, objective: Objective, memory: Memory) -> Memory:
        """What a minimiser has in mind, and with it the standing of the objective that it is at work on."""
        standing = self.standing(objective, memory.repeats)
        return Memory(memory.numbers | {"standing": standing}, memory.fields)

    def recall(self, objective: Objective, standing: Mapping[str, int]) -> None:
        """Let an objective look where it did when it had come that far."""
        objective.evaluations, self._round = standing["evaluations"], standing["round"]
        if objective.rotates and self._round:
            objective.rotate(self._round - 1)

    def _minimized(
        self, objective: Objective, function: Function, x: Tensor, options: Options, callback: Callback
    ) -> Result:
        def work(memory: Memory | None) -> dict[str, Any]:
            if memory is not None:
                self.recall(objective, memory.numbers["standing"])
            minimize = self._minimizer(objective)
            found = minimize(function, x, self._gather, options, callback, self._planes_map, memory=memory)
            told = {"loss": found.loss, "iterations": found.iterations, "evaluations": found.evaluations}
            return told | {"stop": found.stop, "standing": self.standing(objective)}

        told = self._journal.once(work)
        self.recall(objective, told["standing"])
        return Result(x, told["loss"], told["iterations"], told["evaluations"], told["stop"])

    def _minimizer(self, objective: Objective) -> Minimizer:
        if self._config.name == "adam":
            return partial(adam.minimize, learning_rate=self._config.learning_rate)
        if self._config.name == "lbfgsb":
            return partial(lbfgsb.minimize, room=objective.slab.room)
        return scipy_lbfgsb.minimize

    def _bursts(
        self, objective: Objective, function: Function, x: Tensor, options: Options, callback: Callback
    ) -> Result:
        """Bursts of `rotate` iterations, each on slices of its own and with curvature of its own.

        Curvature is not kept over a turn: the next slices have another. Convergence is told from one whole rotation to
        the next, by the mean loss of its bursts, which may rise where others of random parts are drawn.
        """
        size, turns = self._config.rotate, objective.turns
        iterations = evaluations = idle = 0
        ends: list[float] = []
        while True:

            def note(state: State, before: int = iterations) -> bool | None:
                if before and state.iteration == 0:
                    return False  # where the last burst ended
                return callback(replace(state, iteration=before + state.iteration))

            self.turn(objective)
            count = min(size, options.iterations - iterations)
            burst = replace(options, iterations=count, relative_decrease=0.0)
            result = self._minimized(objective, function, x, burst, note)
            iterations += result.iterations
            evaluations += result.evaluations
            idle = 0 if result.iterations else idle + 1
            ends.append(result.loss)
            enough = turns * size * options.relative_decrease
            if result.stop == "interrupted" or iterations >= options.iterations or idle >= turns:
                stop = result.stop
            elif len(ends) >= 2 * turns and _change(ends, turns) < enough:
                stop = "relative decrease"
            else:
                continue
            return replace(result, iterations=iterations, evaluations=evaluations, stop=stop)


def _change(losses: list[float], count: int) -> float:
    """Relative difference between the mean of the last `count` losses and of the `count` before."""
    before, after = sum(losses[-2 * count : -count]), sum(losses[-count:])
    return abs(before - after) / abs(after) if after else 0.0
