"""What the study runs, as data: parts, and in each part settings with their training seeds."""

from __future__ import annotations

from collections.abc import Iterator

from experiments.study.run import RATES, TUNING_SEED, UPDATES, Run, validated

LONGEST = 2 * UPDATES
"""Updates of each round of the main comparison, to be doubled for as long as FD or trajectory error falls by it."""

MAIN = {
    "truncated-snr": ("TruncatedSNR", None),
    "snr+1": ("SNRPlusOne", None),
    "min-snr": ("MinSNR", None),
    "bsa": ("BSA", None),
    "tango": ("Tango", None),
}
"""Name: class, and gamma where it is not the papers' 5. Five training seeds each."""
FURTHER = {
    "uniform": ("Uniform", None),
    "snr": ("SNR", None),
    "min-snr-gamma1": ("MinSNR", 1),
    "min-snr-gamma20": ("MinSNR", 20),
    "bsa-gamma20": ("BSA", 20),
    "tango-gamma1": ("Tango", 1),
    "tango-gamma20": ("Tango", 20),
}
"""Two training seeds each. BSA with gamma 1 is uniform."""

FLOW = {
    "bsa": ("BSA", None),
    "flow-bsa": ("FlowBSA", None),
    "u-mse": ("VelocityMSE", None),
    "uniform": ("Uniform", None),
    "min-snr": ("MinSNR", None),
}
"""From the built-in flow teacher, three training seeds each."""
LONGER = ("bsa", "min-snr", "truncated-snr")
"""Those whose order the paper tells."""
NUM_PAIRS = 3
"""Training seeds on which numbers of updates are compared."""


def weighting_options(name: str) -> tuple[str, ...]:
    """The command line's words for a weighting."""
    class_name, gamma = {**MAIN, **FURTHER, **FLOW}[name]
    words = ("--model.weighting", class_name)
    return words if gamma is None else (*words, "--model.weighting.gamma", str(gamma))


def tuning() -> Iterator[Run]:
    """Each weighting at each rate, on the held-out seed; their validations decide."""
    for name in MAIN:
        for rate in RATES:
            options = (*weighting_options(name), "--model.optimizer.init_args.lr", rate)
            yield Run("rates", f"{name}-{rate}", TUNING_SEED, options, scored=False)


def weightings() -> Iterator[Run]:
    """The question: five weightings, each at its own rate."""
    words = ("--model.plan.updates", str(LONGEST), *validated(LONGEST))
    for seed in range(5):
        for name in MAIN:
            yield Run("weightings", name, seed, (*weighting_options(name), *words), name)


def convergence() -> Iterator[Run]:
    """The same for half as many updates, beside the runs of the main comparison on the same seeds."""
    yield from (run for run in weightings() if run.seed < NUM_PAIRS)
    for seed in range(NUM_PAIRS):
        for name in MAIN:
            yield Run("convergence", f"{name}-{UPDATES}", seed, weighting_options(name), name)


def longer() -> Iterator[Run]:
    """Longer rounds where those of the main comparison have not converged, at 2 steps and at 1, beside its runs.

    All at 1e-4, which was the best rate at these steps for every weighting.
    """
    yield from (run for run in convergence() if run.part == "weightings" and run.setting in LONGER)
    for updates, names in ((8 * UPDATES, LONGER), (4 * UPDATES, ("bsa", "min-snr"))):
        plan = ("--model.plan.updates", f"[{LONGEST},{LONGEST},{updates},{updates}]", *validated(LONGEST))
        for seed in range(NUM_PAIRS):
            for name in names:
                options = (*weighting_options(name), *plan, "--model.optimizer.init_args.lr", "1e-4")
                yield Run("longer", f"{name}-{updates}", seed, options)


def caps() -> Iterator[Run]:
    """Other caps, and two weightings that nobody distils with, beside BSA for as many updates."""
    for name in ("bsa", "min-snr", *FURTHER):
        for seed in range(2):
            yield Run("caps", name, seed, weighting_options(name), _tuned_as(name))


