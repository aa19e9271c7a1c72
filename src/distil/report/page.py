"""One HTML file: a run's numbers and rollouts, and the scripts and styles that show them.

Everything is in the file. A content security policy allows no request and no script but ours, named
by its digest; what a model wrote reaches the page as data, and is put there as text. Left out: what
the page does with it (page/*.js).
"""

import base64
import hashlib
import re
import time
from collections.abc import Sequence
from importlib import resources
from typing import Any

from distil.compare.curves import seconds_by_step
from distil.figures.tables import result_rows
from distil.report.folder import RunFolder
from distil.report.pack import BLOCK, Packed, pack, packed
from distil.report.scan import Entry, scan
from distil.report.series import (
    evaluation_curve,
    feedback_shares,
    metric_columns,
    pass_curve,
    reward_curve,
    seed_bands,
    time_by_part,
)
from distil.runs.folder import differences

SCRIPTS = (
    "vendor/chart.umd.min.js", "vendor/tabulator.min.js", "page/dom.js", "page/data.js",
    "page/charts.js", "page/learning.js", "page/course.js", "page/settings.js", "page/tokens.js",
    "page/credit.js", "page/rollouts.js", "page/main.js",
)  # fmt: skip
STYLES = ("vendor/tabulator_simple.min.css", "page/style.css")

FOR_BLOCKS = 0.93
"""Share of a run's room that its rollouts may take; the index of all of them takes the rest."""


def make_page(runs: Sequence[RunFolder], room: int) -> str:
    """The whole file, of about `room` bytes at most; rollouts are thinned to fit."""
    scans = [scan(run.rollout_files) for run in runs]
    head = packed(_head(runs, scans))
    scripts, styles = ["\n".join(_asset(n) for n in names) for names in (SCRIPTS, STYLES)]
    shell = _asset("page/shell.html")
    left = max(0, room - len(head) - len(scripts) - len(styles) - len(shell))
    sizes = [sum(e.size for e in entries) for entries in scans]
    blocks = []
    for place, entries in enumerate(scans):
        share = sizes[place] / (sum(sizes) or 1)
        blocks.append(_run_blocks(place, pack(entries, int(FOR_BLOCKS * left * share))))
    parts = {
        "title": _escaped(", ".join(run.name for run in runs)),
        "policy": _policy(scripts),
        "styles": styles,
        "data": _block("head", head) + "".join(blocks),
        "scripts": scripts,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], shell)


def _head(runs: Sequence[RunFolder], scans: Sequence[Sequence[Entry]]) -> dict[str, Any]:
    """All but the rollouts."""
    rewards = [reward_curve(entries) for entries in scans]
    return {
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "runs": [
            _run(run, entries, reward)
            for run, entries, reward in zip(runs, scans, rewards, strict=True)
        ],
        "bands": seed_bands(runs, rewards),
        "differences": [
            [name, *(_setting(run.recipe, name) for run in runs)]
            for name in dict.fromkeys(
                name
                for run in runs[1:]
                for name, _ in differences(runs[0].recipe, run.recipe)
            )
        ],
    }  # fmt: skip


def _run(run: RunFolder, entries: Sequence[Entry], reward: dict[str, list[Any]]) -> dict[str, Any]:
    standing = run.standing()
    seconds = seconds_by_step(run.metrics)
    return {
        "name": run.name,
        "status": run.status,
        "reward": reward,
        "seconds": {"step": list(seconds), "total": [round(s, 2) for s in seconds.values()]},
        "metrics": metric_columns(run.metrics),
        "evaluations": evaluation_curve(run),
        "passes": {name: pass_curve(attempts) for name, attempts in standing.items()},
        "table": result_rows(standing, run.ks()) if standing else [],
        "feedback": feedback_shares(entries),
        "time": time_by_part(run.profile),
        "alarms": run.alarms,
        "bad_steps": run.bad_steps,
        "settings": _flat(run.recipe),
        "environment": _flat(run.environment),
    }


def _run_blocks(place: int, found: Packed) -> str:
    counts = {"found": found.found, "detailed": found.detailed, "block": BLOCK}
    index = packed({**counts, "columns": found.index})
    parts = [_block(f"index-{place}", index)]
    parts += [_block(f"rollouts-{place}-{i}", text) for i, text in enumerate(found.blocks)]
    return "".join(parts)


def _block(name: str, text: str) -> str:
    """Base64 has no character that HTML knows."""
    return f'<script type="text/plain" id="{name}">{text}</script>\n'


def _flat(value: Any, where: str = "") -> dict[str, Any]:
    """Nested dicts as one, names dotted."""
    if not isinstance(value, dict) or not value:
        return {where: value} if where else {}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{where}.{key}" if where else str(key))
    return found


def _setting(recipe: dict[str, Any], name: str) -> Any:
    """A recipe's value by its dotted name; None where it hasn't any."""
    value: Any = recipe
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _policy(scripts: str) -> str:
    digest = base64.b64encode(hashlib.sha256(scripts.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    text = resources.files("distil.report").joinpath(name).read_text(encoding="utf-8")
    return "\n".join(row for row in text.split("\n") if not row.startswith("//# sourceMapping"))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
