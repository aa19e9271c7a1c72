"""DistIL's objectives: pure tensor functions, one value a token, nothing reduced in secret.

Shapes: B rollouts, T completion tokens, S support tokens. Every log-probability is a natural log;
costs are in nats.

The method (arXiv 2606.05152). With teacher q_t = pi(.|s_t, f), held constant, and student p_t:

    L(theta) = E_{y ~ pi} [ sum_t w_t c_t ],   c_t = H(q_t, p_t) = - sum_a q_t(a) log p_t(a)
    grad L   = E[ sum_t w_t grad c_t ]  +  E[ sum_t grad log p_t(y_t) * sum_{i>t} w_i c_i ]
                local credit               future credit

    costs         c_t: forward cross-entropy and its rivals; supports closed by a tail or rescaled
    credit        the sum over later costs, and the leave-one-out baseline
    gates         w_t: 1 in the paper; by pass rate, teacher's entropy, from the first error on
    ratios        rollouts of an older policy: token-wise clipped, symmetric, products
    loss          local + future credit (+ an advantage), and its mean
    policy_space  the same cost stepped in policy space instead of in logits
    released      the published mathematics code's loss, defects included, for comparison
    shapes        the names of the tensors' shapes, and the check that two of them are the same

Left out: where the log-probabilities come from (`distil.vocab`) and who the teacher is
(`distil.teacher.teachers`).
"""

from distil.objectives.costs import (
    COSTS,
    append_tail,
    compare,
    drop_repeats,
    forward_cross_entropy,
    forward_kl,
    jensen_shannon,
    renormalise,
    repeated,
    reverse_kl,
    sampling_variance,
)
from distil.objectives.credit import (
    Later,
    future_credit,
    later_than,
    leave_one_out,
    leave_one_out_of,
)
from distil.objectives.gates import (
    better_teacher,
    confident_teacher,
    from_first_error,
    not_an_end,
    pass_rate_weight,
    until_first_error,
)
from distil.objectives.loss import (
    advantage_token_loss,
    distil_token_loss,
    masked_mean,
    mean_of_sequence_means,
)
from distil.objectives.policy_space import policy_space
from distil.objectives.ratios import answer_ratio, prefix_ratios, token_ratio
from distil.objectives.released import released_math_token_loss

__all__ = [
    "COSTS",
    "Later",
    "advantage_token_loss",
    "answer_ratio",
    "append_tail",
    "better_teacher",
    "compare",
    "confident_teacher",
    "distil_token_loss",
    "drop_repeats",
    "forward_cross_entropy",
    "forward_kl",
    "from_first_error",
    "future_credit",
    "jensen_shannon",
    "later_than",
    "leave_one_out",
    "leave_one_out_of",
    "masked_mean",
    "mean_of_sequence_means",
    "not_an_end",
    "pass_rate_weight",
    "policy_space",
    "prefix_ratios",
    "released_math_token_loss",
    "renormalise",
    "repeated",
    "reverse_kl",
    "sampling_variance",
    "token_ratio",
    "until_first_error",
]
