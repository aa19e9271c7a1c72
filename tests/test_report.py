"""`distil report`: what it reads, counts and leaves out. What the page does: test_report_page."""

import base64
import gzip
import json
import math
import re
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from conftest import toy_recipe, train
from distil.cli import main
from distil.compare.stats import t_interval
from distil.errors import RunError
from distil.report import report
from distil.report.folder import read_run
from distil.report.pack import BLOCK, choose, pack
from distil.report.page import make_page
from distil.report.scan import scan, striking, teacher_doubt
from distil.report.series import (
    POINTS,
    bins,
    feedback_shares,
    metric_columns,
    pass_curve,
    reward_curve,
    seed_bands,
    time_by_part,
)
from reportruns import NASTY, make_rollout, make_run, make_tokens, write_lines

VENDOR = Path(__file__).parent.parent / "src/distil/report/vendor"


def unpacked(page: str, name: str) -> Any:
    """A block of a page."""
    found = re.search(rf'<script type="text/plain" id="{name}">([^<]*)</script>', page)
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_the_command_writes_one_file_about_several_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1)]
    assert main(["report", *map(str, runs)]) == 0
    assert str(runs[0] / "report.html") in capsys.readouterr().out
    page = (runs[0] / "report.html").read_text(encoding="utf-8")
    head = unpacked(page, "head")
    assert [r["name"] for r in head["runs"]] == ["a", "b"]
    assert ["train.seed", 0, 1] in head["differences"]
    assert head["runs"][0]["status"] == "finished: 6 steps"
    assert head["runs"][0]["alarms"][0]["alarm"] == "answers shrink"
    assert head["runs"][0]["settings"]["objective.name"] == "distil"
    assert [row[0] for row in head["runs"][0]["table"][:2]] == ["", "avg@4"]


def test_nothing_in_the_page_is_asked_of_a_network(tmp_path: Path) -> None:
    page = report([make_run(tmp_path / "a")]).read_text(encoding="utf-8")
    shell = re.sub(r"<(script|style)\b[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href|action)=", shell)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1
    assert policy[1].startswith(f"default-src 'none'; script-src 'sha256-{digest}'; ")
    assert "connect-src" not in policy[1]


