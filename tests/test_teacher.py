"""Teachers: what moves, in which direction, in which precision, and what is restored."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from torch import nn

from conftest import make_model
from distil.errors import RunError, TrainingError
from distil.teacher.teachers import LiveTeacher, LoraOffTeacher, ShadowTeacher, make_teacher


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def nudge(model: nn.Module, amount: float) -> None:
    """A stand-in for an optimiser step."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += amount


def lora_model() -> nn.Module:
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "v_proj"])
    return get_peft_model(make_model(), config)


IDS = torch.tensor([[1, 5, 9, 14]])


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_live_teacher_is_the_student() -> None:
    model = make_model()
    teacher = make_teacher("live", model, 0.1)
    assert isinstance(teacher, LiveTeacher)
    nudge(model, 0.1)
    now = logits(model)
    with teacher.scoring(model):
        assert torch.equal(logits(model), now)


def test_frozen_teacher_stays_the_start_model_and_the_student_comes_back() -> None:
    model = make_model()
    start = logits(model)
    teacher = make_teacher("frozen", model, 0.1)
    for _ in range(3):
        nudge(model, 0.05)
        teacher.after_step(model)
    student, before = logits(model), weights(model)
    with teacher.scoring(model):
        assert torch.equal(logits(model), start)
    assert torch.equal(logits(model), student)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_ema_moves_by_its_rate_towards_the_student() -> None:
    model = make_model()
    start = weights(model)
    teacher = ShadowTeacher(model, 0.25)
    nudge(model, 1.0)
    teacher.after_step(model)  # start + 0.25
    nudge(model, 1.0)
    teacher.after_step(model)  # 0.75 * 0.25 + 0.25 * 2 = 0.6875
    with teacher.scoring(model):
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.data, start[name] + 0.6875, rtol=0, atol=1e-6)


def test_ema_shadow_moves_where_bfloat16_would_not() -> None:
    model = make_model().to(torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    teacher = ShadowTeacher(model, 0.001)
    nudge(model, 0.5)
    for _ in range(100):
        teacher.after_step(model)
    expected = 1.5 - 0.5 * 0.999**100
    shadow = next(iter(teacher._shadow.values()))
    assert shadow.dtype == torch.float32
    assert shadow.flatten()[0].item() == pytest.approx(expected, abs=1e-4)
    one_step = torch.tensor(1.0, dtype=torch.bfloat16).lerp(torch.tensor(1.5).bfloat16(), 0.001)
    assert one_step == 1.0  # what an average kept in bfloat16 would do: nothing


@pytest.mark.parametrize("kind", ["frozen", "ema", "lora_off"])
def test_the_student_comes_back_after_an_exception(kind: str) -> None:
    model = lora_model() if kind == "lora_off" else make_model()
    teacher = make_teacher(kind, model, 0.5)
    nudge(model, 0.1)
    student = logits(model)

    def failing_pass() -> None:
        with teacher.scoring(model):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failing_pass()
    assert torch.equal(logits(model), student)


def test_lora_off_and_frozen_are_the_base_model_under_an_adapter() -> None:
    model = lora_model()
    start = logits(model)
    teachers = [make_teacher(kind, model, 0.1) for kind in ("lora_off", "frozen")]
    nudge(model, 0.1)
    assert not torch.allclose(logits(model), start)
    for teacher in teachers:
        assert isinstance(teacher, LoraOffTeacher)  # a fresh adapter: nothing to copy
        with teacher.scoring(model):
            assert torch.equal(logits(model), start)


def test_frozen_teacher_of_a_trained_adapter_keeps_that_adapter() -> None:
    model = lora_model()
    nudge(model, 0.1)
    start = logits(model)
    teacher = make_teacher("frozen", model, 0.1)
    nudge(model, 0.1)
    with teacher.scoring(model):
        torch.testing.assert_close(logits(model), start, rtol=0, atol=1e-5)


def test_ema_under_lora_averages_the_product_and_not_the_factors() -> None:
    model = lora_model()
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    base = layer.base_layer.weight.detach().clone()
    teacher = ShadowTeacher(model, 0.5)
    nudge(model, 0.2)
    product = layer.get_delta_weight("default").detach()
    teacher.after_step(model)
    with teacher.scoring(model):
        torch.testing.assert_close(layer.base_layer.weight.data, base + 0.5 * product)
        assert layer.disable_adapters
    assert not layer.disable_adapters
    assert torch.equal(layer.base_layer.weight, base)


def test_ema_is_saved_and_read_back(tmp_path: Path) -> None:
    model = make_model()
    teacher = ShadowTeacher(model, 0.3)
    nudge(model, 0.1)
    teacher.after_step(model)
    teacher.save(tmp_path)
    other = ShadowTeacher(make_model(), 0.3)
    other.load(tmp_path)
    assert all(torch.equal(v, other._shadow[k]) for k, v in teacher._shadow.items())


@pytest.mark.parametrize("lora", [False, True])
def test_a_shadow_in_the_computers_memory_is_the_same_teacher(tmp_path: Path, lora: bool) -> None:
    """On a CPU both lie there: what differs is that nothing may be shared with the model."""
    models = [lora_model() if lora else make_model() for _ in range(2)]
    teachers = [
        make_teacher("ema", model, 0.3, device=device)
        for model, device in zip(models, ("same", "cpu"), strict=True)
    ]
    for model, teacher in zip(models, teachers, strict=True):
        nudge(model, 0.1)
        teacher.after_step(model)
    with teachers[0].scoring(models[0]), teachers[1].scoring(models[1]):
        assert torch.equal(logits(models[0]), logits(models[1]))
    teachers[1].save(tmp_path)
    resumed = ShadowTeacher(models[0], 0.3, device="cpu")
    resumed.load(tmp_path)
    assert all(torch.equal(v, resumed._shadow[k]) for k, v in teachers[1]._shadow.items())


@pytest.mark.parametrize("kind", ["frozen", "ema"])
def test_a_shadow_in_the_computers_memory_leaves_the_device(kind: str) -> None:
    """The meta device stands in for an accelerator: what is put there has no numbers."""
    with torch.device("meta"):
        model = nn.Linear(2, 3)
    teacher = make_teacher(kind, model, 0.3)
    assert {v.device.type for v in teacher._shadow.values()} == {"meta"}
    model = nn.Linear(2, 3)
    teacher = make_teacher(kind, model, 0.3, device="cpu")
    shadow = {k: v.clone() for k, v in teacher._shadow.items()}
    model.to("meta")
    with teacher.scoring(model):
        assert {p.device.type for p in model.parameters()} == {"meta"}
    assert all(torch.equal(v, teacher._shadow[k]) for k, v in shadow.items())


def test_a_sharded_shadow_in_the_computers_memory_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"shadow_device is cpu, and this model is"):
        make_teacher("ema", make_model(), 0.3, later=True, device="cpu")


