"""Hidden states and the output layer: the same numbers as the model's own logits."""

import jaxtyping
import pytest
import torch
from torch import nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaForCausalLM,
)

from conftest import make_model
from distil.errors import ModelError
from distil.vocab.hidden import check_output_layer, completion_hidden

TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "llama": make_model(),
        "llama, untied": make_model(tied=False),
        "gemma2 (softcap)": Gemma2ForCausalLM(Gemma2Config(**TINY, final_logit_softcapping=5.0)),
        "cohere (scale)": CohereForCausalLM(CohereConfig(**TINY, logit_scale=0.3)),
        "granite (divisor)": GraniteForCausalLM(GraniteConfig(**TINY, logits_scaling=3.0)),
    }


@pytest.mark.parametrize("name", models())
def test_output_layers_are_understood(name: str) -> None:
    model = models()[name].train()
    check_output_layer(model)
    assert model.training


class Tempered(LlamaForCausalLM):
    """Does something to its logits that no config field tells."""

    def forward(self, *args: object, **kwargs: object) -> object:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 2
        return output


def test_an_unknown_transformation_of_logits_is_refused() -> None:
    with pytest.raises(ModelError, match="isn't understood"):
        check_output_layer(Tempered(make_model().config))


def test_annotated_shapes_are_checked_while_testing() -> None:
    model = make_model().eval()
    ids = torch.tensor([[5, 9, 14]])
    with pytest.raises(jaxtyping.TypeCheckError):
        completion_hidden(model, model, ids, torch.ones(1, 2, dtype=torch.long), 1)


def test_left_padding_shifts_no_position() -> None:
    model = make_model().eval()
    ids = torch.tensor([[5, 9, 14, 20, 7]])
    plain = completion_hidden(model, model, ids, torch.ones_like(ids), 2)
    padded_ids = torch.nn.functional.pad(ids, (4, 0), value=2)
    mask = torch.nn.functional.pad(torch.ones_like(ids), (4, 0))
    padded = completion_hidden(model, model, padded_ids, mask, 2)
    torch.testing.assert_close(padded, plain, rtol=0, atol=1e-6)


def test_hidden_states_predict_the_completion_tokens() -> None:
    model = make_model().eval()
    ids = torch.tensor([[5, 9, 14, 20, 7]])
    hidden = completion_hidden(model, model, ids, torch.ones_like(ids), 2)
    logits = model(input_ids=ids).logits
    torch.testing.assert_close(hidden @ model.lm_head.weight.T, logits[:, 2:4], rtol=0, atol=1e-5)
