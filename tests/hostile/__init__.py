"""Tests of known flaws: each names the flaws that it would find, and docs/security.md lists them."""
