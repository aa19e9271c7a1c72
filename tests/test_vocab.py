"""Chunked log-probabilities equal the plain way, in values and gradients, and never hold it whole.

Tolerances: 1e-10 in float64; 1e-6 between chunk sizes and 1e-5 from the plain way in float32; in
half precision 1.2 times the error of the plain way in the same precision (measured: 1.0 in values
and other gradients, up to 1.13 in the weight's, whose parts are rounded once for each chunk).
"""

import math

import jaxtyping
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distil import vocab
from distil.vocab import (
    default_chunk,
    gather_logps,
    gather_logps_and_entropy,
    topk_and_gather_logps,
    topk_logps,
)
from distil.vocab import output_layer as layers
from distil.vocab.output_layer import output_layer

TOKENS, VOCAB, HIDDEN, SUPPORT = 11, 37, 6, 5

FORMS = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "scale": {"logit_scale": 0.0625},
    "softcap": {"softcap": 3.0},
    "all": {"temperature": 1.3, "logit_scale": 2.5, "softcap": 4.0},
}


def plain_logps(hidden, weight, bias=None, temperature=1.0, logit_scale=1.0, softcap=None):
    """The naive code that the module stands for: the whole [tokens, vocab]."""
    logits = torch.nn.functional.linear(hidden, weight, bias) * logit_scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return torch.log_softmax(logits.to(wide) / temperature, -1)


def inputs(dtype=torch.float64, *, tokens=TOKENS, vocab=VOCAB, hidden=HIDDEN, support=SUPPORT):
    make = torch.Generator().manual_seed(0)
    shapes = ((tokens, hidden), (vocab, hidden), (vocab,))
    leaves = [torch.randn(s, generator=make).to(dtype).requires_grad_() for s in shapes]
    return *leaves, torch.randint(vocab, (tokens, support), generator=make)


def grads(logps, leaves):
    """Gradients of a sum with unequal weights, so that no entry can hide behind another."""
    weights = torch.linspace(-1, 2, logps.numel(), dtype=logps.dtype).view(logps.shape)
    return torch.autograd.grad((logps * weights).sum(), leaves)


def assert_close(got, expected, tolerance):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("chunk", [None, 1, 4, 100])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_values_and_gradients_equal_log_softmax_then_gather(form, chunk):
    hidden, weight, bias, ids = inputs()
    expected = plain_logps(hidden, weight, bias, **form).gather(-1, ids)
    got = gather_logps(hidden, weight, ids, bias=bias, chunk=chunk, **form)
    assert_close(got, expected, 1e-10)
    leaves = (hidden, weight, bias)
    assert_close(grads(got, leaves), grads(expected, leaves), 1e-10)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_gradients_equal_finite_differences(form):
    hidden, weight, bias, ids = inputs(tokens=3, vocab=5, hidden=2, support=3)
    torch.autograd.gradcheck(
        lambda h, w, b: gather_logps(h, w, ids, bias=b, chunk=2, **form), (hidden, weight, bias)
    )


def test_an_id_that_comes_twice_gets_both_gradients():
    hidden, weight, _, _ = inputs()
    once = torch.full((TOKENS, 1), 3)
    twice = once.expand(-1, 2)
    (one,) = torch.autograd.grad(gather_logps(hidden, weight, once).sum(), hidden)
    (two,) = torch.autograd.grad(gather_logps(hidden, weight, twice).sum(), hidden)
    assert_close(two, 2 * one, 1e-10)


@pytest.mark.parametrize("chunk", [1, 3, 7, TOKENS + 5])
def test_the_chunk_size_changes_nothing(chunk):
    """Up to float32's rounding, which follows the largest terms of a sum and not what is left."""
    hidden, weight, bias, ids = inputs(torch.float32)
    leaves = (hidden, weight, bias)
    whole = gather_logps(hidden, weight, ids, bias=bias, chunk=TOKENS)
    parts = gather_logps(hidden, weight, ids, bias=bias, chunk=chunk)
    assert_close(parts, whole, 1e-6)
    for got, expected in zip(grads(parts, leaves), grads(whole, leaves), strict=True):
        assert (got - expected).abs().max() < 1e-6 * expected.abs().max()


