"""Geometry work on one molecule: any potential, relaxation, scans."""
