"""The ready configurations: read by the programs that they are for, and run where a CPU can.

SLURM and vLLM aren't here, nor is DeepSpeed (test_zero3.py runs it where it is). The scripts run,
with programs of their names in front of the path that do what the real ones do on one machine, or
say what they were told.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from trl.scripts.vllm_serve import ScriptArguments, build_command

from conftest import environment
from distil.commands.setup import training_args
from distil.config import Recipe, RolloutConfig
from distil.distributed.processes import sharding
from distil.errors import RecipeError
from distil.profiling.memory import ModelShape, Part, memory_parts
from distil.recipe.checks import check_recipe
from distil.trainer.sharedprompts import with_shared_prompts
from sharded import SETTINGS

PROJECT = SETTINGS.parent.parent
SLURM = PROJECT / "recipes" / "slurm"
Stand = Callable[[str, str], None]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """stand_in(name, script): a program of that name, found before any other."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)

    return make


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeeds_settings_are_what_accelerate_reads(stage: int) -> None:
    file = SETTINGS / f"zero{stage}.yaml"
    read = load_config_from_file(str(file))
    assert (read.distributed_type, read.mixed_precision) == ("DEEPSPEED", "bf16")
    assert read.deepspeed_config == yaml.safe_load(file.read_text())["deepspeed_config"]
    assert read.deepspeed_config["zero_stage"] == stage
    known = {a.dest for a in launch_command_parser()._actions}
    assert set(read.deepspeed_config) <= known  # a name that it doesn't know, it would drop


def test_prompts_are_not_shared_where_zero_3_shards_the_weights() -> None:
    def begin(stage: int) -> None:
        plugin = SimpleNamespace(zero_stage=stage)
        given = {"use_vllm", "use_transformers_continuous_batching", "cache_implementation"}
        args = SimpleNamespace(share_prompts=True, deepspeed_plugin=plugin, deepspeed=None)
        vars(args).update(dict.fromkeys(given))
        with with_shared_prompts(args, {}):
            pass

    begin(2)
    with pytest.raises(RecipeError, match="share_prompts doesn't go with ZeRO-3"):
        begin(3)


@pytest.mark.parametrize(("stage", "sharded"), [("2", False), ("3", True)])
def test_a_run_knows_before_it_loads_whether_zero_3_will_shard(
    monkeypatch: pytest.MonkeyPatch, stage: str, sharded: bool
) -> None:
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", stage)
    assert not sharding()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert sharding() == sharded


@pytest.mark.parametrize("script", sorted(SLURM.iterdir()), ids=lambda p: p.name)
def test_scripts_are_bash_and_ask_for_what_they_need(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)
    bare = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert bare.returncode == 2
    assert "usage:" in bare.stderr


