"""An accelerator that isn't there: tensors on a device `pretend` whose numbers lie on the CPU.

Every operation is done by the CPU, after a check that a GPU would have taken it: a tensor of the
CPU's beside one of the device's raises Mismatch, but for single numbers, copies and ids that select
rows. So a trainer runs as on an accelerator (whatever asks `device.type == "cpu"` is told no), on a
machine without one. Left out: kernels, autocast, several devices, what a GPU computes otherwise.

A process is changed for good by importing this, so tests run it as a program:

    python tests/pretend.py FOLDER '{"ema": {"teacher": "ema"}, ...}'

trains each on the toy model and prints {name: losses of its steps} as its last line.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
MIXED = ("copy_", "_to_copy", "index.Tensor", "index_put")
"""Operations that a GPU takes with tensors of the CPU's too."""


class Mismatch(RuntimeError):
    """What a GPU refuses as tensors on different devices."""


class Pretended(torch.Tensor):
    """A tensor on the device; `inner` has its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False) -> "Pretended":
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=torch.device(NAME, 0), requires_grad=requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"pretended {self.inner!r}"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, op: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        return on_the_cpu(op, args, kwargs or {})


class On(TorchDispatchMode):
    """Takes what is made on the device from nothing, as `torch.zeros(3, device="pretend")`."""

    def __torch_dispatch__(self, op: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        return on_the_cpu(op, args, kwargs or {})


def on_the_cpu(op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation, done by the CPU; its results lie where a GPU's would."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    ours = [x for x in tensors if isinstance(x, Pretended)]
    check_devices(str(op), args, ours, [x for x in tensors if not isinstance(x, Pretended)])
    wanted = kwargs.get("device")
    here = bool(ours) if wanted is None else torch.device(wanted).type == NAME
    if wanted is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    if "copy_" in str(op) and "_to_copy" not in str(op):
        here = isinstance(args[0], Pretended)
    given, named = tree_map(lambda x: x.inner if isinstance(x, Pretended) else x, (args, kwargs))
    result = op(*given, **named)
    known = {id(x.inner): x for x in ours}  # in place: the tensor that was given comes back

    def wrapped(x: Any) -> Any:
        return known.get(id(x), Pretended(x)) if here and isinstance(x, torch.Tensor) else x

    return tree_map(wrapped, result)


def check_devices(op: str, args: Any, ours: list[Any], others: list[Any]) -> None:
    """Raises Mismatch where a GPU would refuse."""
    op = op.removeprefix("aten.")
    shapes = [tuple(x.shape) for x in others if x.dim()]
    if ours and shapes and not op.startswith(MIXED):
        raise Mismatch(f"{op}: on the CPU {shapes}, beside {[tuple(x.shape) for x in ours]}")
    if op.startswith(("index.Tensor", "index_put")) and ours:
        whole = [args[0], *args[2:3]]  # the tensor, and what is put into it: ids may lie elsewhere
        if not all(isinstance(x, Pretended) or x.dim() == 0 for x in whole):
            raise Mismatch(f"{op}: on the CPU, by ids on the device")


class Backend:
    """What torch asks a device's module."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Its random numbers are the CPU's."""

    def get_rng_state(self, _: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, _: Any) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def late(make: Callable[..., Any]) -> Callable[..., Any]:
    """torch.tensor, which makes its tensor where no mode sees it: moved once it's made."""

    def made(data: Any, *args: Any, device: Any = None, **options: Any) -> Any:
        tensor = make(data, *args, **options)
        return tensor if device is None else tensor.to(device)

    return made


def by_ids(place: Any) -> Any:
    """A list of row numbers as a tensor, which C++ would make on the device, unseen."""
    if isinstance(place, tuple):
        return tuple(map(by_ids, place))
    return torch.tensor(place) if isinstance(place, list) else place


def set_up() -> None:
    """The device, and torch's functions that make tensors unseen; accelerate's choice of it."""
    import transformers
    from accelerate.state import AcceleratorState, PartialState

    _setup_privateuseone_for_python_backend(NAME, Backend())
    torch.autograd.set_multithreading_enabled(False)  # modes belong to this thread
    torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter's kind changes
    t: Any = torch.Tensor
    to_list, get, put = t.tolist, t.__getitem__, t.__setitem__
    t.tolist = lambda x: to_list(x.inner if isinstance(x, Pretended) else x)
    t.__getitem__ = lambda x, place: get(x, by_ids(place))
    t.__setitem__ = lambda x, place, values: put(x, by_ids(place), values)
    torch.tensor, torch.as_tensor = late(torch.tensor), late(torch.as_tensor)
    device = torch.device(NAME, 0)
    for state in (PartialState, AcceleratorState):
        state.device = property(lambda _: device, lambda *_: None)  # type: ignore[assignment]
    args: Any = transformers.TrainingArguments
    found = args.device.fget
    args.device = property(lambda self: (found(self), device)[1])


@contextmanager
def device() -> Iterator[None]:
    set_up()
    with On():
        yield


def losses(folder: Path, options: dict[str, Any]) -> list[float]:
    """Of a trainer of the toy model with these options."""
    from trainertoys import make_trainer

    trainer = make_trainer(folder, **options)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main() -> None:
    folder, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
    with device():
        one = torch.ones(3, device=NAME)
        try:
            found = f"nothing: {one + torch.ones(3)}"
        except Mismatch:
            found = "a mismatch"
        told = {name: losses(folder / name, options) for name, options in runs.items()}
    print(json.dumps({"cpu beside device": found, "on": str(one.device), "losses": told}))


if __name__ == "__main__":
    main()