def test_a_running_runs_half_line_is_left_alone_and_a_strange_one_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", finished=False)
    with (run / "rollouts.jsonl").open("a") as file:
        file.write('{"step": 7, "row')
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "rew')
    assert len(scan([run / "rollouts.jsonl"])) == 48
    assert read_run(run).status.startswith("6 of 6 steps, last written ")
    with (run / "rollouts.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(RunError, match=r"rollouts.jsonl, line 49, is no rollout"):
        report([run])
    assert not (run / "report.html").exists()


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("train: {steps: 3}\n")
    page = report([tmp_path]).read_text(encoding="utf-8")
    assert unpacked(page, "head")["runs"][0]["status"] == "0 of 3 steps"
    assert unpacked(page, "index-0")["found"] == 0
    assert unpacked(page, "index-0")["block"] == BLOCK  # which the page divides by


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Name the folder of a run"),
        (["nowhere"], "nowhere holds no run"),
        (["a", "--out", "."], "is a folder"),
        (["a", "--megabytes", "1"], "no room for a rollout"),
        (["a", "--out", "a/metrics.jsonl/x.html"], "can't be written"),
    ],
)
def test_a_wrong_argument_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], told: str
) -> None:
    make_run(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_the_real_run_of_a_recipe_is_one_that_the_report_knows(tmp_path: Path) -> None:
    recipe = toy_recipe(
        tmp_path, train={"steps": 2, "micro_batch": 2, "log_rollouts": 1}, eval={"samples": 2}
    )
    assert train(recipe, tmp_path / "run") == 0
    page = report([tmp_path / "run"]).read_text(encoding="utf-8")
    run, index = unpacked(page, "head")["runs"][0], unpacked(page, "index-0")
    assert run["status"] == "finished: 2 steps"
    assert run["reward"]["step"] == [1, 2]
    assert set(run["passes"]) == {"before", "after", "teacher"}
    assert index["found"] == 8
    assert 1 <= index["detailed"] == sum(index["columns"]["tokens"]) <= 2
    rows = unpacked(page, "rollouts-0-0")["rows"]
    tokens = next(r["tokens"] for r in rows if r["tokens"])
    assert {len(column) for column in tokens.values()} == {len(tokens["text"])}
    assert all(len(choices) == 5 for choices in tokens["student_top"])


# ---------------------------------------------------------------- what stands out


def test_striking_is_the_highest_of_the_active_tokens() -> None:
    tokens = make_tokens(["a", "b", "c"]) | {
        "mask": [1, 0, 1, 1], "cost": [1.0, 9.0, 2.0, 0.0], "credit": [0.5, 9.0, -1.5, 0.0],
    }  # fmt: skip
    found = striking(tokens, 0.0)
    assert found is not None
    assert (found.cost, found.peak, found.peak_at) == (1.0, 2.0, 2)
    assert (found.credit, found.credit_at) == (-1.5, 2)
    assert striking(tokens | {"mask": [0, 0, 0, 0]}, 0.0) is None
    assert striking(tokens | {"cost": [None, 1.0, 1.0, 1.0]}, 0.0) is None


def test_a_teacher_is_wrong_that_finds_a_failed_answer_likely() -> None:
    tokens = make_tokens(["a", "b"], end=False) | {
        "teacher_logp": [math.log(0.9), math.log(0.4)], "logp": [math.log(0.95), math.log(0.1)],
    }  # fmt: skip
    doubt, at = teacher_doubt(tokens, [0, 1], 0.0)
    assert doubt == pytest.approx(math.sqrt(0.9 * 0.4), abs=1e-4)
    assert at == 1  # of which it thinks so much better than the student did
    assert teacher_doubt(tokens | {"teacher_logp": None}, [0, 1], 0.0)[0] is None
    assert teacher_doubt(tokens, [0, 1], None)[0] is None


def test_a_teacher_is_wrong_that_is_sure_of_another_token_than_the_right_one() -> None:
    tokens = make_tokens(["a", "b", "c"], end=False) | {
        "teacher_top": [[["a", 0.99]], [["x", 0.8], ["b", 0.1]], [["y", 0.9]]],
        "logp": [0.0, math.log(0.5), math.log(0.01)],
    }  # fmt: skip
    assert teacher_doubt(tokens, [0, 1, 2], 1.0) == (0.4, 1)
    agreed = tokens | {"teacher_top": [[["a", 0.9]], [["b", 0.9]], []]}
    assert teacher_doubt(agreed, [0, 1, 2], 1.0) == (0.0, 0)


# ---------------------------------------------------------------- what fits


def many(folder: Path, number: int) -> list[Any]:
    """Rollouts with long answers and token values."""
    words = [f" word{i}" for i in range(60)]
    write_lines(folder / "rollouts.jsonl", [
        make_rollout(1 + i // 8, i % 8, completion="".join(words) + str(i),
                     tokens=make_tokens(words, seed=i))
        for i in range(number)
    ])  # fmt: skip
    return scan([folder / "rollouts.jsonl"])


def test_all_rollouts_are_there_when_there_is_room(tmp_path: Path) -> None:
    entries = many(tmp_path, 2 * BLOCK + 5)
    found = pack(entries, 10**7)
    assert found.found == found.detailed == len(found.index["step"]) == 133
    assert found.index["tokens"] == [1] * 133
    assert len(found.blocks) == 3
    order = list(zip(*(found.index[n] for n in ("problem", "step", "row")), strict=True))
    assert order == sorted(order)
    assert pack(entries, 10**7) == found


def test_token_values_go_first_and_the_most_striking_stay(tmp_path: Path) -> None:
    entries = many(tmp_path, 100)
    whole = pack(entries, 10**7).size
    found = pack(entries, whole // 2)
    assert found.size <= whole // 2
    assert len(found.index["step"]) == 100
    assert 20 < sum(found.index["tokens"]) < 60
    best = max(range(100), key=lambda i: found.index["peak"][i])
    assert found.index["tokens"][best] == 1
    widest = max(range(100), key=lambda i: abs(found.index["credit"][i]))
    assert found.index["tokens"][widest] == 1


def test_then_rollouts_go_evenly_over_the_steps(tmp_path: Path) -> None:
    entries = many(tmp_path, 160)
    bare = sum(e.bare for e in entries)
    kept, with_tokens = choose(entries, bare / 2)
    assert with_tokens == set()
    assert len(kept) == 80
    assert {sum(e.step == s for e in kept) for s in range(1, 21)} == {4}
    assert pack(entries, 0).index["step"] == []


def test_a_block_says_each_text_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    page = make_page([read_run(run)], 10**7)
    texts = unpacked(page, "rollouts-0-0")["texts"]
    assert len(texts) == len(set(texts))
    assert sum(t.startswith("What is") for t in texts) == 12  # six problems, student and teacher


def test_text_that_looks_like_markup_reaches_the_page_as_data(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    write_lines(run / "rollouts.jsonl", [make_rollout(1, 0, completion=NASTY)])
    page = report([run]).read_text(encoding="utf-8")
    assert NASTY not in page
    assert unpacked(page, "rollouts-0-0")["rows"][0]["completion"] == NASTY


def test_a_prompts_tool_calls_are_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "find"}]}
    prompt = [{"role": "user", "content": "Where?"}, call, {"role": "tool", "content": "page 7"}]
    write_lines(run / "rollouts.jsonl", [make_rollout(1, 0, prompt=prompt)])
    block = unpacked(report([run]).read_text(encoding="utf-8"), "rollouts-0-0")
    said = [(role, block["texts"][place]) for role, place in block["rows"][0]["prompt"]]
    assert [role for role, _ in said] == ["user", "assistant", "tool"]
    assert '"find"' in said[1][1]
    assert said[2][1] == "page 7"


