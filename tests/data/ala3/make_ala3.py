"""Makes ala3.pdb and ala3.xtc: 60 frames of zwitterionic trialanine, Amber14 with GB-Neck2 water.

The trajectory is short dynamics at 600 K, so that more than one Ramachandran state is visited. It
is test material for the analysis code and says nothing about trialanine. Run once by hand:
`python tests/data/ala3/make_ala3.py`.
"""

import io
from pathlib import Path

import openmm
from openmm import app, unit
from rdkit import Chem
from rdkit.Chem import AllChem

FOLDER = Path(__file__).parent


def main() -> None:
    molecule = Chem.MolFromSequence("AAA")
    with_hydrogens = Chem.AddHs(molecule)
    AllChem.EmbedMolecule(with_hydrogens, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(with_hydrogens)
    pdb = app.PDBFile(io.StringIO(Chem.MolToPDBBlock(Chem.RemoveHs(with_hydrogens), flavor=4)))
    force_field = app.ForceField("amber14-all.xml", "implicit/gbn2.xml")
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addHydrogens(force_field, pH=7.0)
    system = force_field.createSystem(modeller.topology, constraints=app.HBonds)
    integrator = openmm.LangevinMiddleIntegrator(600, 5.0, 0.002)
    integrator.setRandomNumberSeed(7)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(modeller.topology, system, integrator, platform)
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(600 * unit.kelvin, 7)
    with (FOLDER / "ala3.pdb").open("w") as handle:
        positions = simulation.context.getState(positions=True).getPositions()
        app.PDBFile.writeFile(modeller.topology, positions, handle)
    simulation.reporters.append(app.XTCReporter(str(FOLDER / "ala3.xtc"), 1000))
    simulation.step(60_000)


if __name__ == "__main__":
    main()
