"""The recipe's schema: what a YAML file or a flag may say.

Typed dataclasses only: the checks on them are `distil.recipe.checks`', YAML is read by
`distil.recipe.recipefile` and flags by `distil.cli`, and nothing here imports torch.
Names that TRL's users know keep TRL's words. Each default is the vetted one (a test says so).
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FutureCredit = Literal["sum", "mean", "none"]
Support = Literal["teacher", "student", "joined"]
Ratio = Literal["none", "token_clipped", "token_symmetric", "prefix"]
VllmMode = Literal["colocate", "server"]
TeacherKind = Literal["live", "frozen", "lora_off", "ema", "served"]
ShadowDevice = Literal["same", "cpu"]
SourceName = Literal["sibling", "report", "expert", "correction", "tools", "critique"]
Combine = Literal["first", "all"]
CheckName = Literal["math", "choice", "exact", "tolerant", "programs"]
SandboxLevel = Literal["auto", "strong", "standard", "unsafe"]
Thinking = Literal["template", "on", "off"]

TABLE_ENDING = ".jsonl"
"""A task whose name ends so is a file of the user's own problems."""


@dataclass(frozen=True)
class SandboxConfig:
    """How untrusted programs are run (task.check: programs); see docs/sandbox.md."""

    level: SandboxLevel = "auto"
    """auto: the best that holds on this machine; strong, standard; unsafe: none (allow_unsafe)."""
    workers: int = 0
    """Programs at a time, of each process (0: as many as there are processors)."""
    preload: tuple[str, ...] = ()
    """Packages that programs may import beside the standard library: numpy, for one."""
    cpu_s: float = 4.0
    """Processor seconds of a test."""
    mem_mb: int = 1024
    """Memory of a test, MiB."""
    allow_unsafe: bool = False
    """Go on without protection where no level holds: programs could then read your files."""


@dataclass(frozen=True)
class TaskConfig:
    """What is asked, and how an answer is judged."""

    name: str = "chain_sum"
    """A reasoning-gym dataset, an organism's world (organism_sums, _programs, _cipher), or your own
    problems: path/to/problems.jsonl."""
    options: dict[str, int | float | bool | str] = field(default_factory=dict)
    """The dataset's own options (as flags: --task.options min_terms 2 max_terms 3). They replace
    the recipe's, and naming another dataset drops the recipe's."""
    system: str = ""
    """The system message that precedes the question; "" for none."""
    instruction: str = "Reply with only the final answer."
    """The format demand; it ends the student's prompt and the teacher's."""
    extract: Literal["last_number", "last_line", "answer_tag", "whole"] = "last_line"
    """Which part of a completion is its answer (math and choice look for it by rules of theirs)."""
    check: CheckName | None = None
    """How a file's answers are judged: as math, a choice's letter, exact or tolerant text, or as
    programs that are run against each row's tests."""
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    train_size: int = 200
    """Distinct problems to train on."""
    eval_size: int = 50
    """Distinct held-out problems; none of them is in the training set."""
    validation_size: int = 0
    """Problems put aside for judging during training (eval.every) and for choosing a checkpoint
    (eval.keep_best): neither trained on nor held out. 0: judged then are the held-out ones."""
    eval_file: str = ""
    """Another file of problems (*.jsonl), judged by the same check, that the held-out ones come
    from; "": they come from `name` too."""
    seed: int = 0
    """Decides which problems there are and which are held out."""


@dataclass(frozen=True)
class LoraSettings:
    """A LoRA adapter on the linear layers (rank 0: none, every weight is trained)."""

    rank: int = 0
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str = "all-linear"


