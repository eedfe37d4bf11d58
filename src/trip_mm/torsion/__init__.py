"""Torsion scans: dihedrals, constrained relaxation, profiles."""
