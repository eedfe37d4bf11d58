"""Analysis of trajectories: arrays in, arrays out; plots beside, never inside."""
