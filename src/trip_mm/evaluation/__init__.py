"""Potentials against labelled conformations: predictions, errors, tables, pictures."""
