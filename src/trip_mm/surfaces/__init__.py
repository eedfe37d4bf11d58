"""Energies along rigid paths and over grids: curves, water scans, smoothness, pictures."""
