"""What a comparison leaves: the table, its notes, every setting, and one small JSON file.

table.md, table.txt    the table        settings.yaml    every setting and chosen rate
figure.png             curves           results.json     curves and aggregates, no attempts
"""

import json
import statistics
from collections.abc import Mapping
from typing import Any

import yaml

from distil.compare.figure import draw
from distil.compare.overlap import overlap_of
from distil.compare.plan import RESULTS_FILE
from distil.compare.results import Contender, Results, as_json, gather
from distil.compare.stats import Choice, Interval, t_interval
from distil.compare.suite import SEED, Suite
from distil.errors import RunError
from distil.figures.layout import as_markdown, as_text
from distil.runs.folder import differences, write_text

NOT_SETTINGS = ("train.output_dir", "train.seed", "train.learning_rate")


def write_report(suite: Suite) -> str:
    """Writes all five files from whatever has ended; returns what the terminal shows.

    Raises RunError if no judged run has ended: then results.json alone is written, so that tuning
    runs can be taken up elsewhere too.
    """
    results = gather(suite)
    stored = as_json(results)
    if any(run["status"] != "missing" for run in stored["runs"]):
        write_text(suite.output_dir / RESULTS_FILE, compact(stored))
    if not any(c.curves or c.failed for c in results.contenders.values()):
        raise RunError(
            f"No judged run of {suite.file} has ended yet, so there is nothing to report. Run "
            f"`distil compare {suite.file}` first."
        )
    table, notes = rows(results), notes_of(results)
    text = as_text(table) + "\n\n" + "\n".join(notes) + "\n"
    listed = "\n".join(f"- {note}" for note in notes)
    folder = suite.output_dir
    write_text(folder / "table.txt", text)
    write_text(folder / "table.md", f"{as_markdown(table)}\n\n{listed}\n")
    chosen = {name: c.choice for name, c in results.contenders.items()}
    write_text(folder / "settings.yaml", settings(suite, chosen))
    draw(results, folder / "figure.png")
    return text


def rows(results: Results) -> list[list[str]]:
    """Header, the model before training (if it is one and the same), and a row a contender."""
    reference = results.suite.reference
    header = [
        "contender", "learning rate", *results.figures,
        *(f"{f} - {reference}" for f in results.figures), "tokens", "entropy", "train s", "seeds",
    ]  # fmt: skip
    before = _before(results)
    return [header, *before, *(_row(results, c) for c in results.contenders.values())]


def notes_of(results: Results) -> list[str]:
    """What a reader of the table must know, then what went wrong or is missing."""
    suite = results.suite
    covered = "training, not of which problems were held out."
    if SEED in suite.recipes[suite.reference].model.name:
        covered = f"pre-training (a model for each seed) and of {covered}"
    notes = [
        "In brackets: 95% t-intervals over training seeds on the same problems. They cover the "
        f"luck of {covered}",
        f"Differences are to {suite.reference}, paired by seed.{_tuning(results)}",
        "Entropy: the student's at the last step, nats a token. Train s: sampling, grading, "
        f"teacher, forward and backward; {_at_a_time(suite)}.",
    ]
    unlike = [seed for seed, starts in starts_of(results).items() if len(starts) > 1]
    if unlike:
        notes.append(
            f"NOT COMPARABLE: the runs of seed {', '.join(map(str, unlike))} began with different "
            "models, such as organisms pre-trained on different machines. Run the suite again in "
            "another folder (--output-dir)."
        )
    for contender in results.contenders.values():
        if contender.choice is not None and "edge" in contender.choice.how:
            notes.append(
                f"{contender.name}: the best rate lies at the grid's edge, so a better one may lie "
                "beyond."
            )
    failed = [r for r in (*results.tuning, *results.judged) if r.name in _failed(results)]
    if any(not r.tuning for r in failed):
        notes.append(
            "*: with failed seeds, whose figures are those of their last evaluation (for some, "
            "before training)."
        )
    for run in failed:
        outcome = run.outcome()
        last = outcome.last_lines[-1] if outcome and outcome.last_lines else "no output"
        notes.append(f"Failed: {run.name}{' (tuning)' if run.tuning else ''}: {last[:200]}")
    if missing := results.missing():
        notes.append(f"Not finished yet ({len(missing)}): {', '.join(missing)}.")
    return notes


def _tuning(results: Results) -> str:
    """What is said of the tuning runs, if there are any."""
    if not results.tuning:
        return ""
    overlap = overlap_of(results.suite)
    problems = "and drew their problems anew" if overlap is None else overlap.text()
    return f" The {len(results.tuning)} tuning runs are not in the budget, {problems}."


