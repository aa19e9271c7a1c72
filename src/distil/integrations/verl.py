"""DistIL's losses inside verl: importing this file puts them into verl's registries.

verl loads it by itself, in every process, through the entry point group `verl.plugins`. Registered:

    distil, distil_mean, distil_local   distillation losses: distillation_loss.loss_mode
    no_reward                           a policy loss that is 0, for training on the teacher alone:
                                        actor.policy_loss.loss_mode

docs/verl.md says how they are set and what has been run. The maths is in `distil.objectives`, the
layout of verl's batches and the checks in `distil.integrations.verlbatch`; here is what verl calls.
Read against verl 0.9.1: verl/trainer/distillation/losses.py, verl/trainer/ppo/core_algos.py. Left
out: who the teacher is, rollouts, rewards: they are verl's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from distil.errors import IntegrationError
from distil.integrations.verlbatch import FUTURE, Future, faults, token_losses

try:
    from verl.trainer.distillation.losses import (
        DistillationLossSettings,
        register_distillation_loss,
    )
    from verl.trainer.ppo.core_algos import register_policy_loss
except ImportError as error:
    raise IntegrationError(
        f"distil.integrations.verl needs verl's registries of losses, and they can't be imported: "
        f"{error}. Install verl 0.9 beside DistIL as docs/verl.md says (constraints-verl.txt)."
    ) from error


def distillation_loss(
    future: Future,
    config: Any,
    distillation_config: Any,
    model_output: dict[str, Tensor],
    data: Any,
) -> tuple[Tensor, dict[str, Any]]:
    """[rollouts, response] losses, which verl sums up by actor.loss_agg_mode, and their metrics.

    Raises IntegrationError for settings of verl's under which these wouldn't be DistIL's losses.
    """
    found = faults(distillation_config.distillation_loss, model_output, data, future)
    if found:
        raise IntegrationError("verl isn't set up for DistIL's loss:\n" + "\n".join(found))
    return token_losses(model_output, data, future=future)


def no_reward(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    **unused: Any,
) -> tuple[Tensor, dict[str, Any]]:
    """A policy loss of 0, gradient and all: what is left of the actor's loss is the teacher's."""
    return (log_prob * 0.0).sum(), {}


def register() -> None:
    """Puts every loss into verl's registries. Once a process: verl refuses a name that it has."""
    for name, future in FUTURE.items():
        settings = DistillationLossSettings(names=[name], use_topk=True)
        loss: Callable[..., Any] = partial(distillation_loss, future)
        register_distillation_loss(settings)(loss)
    register_policy_loss("no_reward")(no_reward)


register()