@dataclass(frozen=True)
class ModelConfig:
    """Which model is trained."""

    name: str = "smollm2-135m-instruct"
    """The embedded model's name, an organism (organism-cipher, organism-sums@3 for its seed 3), a
    local folder, a .gguf file, or a hub id."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the weights are kept in; an accelerator computes in bfloat16 anyway. auto is float32,
    since a step of 1e-6 changes no bfloat16 weight; on an accelerator bfloat16 where an adapter is
    trained, or shards keep float32 ones by themselves (FSDP2, ZeRO-3)."""
    thinking: Thinking = "template"
    """Whether a chat template that knows of thinking (Qwen3's) lets the model think first: on, off,
    or as the template does by itself. Alike for student, teacher and judging."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    allow_pickle: bool = False
    """Read weights from pickles (.bin) where there are no safetensors; they may run code."""


@dataclass(frozen=True)
class CritiqueConfig:
    """Who writes critiques of failed attempts (`critique` in feedback.order), and how many.

    Asked about are attempts that didn't succeed and whose teacher would be shown the critique: not
    those that a source named earlier in the order answers for.
    """

    by: Literal["none", "policy", "judge"] = "none"
    """policy: the student itself; judge: a model behind an OpenAI-compatible endpoint."""
    steps: bool = False
    """Ask for the first wrong step: the attempt's lines, or a single line's sentences, numbered."""
    show_answer: bool = False
    """Show the critic the expert's answer, where there is one."""
    per_step: int = 16
    """Most attempts a step that are asked about, spread over the prompts of all processes."""
    max_tokens: int = 256
    """Of one critique."""
    temperature: float = 0.7
    model: str = ""
    """The judge's name at its endpoint. From here on: only for a judge."""
    base_url: str = ""
    """The endpoint, as in http://localhost:8000/v1."""
    api_key_env: str = ""
    """The environment variable that holds the key; empty: the endpoint needs none."""
    concurrency: int = 8
    """Requests under way at once, of each process."""
    timeout: float = 60.0
    """Seconds until one request is given up; it's made once more after a pause."""
    deadline: float = 180.0
    """Seconds until a step goes on without the critiques that are still missing."""


@dataclass(frozen=True)
class FeedbackConfig:
    """Which feedback a rollout's teacher is shown."""

    order: tuple[SourceName, ...] = ("sibling", "report", "expert")
    """The sources, best first."""
    combine: Combine = "first"
    """first: the teacher sees the first source that a rollout has; all: the first demonstration
    that it has, and every report on it, in this order."""
    max_tokens: int = 0
    """Tokens that feedback may add to a teacher's prompt; longer reports are cut in the middle,
    then the demonstration (0: only teacher.max_prompt_length limits it)."""
    sibling: Literal["shortest", "random", "first"] = "shortest"
    """Which successful rollout of the group, where there are several."""
    corrections: str = ""
    """Where the source correction finds them: a JSONL file, or my_file.py:my_function; "" is
    corrections.jsonl in the run's folder, which `distil correct` writes, once there is one."""
    demonstration_header: str = "A correct solution:"
    """The line above a demonstration in the teacher's prompt; "" for none."""
    critique: CritiqueConfig = field(default_factory=CritiqueConfig)


@dataclass(frozen=True)
class ServedConfig:
    """A teacher behind an OpenAI-compatible server (teacher.kind: served); see docs/served.md."""

    base_url: str = ""
    """The server, as in http://localhost:8000/v1."""
    model: str = ""
    """The teacher's name there. It must have the student's tokenizer."""
    api_key_env: str = ""
    """The environment variable that holds the key; empty: the server needs none."""
    samples: int = 0
    """Next tokens drawn at each state, of which the cost is estimated (a teacher that gives no
    log-probabilities); 0: its objective.top_k likeliest tokens, by vLLM's prompt_logprobs."""
    concurrency: int = 16
    """Requests under way at once, of each process."""
    timeout: float = 120.0
    """Seconds until one request is given up; it's made again after a pause, three times at most."""
    deadline: float = 900.0
    """Seconds until a step goes on without the rollouts whose answers are still missing."""


@dataclass(frozen=True)
class TeacherConfig:
    """Who scores the student's tokens."""

    kind: TeacherKind = "ema"
    """live: today's student; frozen: the start model; lora_off: adapters off; ema: an average;
    served: another model, behind a server. A live teacher can forget how to read feedback as the
    student changes (docs/results.md)."""
    ema_rate: float = 0.01
    """w <- (1 - rate) w + rate student, once an optimiser step (ema only)."""
    shadow_device: ShadowDevice = "same"
    """Where an ema or frozen teacher's weights lie: same, the model's device; cpu, the computer's
    memory (a device has less to hold; each update and scoring pass copies the weights over)."""
    max_prompt_length: int = 10_240
    """Tokens; a longer prompt loses feedback text, never question or header."""
    samples: int = 0
    """Completions a prompt that the teacher itself writes at each step, graded like rollouts: the
    metrics teacher/success and teacher/mean_length (0: don't sample it)."""
    gate: bool = False
    """Leave out prompts on which the teacher's samples succeed no more often than the student's."""
    served: ServedConfig = field(default_factory=ServedConfig)


