"""Benchmarks: we and the peers side by side, in one run. ``make bench`` runs all."""
