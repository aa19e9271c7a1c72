#!/usr/bin/env bash
# A person corrects a run's failed attempts while it trains; it uses them from its next step on.
#
#     examples/corrections.sh [RUN_FOLDER]      # about four minutes on two cores
#
# Trains examples/corrections.yaml in the background. Once the first step's attempts are there, you are
# shown three that failed: type what they should have been, and end with a line of a single "."
# Without a terminal (a pipe, CI) the three are answered by a line of Python that can add.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=${1:-runs/corrections}
mkdir -p "$(dirname "$run")"
log=$run.log

distil train "$here/corrections.yaml" --train.output-dir "$run" > "$log" 2>&1 &
training=$!
trap 'kill $training 2> /dev/null || true' EXIT
echo "Training in the background (its lines are in $log). Waiting for the first attempts ..."
until [ -s "$run/rollouts.jsonl" ]; do
  kill -0 $training 2> /dev/null || { cat "$log"; exit 1; }
  sleep 1
done

if [ -t 0 ]; then
  distil correct "$run" --limit 3
else
  python - "$run" <<'PYTHON' | while IFS=$'\t' read -r problem answer; do
import json, re, sys

done = set()
for line in open(f"{sys.argv[1]}/rollouts.jsonl", encoding="utf-8"):
    rollout = json.loads(line)
    if rollout["reward"] or rollout["problem"] in done or len(done) == 3:
        continue
    done.add(rollout["problem"])
    first, sign, second = re.findall(r"(\d) ([+-]) (\d)", rollout["prompt"][-1]["content"])[0]
    total = int(first) + (1 if sign == "+" else -1) * int(second)
    print(rollout["problem"], f"The final answer is {total}", sep="\t")
PYTHON
    printf '%s\n.\n' "$answer" | distil correct "$run" --problem "$problem" --limit 1
  done
fi

echo "Going on with training ..."
wait $training
trap - EXIT
cat "$run/results.md"
echo "Rollouts whose teacher was shown a correction: $(grep -c '"context": "correction"' "$run/rollouts.jsonl")"
