"""What a run trusts: no pickles, no model's own code, no address but those given; secrets stay."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_model, make_tokenizer, toy_recipe, train
from distil.errors import ModelError
from distil.models import load_model
from trainertoys import make_trainer

SECRET = "sk-planted-0123456789abcdef"
SECRETS = {
    name: f"{SECRET}-{name}"
    for name in ("HF_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "MY_JUDGE_KEY", "AWS_SECRET_KEY")
}


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """The toy model with its weights in pytorch_model.bin only."""
    folder = tmp_path / "pickled"
    model = make_model()
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def test_pickled_weights_are_refused_and_read_when_told_so(pickled: Path) -> None:
    with pytest.raises(ModelError, match=r"pytorch_model\.bin, a pickle.*model\.allow_pickle"):
        load_model(str(pickled))
    model, _ = load_model(str(pickled), allow_pickle=True)
    for own, theirs in zip(model.parameters(), make_model().parameters(), strict=True):
        torch.testing.assert_close(own, theirs)


def test_a_run_refuses_pickles_before_it_makes_a_folder(
    tmp_path: Path, pickled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = toy_recipe(tmp_path, model={"name": str(pickled)}, train={"micro_batch": 2})
    assert train(recipe, tmp_path / "run") == 2
    assert "model.allow_pickle" in capsys.readouterr().err
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_pickle_beside_safetensors_is_not_touched(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    torch.save(Bomb(tmp_path / "boom"), folder / "pytorch_model.bin")
    load_model(str(folder))
    assert not (tmp_path / "boom").exists()


def test_a_models_own_code_is_not_run_and_nobody_is_asked(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "of-their-own"
    config["auto_map"] = {
        "AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'boom')!r})\n")
    with pytest.raises(ModelError, match="trust_remote_code"):
        load_model(str(folder))
    assert not (tmp_path / "boom").exists()


def test_no_planted_secret_comes_out_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A whole run with secrets in the environment: files, checkpoints, and what is printed."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    recipe = toy_recipe(
        tmp_path,
        train={"steps": 2, "micro_batch": 2, "save_every": 1, "report_to": []},
        eval={"samples": 2, "every": 1},
    )
    assert train(recipe, tmp_path / "run", "--profile") == 0
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err
    files = [f for f in (tmp_path / "run").rglob("*") if f.is_file()]
    assert len(files) > 15
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    "url", ["http://me:pw@localhost:1/v1", "http://me@localhost:1/v1", "http://a:1/v1?key=x"]
)
def test_an_address_with_a_secret_in_it_is_refused_unsaid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    critique = {"by": "judge", "model": "m", "base_url": url}
    recipe = toy_recipe(tmp_path, feedback={"order": ["critique"], "critique": critique})
    assert train(recipe, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "api_key_env" in said
    assert url not in said


def test_a_run_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its own: no telemetry, no hub, no logger that wasn't asked for."""
    asked: list[Any] = []
    connect = socket.socket.connect

    def told(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            asked.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", told)
    recipe = toy_recipe(tmp_path, train={"steps": 1, "micro_batch": 2}, eval={"samples": 2})
    assert train(recipe, tmp_path / "run") == 0
    assert asked == []


def test_training_state_is_read_as_data(tmp_path: Path) -> None:
    """A checkpoint's optimiser file that was exchanged for a pickle with code in it."""
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    make_trainer(tmp_path, **options).train()
    newest = tmp_path / "checkpoint-2"
    torch.save(Bomb(tmp_path / "boom"), newest / "optimizer.pt")
    (newest / "distil_complete.json").write_text(json.dumps({"step": 2}))  # its digest gone too
    trainer = make_trainer(tmp_path, **options | {"max_steps": 3})
    with pytest.raises(Exception, match=r"weights_only|mkdir"):
        trainer.train(resume_from_checkpoint=True)
    assert not (tmp_path / "boom").exists()
