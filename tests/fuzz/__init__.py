"""Machines that look for flaws: `make fuzz` runs each target of `targets` for an hour, by Atheris.

A target takes bytes, and raises if its invariant, the sentence in its docstring, does not hold. `seeds/` has
inputs to start from, a folder a target. `tests/test_fuzz.py` runs them, and a fixed set of inputs made from
them, without Atheris. An input that a machine finds becomes a seed with a name that says what it is.
"""
