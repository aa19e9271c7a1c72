"""Rows of logits are read and overwritten as naive code in float64 would, by either way.

Everything here runs twice: as it stands, with plain PyTorch, and once more in a process of its own
under Triton's interpreter, which must be switched on before triton is imported. Where there is a
GPU, a third process runs it compiled there. Bounds are in terms of the plain way's own error at the
same dtype.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import distil
from distil.objectives import append_tail, distil_token_loss, forward_cross_entropy, masked_mean
from distil.vocab import fused_distil_loss, gather_logps, rows, topk_and_gather_logps
from distil.vocab.logits import LogitForm

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = os.environ.get("DISTIL_KERNELS_DEVICE", "cpu")
KERNELS = INTERPRETED or DEVICE != "cpu"
if DEVICE != "cpu":
    torch.set_default_device(DEVICE)
WIDTHS = [1, 63, 64, 65, 201, 4096, 4161]
FORMS = {
    "plain": LogitForm.of(1.0, 1.0, None, None),
    "all": LogitForm.of(1.3, 2.5, 4.0, None),
}
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]

ROUNDING = {torch.bfloat16: 3.0 if INTERPRETED else 1.05, torch.float64: 4.0}
"""Error over the plain way's where x is overwritten, 1.05 if not here. The interpreter cuts what
bfloat16 has no room for instead of rounding, which errs by twice as much and in one direction; no
device does."""


def chunk(width, dtype=torch.float64, *, count=3, support=7, seed=0):
    """x, ids with one of them twice in a row, gradients that arrive at them."""
    make = torch.Generator(DEVICE).manual_seed(seed)
    x = torch.randn(count, width, generator=make, dtype=torch.float64).mul_(3).to(dtype)
    ids = torch.randint(width, (count, support), generator=make)
    ids[:, 1] = ids[:, 0]
    grad = torch.randn(count, support, generator=make, dtype=torch.float64)
    return x, ids, grad.to(torch.promote_types(dtype, torch.float32))


def naive(x, ids, grad, form, dtype):
    """(lse, logps, entropy, gradient in x), by way of autograd."""
    x = x.to(dtype, copy=True).requires_grad_()
    y = x if form.cap is None else form.cap * torch.tanh(x)
    every = y.log_softmax(-1)
    logps = every.gather(-1, ids)
    (dx,) = torch.autograd.grad((logps * grad.to(dtype)).sum(), x)
    entropy = -(every.exp() * every.clamp(min=torch.finfo(dtype).min)).sum(-1)
    lse = (y.amax(-1) - every.amax(-1)).detach()
    return lse, logps.detach(), entropy.detach(), dx


def ours(x, ids, grad, form):
    before = x.clone()
    stats = rows.row_stats(x, ids, form, with_entropy=True)
    assert torch.equal(x, before)
    overwritten = rows.signed_target_(before, stats[0], ids, grad, form)
    assert overwritten is before
    return *stats, overwritten


def assert_as_exact_as_plain(got, x, ids, grad, form):
    """In the norm, to within the factor of ROUNDING; 1.5 where nothing is rounded to x's dtype.

    Some units in the last place of float32 (or float64) are granted where the plain way has less.
    """
    wide = got[0].dtype
    truth = naive(x, ids, grad, form, torch.float64)
    plain = naive(x, ids, grad, form, wide)
    plain = (*plain[:3], plain[3].to(x.dtype))
    factors = (1.5, 1.5, 1.5, ROUNDING.get(x.dtype, 1.05))
    for mine, theirs, true, factor in zip(got, plain, truth, factors, strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.isfinite().all()
        granted = 4 * torch.finfo(wide).eps * (true.norm() + math.sqrt(true.numel()))
        error = (theirs.double() - true).norm()
        assert (mine.double() - true).norm() <= factor * error + granted


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [65, 4161])
def test_rows_are_as_exact_as_the_plain_way(width, dtype, form):
    x, ids, grad = chunk(width, dtype)
    assert_as_exact_as_plain(ours(x, ids, grad, form), x, ids, grad, form)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_gives_the_same_as_naive_code(width):
    x, ids, grad = chunk(width)
    form = FORMS["all"]
    expected = naive(x, ids, grad, form, torch.float64)
    torch.testing.assert_close(ours(x, ids, grad, form), expected, rtol=1e-10, atol=1e-10)
    *same, entropy = rows.row_stats(x, ids, form, with_entropy=False)
    torch.testing.assert_close(same, list(expected[:2]), rtol=1e-10, atol=1e-10)
    assert entropy is None


@pytest.mark.parametrize(("width", "dtype"), [(151936, torch.bfloat16), (262147, torch.float32)])
def test_wide_rows_are_as_exact_as_the_plain_way(width, dtype):
    x, ids, grad = chunk(width, dtype, count=1, support=101)
    form = FORMS["all"]
    assert_as_exact_as_plain(ours(x, ids, grad, form), x, ids, grad, form)
    values, top, _, _ = rows.top_k(x, 20, form, with_entropy=False)
    assert torch.equal(x.gather(-1, top), x.topk(20).values)
    assert torch.equal(values, rows.row_stats(x, top, form, with_entropy=False)[1])


def test_a_row_in_one_section_gives_the_same_as_in_many(monkeypatch):
    if not KERNELS:
        monkeypatch.setattr(rows, "BLOCK_BYTES", 1)  # one row at a time
        got = ours(*chunk(9001), FORMS["all"])
    else:
        from distil.vocab import launches

        monkeypatch.setattr(launches, "PROGRAMS", 1)
        got = ours(*chunk(9001), FORMS["all"])
    monkeypatch.undo()
    torch.testing.assert_close(got, ours(*chunk(9001), FORMS["all"]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("width", "k"),
    [(1, 1), (37, 37), (640, 9), (641, 9), (700, 9), (700, 10), (700, 700), (130, 1)],
)
def test_the_top_k_of_groups_is_the_top_k(width, k):
    x, ids, grad = chunk(width)
    form = FORMS["all"]
    _, logps, entropy, _ = naive(x, ids, grad, form, torch.float64)
    values, top, at_ids, entropies = rows.top_k(x, k, form, ids, with_entropy=True)
    assert torch.equal(top, x.topk(k).indices)
    every = torch.arange(width).expand(3, -1)
    expected = naive(x, every, torch.ones(3, width), form, torch.float64)[1].topk(k).values
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close((at_ids, entropies), (logps, entropy), rtol=1e-10, atol=1e-10)


def test_equal_logits_give_different_ids():
    _, top, _, _ = rows.top_k(torch.zeros(2, 1000), 9, FORMS["plain"], with_entropy=False)
    assert [len(set(row)) for row in top.tolist()] == [9, 9]
    assert top.min() >= 0
    assert top.max() < 1000


def test_no_ids_no_rows_and_no_k_give_nothing():
    form = FORMS["plain"]
    x, ids, grad = chunk(65)
    lse, logps, _ = rows.row_stats(x, ids[:, :0], form, with_entropy=False)
    assert logps.shape == (3, 0)
    assert not rows.signed_target_(x.clone(), lse, ids[:, :0], grad[:, :0], form).any()
    assert [len(t) for t in rows.row_stats(x[:0], ids[:0], form, with_entropy=True)] == [0, 0, 0]
    assert rows.signed_target_(x[:0], lse[:0], ids[:0], grad[:0], form).shape == (0, 65)
    assert rows.top_k(x[:0], 0, form, with_entropy=False)[0].shape == (0, 0)
    assert rows.top_k(x, 0, form, ids, with_entropy=False)[0].shape == (3, 0)


def test_an_id_that_cannot_be_chosen_has_no_weight_and_no_gradient():
    x, ids, grad = chunk(4161, torch.float32)
    x[:, 5::2] = -math.inf
    ids[:, :3] = torch.tensor([0, 0, 2])
    form = FORMS["plain"]
    lse, logps, entropy, dx = ours(x, ids[:, :3], grad[:, :3], form)
    kept = (x > -math.inf)[0].nonzero().squeeze(-1)
    expected = naive(x[:, kept], torch.tensor([[0, 0, 2]] * 3), grad[:, :3], form, torch.float32)
    assert not dx[:, 5::2].any()
    got = (lse, logps, entropy, dx[:, kept])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert rows.row_stats(x, torch.full((3, 1), 7), form, with_entropy=False)[1].max() == -math.inf


def test_a_logit_that_is_no_number_is_not_lost():
    for form in FORMS.values():
        x, ids, _ = chunk(4161, torch.float32)
        x[1, 4160] = math.nan
        lse, logps, entropy = rows.row_stats(x, ids, form, with_entropy=True)
        assert lse.isnan().tolist() == [False, True, False]
        assert entropy.isnan().tolist() == [False, True, False]
        assert logps[1].isnan().all()


def test_more_ids_than_a_kernel_compares_add_up_the_same():
    x, ids, grad = chunk(65, support=rows.MOST_IDS + 1)
    form = FORMS["all"]
    expected = naive(x, ids, grad, form, torch.float64)
    torch.testing.assert_close(ours(x, ids, grad, form), expected, rtol=1e-10, atol=1e-10)


def test_rows_may_lie_further_apart_than_32_bits_count():
    """Only the pages that are touched of these 4 GiB are ever there."""
    whole = torch.empty(2**31 + 70, dtype=torch.bfloat16)
    x, (small, ids, grad) = (
        whole.as_strided((2, 65), (2**31, 1)),
        chunk(65, torch.bfloat16, count=2),
    )
    x.copy_(small)
    form = FORMS["plain"]
    lse, logps, _ = rows.row_stats(x, ids, form, with_entropy=False)
    assert torch.equal(logps, rows.row_stats(small, ids, form, with_entropy=False)[1])
    rows.signed_target_(x, lse, ids, grad, form)
    assert torch.equal(x, rows.signed_target_(small, lse, ids, grad, form))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_layer_is_as_exact_as_full_logits(dtype):
    """Values, top-K and gradients from hidden states, in 4 chunks, with bias, scale and softcap."""
    make = torch.Generator(DEVICE).manual_seed(0)
    leaves = [
        torch.randn(shape, generator=make).to(dtype).requires_grad_()
        for shape in ((16, 24), (301, 24), (301,))
    ]
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    ids = torch.randint(301, (16, 5), generator=make)
    options = {"temperature": 1.3, "logit_scale": 0.5, "softcap": 6.0}

    def plain(hidden, weight, bias):
        y = torch.nn.functional.linear(hidden, weight, bias) * 0.5
        y = (6 * torch.tanh(y / 6)).to(torch.promote_types(dtype, hidden.dtype))
        y = y.float() if y.dtype != torch.float64 else y
        return torch.log_softmax(y / 1.3, -1).gather(-1, ids)

    def with_grads(logps, leaves):
        weights = torch.linspace(-1, 2, logps.numel(), dtype=logps.dtype).view(logps.shape)
        return logps.detach(), *torch.autograd.grad((logps * weights).sum(), leaves)

    hidden, weight, bias = leaves
    got = with_grads(gather_logps(hidden, weight, ids, bias=bias, chunk=4, **options), leaves)
    theirs = with_grads(plain(*leaves), leaves)
    truth = with_grads(plain(*wide), wide)
    for mine, other, true in zip(got, theirs, truth, strict=True):
        assert (mine.double() - true).norm() <= 1.3 * (other.double() - true).norm()
    *_, at_ids, _ = topk_and_gather_logps(hidden, weight, 3, ids, bias=bias, chunk=4, **options)
    torch.testing.assert_close(at_ids, got[0], rtol=1e-6, atol=1e-6)


def test_one_pass_loss_equals_the_composition():
    make = torch.Generator(DEVICE).manual_seed(0)
    hidden, weight = (
        torch.randn(s, generator=make, dtype=torch.float64).requires_grad_()
        for s in ((2, 6, 4), (97, 4))
    )
    support = torch.stack([torch.randperm(97, generator=make)[:5] for _ in range(12)]).view(2, 6, 5)
    teacher = torch.randn(2, 6, 97, generator=make, dtype=torch.float64).log_softmax(-1)
    teacher, sampled = teacher.gather(-1, support), torch.randint(97, (2, 6), generator=make)
    mask = torch.ones(2, 6, dtype=torch.float64)
    got = fused_distil_loss(
        hidden, weight, support, teacher, sampled, mask, group_size=2, softcap=5.0, chunk=4
    )
    every = (5 * torch.tanh(hidden @ weight.T / 5)).log_softmax(-1)
    costs = forward_cross_entropy(append_tail(every.gather(-1, support)), append_tail(teacher))
    logps = every.gather(-1, sampled[..., None]).squeeze(-1)
    expected = masked_mean(distil_token_loss(costs, logps, mask, group_size=2), mask)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    leaves = (hidden, weight)
    mine, theirs = (torch.autograd.grad(loss, leaves) for loss in (got, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_the_way_is_the_one_this_process_asked_for():
    assert rows.uses_triton(torch.zeros(1)) == KERNELS


def run_again(**variables):
    """All of this file in a process of its own."""
    environment = {
        **os.environ,
        **variables,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(distil.__file__).parent.parent),
    }
    command = [
        sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", __file__,
        "-W", "ignore:Conversion of an array:DeprecationWarning",  # Triton 3.6's interpreter's
    ]  # fmt: skip
    return subprocess.run(
        command, env=environment, cwd=Path(__file__).parent.parent, capture_output=True, text=True
    )


@pytest.mark.skipif(KERNELS, reason="it starts the process that this is")
def test_all_of_this_holds_for_the_kernels_under_the_interpreter():
    run = run_again(TRITON_INTERPRET="1")
    if "only 0-dimensional arrays can be converted to Python scalars" in run.stdout:
        pytest.skip("this Triton's interpreter doesn't know this NumPy: 3.6 needs one below 2.4")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.skipif(KERNELS, reason="it starts the process that this is")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_all_of_this_holds_for_the_kernels_on_a_gpu():
    run = run_again(DISTIL_KERNELS_DEVICE="cuda")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.skipif(KERNELS, reason="triton is there")
def test_without_triton_plain_pytorch_is_used_and_the_reason_given(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(rows, "kernels_start", rows.kernels_start.__wrapped__)
    with pytest.warns(UserWarning, match="triton is not installed"):
        assert not rows.uses_triton(torch.zeros(1))


@pytest.mark.skipif(KERNELS, reason="kernels can be started")
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler."),
        subprocess.CalledProcessError(1, ["gcc", "main.c"]),
        OSError("no such driver"),
    ],
)
def test_where_kernels_cannot_be_started_plain_pytorch_is_used_and_the_reason_given(
    monkeypatch, error
):
    def fail(kind):
        assert kind == "cuda"
        raise error

    monkeypatch.setattr(rows, "_try_kernels", fail)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.warns(UserWarning, match=r"can't start kernels \(.*(compiler|gcc|driver)"):
        assert not rows.kernels_start.__wrapped__("cuda")
    monkeypatch.setattr(rows, "_try_kernels", lambda kind: None)
    assert rows.kernels_start.__wrapped__("cuda")


@pytest.mark.skipif(not KERNELS, reason="no kernel can be started")
def test_one_is_tried_first():
    rows._try_kernels(DEVICE)
