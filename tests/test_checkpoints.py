"""Checkpoints that count: marked last, every byte as it was written, the one before if not."""

import errno
import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from distil.errors import RunError
from distil.runs.checkpoints import (
    MARKER,
    complete_checkpoint,
    complete_checkpoints,
    keep_order,
    mark_complete,
    not_written,
)
from trainertoys import make_trainer


def checkpoint(folder: Path, step: int, *, complete: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    if complete:
        mark_complete(path, step)
    return path


def test_the_newest_checkpoint_is_the_one_with_the_largest_number(tmp_path: Path) -> None:
    for step in (8, 9, 100, 20):
        checkpoint(tmp_path, step)
    assert complete_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


def test_a_checkpoint_without_its_marker_is_passed_over(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 20, complete=False)
    assert complete_checkpoint(tmp_path) == whole


def test_a_complete_checkpoint_may_be_named_itself(tmp_path: Path) -> None:
    older = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 20)
    assert complete_checkpoint(older) == older


def test_other_folders_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    mark_complete(tmp_path / "model", 99)
    assert complete_checkpoint_or_none(tmp_path) is None
    whole = checkpoint(tmp_path, 1)
    assert complete_checkpoint(tmp_path) == whole


def complete_checkpoint_or_none(folder: Path) -> Path | None:
    try:
        return complete_checkpoint(folder)
    except RunError:
        return None


def test_without_a_complete_checkpoint_there_is_nothing_to_resume_from(tmp_path: Path) -> None:
    checkpoint(tmp_path, 20, complete=False)
    for folder in (tmp_path, tmp_path / "checkpoint-20", tmp_path / "missing"):
        with pytest.raises(RunError, match=r"no complete checkpoint.*train\.save_every"):
            complete_checkpoint(folder)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def alter(file: Path) -> None:
    """One bit, the size and the time as they were."""
    before, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (cut, "model.safetensors has 6 bytes, and had 7"),
        (alter, "model.safetensors was altered"),
        (Path.unlink, "model.safetensors is missing"),
    ],
)
def test_a_harmed_checkpoint_is_refused_by_name_and_the_one_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Any, told: str
) -> None:
    older, newer = checkpoint(tmp_path, 10), checkpoint(tmp_path, 20)
    harm(newer / "model.safetensors")
    assert complete_checkpoint(tmp_path) == older
    said = capsys.readouterr().out
    assert told in said
    assert "Going on from checkpoint-10" in said
    with pytest.raises(RunError, match=told):
        complete_checkpoint(newer)
    harm(older / "model.safetensors")
    with pytest.raises(RunError, match=r"No checkpoint can be used.*checkpoint-20.*checkpoint-10"):
        complete_checkpoint(tmp_path)


def test_files_in_folders_of_a_checkpoint_are_looked_at_too(tmp_path: Path) -> None:
    older, newer = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2, complete=False)
    (newer / "shards").mkdir()
    (newer / "shards" / "0.distcp").write_bytes(b"0123456789")
    mark_complete(newer, 2)
    assert complete_checkpoint(tmp_path) == newer
    alter(newer / "shards" / "0.distcp")
    assert complete_checkpoint(tmp_path) == older


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"step": 2, "files": 3}', '{"step": 2, "files": {"a": 1}}']
)
def test_a_marker_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    older, newer = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    (newer / MARKER).write_text(text)
    assert complete_checkpoint(tmp_path) == older


def test_a_marker_from_before_there_were_digests_still_counts(tmp_path: Path) -> None:
    newer = checkpoint(tmp_path, 2)
    (newer / MARKER).write_text(json.dumps({"step": 2}))
    assert complete_checkpoint(tmp_path) == newer


def test_a_clock_that_was_set_back_loses_no_checkpoint(tmp_path: Path) -> None:
    """transformers keeps the two with the newest times; here the older ones lie in the future."""
    trainer = make_trainer(
        tmp_path, max_steps=4, save_strategy="steps", save_steps=1, save_total_limit=2
    )
    ahead = time.time() + 86_400

    class ClockSetBack(type(trainer.callback_handler.callbacks[0])):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            for found in complete_checkpoints(tmp_path):
                os.utime(found, (ahead - state.global_step, ahead - state.global_step))

    trainer.add_callback(ClockSetBack())
    trainer.train()
    assert {p.name for p in complete_checkpoints(tmp_path)} == {"checkpoint-3", "checkpoint-4"}


def test_times_that_are_in_order_stay_as_they_are(tmp_path: Path) -> None:
    made = [checkpoint(tmp_path, step) for step in (1, 2)]
    for age, folder in zip((50, 40), made, strict=True):
        os.utime(folder, (time.time() - age, time.time() - age))
    before = [folder.stat().st_mtime for folder in made]
    keep_order(tmp_path)
    assert [folder.stat().st_mtime for folder in made] == before


# ---------------------------------------------------------------- disks


def test_a_disk_that_takes_no_more_is_a_clear_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files may grow to 40 kB from the second checkpoint on; the model has more."""
    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(tmp_path, **options)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    on_step_end = trainer.callback_handler.callbacks[0].on_step_end

    def fill_up(args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if state.global_step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
        return on_step_end(args, state, control, **kwargs)

    monkeypatch.setattr(trainer.callback_handler.callbacks[0], "on_step_end", fill_up)
    try:
        with pytest.raises(
            RunError, match=r"couldn't be written: .*complete checkpoint is checkpoint-1\."
        ):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    resumed = make_trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=True)
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert ours.equal(theirs)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EROFS, "Read-only file system"), True),
        (PermissionError(errno.EACCES, "Permission denied"), True),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), True),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (RuntimeError("shape mismatch"), False),
        (ValueError("no space left"), False),
    ],
)
def test_what_counts_as_not_written(error: Exception, expected: bool) -> None:
    assert not_written(error) is expected
