"""Before any test: matplotlib must not look for a screen."""

import os

os.environ["MPLBACKEND"] = "Agg"
