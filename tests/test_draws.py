"""Draws by one uniform number: the token that the exact distribution's inverse names."""

import pytest
import torch
from transformers import GenerationConfig

from distil.errors import TrainingError
from distil.trainer.draws import CELL, DrawProcessor, by_one_number

CPU = torch.device("cpu")


def drawn(scores: torch.Tensor, temperature: float = 1.0) -> list[int]:
    left = DrawProcessor(temperature)(torch.zeros(len(scores), 1), scores.clone())
    assert ((left == 0).sum(-1) == 1).all()
    assert (left == -torch.inf).sum() == left.numel() - len(left)
    return left.argmax(-1).tolist()


@pytest.mark.parametrize("vocab", [7, CELL, 5 * CELL + 31])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_token_is_the_exact_inverse_of_the_number(
    vocab: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    scores = 3 * torch.randn(500, vocab)
    scores[:, 3] = -torch.inf
    numbers = torch.rand(500, 1, dtype=torch.float64)
    numbers[:2] = torch.tensor([[0.0], [1 - 2**-53]])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: numbers)
    up_to = (scores.double() / temperature).softmax(-1).cumsum(-1)
    found = torch.tensor(drawn(scores, temperature))
    exact = torch.searchsorted(up_to, numbers, right=True)[:, 0]
    # Sums of float32 may put a number beside a border on its other side.
    near = (up_to - numbers).abs().amin(-1) < 1e-6
    assert torch.equal(found[~near], exact[~near])
    assert near.sum() < 10
    assert not (found == 3).any()
    assert ((found >= 0) & (found < vocab)).all()


def test_frequencies_are_the_distributions() -> None:
    """Chi-square, 20,000 draws from 40 tokens at a temperature, at the 1e-4 level or so."""
    torch.manual_seed(1)
    scores = torch.randn(40)
    expected = 20_000 * (scores / 0.7).softmax(-1)
    counts = torch.bincount(torch.tensor(drawn(scores.expand(20_000, -1), 0.7)), minlength=40)
    chi = float(((counts - expected) ** 2 / expected).sum())
    assert chi < 39 + 4 * (2 * 39) ** 0.5 + 8


def test_a_likelihood_of_one_leaves_nothing_to_chance() -> None:
    scores = torch.full((64, 3 * CELL), -torch.inf)
    scores[:, 700] = -3e38
    assert drawn(scores) == [700] * 64


def test_weights_that_have_diverged_are_named() -> None:
    scores = torch.zeros(2, 9)
    scores[1, 4] = torch.nan
    with pytest.raises(TrainingError, match="weights have diverged"):
        drawn(scores)


def test_only_a_whole_distribution_on_a_cpu_is_drawn_here() -> None:
    whole = GenerationConfig(do_sample=True, temperature=0.7, top_k=0, top_p=1.0)
    own = by_one_number(whole, CPU)
    assert not own["generation_config"].do_sample
    assert whole.do_sample
    for other, device in (
        (GenerationConfig(do_sample=True, top_k=5), CPU),
        (GenerationConfig(do_sample=True, top_k=0, top_p=0.9), CPU),
        (GenerationConfig(do_sample=True, top_k=0, min_p=0.1), CPU),
        (GenerationConfig(do_sample=False), CPU),
        (whole, torch.device("cuda")),
    ):
        assert by_one_number(other, device) == {"generation_config": other}
