"""What is mutated, and which tests may see it."""

from pathlib import Path

D, E = "tests/distillation", "tests/evaluation"

MODULE = [f"{D}/test_{name}.py" for name in ("steps", "averaging", "module", "promotion", "resume")]
MODULE += [f"{D}/test_segmented_consistency.py", "tests/training/test_latent_module.py"]

TESTS = {
    "bsa_lightning/diffusion/ddim.py": ["tests/diffusion/test_ddim.py", "tests/diffusion/test_process.py"],
    "bsa_lightning/diffusion/flow.py": ["tests/diffusion/test_flow.py"],
    "bsa_lightning/diffusion/guidance.py": ["tests/diffusion/test_process.py", f"{D}/test_guidance_modes.py"],
    "bsa_lightning/diffusion/losses.py": [
        "tests/diffusion/test_losses.py", "tests/diffusion/test_distillation_loss.py",
        "tests/diffusion/test_weighting.py", f"{D}/test_validation.py", f"{D}/test_methods.py",
        "tests/diffusion/test_flow.py",
    ],
    "bsa_lightning/diffusion/process.py": [
        "tests/diffusion/test_process.py", "tests/diffusion/test_losses.py", "tests/diffusion/test_flow.py",
    ],
    "bsa_lightning/diffusion/schedule.py": [
        "tests/diffusion/test_schedule.py", "tests/diffusion/test_ddim.py", f"{D}/test_rounds.py",
        "tests/diffusion/test_flow.py",
    ],
    "bsa_lightning/diffusion/weighting.py": ["tests/diffusion/test_weighting.py", f"{D}/test_settings.py"],
    "bsa_lightning/distillation/methods.py": [
        f"{D}/test_methods.py", f"{D}/test_segmented_consistency.py", "tests/evaluation/test_renoised_students.py",
    ],
    "bsa_lightning/distillation/module.py": MODULE,
    "bsa_lightning/distillation/rounds_module.py": [*MODULE, f"{D}/test_round_judge.py", f"{D}/test_rounds_module.py"],
    "bsa_lightning/distillation/promotion.py": [f"{D}/test_promotion_hooks.py", f"{D}/test_promotion.py"],
    "bsa_lightning/distillation/draws.py": [f"{D}/test_draws.py", f"{D}/test_steps.py"],
    "bsa_lightning/distillation/guidance_modes.py": [
        f"{D}/test_guidance_modes.py", f"{D}/test_settings.py", f"{D}/test_averaging.py",
    ],
    "bsa_lightning/distillation/adapters.py": [
        f"{D}/test_adapters.py", f"{D}/test_promotion.py", f"{D}/test_averaging.py", "tests/models/test_lora.py",
    ],
    "bsa_lightning/distillation/clip_errors.py": [f"{D}/test_clip_errors.py"],
    "bsa_lightning/distillation/round_budget.py": [f"{D}/test_round_budget.py"],
    "bsa_lightning/distillation/round_judge.py": [f"{D}/test_round_judge.py"],
    "bsa_lightning/distillation/rounds.py": [f"{D}/test_rounds.py", f"{D}/test_settings.py"],
    "bsa_lightning/distillation/denoising.py": [
        f"{D}/test_denoising_steps.py", f"{D}/test_denoising.py", f"{D}/test_validation.py", f"{D}/test_settings.py",
    ],
    "bsa_lightning/distillation/validation.py": [f"{D}/test_validation.py", f"{D}/test_steps.py"],
    "bsa_lightning/distillation/teachers.py": [f"{D}/test_teachers.py", f"{D}/test_steps.py"],
    "bsa_lightning/training/ema.py": ["tests/training/test_ema.py", f"{D}/test_settings.py"],
    "bsa_lightning/training/latent_module.py": [
        "tests/training/test_latent_module.py", f"{D}/test_settings.py", f"{D}/test_steps.py", f"{D}/test_averaging.py",
    ],
    "bsa_lightning/evaluation/metrics/divergence.py": [f"{E}/metrics/test_divergence.py"],
    "bsa_lightning/evaluation/metrics/frechet.py": [f"{E}/metrics/test_frechet.py"],
    "bsa_lightning/evaluation/metrics/frechet_at_infinity.py": [f"{E}/metrics/test_frechet_at_infinity.py"],
    "bsa_lightning/evaluation/metrics/kernel.py": [f"{E}/metrics/test_kernel.py"],
    "bsa_lightning/evaluation/paired_differences.py": [f"{E}/test_paired_differences.py"],
    "bsa_lightning/evaluation/scores.py": [f"{E}/test_scores.py"],
    "bsa_lightning/models/predictor.py": [f"{D}/test_guidance_modes.py", f"{D}/test_steps.py"],
}  # fmt: skip
"""Each file that is mutated, and the files of tests that are tried on it."""

STARTS_PROCESSES = ("test_two_ranks_say_what_one_process_says", "test_every_rank_has_the_errors_of_all_clips")
"""Tests that see no mutant, since the processes that they start import the code anew."""


def targets(root: Path, names: list[str]) -> dict[str, list[str]]:
    """The files that hold one of ``names`` in their path (all without names), with those of their tests that exist."""
    for file in TESTS:
        if not (root / file).exists():
            raise SystemExit(f"{file} is gone; correct tests/mutants/targets.py")
    return {file: tests for file, tests in TESTS.items() if not names or any(name in file for name in names)}
