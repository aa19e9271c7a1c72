"""Teacher = success posterior: the bound on log P(success), its gap, and exact EM steps.

For one prompt, pi(y) answers and s(y) = P(success | y) > 0; q(y) = pi(y) s(y) / P(success). For
any q,

    log P(success; pi) = sum_y q log(pi s / q)  +  KL(q || pi's own posterior)
                         bound                     gap

With q fixed the bound is -H(q, pi) + a constant: minimising the forward cross-entropy to q raises
the bound, and so log P(success): an EM step (Dempster, Laird, Rubin). Policies are passed as
natural logs. Left out: sampling, and DistIL's own states (`distil.theory.em_trees`).
"""

from dataclasses import dataclass

import numpy as np

from distil.theory.costs import Array


def log_success(log_pi: Array, s: Array) -> Array:
    """log P(success) = log sum_y pi(y) s(y); [...] of [..., Y]."""
    return np.logaddexp.reduce(log_pi + np.log(s), -1)


def log_posterior(log_pi: Array, s: Array) -> Array:
    """log q(y) = log pi(y) + log s(y) - log P(success); [..., Y]."""
    return log_pi + np.log(s) - log_success(log_pi, s)[..., None]


def bound(log_pi: Array, log_q: Array, s: Array) -> Array:
    """sum_y q log(pi s / q), in nats; [...]."""
    return (np.exp(log_q) * (log_pi + np.log(s) - log_q)).sum(-1)


def gap(log_pi: Array, log_q: Array, s: Array) -> Array:
    """KL(q || posterior(pi)), in nats; [...]."""
    return (np.exp(log_q) * (log_q - log_posterior(log_pi, s))).sum(-1)


@dataclass(frozen=True)
class Prompts:
    """Prompts that share parameters: pi_x(y) = softmax_y(phi_xy . theta)."""

    phi: Array  # [X, Y, D]
    s: Array  # [X, Y] P(success | x, y)

    def log_policy(self, theta: Array) -> Array:
        """[X, Y]."""
        logits = self.phi @ theta
        return logits - np.logaddexp.reduce(logits, -1, keepdims=True)

    def log_success(self, theta: Array) -> float:
        """sum_x log P_x(success)."""
        return float(log_success(self.log_policy(theta), self.s).sum())

    def mean_success(self, theta: Array) -> float:
        """The mean reward, mean_x P_x(success)."""
        return float(np.exp(log_success(self.log_policy(theta), self.s)).mean())

    def cross_entropy(self, theta: Array, q: Array) -> float:
        """sum_x H(q_x, pi_x)."""
        return float(-(q * self.log_policy(theta)).sum())

    def em_step(self, theta: Array, iterations: int = 50) -> Array:
        """argmin_theta' sum_x H(posterior_x(theta), pi_x(theta')): convex, by damped Newton."""
        q = np.exp(log_posterior(self.log_policy(theta), self.s))
        for _ in range(iterations):
            pi = np.exp(self.log_policy(theta))
            centred = self.phi - (pi[..., None] * self.phi).sum(1, keepdims=True)
            slope = ((pi - q)[..., None] * self.phi).sum((0, 1))
            if np.abs(slope).max() < 1e-11:
                break
            curve = np.einsum("xy,xyd,xye->de", pi, centred, centred)
            step = np.linalg.solve(curve + 1e-10 * np.eye(len(theta)), slope)
            size, now = 1.0, self.cross_entropy(theta, q)
            while self.cross_entropy(theta - size * step, q) > now and size > 1e-8:
                size /= 2
            theta = theta - size * step
        return theta


def random_prompts(prompts: int, answers: int, parameters: int, seed: int) -> Prompts:
    """Normal features; success of an answer uniform in [0, 1], cubed: most are poor."""
    generator = np.random.default_rng([seed, prompts, answers])
    phi = generator.standard_normal((prompts, answers, parameters))
    return Prompts(phi, generator.random((prompts, answers)) ** 3)


@dataclass(frozen=True)
class Run:
    """Exact EM from theta = 0; the first two [steps + 1], the others [steps]."""

    log_success: Array  # sum_x log P_x
    mean_success: Array  # mean_x P_x
    touch: Array  # log success - bound before each minimisation: 0, so the bound touches
    identity: Array  # log success - bound - gap after it: 0


def expectation_maximisation(prompts: Prompts, steps: int) -> Run:
    """Posterior, then minimise the cross-entropy to it, `steps` times."""
    theta, s = np.zeros(prompts.phi.shape[-1]), prompts.s
    logs, means = [prompts.log_success(theta)], [prompts.mean_success(theta)]
    touch, identity = [], []
    for _ in range(steps):
        before = prompts.log_policy(theta)
        log_q = log_posterior(before, s)
        touch.append(logs[-1] - float(bound(before, log_q, s).sum()))
        theta = prompts.em_step(theta)
        after = prompts.log_policy(theta)
        logs.append(prompts.log_success(theta))
        means.append(prompts.mean_success(theta))
        identity.append(logs[-1] - float((bound(after, log_q, s) + gap(after, log_q, s)).sum()))
    return Run(*(np.array(x) for x in (logs, means, touch, identity)))
