"""Several processes that train together: who speaks and writes, who does what, how all end.

`accelerate launch` or torchrun start them. The main one makes the run's folder, prints and writes;
work on problems is spread over all. What fails on one ends all, with one message. Run by itself, a
process is its own main one, and nothing here waits for anybody.

Ctrl-C: the launcher hands it on once, and kills after 30 seconds whoever hasn't ended; give a long
step time to end with TORCH_ELASTIC_SHUTDOWN_TIMEOUT (seconds).
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import distributed

from distil.distributed.gpus import VISIBLE, named
from distil.errors import TrainingError

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = timedelta(hours=6)
"""How long processes wait for one another: sampling and judging take unequally long. One that fails
is told by the launcher, which ends the others at once."""

FAILED_ELSEWHERE = 2
"""Exit status of a process that ends because another one failed, and said why."""

INTERRUPTED = 130


def processes() -> int:
    """How many processes train together, as torchrun and accelerate say it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number; 0 is the main one."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


def is_main() -> bool:
    """Whether this process speaks and writes for all."""
    return rank() == 0


def check_one_gpu(count: int) -> None:
    """Raises TrainingError if a process that trains alone would use this many GPUs, more than one.

    transformers would give each a part of every micro-batch, by torch's DataParallel: other batches
    than were asked for, and losses over a whole batch that no replica sees.
    """
    if processes() == 1 and count > 1:
        raise TrainingError(
            f"{count} GPUs are visible to one process, and transformers would spread each "
            "micro-batch over them (DataParallel), which changes the batch and the losses. Start "
            f"one process a GPU: accelerate launch --multi_gpu --num_processes {count} -m "
            "distil.cli train RECIPE; or name one GPU: "
            f"{VISIBLE}={named(1)[0]} distil train RECIPE."
        )


def sharding() -> bool:
    """Whether accelerate was told to shard the weights (FSDP, ZeRO-3) once training begins."""
    return fsdp_asked() or zero3_asked()


def fsdp_asked() -> bool:
    """Whether it is FSDP that accelerate was told to shard them by."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def zero3_asked() -> bool:
    """Whether it is DeepSpeed that accelerate was told to shard them by, with settings of its own.

    Not a file of DeepSpeed's: what is in it, accelerate reads later.
    """
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    return deepspeed and os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"


@contextmanager
def together() -> Iterator[None]:
    """Inside, the processes know one another, and only the main one prints."""
    if processes() == 1:
        yield
        return
    if not distributed.is_initialized():
        PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    try:
        if is_main():
            yield
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                yield
    except KeyboardInterrupt:
        if is_main():
            raise
        sys.exit(INTERRUPTED)
    except RuntimeError as error:
        if ended_elsewhere(error):
            sys.exit(FAILED_ELSEWHERE)
        raise
    # Not after an error: the others are elsewhere by then, and the launcher ends them.
    distributed.barrier()
    distributed.destroy_process_group()


def ended_elsewhere(error: Exception) -> bool:
    """Whether a collective call failed since another process had ended, which says why itself."""
    known = isinstance(error, distributed.DistError) or "gloo" in str(error)
    return isinstance(error, RuntimeError) and known and _joined()


def from_main(act: Callable[[], T]) -> T:
    """What `act` returns on the main process, on all of them. A collective call.

    If it fails there, the error is raised there, and the others end without a word.
    """
    if not _joined():
        return act()
    told: list[Any] = [False, None]
    try:
        if is_main():
            told = [True, act()]
    finally:
        broadcast_object_list(told)
    if not told[0]:
        sys.exit(FAILED_ELSEWHERE)
    value: T = told[1]
    return value


def on_each(act: Callable[[], T]) -> T:
    """`act`, on every process. A collective call.

    If it fails on some, the first of them raises its error, and the others end without a word.
    """
    if not _joined():
        return act()
    failure: Exception | None = None
    try:
        result = act()
    except Exception as error:
        failure = error
    failed: list[bool] = gather_object([failure is not None])
    if not any(failed):
        return result
    if failure is not None and failed.index(True) == rank():
        raise failure
    sys.exit(FAILED_ELSEWHERE)


def spread(items: Sequence[T], act: Callable[[Sequence[T]], list[R]]) -> list[R]:
    """`act(items)`, each process doing its share of the items. A collective call.

    `act` returns equally many results for every item, in the items' order, and so does this.
    """
    if not _joined():
        return act(items)
    count = processes()
    parts: list[list[R]] = gather_object([act(items[rank() :: count])])
    each = sum(map(len, parts)) // max(len(items), 1)
    return [
        result
        for place in range(len(items))
        for result in parts[place % count][place // count * each : (place // count + 1) * each]
    ]


def any_of_them(mine: bool) -> bool:
    """Whether this is so on at least one process. A collective call."""
    return any(gather_object([mine])) if _joined() else mine


def _joined() -> bool:
    return processes() > 1 and distributed.is_initialized()
