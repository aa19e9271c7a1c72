"""Which figures an evaluation has, by name, and what is wrong with those that a recipe asks for.

avg@n, and for each k: pass@k, and maj@k from two samples on. Left out: what they amount to
(`distil.figures.estimates`); nothing here needs numpy.
"""

from collections.abc import Sequence

from distil.config import EvalConfig
from distil.errors import known_names


def default_ks(samples: int) -> tuple[int, ...]:
    """The powers of two from 2 up to `samples`, and `samples` itself; nothing for one sample."""
    powers = {2**i for i in range(1, samples.bit_length()) if 2**i <= samples}
    return tuple(sorted(powers | ({samples} if samples > 1 else set())))


def figure_ks(samples: int, ks: Sequence[int] = ()) -> list[int]:
    """The k's that have figures: each of `ks` once, in their order; no `ks`: the default ones.

    A k above `samples` has no figure, so that nothing is left where all of them are.
    """
    return [k for k in dict.fromkeys(ks or default_ks(samples)) if k <= samples]


def figure_names(samples: int, ks: Sequence[int] = ()) -> list[str]:
    """The figures of `samples` attempts a problem, in a table's order; `ks` as for `figure_ks`.

    maj@1 isn't one: it's a single attempt's own verdict.
    """
    wanted = figure_ks(samples, ks)
    majorities = [f"maj@{k}" for k in wanted if k > 1]
    return [f"avg@{samples}", *(f"pass@{k}" for k in wanted), *majorities]


def eval_faults(settings: EvalConfig, validation_size: int) -> list[str]:
    """What is wrong with `eval.k` and `eval.keep_best`, as a recipe's reader knows them."""
    found = [
        f"eval.k names {k}, and must lie between 1 and eval.samples ({settings.samples})."
        for k in settings.k
        if not 1 <= k <= settings.samples
    ]
    if not settings.keep_best:
        return found
    names = figure_names(max(settings.samples, 1), settings.k)
    if settings.keep_best not in names:
        found.append(
            f"eval.keep_best is {settings.keep_best!r}, and with eval.samples {settings.samples} "
            f"there is no such figure.{known_names(settings.keep_best, names)}."
        )
    if not validation_size:
        found.append(
            "eval.keep_best chooses a state by problems that it is judged on, and never by the "
            "held-out ones. Set task.validation_size."
        )
    if not settings.every:
        found.append("eval.keep_best needs judgements to choose from. Set eval.every.")
    return found
