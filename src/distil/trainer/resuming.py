"""Taking up a run: its checkpoint, what lies there beside the weights, and whether a step is left.

transformers loads the weights and the optimiser, and skips the batches that were trained on. It
looks whether training is over only after a step, so a run that was killed after its last checkpoint
would be trained one step too far: `NothingLeft` looks before.
"""

import math
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import TrainOutput

from distil.distributed.processes import from_main
from distil.runs.checkpoints import checkpoint_step, complete_checkpoint
from distil.runs.folder import cut_logs


class NoStepLeft(Exception):
    """The checkpoint is that of the last step."""


class NothingLeft(TrainerCallback):
    """Ends a training that has all its steps behind it, before it begins another one."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The weights are loaded, and lie where they are trained, by now."""
        if state.global_step >= state.max_steps:
            raise NoStepLeft


def take_up(trainer: Any, folder: str) -> str:
    """The checkpoint to go on from: `folder`, or the newest sound one in it; a collective call.

    Teacher and earlier batches are as they were there, and logs end with its step. Raises RunError
    where none is sound.
    """
    checkpoint = from_main(lambda: complete_checkpoint(folder))
    trainer.teacher.load(checkpoint)
    if trainer.objective.replay_batches:
        trainer.replay.load(checkpoint, trainer.accelerator.process_index)
    if trainer.accelerator.is_main_process:
        cut_logs(trainer.args.output_dir, checkpoint_step(checkpoint))
    return str(checkpoint)


def end_without_a_step(trainer: Any) -> TrainOutput:
    """What transformers does after its loop, as far as it matters where no step was run."""
    trainer.is_in_train = False
    trainer.control = trainer.callback_handler.on_train_end(
        trainer.args, trainer.state, trainer.control
    )
    return TrainOutput(trainer.state.global_step, math.nan, {})
