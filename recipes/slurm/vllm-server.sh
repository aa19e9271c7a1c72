#!/bin/bash
# A vLLM server that a run samples from, on GPUs of its own; it is sent the weights at each step.
#   CUDA_VISIBLE_DEVICES=0,1 recipes/slurm/vllm-server.sh MODEL [PORT] [more flags of `vllm serve`]
# On as many GPUs as TP says (1). Then, on the others (TRL's NCCL group wants distinct GPUs):
#   accelerate launch ... -m distil.cli train RECIPE --rollout.use-vllm --rollout.vllm-mode server \
#       --rollout.vllm-server-base-url http://THIS_HOST:8000
# The flags are those that TRL 1.16 demands (trl.scripts.vllm_serve.build_command; its own command,
# `trl vllm-serve`, is deprecated). The server has no password: keep it inside your network.
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: vllm-server.sh MODEL [PORT] [more flags of vllm serve]" >&2
    exit 2
fi
model="$1"
port="${2:-8000}"
shift $(($# > 1 ? 2 : 1))

export VLLM_SERVER_DEV_MODE=1    # the endpoints that take weights
exec vllm serve "$model" --host "${HOST:-0.0.0.0}" --port "$port" \
    --tensor-parallel-size "${TP:-1}" --data-parallel-size "${DP:-1}" \
    --gpu-memory-utilization 0.9 --dtype auto --kv-cache-dtype auto --model-impl vllm \
    --uvicorn-log-level info --weight-transfer-config '{"backend": "nccl"}' \
    --logprobs-mode processed_logprobs --max-logprobs -1 "$@"
