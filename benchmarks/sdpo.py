"""TRL's `experimental.sdpo` trainer with its parts named as ours are, for benchmarks/step.py.

It overrides TRL's private methods to tell one part from another, nothing else: so it goes with the
TRL that is pinned, and may not with the next.
"""

import os
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

from distil.profiling.parts import at_gradient, count, part, turn

__all__ = ["PartsOfSDPO", "SDPOConfig", "output_layer_of_sdpo"]


class PartsOfSDPO(SDPOTrainer):
    """TRL's trainer, its parts named as ours are. The output layer is in its forward pass."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any) -> Any:
        with part("backward"):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            turn("optimiser")
        return loss

    @part("feedback")
    def _prepare_training_batch(self, inputs: Any) -> Any:
        return super()._prepare_training_batch(inputs)

    @part("sampling")
    def _generate(self, prompt_ids: Any) -> Any:
        written = super()._generate(prompt_ids)
        count(sum(len(ids) for ids in written[1]))
        return written

    @part("grading")
    def _calculate_rewards(self, *args: Any) -> Any:
        return super()._calculate_rewards(*args)

    @part("loss")
    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs)

    def _forward_logits(
        self, model: Any, input_ids: Any, attention_mask: Any, **kwargs: Any
    ) -> Any:
        if not torch.is_grad_enabled():
            with part("teacher", whole=True):
                count(attention_mask)
                return super()._forward_logits(model, input_ids, attention_mask, **kwargs)
        with part("student forward"):
            count(attention_mask)
            count(len(input_ids) * kwargs["logits_to_keep"], "output layer")
            return super()._forward_logits(model, input_ids, attention_mask, **kwargs)

    @part("output layer")
    def _compute_self_distillation_loss(self, *args: Any) -> Any:
        loss = super()._compute_self_distillation_loss(*args)
        at_gradient(loss, "output layer")
        return loss

    @part("logging")
    def log(self, *args: Any, **kwargs: Any) -> None:
        super().log(*args, **kwargs)


def output_layer_of_sdpo(trainer: PartsOfSDPO) -> None:
    """Names the output layer and the EMA inside TRL's passes."""

    def begins(module: Any, arguments: tuple[torch.Tensor]) -> None:
        if torch.is_grad_enabled():
            turn("output layer")
            at_gradient(arguments[0], "backward")

    trainer.model.get_output_embeddings().register_forward_pre_hook(begins)
    for callback in trainer.callback_handler.callbacks:
        if type(callback).__name__ == "SyncTeacherModelCallback":
            callback.on_step_end = part("EMA")(callback.on_step_end)
