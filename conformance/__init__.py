"""Conformance: the Autobahn test suite for both roles, and the map of the RFCs' clauses."""
