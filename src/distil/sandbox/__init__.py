"""Running programs that nobody trusts. `SandboxPool(...).map(jobs)` is all that others need."""
