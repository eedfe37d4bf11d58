"""Sampling, labelling, data sets and training."""
