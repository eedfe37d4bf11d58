"""System building, protocols, runs and their resumption."""
