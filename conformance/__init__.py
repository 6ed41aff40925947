"""Conformance: the Autobahn test suite in both directions, and the map of the RFC's clauses."""
