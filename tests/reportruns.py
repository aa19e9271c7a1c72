"""Run folders made up for the report's tests: every file of a run, without training one."""

import json
import math
import random
from pathlib import Path
from typing import Any

import yaml

from distil.config import Recipe

NASTY = (
    "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'> {{data}}"
)
"""Text that would be markup if a page took it for more than text."""


def make_tokens(words: list[str], *, seed: int = 0, end: bool = True) -> dict[str, Any]:
    """Token values of an answer, as rollouts.jsonl has them."""
    draw = random.Random(seed)
    words = [*words, "<|end|>"] if end else words
    return {
        "text": words,
        "mask": [1] * len(words),
        "cost": [round(draw.expovariate(1.0), 5) for _ in words],
        "credit": [*(round(draw.gauss(0, 1), 5) for _ in words[1:]), 0.0],
        "logp": [round(-draw.random(), 5) for _ in words],
        "teacher_logp": [round(-draw.random(), 5) for _ in words],
        "student_top": [[[w, 0.6], [" other", 0.3]] for w in words],
        "teacher_top": [[[" rather", 0.7], [w, 0.2]] for w in words],
    }


def make_rollout(step: int, row: int, **changes: Any) -> dict[str, Any]:
    """One line of rollouts.jsonl: eight rows a step, of two prompts."""
    number = (step * 2 + row // 4) % 6
    return {
        "step": step, "row": row, "group": row // 4, "problem": f"sum-{number}",
        "prompt": [{"role": "user", "content": f"What is {number} + 1?"}],
        "completion": f"It is {number + row % 2}.",
        "reward": float(row % 2),
        "feedback": [{"source": "sums", "text": "That is wrong.", "demonstration": None}],
        "context": "sibling" if row % 4 else "report",
        "teacher_prompt": [{"role": "user", "content": f"What is {number} + 1? Not that."}],
    } | changes  # fmt: skip


def make_run(folder: Path, *, steps: int = 6, seed: int = 0, finished: bool = True) -> Path:
    """A run of eight rollouts a step, two of them with token values."""
    folder.mkdir(parents=True)
    recipe = Recipe().as_dict()
    recipe["train"] |= {"steps": steps, "seed": seed, "output_dir": str(folder)}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "environment.json").write_text(json.dumps({"seed": seed, "versions": {"torch": "1"}}))
    write_lines(folder / "metrics.jsonl", [
        {"step": s, "reward": s / steps, "distil/cost": 1 / s, "student/entropy": math.sqrt(s),
         "step_time": 2.0, "loss": None if s == 2 else 0.5, "completions/mean_length": 4.0}
        for s in range(1, steps + 1)
    ])  # fmt: skip
    write_lines(folder / "rollouts.jsonl", [
        make_rollout(s, r, **({"tokens": make_tokens(["It", " is", " 3"], seed=s * 8 + r)}
                              if r in (0, 5) else {}))
        for s in range(1, steps + 1) for r in range(8)
    ])  # fmt: skip
    names = {"before": 0, "eval-000003": 3, **({"after": steps} if finished else {})}
    for name, step in names.items():
        (folder / f"{name}.json").write_text(json.dumps(evaluation(step, right=1 + step // 2)))
    write_lines(folder / "alarms.jsonl", [
        {"step": 4, "alarm": "answers shrink", "figure": "completions/mean_length", "value": 1.0,
         "at_the_start": 4.0},
    ])  # fmt: skip
    return folder


def evaluation(step: int, right: int) -> dict[str, Any]:
    """Three problems, four attempts each, of which `right` are right at every one of them."""
    attempts = [
        {"problem": f"held-{p}", "completion": "3", "answer": "3", "reward": float(i < right),
         "tokens": 2, "truncated": False}
        for p in range(3) for i in range(4)
    ]  # fmt: skip
    return {"step": step, "rollouts": 8 * step, "seconds": 1.0, "attempts": attempts}


def write_lines(file: Path, records: list[dict[str, Any]]) -> None:
    """As a run appends them."""
    file.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
