"""Benchmarks of this project and of its peers, in the same run. ``make bench`` runs all of them."""
