"""The tolerances of all tests, in one place, each with its reason."""

IDENTITY = {"rtol": 1e-10, "atol": 1e-10}
"""Two ways to write one expression, in float64."""

FLOAT32 = {"rtol": 1.3e-6, "atol": 1e-5}
"""Another implementation of the same thing, in float32 (torch's own defaults)."""

SAMPLES = {"rtol": 0.0, "atol": 1e-4}
"""Whole sampling loops compared in float32: rounding grows with every step."""

SCORES = {"rel": 1e-3, "abs": 1e-6}
"""One score from other batches or ranks: rounding to 16 bit may fall the other way."""

ORIGINAL = {"rtol": 0.0, "atol": 1e-4}
"""Outputs of the original code, computed on another machine, with outputs of size one."""

DEVICES = {"rtol": 1e-3, "atol": 1e-3}
"""One network on a GPU and on a CPU, in float32: sums in other orders through all layers."""

LADDERS = {"rtol": 1e-3, "atol": 1e-4}
"""Weights after a short ladder on a GPU and on a CPU, under plain gradient descent."""

LOW_PRECISION = 0.03
"""A network in bfloat16, whose numbers have 8 bits, over one in float32: the relative error of its outputs."""