def sbatch(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What two nodes of two GPUs would do."""
    (folder / ".venv/bin").mkdir(parents=True, exist_ok=True)
    slurm = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": str(os.getpid()), "SLURM_NNODES": "2"}
    return subprocess.run(
        ["bash", str(SLURM / "fsdp2.sbatch"), *words], cwd=folder, capture_output=True, text=True,
        timeout=100, env={**environment(), **slurm, "SLURM_GPUS_ON_NODE": "2", **more},
    )  # fmt: skip


def test_each_node_is_told_its_rank_and_where_the_first_one_is(
    tmp_path: Path, stand_in: Stand
) -> None:
    stand_in("scontrol", "echo n1; echo n2")
    stand_in("srun", 'for i in 0 1; do SLURM_NODEID=$i "${@:2}"; done')
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    stand_in("accelerate", f'{sys.executable} -c "{show}" "$@"')
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/accelerate").symlink_to(tmp_path / "programs/accelerate")
    done = sbatch(tmp_path, "my recipe.yaml", "runs/x")
    nodes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(nodes) == 2, done.stderr
    parser = launch_command_parser()
    for rank, words in enumerate(nodes):
        assert words[0] == "launch"
        args = parser.parse_args(words[1:])  # as accelerate does
        assert (args.machine_rank, args.num_machines, args.num_processes) == (rank, 2, 4)
        assert (args.main_process_ip, args.rdzv_backend, args.module) == ("n1", "static", True)
        assert 20000 <= args.main_process_port < 40000
        assert args.config_file == "recipes/accelerate/fsdp2.yaml"
        own = [args.training_script, *args.training_script_args]
        assert own == ["distil.cli", "train", "my recipe.yaml", "--train.output-dir", "runs/x"]
    (tmp_path / "runs/x/checkpoint-3").mkdir(parents=True)
    again = json.loads(sbatch(tmp_path, "my recipe.yaml", "runs/x").stdout.splitlines()[0])
    assert again[-4:] == ["distil.cli", "train", "runs/x", "--resume"]


def test_two_nodes_find_one_another(tmp_path: Path, stand_in: Stand) -> None:
    stand_in("scontrol", "echo localhost")
    stand_in("srun", 'for i in 0 1; do SLURM_NODEID=$i "${@:2}" & done; wait -n && wait -n')
    module = tmp_path / "meet"
    module.mkdir()
    (module / "cli.py").write_text(
        "import os, sys\n"
        "from torch import distributed\n"
        "distributed.init_process_group('gloo')\n"
        "rank, met = distributed.get_rank(), [None] * distributed.get_world_size()\n"
        "distributed.all_gather_object(met, rank)\n"
        "line = ' '.join(['met', str(rank), str(met), *sys.argv[1:]])\n"
        "os.write(1, f'{line}\\n'.encode())\n"  # at once: two processes share the pipe
        "distributed.destroy_process_group()\n"  # its threads may outlive the interpreter
    )
    real = f"{sys.executable} -m accelerate.commands.accelerate_cli"
    stand_in("launch", f'exec {real} "${{@/distil.cli/meet.cli}}"')
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/accelerate").symlink_to(tmp_path / "programs/launch")
    done = sbatch(
        tmp_path, "recipe.yaml", "run", SETTINGS=str(SETTINGS / "ddp.yaml"), SLURM_GPUS_ON_NODE="1",
        MORE="--mixed_precision no", CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    said = sorted(line for line in done.stdout.splitlines() if line.startswith("met"))
    assert said == [
        f"met {rank} [0, 1] train recipe.yaml --train.output-dir run" for rank in (0, 1)
    ], done.stderr[-3000:]


def test_the_server_is_started_as_trl_demands(stand_in: Stand) -> None:
    stand_in("vllm", 'echo "$VLLM_SERVER_DEV_MODE"; printf "%s\\n" "$@"')
    script = str(SLURM / "vllm-server.sh")
    given = subprocess.run(
        ["bash", script, "some/model", "8001", "--max-model-len", "4096"],
        capture_output=True, text=True, check=True, env={**os.environ, "TP": "2"},
    ).stdout.splitlines()  # fmt: skip
    asked = ScriptArguments(model="some/model", port=8001, tensor_parallel_size=2)
    demanded = build_command(asked, ["--max-model-len", "4096"])
    assert given[0] == "1"
    assert given[1:] == [
        w for w in demanded[demanded.index("serve") :] if w != "--enable-scale-out"
    ]
    bare = subprocess.run(["bash", script, "m"], capture_output=True, text=True, check=True)
    assert bare.stdout.splitlines()[4:7] == ["0.0.0.0", "--port", "8000"]


SERVED = RolloutConfig(
    use_vllm=True, vllm_mode="server", vllm_server_base_url="http://localhost:8000"
)


def test_a_recipe_says_where_the_server_is() -> None:
    args = training_args(check_recipe(replace(Recipe(), rollout=SERVED)))
    assert (args.use_vllm, args.vllm_mode) == (True, "server")
    assert args.vllm_server_base_url == "http://localhost:8000"
    beside = RolloutConfig(
        use_vllm=True, vllm_gpu_memory_utilization=0.5, vllm_tensor_parallel_size=2
    )
    args = training_args(check_recipe(replace(Recipe(), rollout=beside)))
    assert (args.vllm_mode, args.vllm_server_base_url) == ("colocate", None)
    assert (args.vllm_gpu_memory_utilization, args.vllm_tensor_parallel_size) == (0.5, 2)


@pytest.mark.parametrize(
    ("rollout", "message"),
    [
        (replace(SERVED, use_vllm=False), "vllm_server_base_url would do nothing"),
        (replace(SERVED, vllm_server_base_url=""), "say where it is"),
        (replace(SERVED, vllm_server_base_url="localhost:8000"), "say where it is"),
        (replace(SERVED, vllm_mode="colocate"), "nobody would ask that server"),
        (replace(SERVED, vllm_tensor_parallel_size=2), "vllm_tensor_parallel_size is for colocate"),
        (RolloutConfig(use_vllm=True, vllm_gpu_memory_utilization=1.0), "between 0 and 1"),
        (RolloutConfig(use_vllm=True, vllm_tensor_parallel_size=0), "at least 1"),
    ],
)  # fmt: skip
def test_settings_of_vllm_that_nobody_would_read_are_refused(
    rollout: RolloutConfig, message: str
) -> None:
    with pytest.raises(RecipeError) as error:
        check_recipe(replace(Recipe(), rollout=rollout))
    assert message in str(error.value)


def test_a_server_takes_nothing_of_the_training_gpus() -> None:
    shape = ModelShape(1000, 1000, 0, 500, 10, 4, 2, 8)

    def sampling(rollout: RolloutConfig) -> Part:
        parts = memory_parts(replace(Recipe(), rollout=rollout), shape, 8, 100, 80.0)
        return next(p for p in parts if p.name == "sampling")

    assert sampling(SERVED).bytes == 0
    half = RolloutConfig(use_vllm=True, vllm_gpu_memory_utilization=0.5)
    assert sampling(half).bytes == 40 * 2**30
