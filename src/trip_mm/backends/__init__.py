"""TrIP as a force of other programs: OpenMM, openmm-ml, ASE."""
