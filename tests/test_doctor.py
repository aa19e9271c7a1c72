"""`distil doctor` tells what works here, and why what doesn't."""

from collections.abc import Callable

import pytest
import torch

from distil.commands import doctor
from distil.vocab import rows


def fail(kind: str) -> None:
    raise RuntimeError("Failed to find C compiler.")


def test_it_says_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.doctor() == 0
    said = capsys.readouterr().out
    names = [line.split(":")[0] for line in said.splitlines()]
    assert names[:7] == ["versions", "machine", "device", "kernels", "sampler", "model", "cache"]
    assert set(names[7:]) == {"sandbox"}
    if not torch.accelerator.is_available():
        assert "CPU only" in said
        assert "plain PyTorch; Triton's are for GPUs" in said


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (lambda kind: None, "Triton's, tried"),
        (fail, "since Triton can't start kernels (Failed to find C compiler.): it needs"),
    ],
)
def test_of_a_gpu_it_says_whether_kernels_start(
    monkeypatch: pytest.MonkeyPatch, start: Callable[[str], None], said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(rows, "_try_kernels", start)
    monkeypatch.setattr(doctor, "kernels_start", rows.kernels_start.__wrapped__)  # asked anew
    assert said in doctor._kernels()
