"""Rewards that are no finite number (inf, -inf, NaN): ungraded, as None is, and told once.

TRL reads None as NaN, so a NaN couldn't be told from it, and takes an infinite reward for a number:
a success, and advantages that are none. So they become None on their way from the reward functions
to TRL. Left out: what a success is (`distil.types`), and the end of a run whose rollouts are all
ungraded (`distil.trainer.collect`).
"""

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from trl.trainer.utils import is_async_callable


class RewardWatch:
    """Stands between TRL and its reward functions, which have these names.

    `unfinite` says which of them returned what in the batch that was graded last ("'f' returned
    nan"); "" where each reward was a finite number or None.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.unfinite = ""
        self._names = list(names)
        self._returned: dict[int, list[str]] = {}
        self._told: set[int] = set()

    def watched(self, functions: Sequence[Any]) -> list[Any]:
        """The same functions with None for what is no finite number. Models are left as they are:
        `finite` sees what they return.
        """
        return [
            f if isinstance(f, nn.Module) else self._watched(place, f)
            for place, f in enumerate(functions)
        ]

    def _watched(self, place: int, function: Callable[..., Any]) -> Callable[..., Any]:
        if is_async_callable(function):

            @functools.wraps(function)
            async def later(*args: Any, **columns: Any) -> list[Any]:
                return self._graded(place, await function(*args, **columns))

            return later

        @functools.wraps(function)
        def now(*args: Any, **columns: Any) -> list[Any]:
            return self._graded(place, function(*args, **columns))

        return now

    def _graded(self, place: int, rewards: Any) -> list[Any]:
        given = list(rewards)
        odd = [_is_unfinite(reward) for reward in given]
        self._returned[place] = [str(float(r)) for r, o in zip(given, odd, strict=True) if o]
        return [None if o else reward for reward, o in zip(given, odd, strict=True)]

    def finite(self, per_func: Tensor) -> Tensor:
        """[rollout, function]: NaN also for a reward that is infinite, a model's or one beyond
        float32. Warns of a function's first rewards that are no finite number.
        """
        said = []
        for place, name in enumerate(self._names):
            column = per_func[:, place]
            watched = place in self._returned  # whose NaN is None, or was seen
            odd = column.isinf() if watched else ~column.isfinite()
            found = [*self._returned.pop(place, []), *map(str, column[odd].tolist())]
            if not found:
                continue
            said.append(f"{name!r} returned {' and '.join(sorted(set(found)))}")
            if place not in self._told:
                self._told.add(place)
                _warn(f"{said[-1]} for {len(found)} of a step's rollouts")
        self.unfinite = ", ".join(said)
        return per_func.masked_fill(per_func.isinf(), torch.nan)


def weighted(per_func: Tensor, weights: Tensor) -> Tensor:
    """One reward a rollout: the sum over those that graded it, NaN where none did."""
    total: Tensor = (per_func * weights.to(per_func.device)).nansum(1)
    total[per_func.isnan().all(1)] = torch.nan  # ungraded: no success, and no 0 either
    return total


def _is_unfinite(reward: Any) -> bool:
    """False for what is no number at all too: TRL refuses that by itself."""
    try:
        return not math.isfinite(reward)
    except (TypeError, ValueError, OverflowError):
        return False


def _warn(said: str) -> None:
    warnings.warn(
        f"The reward function {said}: no finite number, so it counts as ungraded, as None does "
        "(feedback/ungraded in the metrics). Return a finite number, or None where an answer can't "
        "be judged. This is told once a function.",
        stacklevel=3,
    )
