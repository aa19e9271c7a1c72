"""What a served teacher can't do, whether a recipe or a DistILConfig asks for it.

Only what can be told from the settings: whether the server answers, and with which tokens, is
`distil.teacher.served.greeting`'s.
"""

from dataclasses import fields
from typing import NamedTuple

from distil.config import ObjectiveConfig, ServedConfig
from distil.recipe.algorithms import algorithm
from distil.recipe.critiquechecks import address_faults


class Names(NamedTuple):
    """What the reader calls the settings: a recipe's fields, or arguments."""

    group: str = "teacher.served"
    kind: str = "teacher.kind"
    probe: str = "teacher.samples"
    temperature: str = "rollout.temperature"


def served_faults(
    kind: str,
    served: ServedConfig,
    objective: ObjectiveConfig,
    *,
    temperature: float,
    probe_samples: int,
    names: Names,
) -> list[str]:
    """Every fault as a sentence with its fix; [] if there is none. objective: a resolved one."""
    if kind != "served":
        return _unread(kind, served, names)
    found = [*_settings(served, names.group), *_objective(objective, names)]
    if probe_samples:
        found.append(
            f"{names.probe} is {probe_samples}: those completions are the teacher's whose weights "
            f"are here, and a served one's aren't. Set {names.probe} to 0."
        )
    if served.samples:
        return found + _samples(objective, names.group)
    if temperature != 1:
        found.append(
            f"{names.temperature} is {temperature}, and a server's prompt_logprobs are at "
            "temperature 1 whatever is asked; of the top_k alone they can't be turned into "
            f"another's. Set {names.temperature}: 1, or draw {names.group}.samples, which are "
            "drawn at this temperature."
        )
    return found


def _unread(kind: str, served: ServedConfig, names: Names) -> list[str]:
    standard = vars(ServedConfig())
    given = ", ".join(f.name for f in fields(served) if vars(served)[f.name] != standard[f.name])
    if not given:
        return []
    return [f"{names.group} sets {given}, and {names.kind} is {kind}. Set it to served."]


def _settings(served: ServedConfig, group: str) -> list[str]:
    """Values that are impossible by themselves."""
    found = address_faults(f"{group}.base_url", served.base_url)
    if not served.model:
        found.append(f"{group}.model is empty. Name the server's model.")
    if served.samples < 0:
        found.append(f"{group}.samples is {served.samples}, and must be at least 0.")
    if served.concurrency < 1:
        found.append(f"{group}.concurrency is {served.concurrency}, and must be at least 1.")
    found += [
        f"{group}.{key} is {vars(served)[key]}, and must be above 0 seconds."
        for key in ("timeout", "deadline")
        if not vars(served)[key] > 0
    ]
    return found


def _objective(objective: ObjectiveConfig, names: Names) -> list[str]:
    """What only a teacher in memory can be asked."""
    if algorithm(objective.name).cost is None:
        return [
            f"{names.kind} is served, and {objective.name} asks no teacher. Leave it out, or "
            "choose another objective.name."
        ]
    if objective.support != "teacher":
        return [
            f"objective.support is {objective.support}: a server tells its own likeliest tokens, "
            "not its probabilities of the student's. Set objective.support: teacher (its top_k "
            "and a tail), or use a teacher whose weights are here."
        ]
    return []


def _samples(objective: ObjectiveConfig, group: str) -> list[str]:
    """What samples of the teacher's next token can't estimate without bias."""
    needed = f"{group}.samples estimates a cost that is linear in the teacher's probabilities, "
    found = []
    if (
        algorithm(objective.name).cost != "forward_cross_entropy"
        or objective.name == "as_released_math"
    ):
        also = "; its local gradient is distil's with objective.future: none"
        found.append(
            f"{needed}and {objective.name}'s isn't. Use objective.name: distil or distil+grpo"
            f"{also if objective.name == 'forward_kl' else ''}."
        )
    if not objective.tail:
        found.append(
            f"{needed}and without objective.tail the student's are rescaled over the tokens that "
            "happened to be drawn. Set objective.tail: true."
        )
    unknown = {
        "max_teacher_entropy": "the teacher's entropy",
        "first_error_margin": "the teacher's probability of the student's token",
        "policy_space_clip": "the teacher's probabilities one by one",
    }
    found += [
        f"objective.{name} looks at {what}, which {group}.samples don't tell. Set it to null."
        for name, what in unknown.items()
        if getattr(objective, name) is not None
    ]
    return found