def test_a_checkpoint_without_this_ema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no teacher"):
        ShadowTeacher(make_model(), 0.3).load(tmp_path)
    ShadowTeacher(nn.Linear(2, 3), 0.3).save(tmp_path)
    with pytest.raises(RunError, match="another model"):
        ShadowTeacher(make_model(), 0.3).load(tmp_path)


def test_impossible_teachers_are_refused() -> None:
    model = make_model()
    with pytest.raises(TrainingError, match="no adapter"), LoraOffTeacher().scoring(model):
        pass
    with pytest.raises(ValueError, match="rate"):
        ShadowTeacher(model, 1.5)
    with pytest.raises(ValueError, match="Unknown teacher"):
        make_teacher("emma", model, 0.1)


# PEFT's own warnings, of biases that a layer hasn't and of tied embeddings.
UNUSUAL = pytest.mark.filterwarnings("ignore::UserWarning:peft")


@UNUSUAL
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["norm"]}, "modules_to_save"),
        ({"lora_bias": True}, "lora_bias"),
        ({"target_modules": ["embed_tokens", "q_proj"]}, "embedding"),
    ],
)
def test_adapters_that_do_more_than_add_a_product_have_no_copied_teacher(
    options: dict[str, Any], message: str
) -> None:
    config = LoraConfig(r=2, **({"target_modules": ["q_proj", "v_proj"]} | options))
    model = get_peft_model(make_model(), config)
    with pytest.raises(TrainingError, match=message):
        make_teacher("ema", model, 0.1)
    assert isinstance(make_teacher("live", model, 0.1), LiveTeacher)


def test_an_adapter_of_another_kind_has_no_copied_teacher() -> None:
    config = IA3Config(target_modules=["q_proj", "down_proj"], feedforward_modules=["down_proj"])
    with pytest.raises(TrainingError, match="IA3"):
        make_teacher("ema", get_peft_model(make_model(), config), 0.1)


@UNUSUAL
def test_a_trained_adapter_of_an_embedding_is_not_taken_for_a_fresh_one() -> None:
    model = get_peft_model(make_model(), LoraConfig(r=2, target_modules=["embed_tokens"]))
    assert isinstance(make_teacher("frozen", model, 0.1), LoraOffTeacher)
    nudge(model, 0.1)
    with pytest.raises(TrainingError, match="embedding"):
        make_teacher("frozen", model, 0.1)


def test_autocasts_copies_of_weights_are_not_taken_for_the_teachers() -> None:
    """Nor the teacher's for the student's afterwards, all in one context."""
    model: Any = make_model()
    teacher = ShadowTeacher(model, 0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    ids = torch.tensor([[5, 6, 7]])

    def logits() -> torch.Tensor:
        return model(input_ids=ids).logits

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        student = logits()
        with teacher.scoring(model):
            scored = logits()
        assert torch.equal(logits(), student)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), teacher.scoring(model):
        assert torch.equal(logits(), scored)
    assert not torch.equal(scored, student)