@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss. One word, `name`, picks a method; null stands for what that name brings.

    As a flag, null is written None.
    """

    name: str = "distil"
    """distil, forward_kl, reverse_kl, jensen_shannon, grpo, sft, distil+grpo, as_released_math; or
    your own divergence as path/to/file.py:function."""
    future: FutureCredit | None = None
    """Future credit: sum (exact), mean (published scaling, biased), or none."""
    future_weight: float = 1.0
    """Factor on the future credit."""
    discount: float = 1.0
    """Cost i steps ahead counts discount**(i-1); below 1 is biased."""
    baseline: bool = True
    """Subtract the group's leave-one-out mean of the credit (unbiased, less variance)."""
    credit_end: bool = False
    """Whether the token that ends a rollout has future credit. The exact gradient has it (true);
    but under sum ending early saves all cost to come, and answers may shrink to nothing
    (docs/results.md): false leaves endings to the local term."""
    support: Support | None = None
    """Which tokens are compared: the teacher's top_k, the student's, or both joined."""
    top_k: int = 100
    """Size of the support, of each side's where they are joined; the vocabulary's size: all."""
    tail: bool = True
    """Add one bucket for all tokens outside the support; false renormalises both sides."""
    advantage_weight: float | None = None
    """Weight of GRPO's advantage beside the cost (distil+grpo: 1; else 0)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the group's or batch's standard deviation, or nothing."""
    reduction: Literal["tokens", "sequences"] = "tokens"
    """Mean over all active tokens, or over rollouts of each one's mean (as published)."""
    ratio: Ratio = "token_clipped"
    """Importance ratio on rollouts of an older policy; fresh rollouts have none."""
    ratio_clip: float = 2.0
    """Largest ratio (token_symmetric: and its inverse the smallest)."""
    prompt_weight: Literal["none", "pass_rate"] = "none"
    """pass_rate weighs a prompt by sqrt(p (1 - p)), p its group's share of successes."""
    max_teacher_entropy: float | None = None
    """Nats: leave out tokens where the teacher is less sure than this; null: none."""
    first_error_margin: float | None = None
    """Nats: the first token that the teacher finds so much less likely than the student does is the
    first error; null: nothing is an error."""
    first_error: Literal["from", "until"] = "from"
    """Distil from the first error on, or until it, that token included in both."""
    replay_batches: int = 0
    """Aggregation: the states of so many earlier batches, with their teacher's distributions, are
    trained on again, as many rows as there are new ones (0: none)."""
    policy_space_clip: float | None = None
    """Step the cost in policy space (natural gradient at the output), each entry kept within this;
    null: in logits, as ever."""


