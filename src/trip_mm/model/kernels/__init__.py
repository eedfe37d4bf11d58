"""Compiled CPU kernels of the network: numba with SIMD vectors, run by a pool of threads."""