# ---------------------------------------------------------------- curves


def test_a_steps_reward_is_a_mean_over_prompts_with_their_interval(tmp_path: Path) -> None:
    rewards = [1.0, 1.0, 0.0, None, 0.0, 0.0, 1.0, 0.0]
    write_lines(tmp_path / "rollouts.jsonl", [
        make_rollout(3, row, reward=reward) for row, reward in enumerate(rewards)
    ])  # fmt: skip
    curve = reward_curve(scan([tmp_path / "rollouts.jsonl"]))
    expected = t_interval([2 / 3, 1 / 4])
    assert curve["step"] == [3]
    assert curve["rollouts"] == [8]
    for name, value in (("mean", expected.mean), ("low", expected.low), ("high", expected.high)):
        assert curve[name] == [pytest.approx(value, rel=1e-5)]


def test_a_long_run_is_drawn_in_bins_that_lose_no_step() -> None:
    steps = range(1, 1234)
    drawn = bins(steps)
    assert set(drawn) == set(steps)
    assert len(set(drawn.values())) <= POINTS
    assert all(drawn[s] >= s for s in steps)
    assert drawn[1233] == 1233
    columns = metric_columns({s: {"step": s, "loss": float(s), "said": "x"} for s in steps})
    assert set(columns) == {"step", "loss"}
    first = columns["step"][0]
    assert columns["loss"][0] == fmean(range(1, first + 1))


def test_a_metric_that_is_missing_or_no_number_is_none() -> None:
    columns = metric_columns({1: {"step": 1, "a": None}, 2: {"step": 2, "a": 1.0, "b": 2}})
    assert columns == {"step": [1, 2], "a": [None, 1.0], "b": [None, 2.0]}


def test_feedback_shares_are_of_all_rollouts_of_a_step(tmp_path: Path) -> None:
    contexts = ["sibling", None, "sibling", "sibling+report"]
    write_lines(tmp_path / "rollouts.jsonl", [
        make_rollout(1, row, context=context) for row, context in enumerate(contexts)
    ])  # fmt: skip
    shares = feedback_shares(scan([tmp_path / "rollouts.jsonl"]))
    assert shares == {"step": [1], "sibling": [0.5], "sibling+report": [0.25], "none": [0.25]}
    assert list(shares)[-1] == "none"


def test_pass_at_k_is_the_unbiased_one(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a"))
    before = next(j for j in run.evaluations if j.name == "before")
    curve = pass_curve(before.attempts)  # one of four is right, at each problem
    assert curve["k"] == [1, 2, 3, 4]
    assert curve["mean"] == [0.25, 0.5, 0.75, 1.0]
    assert [j.name for j in run.evaluations] == ["before", "eval-000003", "after"]


def test_only_runs_that_differ_by_their_seed_are_averaged(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / str(s), seed=s, steps=5 + s)) for s in range(2)]
    alike = [read_run(make_run(tmp_path / f"same-{s}", seed=s)) for s in range(2)]
    every = [*runs, *alike]
    curves: list[dict[str, list[Any]]] = [
        {"step": [1, 2, 3], "mean": [0.0, m, 1.0]} for m in (0.1, 0.2, 0.4)
    ] + [{"step": [1, 2], "mean": [0.0, 0.8]}]
    bands = seed_bands(every, curves)
    # runs[1] has six steps, as `alike` have
    assert [b["runs"] for b in bands] == [[1, 2, 3]]
    expected = t_interval([0.2, 0.4, 0.8])
    assert bands[0]["step"] == [1, 2]
    assert bands[0]["mean"][1] == pytest.approx(expected.mean, rel=1e-5)
    assert bands[0]["high"][1] == pytest.approx(expected.high, rel=1e-5)


def test_time_by_part_leaves_the_first_step_out() -> None:
    def spent(seconds: float, tokens: int = 0) -> dict[str, Any]:
        return {"seconds": seconds, "tokens": tokens, "peak": 2**21}

    profile = {
        "parts": {"sampling": "", "backward": "", "EMA": ""},
        "steps": [
            {"sampling": spent(90.0)},
            {"sampling": spent(1.0, 10), "backward": spent(2.0)},
            {"sampling": spent(3.0, 30)},
        ],
    }
    assert time_by_part(profile) == [
        {"part": "sampling", "seconds": 2.0, "rate": 10.0, "peak": 2},
        {"part": "backward", "seconds": 1.0, "rate": None, "peak": 2},
    ]
    assert time_by_part({}) == []


# ---------------------------------------------------------------- others' code


def test_the_scripts_of_others_are_as_they_were_published() -> None:
    said = re.findall(r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(),
                      re.MULTILINE)  # fmt: skip
    files = {f.name for f in VENDOR.iterdir()} - {"README.md"}
    assert {name for name, _ in said} == {f for f in files if "LICENSE" not in f}
    for name, digest in said:
        assert sha256((VENDOR / name).read_bytes()).hexdigest() == digest
