"""The kernels in machine code of GPUs that aren't here, by Triton's own compiler.

The interpreter (test_kernels.py) takes what a compiler refuses, and says nothing of speed. Here
each kernel is compiled as `distil.vocab.launches` starts it: that it can be, that memory is read
and written 16 bytes at a time, and that registers are enough. Left out: running it.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from distil.vocab import kernels  # noqa: E402
from distil.vocab.launches import BLOCK, IDS  # noqa: E402
from distil.vocab.rows import GROUP  # noqa: E402

TARGETS = {
    "A100": GPUTarget("cuda", 80, 32),
    "H100": GPUTarget("cuda", 90, 32),
    "MI300": GPUTarget("hip", "gfx942", 64),
}
NUMBERS = ("stride", "vocab", "section", "groups", "sections", "width", "many", "out_stride")
IDENTIFIERS = ("ids", "chosen")
SAME = ("x", "out", "maxima")
"""Pointers to the logits' own dtype; others are to the wide one."""
TOGETHER = {"scan", "overwrite", "pick"}
"""Those that read whole rows; the others gather single entries."""


def compiled(name: str, target: Any, dtype: str, constants: dict[str, Any], warps: int = 4) -> Any:
    """A kernel for chunks of a vocabulary that 16 divides, as most do."""
    kernel = getattr(kernels, name)
    wide = "fp64" if dtype == "fp64" else "fp32"
    signature, fixed, aligned = {}, {}, {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
            fixed[(place,)] = constants[argument]
            continue
        kind = "i32" if argument in NUMBERS else "*i64" if argument in IDENTIFIERS else None
        signature[argument] = kind or f"*{dtype if argument in SAME else wide}"
        if argument not in {"sections", "width", "many"}:
            aligned[(place,)] = [["tt.divisibility", 16]]
    return triton.compile(
        ASTSource(kernel, signature, fixed, aligned), target=target, options={"num_warps": warps}
    )


def every_kernel(target: Any, dtype: str, cap: float | None, entropy: bool) -> Iterator[Any]:
    """(name, what Triton made of it), with and without the top-K's maxima."""
    form = {"CAP": cap, "WIDE": tl.float64 if dtype == "fp64" else tl.float32}
    no_moments = {} if entropy else {"moments": None}
    for maxima in (False, True):
        options = form | no_moments | ({} if maxima else {"maxima": None})
        options |= {"WITH_ENTROPY": entropy, "WITH_MAXIMA": maxima, "BLOCK": BLOCK, "GROUP": GROUP}
        yield "scan", compiled("scan", target, dtype, options, 8)
    options = form | no_moments | ({} if entropy else {"entropy": None})
    options |= {"WITH_ENTROPY": entropy, "SECTIONS": 4, "IDS": IDS}
    yield "finish", compiled("finish", target, dtype, options)
    yield "pick", compiled("pick", target, dtype, {"GROUP": GROUP, "MANY": 16})
    yield "at_targets", compiled("at_targets", target, dtype, form | {"IDS": IDS, "OTHERS": 16})
    yield "overwrite", compiled("overwrite", target, dtype, form | {"BLOCK": BLOCK}, 8)


def spilled(ptx: str) -> int:
    """Bytes that ptxas keeps in memory for want of registers."""
    assemblers = sorted((Path(triton.__file__).parent / "backends/nvidia/bin").glob("ptxas*"))
    if not assemblers:
        pytest.skip("this Triton comes without an assembler")
    chip = re.search(r"\.target (\w+)", ptx)
    assert chip is not None
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        said = ""
        for assembler in assemblers:  # the older one doesn't know newer PTX
            command = [str(assembler), "-v", f"--gpu-name={chip[1]}", file.name, "-o", "/dev/null"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                return sum(int(n) for n in re.findall(r"(\d+) bytes spill", done.stderr))
            said += done.stderr
    raise AssertionError(f"no assembler takes it:\n{said}")


@pytest.mark.parametrize(
    ("chip", "dtype"),
    [("A100", "bf16"), ("MI300", "bf16"), *(("H100", d) for d in ("bf16", "fp16", "fp32", "fp64"))],
)
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_every_kernel_compiles(chip: str, dtype: str) -> None:
    code = "hsaco" if chip == "MI300" else "cubin"
    for cap, entropy in ((None, False), (30.0, True)):
        for name, made in every_kernel(TARGETS[chip], dtype, cap, entropy):
            assert made.asm[code], name


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("cap", [None, 30.0])
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_memory_is_read_16_bytes_at_a_time_and_registers_are_enough(
    dtype: str, cap: float | None
) -> None:
    for name, made in every_kernel(TARGETS["H100"], dtype, cap, True):
        ptx = made.asm["ptx"]
        if name in TOGETHER:
            read = [a for a in re.findall(r"ld\.global\S*", ptx) if a.endswith(".b16")]
            assert not read, name
            assert re.search(r"ld\.global\S*\.v4\.b32", ptx), name
            assert name == "scan" or re.search(r"st\.global\S*\.v4\.b32", ptx), name
        assert spilled(ptx) == 0, name
