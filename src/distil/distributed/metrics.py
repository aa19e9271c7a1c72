"""Sums and counts of a logging interval, turned into averages over all processes when it ends.

Values stay tensors on their device until then, so that a micro-batch never waits for a number.
Every process adds the same names, whatever its data (a count of 0 is fine).
"""

from typing import Any

import torch
from torch import Tensor


class MetricSums:
    """name -> sum and count (averages), or maximum. `reduce` empties it."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Any, Any]] = {}
        self._maxima: dict[str, Any] = {}

    def add(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Average over unmasked tokens: sum(values * mask) / sum(mask)."""
        keep = mask > 0
        self.ratio(name, values.detach().masked_fill(~keep, 0).sum(), keep.sum())

    def ratio(self, name: str, amount: Any, count: Any) -> None:
        """Average as amount / count, both added up over the interval."""
        total, seen = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (total + amount, seen + count)

    def rate(self, name: str, amount: Any, seconds: float) -> None:
        """Amount per second of this process, named `<name>_per_second`."""
        self.ratio(f"{name}_per_second", amount, seconds)

    def maximum(self, name: str, values: Tensor, mask: Tensor) -> None:
        """The largest unmasked value; minus infinity (and not logged) if there is none."""
        largest = values.detach().masked_fill(mask <= 0, -torch.inf).max()
        before = self._maxima.get(name)
        self._maxima[name] = largest if before is None else torch.maximum(before, largest)

    def reduce(self, accelerator: Any) -> dict[str, float]:
        """The interval's averages and maxima over all processes; starts the next interval.

        A collective call: every process must make it. Names with a count of 0 are left out.
        """
        names = sorted(self._sums)
        device = accelerator.device
        rows = [
            [torch.as_tensor(x, device=device, dtype=torch.float64) for x in self._sums[n]]
            for n in names
        ]
        result: dict[str, float] = {}
        if rows:
            table = torch.stack([torch.stack(r) for r in rows])
            table = accelerator.gather(table[None]).sum(0).cpu()
            result |= {n: (t / c).item() for n, (t, c) in zip(names, table, strict=True) if c > 0}
        if self._maxima:
            peaks = sorted(self._maxima)
            stacked = torch.stack([self._maxima[n].to(device, torch.float64) for n in peaks])
            largest = accelerator.gather(stacked[None]).amax(0).cpu()
            result |= {
                n: v.item() for n, v in zip(peaks, largest, strict=True) if torch.isfinite(v)
            }
        self._sums.clear()
        self._maxima.clear()
        return result
