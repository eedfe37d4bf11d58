"""Speed of models, backends and peers, measured side by side in one sitting."""

from pathlib import Path


def peer_worker_path() -> Path:
    """Returns the script that other interpreters run."""
    return Path(__file__).parent / "peer_worker.py"
