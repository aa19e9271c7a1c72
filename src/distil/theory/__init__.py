"""The theory, executable: every claim of the method as a function that returns numbers.

NumPy, float64, and nothing from the rest of the package: what `distil.objectives` computes in torch
is computed here by hand, and tests hold one against the other. `distil theory` prints it all.
A section is a file with `claims()`, in this order:

    bandits         which divergence's step raises the reward; its parts: divergences (gradients and
                    steps), sweep (many bandits at once, and a search for the worst)
    treeclaims      what estimators of the gradient are: trees (the exact one), estimators (bias and
                    variance), stock (the ones that people use), treebias (tables)
    entropy         the teacher's entropy in future credit
    trap            a problem that local credit alone can't solve
    regret          no-regret learners on token trees
    cloning         compounding errors beside DAgger's
    success         likelihood of success: em, em_trees (EM steps), weights (hard prompts),
                    passing (pass@N)
    wrong_teachers  which objective and gate stands wrong feedback: teachers, following (the
                    student), trained (the runs)

Shared: claims (what a claim is), costs (values and slopes by hand). Drawn by plots,
figures_bandits, figures_trees, figures_trap, figures_regret, figures_success and
figures_wrong_teachers.
"""
