"""docs/scale.md holds what benchmarks/scale.py computes, and its arithmetic is checked by hand."""

import runpy
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def scale() -> Any:
    return runpy.run_path(str(PROJECT / "benchmarks/scale.py"))


def test_the_documents_tables_are_the_scripts(scale: Any) -> None:
    document = (PROJECT / "docs/scale.md").read_text(encoding="utf-8")
    assert scale["filled"](document) == document
    altered = document.replace("| peak |", "| peek |")
    assert altered != document
    assert scale["filled"](altered, ["memory"]) == document


def test_the_70b_has_llama_3s_number_of_parameters(scale: Any) -> None:
    small, large = (plan.shape() for plan in scale["plans"]())
    assert small.parameters == 8_190_735_360
    assert large.parameters == 70_553_706_496
    assert large.cache_per_token == 2 * 80 * 8 * 128


def test_traffic_and_operations_by_hand(scale: Any) -> None:
    small = scale["plans"]()[0]
    p, passes = 8_190_735_360, 256 / 8 / 2  # micro-batches of 2
    moved = list(scale["traffic"](small, 2).values())
    assert moved == pytest.approx([k * p * 7 / 8 * passes for k in (2, 4, 4)] + [4 * p * 7 / 8])
    shape, length = small.shape(), 300 + 2048
    matrices = 2 * (p - 151_936 * 4096) * length
    scores = 4 * 36 * 4096 * length**2 / 2  # two products, half of them in the past
    assert scale["pass_flops"](shape, 300, 2048) == matrices + scores


def test_texts_are_about_as_long_as_what_they_hold(scale: Any) -> None:
    one, many = scale["texts"](1), scale["texts"](16)
    words = {"siblings": 2048, "rollouts": 2048 + 300 + 2500, "TRL": 2048 + 300}
    for (name, size), tokens in zip(one.items(), words.values(), strict=True):
        assert 4 * tokens < size < 4 * tokens + 1000
        assert many[name] == 16 * size