def test_more_tokens_than_one_block_change_nothing():
    tokens = 2 * vocab.logits.CPU_BLOCK + 3
    hidden, weight, bias, ids = inputs(tokens=tokens)
    expected = plain_logps(hidden, weight, bias).gather(-1, ids)
    got = gather_logps(hidden, weight, ids, bias=bias, chunk=tokens)
    assert_close(got, expected, 1e-10)
    leaves = (hidden, weight, bias)
    assert_close(grads(got, leaves), grads(expected, leaves), 1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_errs_as_the_plain_way_does(dtype):
    *leaves, ids = inputs(dtype, tokens=64, vocab=301, hidden=48)
    wide = [x.detach().double().requires_grad_() for x in leaves]
    oracle = plain_logps(*wide).gather(-1, ids)
    plain = plain_logps(*leaves).gather(-1, ids)
    ours = gather_logps(*leaves[:2], ids, bias=leaves[2], chunk=16)
    assert ours.dtype == torch.float32
    for mine, theirs, truth in zip(
        (ours, *grads(ours, leaves)),
        (plain, *grads(plain, leaves)),
        (oracle, *grads(oracle, wide)),
        strict=True,
    ):
        assert (mine.double() - truth).norm() <= 1.2 * (theirs.double() - truth).norm()


def test_weight_gradients_are_not_computed_for_a_frozen_weight():
    hidden, weight, bias, ids = inputs()
    frozen, fixed = weight.detach(), bias.detach()
    with Recorder() as recorder:
        gather_logps(hidden, frozen, ids, bias=fixed, chunk=1).sum().backward()
    assert weight.shape not in recorder.shapes
    with pytest.raises(RuntimeError, match="does not require grad"):
        gather_logps(hidden.detach(), frozen, ids).sum().backward()


def test_autocast_chooses_the_dtype_of_the_product_as_in_a_linear_layer():
    leaves = inputs(torch.float32, tokens=64, vocab=301, hidden=48)
    (hidden, weight, bias), ids = leaves[:3], leaves[3]
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain_logps(hidden, weight, bias).gather(-1, ids)
        got = gather_logps(hidden, weight, ids, bias=bias)
        top, _ = topk_logps(hidden, weight, 1, bias=bias)
    assert torch.equal(got, expected)
    assert got.dtype == torch.float32
    assert torch.equal(top, plain_logps(*(x.bfloat16() for x in leaves[:3])).topk(1).values)
    assert {g.dtype for g in grads(got, (hidden, weight, bias))} == {torch.float32}


def test_a_backward_pass_under_autocast_keeps_the_dtype_of_the_forward_pass():
    hidden, weight, bias, ids = inputs(torch.float32)
    leaves = (hidden, weight, bias)
    expected = grads(gather_logps(hidden, weight, ids, bias=bias), leaves)
    logps = gather_logps(hidden, weight, ids, bias=bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(grads(logps, leaves), expected, 1e-6)


def test_hidden_states_are_cast_to_the_dtype_of_the_weight():
    hidden, weight, _, ids = inputs(torch.float32)
    narrow = hidden.detach().bfloat16().requires_grad_()
    logps = gather_logps(narrow, weight, ids)
    assert torch.equal(logps, gather_logps(narrow.float(), weight, ids))
    assert grads(logps, (narrow,))[0].dtype == torch.bfloat16


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_topk_equals_topk_of_the_whole_log_softmax(form):
    hidden, weight, bias, _ = inputs()
    expected = plain_logps(hidden, weight, bias, **form).topk(7)
    logps, ids = topk_logps(hidden, weight, 7, bias=bias, chunk=3, **form)
    assert_close(logps, expected.values, 1e-10)
    assert torch.equal(ids, expected.indices)
    assert not logps.requires_grad


def test_all_of_the_vocabulary_as_topk_sums_to_one():
    hidden, weight, _, _ = inputs(torch.float32)
    logps, _ = topk_logps(hidden, weight, VOCAB)
    assert_close(logps.exp().sum(-1), torch.ones(TOKENS), 1e-6)


def test_entropy_is_that_of_the_whole_row_and_has_no_gradient():
    hidden, weight, bias, ids = inputs()
    form = FORMS["all"]
    p = plain_logps(hidden, weight, bias, **form).exp()
    expected = -(p * p.log()).sum(-1)
    logps, entropy = gather_logps_and_entropy(hidden, weight, ids, bias=bias, chunk=4, **form)
    assert_close(entropy, expected, 1e-10)
    assert logps.requires_grad
    assert not entropy.requires_grad
    assert torch.equal(logps, gather_logps(hidden, weight, ids, bias=bias, chunk=4, **form))
    *top, at_ids, entropy = topk_and_gather_logps(
        hidden, weight, 2, ids, bias=bias, chunk=4, **form
    )
    assert_close(entropy, expected, 1e-10)
    assert_close(at_ids, logps.detach(), 1e-10)
    assert all(map(torch.equal, top, topk_logps(hidden, weight, 2, bias=bias, chunk=4, **form)))


def test_the_entropy_of_equal_logits_is_the_log_of_their_number():
    bias = torch.tensor([0.0, 0.0, 0.0, -math.inf])  # an id that can't be chosen adds 0 log 0 = 0
    hidden, weight = torch.zeros(1, 2), torch.zeros(4, 2)
    _, entropy = gather_logps_and_entropy(hidden, weight, torch.tensor([[0]]), bias=bias)
    assert_close(entropy, torch.tensor([math.log(3)]), 1e-6)


def test_no_tokens_give_no_rows_and_zero_gradients():
    hidden, weight, bias, ids = inputs(tokens=0)
    logps, entropy = gather_logps_and_entropy(hidden, weight, ids, bias=bias)
    assert logps.shape == (0, SUPPORT)
    assert entropy.shape == (0,)
    logps.sum().backward()
    assert hidden.grad.shape == (0, HIDDEN)
    assert not weight.grad.any()
    assert not bias.grad.any()
    assert [x.shape for x in topk_logps(hidden, weight, 3)] == [(0, 3), (0, 3)]


def test_an_empty_support_gives_zero_gradients():
    hidden, weight, _, ids = inputs(support=0)
    gather_logps(hidden, weight, ids).sum().backward()
    assert not hidden.grad.any()
    assert not weight.grad.any()


class Recorder(TorchDispatchMode):
    """The shape of every tensor that any operation returns, forward and backward."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.shapes |= {x.shape for x in tree_leaves(out) if isinstance(x, torch.Tensor)}
        return out

    @property
    def largest(self):
        return max(map(math.prod, self.shapes))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_is_larger_than_a_chunk_of_logits(dtype, form):
    tokens, size, width, support, chunk = 64, 512, 4, 3, 5
    hidden, weight, bias, ids = inputs(
        dtype, tokens=tokens, vocab=size, hidden=width, support=support
    )
    with Recorder() as recorder:
        topk_and_gather_logps(hidden, weight, support, ids, bias=bias, chunk=chunk, **form)
        options = {"bias": bias, "chunk": chunk, **form}
        gather_logps_and_entropy(hidden, weight, ids, **options)[0].sum().backward()
    bound = max(chunk * size, size * width, tokens * width, tokens * support)
    assert recorder.largest <= bound < tokens * size
    with Recorder() as recorder:
        plain_logps(hidden, weight, bias).gather(-1, ids).sum().backward()
    assert recorder.largest == tokens * size


def test_a_default_chunk_takes_the_promised_memory_or_the_promised_tokens():
    cpu, size = torch.device("cpu"), 1024
    rows = vocab.CHUNK_BYTES["cpu"] // (4 * size)
    assert default_chunk(size, torch.float32, cpu) == rows
    assert default_chunk(size, torch.bfloat16, cpu) == 2 * rows
    assert default_chunk(2**40, torch.float32, cpu) == vocab.CHUNK_TOKENS


H, W, B = torch.zeros(4, 3), torch.zeros(7, 3), torch.zeros(7)
IDS = torch.zeros(4, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": torch.zeros(7, 2)}, r"hidden \[4, 3\], weight \[7, 2\]"),
        ({"hidden": torch.zeros(1, 4, 3)}, "flatten batch and sequence"),
        ({"bias": torch.zeros(6)}, r"bias \[6\]"),
        ({"ids": IDS[:3]}, "each of the 4 rows"),
        ({"ids": IDS.int()}, "int32"),
        ({"ids": IDS + 7}, "from 7 to 7, but weight has rows 0 to 6"),
        ({"ids": IDS - 1}, "from -1 to -1"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"softcap": 0.0}, "softcap is 0.0"),
        ({"chunk": 0}, "chunk is 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, without_shape_checks):
    with pytest.raises(ValueError, match=message):
        gather_logps(**({"hidden": H, "weight": W, "ids": IDS, "bias": B} | arguments))


@pytest.mark.parametrize("k", [0, 8])
def test_k_must_be_a_number_of_entries(k):
    with pytest.raises(ValueError, match=f"k is {k}, but a row has 7 entries"):
        topk_logps(H, W, k)


@pytest.fixture
def without_shape_checks():
    """The errors that a user sees, who runs without jaxtyping's checks."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


SMALL = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 1.0,
}

MODELS = {
    "llama, tied": (transformers.LlamaConfig, {"tie_word_embeddings": True}, (1.0, None)),
    "llama, untied": (transformers.LlamaConfig, {"tie_word_embeddings": False}, (1.0, None)),
    "gemma2": (transformers.Gemma2Config, {"final_logit_softcapping": 5.0}, (1.0, 5.0)),
    "cohere": (transformers.CohereConfig, {"logit_scale": 0.25}, (0.25, None)),
    "granite": (transformers.GraniteConfig, {"logits_scaling": 8.0}, (0.125, None)),
}


@pytest.mark.parametrize(("kind", "options", "form"), MODELS.values(), ids=MODELS)
def test_the_output_layer_gives_the_logits_of_the_model(kind, options, form):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(kind(**SMALL, **options)).eval()
    tokens = torch.randint(3, 97, (2, 9))
    layer = output_layer(model)
    assert (layer.logit_scale, layer.softcap) == form
    hidden = model.base_model(tokens).last_hidden_state.flatten(0, 1)
    every_id = torch.arange(97).expand(len(hidden), -1)
    logps = gather_logps(
        hidden,
        layer.weight,
        every_id,
        bias=layer.bias,
        logit_scale=layer.logit_scale,
        softcap=layer.softcap,
    )
    assert_close(logps, torch.log_softmax(model(tokens).logits, -1).flatten(0, 1), 1e-5)
    logps[:, 5].sum().backward()
    assert model.get_output_embeddings().weight.grad.any()


@pytest.mark.parametrize(
    ("kind", "settings", "form"),
    [
        ("hyperclovax", {"logits_scaling": 0.5}, (0.5, None)),
        ("minicpm3", {"logits_scaling": 2.0}, (0.5, None)),
        ("falcon_h1", {"lm_head_multiplier": 0.1}, (0.1, None)),
        ("mpt", {"logit_scale": "inv_sqrt_d_model"}, (1.0, None)),
        ("recurrent_gemma", {"logits_soft_cap": 30}, (1.0, 30.0)),
        ("muse_glimmer", {"output_multiplier": 0.2, "final_logit_softcapping": 20}, (0.2, 20.0)),
        ("cohere_compass", {"logit_scale": None}, (1.0, None)),
    ],
)
def test_a_config_field_means_what_its_model_does_with_it(kind, settings, form):
    assert layers._scale_and_softcap(kind, settings) == form


def test_an_output_layer_that_is_no_plain_matrix_is_refused():
    class Wrapped(torch.nn.Module):
        def get_output_embeddings(self):
            return torch.nn.Sequential(torch.nn.Linear(2, 3))

    with pytest.raises(ValueError, match="Wrapped is Sequential"):
        output_layer(Wrapped())


def test_a_weight_spread_over_devices_is_gathered_with_its_gradient():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        whole = torch.randn(VOCAB, HIDDEN)
        spread = torch.nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)]))
        hidden, _, _, ids = inputs(torch.float32)
        got = layers._whole(spread)
        assert torch.equal(got, whole)
        assert not isinstance(got, DTensor)
        gather_logps(hidden, got, ids).sum().backward()
        assert isinstance(spread.grad, DTensor)
    finally:
        torch.distributed.destroy_process_group()
