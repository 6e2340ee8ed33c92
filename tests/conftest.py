"""Shared set-up of the tests: puts tests/support on sys.path and keeps the Hub's client to itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))

# Read by huggingface_hub when it is imported, so set before any test module can do so.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
