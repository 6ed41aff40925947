from pathlib import Path

import pytest

# pytest rewrites the assertions of test modules only. Those of the modules that tests share would check
# nothing under ``python -O``, as ``make test-optimized`` runs the tests.
pytest.register_assert_rewrite(*(f"tests.{path.stem}" for path in Path(__file__).parent.glob("[!_]*")))