def settings(suite: Suite, chosen: Mapping[str, Choice | None]) -> str:
    """Every setting, as YAML: the reference's whole recipe, and where each contender differs."""
    reference = suite.recipe(suite.reference).as_dict()
    contenders = {}
    for name in suite.contenders:
        changed = differences(reference, suite.recipe(name).as_dict())
        contenders[name] = {
            **_rate_settings(chosen.get(name)),
            "differs": {path: new for path, (_, new) in changed if path not in NOT_SETTINGS},
        }
    for path in NOT_SETTINGS:
        group, field = path.split(".")
        del reference[group][field]
    whole = {
        "reference": suite.reference,
        "learning_rates": list(suite.learning_rates),
        "tuning_seeds": list(suite.tuning_seeds),
        "seeds": list(suite.seeds),
        "jobs": suite.jobs,
        "recipe_of_the_reference": reference,
        "contenders": contenders,
    }
    return yaml.safe_dump(whole, sort_keys=False, default_flow_style=None, width=100)


def compact(value: dict[str, Any]) -> str:
    """JSON with a line for each entry, and for each item of a list of objects."""
    lines = []
    for key, entry in value.items():
        text = json.dumps(entry, ensure_ascii=False)
        if isinstance(entry, list) and entry and isinstance(entry[0], dict):
            items = ",\n  ".join(json.dumps(e, ensure_ascii=False) for e in entry)
            text = f"[\n  {items}\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _row(results: Results, contender: Contender) -> list[str]:
    own = contender.name == results.suite.reference
    star = "*" if set(contender.failed) & set(contender.curves) else ""
    curves = list(contender.curves.values())
    entropies = [c.entropy for c in curves if c.entropy is not None]
    return [
        contender.name,
        _rate(contender.choice),
        *(_cell(contender.interval(f), star) for f in results.figures),
        *(
            "" if own else _cell(results.difference(contender.name, f), star, signed=True)
            for f in results.figures
        ),
        f"{statistics.fmean(c.tokens[-1] for c in curves):.1f}" if curves else "",
        f"{statistics.fmean(entropies):.2f}" if entropies else "",
        f"{statistics.fmean(c.seconds[-1] for c in curves):.0f}" if curves else "",
        _seeds(results, contender),
    ]


def _before(results: Results) -> list[list[str]]:
    """The row of the models before training; none if contenders didn't begin alike."""
    starts = starts_of(results)
    if not starts or any(len(same) != 1 for same in starts.values()):
        return []
    begun = [same.pop() for same in starts.values()]
    different = len(set(begun)) > 1
    cells = []
    for place in range(len(results.figures)):
        values = [start[place] for start in begun]
        cells.append(t_interval(values).text() if different else f"{values[0]:.3f}")
    tokens = statistics.fmean(start[-1] for start in begun)
    blank = [""] * len(results.figures)
    return [["(before)", "", *cells, *blank, f"{tokens:.1f}", "", "", ""]]


def starts_of(results: Results) -> dict[int, list[tuple[float, ...]]]:
    """Seed -> the figures and lengths that its runs began with: one, if they began alike.

    Within .001, less than an attempt's part of a figure: runs of results.json are rounded.
    """
    starts: dict[int, list[tuple[float, ...]]] = {}
    for contender in results.contenders.values():
        for seed, curve in contender.curves.items():
            if curve.steps[0] != 0:
                return {}
            figures = (*(curve.figures[f][0] for f in results.figures), curve.tokens[0])
            known = starts.setdefault(seed, [])
            if not any(_alike(figures, other) for other in known):
                known.append(figures)
    return starts


def _alike(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(abs(x - y) < 1e-3 for x, y in zip(a, b, strict=True))


def _seeds(results: Results, contender: Contender) -> str:
    """'5 of 5', '3 of 5, 1 failed'."""
    wanted = len(results.suite.seeds)
    finished = wanted - len(contender.failed) - len(contender.missing)
    failed = f", {len(contender.failed)} failed" if contender.failed else ""
    return f"{finished} of {wanted}{failed}"


def _rate(choice: Choice | None) -> str:
    if choice is None:
        return "tuning unfinished"
    return choice.how if choice.rate is None else f"{choice.rate:g} ({choice.how})"


def _cell(interval: Interval | None, star: str, *, signed: bool = False) -> str:
    return "" if interval is None else interval.text(signed=signed) + star


def _failed(results: Results) -> set[str]:
    outcomes = {r.name: r.outcome() for r in (*results.tuning, *results.judged)}
    return {name for name, o in outcomes.items() if o is not None and o.status == "failed"}


def _at_a_time(suite: Suite) -> str:
    if suite.jobs == 1:
        return "one run at a time"
    return f"{suite.jobs} runs at a time, each of one thread"


def _rate_settings(choice: Choice | None) -> dict[str, Any]:
    """Rate, how it came about, and the tuning figures behind it."""
    if choice is None:
        return {"learning_rate": "not chosen yet"}
    about: dict[str, Any] = {"learning_rate": choice.rate, "how": choice.how}
    if choice.means:
        about["tuning"] = {
            rate: "failed" if m is None else round(m, 4) for rate, m in choice.means.items()
        }
    return about
