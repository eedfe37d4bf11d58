"""The command line: argument parsing only, heavy imports inside the functions."""
