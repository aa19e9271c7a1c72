"""What is impossible about the way a recipe samples with vLLM: settings that nobody would read.

Left out: temperature and its like (`distil.recipe.checks`), and whether vLLM is installed (TRL says
so).
"""

from dataclasses import fields

from distil.config import RolloutConfig

COLOCATED = ("vllm_gpu_memory_utilization", "vllm_tensor_parallel_size")


def sampler_faults(rollout: RolloutConfig) -> list[str]:
    """One sentence each, with the way out."""
    found: list[str] = []
    default = {f.name: f.default for f in fields(rollout)}
    vllm = [n for n in default if n.startswith("vllm_") and getattr(rollout, n) != default[n]]
    url, server = rollout.vllm_server_base_url, rollout.vllm_mode == "server"
    if rollout.share_prompts and (rollout.use_vllm or rollout.tools):
        found.append(
            "rollout.share_prompts is for transformers' sampling without tools; vLLM shares "
            "prompts by itself. Leave it out, or use_vllm and tools."
        )
    if vllm and not rollout.use_vllm:
        found.append(
            f"rollout.{', rollout.'.join(vllm)} would do nothing: rollout.use_vllm is false. Set "
            "it to true, or leave the rest out."
        )
    elif server and not url.startswith(("http://", "https://")):
        found.append(
            f"rollout.vllm_mode is server and rollout.vllm_server_base_url {url!r}: say where it "
            "is, as in http://localhost:8000 (recipes/slurm/vllm-server.sh starts one)."
        )
    elif url and not server:
        found.append(
            "rollout.vllm_server_base_url is set, and rollout.vllm_mode is colocate: nobody would "
            "ask that server. Set rollout.vllm_mode: server."
        )
    elif server and (unread := [n for n in COLOCATED if n in vllm]):
        found.append(
            f"rollout.{', rollout.'.join(unread)} is for colocate; a server is told by its own "
            "command (recipes/slurm/vllm-server.sh)."
        )
    if not 0 < rollout.vllm_gpu_memory_utilization < 1:
        found.append(
            f"rollout.vllm_gpu_memory_utilization is {rollout.vllm_gpu_memory_utilization}, and "
            "must lie between 0 and 1."
        )
    if rollout.vllm_tensor_parallel_size < 1:
        found.append(
            f"rollout.vllm_tensor_parallel_size is {rollout.vllm_tensor_parallel_size}, and must "
            "be at least 1."
        )
    return found