@dataclass(frozen=True)
class RolloutConfig:
    """How the student is sampled."""

    prompts_per_step: int = 8
    num_generations: int = 8
    """Rollouts of each prompt."""
    max_completion_length: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    share_prompts: bool = False
    """Read each prompt once for all of its rollouts (transformers' generate on whole weights)."""
    use_vllm: bool = False
    """Sample with vLLM (the extra `distil[vllm]`) instead of transformers."""
    vllm_mode: VllmMode = "colocate"
    """colocate: on the training GPUs; server: on its own (recipes/slurm/vllm-server.sh)."""
    vllm_server_base_url: str = ""
    """The server, as in http://localhost:8000 (server only; nothing is asked elsewhere)."""
    vllm_gpu_memory_utilization: float = 0.3
    """Share of each GPU that vLLM takes, weights and cache (colocate only)."""
    vllm_tensor_parallel_size: int = 1
    """GPUs over which vLLM splits the weights (colocate only)."""
    tools: tuple[str, ...] = ()
    """Tools that the student may call, each path/to/file.py:function with type hints and a
    Google-style docstring; what they return isn't scored. The model must know how to call tools."""
    max_tool_calling_iterations: int | None = None
    """Turns with calls; null: as many as fit max_completion_length."""


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast, and where to."""

    output_dir: str = "runs/distil"
    steps: int = 100
    """Batches of fresh rollouts."""
    updates_per_batch: int = 1
    """Optimiser updates over which a batch's rollouts are split (above 1, later ones are stale)."""
    num_iterations: int = 1
    """Passes over a batch's rollouts (above 1, later ones are stale)."""
    learning_rate: float = 1e-6
    warmup_steps: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    micro_batch: int = 8
    """Rollouts in one forward and backward pass (memory against speed)."""
    gradient_checkpointing: bool = False
    padding_free: bool = True
    """Run the student on real tokens alone, each prompt of a micro-batch once, where the model
    allows it (sdpa, full attention at every layer); the numbers are the same but for rounding."""
    save_every: int = 10
    """Steps between checkpoints; a killed run goes on from the last one."""
    keep_checkpoints: int = 1
    seed: int = 0
    log_rollouts: int = 4
    """Rollouts a step written with per-token cost and credit (the others without)."""
    rollouts_mb: float = 2000.0
    """Megabytes that rollouts.jsonl and rollouts-old.jsonl may take: the oldest go; 0: no bound."""
    report_to: tuple[str, ...] = ()
    """Loggers beside metrics.jsonl: trackio, wandb, tensorboard (docs/metrics.md)."""


@dataclass(frozen=True)
class EvalConfig:
    """How a model is judged before, after and during training."""

    samples: int = 8
    """Completions of each held-out problem (n); figures are avg@n, pass@k, maj@k (see k)."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    batch_size: int = 64
    seed: int = 1234
    every: int = 0
    """Steps (train.steps' unit) between judgements during training (0: only before and after)."""
    teacher_samples: int = 2
    """Completions a problem by the teacher shown the expert's answer (0: don't look)."""
    k: tuple[int, ...] = ()
    """The k of pass@k and maj@k; empty: the powers of two up to samples, and samples."""
    keep_best: str = ""
    """A figure's name, such as avg@8: keep in RUN/best the state that has most of it on the
    validation problems (task.validation_size), judged every `every` steps and at both ends."""


@dataclass(frozen=True)
class AlarmConfig:
    """Signs of a run that goes wrong though its loss falls (distil.runs.alarms); null: off."""

    patience: int = 5
    """So many logs in a row beyond a bound sound the alarm; the first so many are the start."""
    min_student_entropy: float | None = 0.005
    """Nats a token."""
    max_clipped: float | None = 0.95
    """Share of rollouts cut off at rollout.max_completion_length."""
    max_length_growth: float | None = 4.0
    """Mean length, times the start's."""
    max_length_loss: float | None = 2.5
    """The start's mean length over that of now: no stored run that ended beyond 2.5 had learnt
    anything (benchmarks/alarms.py)."""
    max_teacher_entropy_rise: float | None = 1.0
    """Nats a token above the start's."""
    max_teacher_success_loss: float | None = 2.0
    """The start's teacher/success, times that of now (needs teacher.samples)."""
    stop: bool = False
    """End the run, saved, at the first alarm."""


@dataclass(frozen=True)
class Recipe:
    """A whole run. Every Recipe that `distil.cli` hands out has passed `distil.recipe.checks`."""

    preset: str = ""
    """Published settings to start from (`distil.recipe.presets`): sdpo-science, ..."""
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    alarms: AlarmConfig = field(default_factory=AlarmConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dicts and lists, as YAML and JSON want them."""
        plain: dict[str, Any] = asdict(self)
        plain["task"]["sandbox"]["preload"] = list(self.task.sandbox.preload)
        plain["feedback"]["order"] = list(self.feedback.order)
        plain["rollout"]["tools"] = list(self.rollout.tools)
        plain["train"]["report_to"] = list(self.train.report_to)
        plain["eval"]["k"] = list(self.eval.k)
        return plain
