"""Before any test: matplotlib must not look for a screen, and there are cores enough."""

import os

import pytest

os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    """``n_threads`` up to 8 is what it says, also where there are fewer cores."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
