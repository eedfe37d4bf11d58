"""The network: pure tensor mathematics, scriptable and compilable."""