def flow_options(name: str) -> tuple[tuple[str, ...], int]:
    """The words for a weighting on the flow teacher, and how many rounds it can be distilled for.

    A flow has no signal at t = 1, where min-SNR gives no weight, so that a round of one step would train nothing.
    """
    words = ("--model.teacher", "tiny-flow", *weighting_options(name))
    return ((*words, "--model.plan.end_steps", "2"), 3) if name == "min-snr" else (words, 4)


def flow_tuning() -> Iterator[Run]:
    """As ``tuning``, on the flow teacher."""
    for name in FLOW:
        words, num_rounds = flow_options(name)
        for rate in RATES:
            options = (*words, "--model.optimizer.init_args.lr", rate)
            yield Run("flow-rates", f"{name}-{rate}", TUNING_SEED, options, scored=False, num_rounds=num_rounds)


def flow() -> Iterator[Run]:
    """The question on a rectified flow, with plain u-MSE and BSA's analogue of it."""
    for name in FLOW:
        words, num_rounds = flow_options(name)
        for seed in range(3):
            yield Run("flow", name, seed, words, name, rates="flow-rates", num_rounds=num_rounds)


def guidance() -> Iterator[Run]:
    """Where guidance goes; a longer first round, in which it goes there."""
    steps = ("--model.plan.start_steps", "8", "--model.plan.updates", f"[{3 * UPDATES},{UPDATES},{UPDATES}]")
    rate = ("--model.optimizer.init_args.lr", "1e-4")
    for mode in ("outside", "baked", "embedded"):
        words = ("--model.guidance", mode.capitalize(), "--model.guidance.scale", "3")
        for seed in range(3):
            yield Run("guidance", mode, seed, (*weighting_options("bsa"), *steps, *rate, *words))


def ladder() -> Iterator[Run]:
    """64 steps to 4, halving or in one long jump, for as many network evaluations.

    Counting a backward pass as two forward passes, an update costs 2 + 3 evaluations a clip where steps are halved and
    16 + 3 in the jump: four rounds of 240 updates are as much as 253 of the jump.
    """
    plan = ("--model.plan.start_steps", "64", "--model.plan.end_steps", "4", "--model.plan.off_grid", "true")
    jump = ("--model.plan.factor", "16", "--model.plan.updates", "253", *validated(253))
    for setting, words in (("halving", plan), ("jump", (*plan, *jump))):
        for seed in range(3):
            yield Run("ladder", setting, seed, (*weighting_options("bsa"), *words), "bsa")


def esc10() -> Iterator[Run]:
    """A shorter list on real recordings, by a teacher that was fine-tuned on them (experiments/esc10)."""
    for name in ("truncated-snr", "min-snr", "bsa"):
        for seed in range(3):
            words = ("--config", "experiments/esc10/ladder.yaml", "--config", "experiments/weightings/esc10.yaml")
            yield Run("esc10", name, seed, (*words, *weighting_options(name)), name)


def small() -> Iterator[Run]:
    """A few minutes of the same: two weightings, two seeds, eight steps to one."""
    plan = ("--model.plan.start_steps", "8", "--model.plan.updates", "15", *validated(15))
    for name in ("min-snr", "bsa"):
        for seed in range(2):
            yield Run("small", name, seed, (*weighting_options(name), *plan, "--model.optimizer.init_args.lr", "1e-4"))


TUNING = {"rates": tuning, "flow-rates": flow_tuning}
PARTS = {
    "weightings": weightings,
    "convergence": convergence,
    "longer": longer,
    "caps": caps,
    "flow": flow,
    "guidance": guidance,
    "ladder": ladder,
    "esc10": esc10,
    "small": small,
}


def _tuned_as(name: str) -> str:
    """Another cap takes its weighting's rate, and the two that nobody distils with take BSA's."""
    family = name.split("-gamma", maxsplit=1)[0]
    return family if family in MAIN else "bsa"
