"""What there is to show of a run, as one frozen value; a thread that draws it sees no half.

Left out: how it looks, and when it is shown.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distil.feedback import SOURCES
from distil.types import succeeds

TREND = 60
"""Steps whose rewards are kept for the trend."""

COSTS = {"distil/cost": "cost", "sft/cross_entropy": "cross-entropy"}
"""The objective's own figure, nats a token; `grpo` has none."""

SPEEDS = ("sampling", "teacher", "student")


@dataclass(frozen=True)
class LastRollout:
    """What was asked and answered, as it came from the model; the verdict; what the teacher saw."""

    question: str
    answer: str
    reward: float | None
    context: str | None

    @property
    def verdict(self) -> str:
        """'reward 0, teacher saw sibling'."""
        graded = "not graded" if self.reward is None else f"reward {self.reward:.3g}"
        shown = f"teacher saw {self.context}" if self.context else "no feedback"
        return f"{graded}{' (a success)' if succeeds(self.reward) else ''}, {shown}"


@dataclass(frozen=True)
class Facts:
    """update, total: optimiser updates, `updates` a step. began, ends: by the view's clock.

    latest: each figure's last value, numbers only. rewards: of the last steps, oldest first.
    """

    update: int = 0
    total: int = 0
    updates: int = 1
    began: float = 0.0
    ends: float | None = None
    latest: Mapping[str, float] = field(default_factory=dict)
    rewards: tuple[float, ...] = ()
    rollout: LastRollout | None = None
    alarms: tuple[str, ...] = ()

    def with_log(
        self,
        logs: Mapping[str, Any],
        record: Mapping[str, Any] | None = None,
        alarms: tuple[str, ...] = (),
    ) -> "Facts":
        """After one more log; figures that it doesn't have keep their last value."""
        numbers = {k: float(v) for k, v in logs.items() if _is_number(v)}
        reward = [numbers["reward"]] if "reward" in numbers else []
        return replace(
            self,
            latest={**self.latest, **numbers},
            rewards=(*self.rewards, *reward)[-TREND:],
            rollout=self.rollout if record is None else as_rollout(record),
            alarms=alarms,
        )

    @property
    def cost(self) -> tuple[str, float] | None:
        """The objective's figure by its name for people, None where it has none."""
        found = [(COSTS[name], self.latest[name]) for name in COSTS if name in self.latest]
        return found[0] if found else None

    @property
    def shares(self) -> list[tuple[str, float]]:
        """Whom the teacher listened to, the most frequent first, then the share without anybody."""
        kinds = [(kind, self.latest.get(f"feedback/{kind}", 0.0)) for kind in SOURCES]
        kinds.sort(key=lambda pair: -pair[1])
        kinds.append(("nobody", self.latest.get("feedback/none", 0.0)))
        return [(kind, share) for kind, share in kinds if share > 0]

    @property
    def speeds(self) -> list[tuple[str, float]]:
        """Tokens a second of one process, of whoever reads or writes any."""
        named = [(who, self.latest.get(f"speed/{who}_tokens_per_second")) for who in SPEEDS]
        return [(who, rate) for who, rate in named if rate is not None]


def start(
    update: int, total: int, updates: int, now: float, history: Sequence[Mapping[str, Any]]
) -> Facts:
    """At the beginning, or where a resumed run is, whose logs so far are `history`."""
    facts = Facts(update, total, updates, began=now)
    for logs in history:
        facts = facts.with_log(logs)
    return facts


def as_rollout(record: Mapping[str, Any]) -> LastRollout:
    """A record of rollouts.jsonl; of a conversation, the user's last words are the question."""
    prompt = record["prompt"]
    if not isinstance(prompt, str):
        asked = [m.get("content") for m in prompt if m.get("role") == "user"]
        prompt = str(asked[-1]) if asked else ""
    return LastRollout(prompt, record["completion"], record["reward"], record["context"])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
