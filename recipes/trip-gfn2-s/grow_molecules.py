"""Writes grown.smi and larger.smi: H, C, N, O molecules, grown at random from common fragments.

    python recipes/trip-gfn2-s/grow_molecules.py > recipes/trip-gfn2-s/grown.smi
    python recipes/trip-gfn2-s/grow_molecules.py --larger > recipes/trip-gfn2-s/larger.smi

A model that meets unseen formulas needs many bonding patterns rather than many geometries of few
molecules. Each molecule starts as a fragment and gains atoms, bonds and rings; what chemists would
not keep in a bottle is left out by pattern. Deterministic by the seed.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rdkit import Chem, RDLogger
from rdkit.Chem.AllChem import EmbedMolecule

EMBEDDING_SEED = 7
FRAGMENTS = (
    "C", "CC", "C=C", "C#C", "C=O", "CO", "CN", "C#N", "C(=O)O", "C(=O)N", "CC(=O)NC", "C1CC1",
    "C1CCC1", "C1CCCC1", "C1CCCCC1", "c1ccccc1", "c1ccncc1", "c1cc[nH]c1", "c1ccoc1",
    "c1c[nH]cn1", "COC", "CNC", "O=CNC", "NC(=O)N", "C1COC1", "C1CCNC1", "C1CCOC1", "NCC(=O)O",
)  # fmt: skip
LARGER_FRAGMENTS = (
    *FRAGMENTS, "CC(=O)OC", "CC#N", "OCCO", "NCCN", "NCCO", "c1cn[nH]c1", "c1cnccn1", "c1cncnc1",
    "c1ccc(cc1)O", "c1ccc(cc1)N", "c1ccc(cc1)C(=O)N", "c1ccc(cc1)OC", "c1ccc2[nH]ccc2c1",
    "c1ccc(cc1)-c1ccccc1", "c1ccc(cc1)CC", "O=c1cc[nH]c(=O)[nH]1", "CC(=O)NCC(=O)NC", "C1CCNCC1",
    "C1COCCN1", "C1CNCCN1", "CC(C)(C)C", "CC(C)C",
)  # fmt: skip
GROWN_ATOMS = "C" * 6 + "N" * 2 + "O" * 2
BONDS = [Chem.BondType.SINGLE] * 8 + [Chem.BondType.DOUBLE] * 2 + [Chem.BondType.TRIPLE]
RING_SHARE = 0.15
UNWANTED = tuple(
    Chem.MolFromSmarts(pattern)
    for pattern in (
        "[N,O]~[N,O]~[N,O]",
        "[O;X2][O;X2]",
        "C=C=*",
        "N=C=*",
        "[r3]=,#[r3]",
        "[r3,r4]=*",
        "[r;!r8]#*",
        "[CX4]([OH,NH2])([OH,NH2,O,N])",
        "C=C[OH]",
        "[#6]=[NH]",
        "[+,-]",
        "[N;X3][N;X3]",
        "C#CC#C",
        "[R3]",
        "[R2;r3,r4]",
        "[c,n;r3,r4]",
        "[OX2]C#*",
        "[NX3]C#*",
    )
)


@dataclass(frozen=True)
class Stock:
    """How many molecules to grow, from what, and how large."""

    n_molecules: int
    max_heavy: int
    seed: int
    fragments: Sequence[str]


GROWN = Stock(n_molecules=2400, max_heavy=9, seed=7, fragments=FRAGMENTS)
LARGER = Stock(n_molecules=8000, max_heavy=14, seed=8, fragments=LARGER_FRAGMENTS)


def grow(generator: random.Random, stock: Stock) -> str | None:
    """Returns canonical SMILES of one grown molecule, or None where growth went astray."""
    molecule = Chem.RWMol(Chem.MolFromSmiles(generator.choice(stock.fragments)))
    Chem.Kekulize(molecule, clearAromaticFlags=True)
    target = generator.randint(max(2, molecule.GetNumAtoms()), stock.max_heavy)
    for _ in range(60):
        if molecule.GetNumAtoms() >= target:
            break
        atoms = [a.GetIdx() for a in molecule.GetAtoms()]
        start = generator.choice(atoms)
        if generator.random() < RING_SHARE and len(atoms) > 3:
            end = generator.choice(atoms)
            if end == start or molecule.GetBondBetweenAtoms(start, end):
                continue
            size = len(Chem.GetShortestPath(molecule, start, end))
            if not 3 <= size <= 6:
                continue
            bond = Chem.BondType.SINGLE
            trial = Chem.RWMol(molecule)
        else:
            trial = Chem.RWMol(molecule)
            end = trial.AddAtom(Chem.Atom(generator.choice(GROWN_ATOMS)))
            bond = generator.choice(BONDS)
        trial.AddBond(start, end, bond)
        if Chem.SanitizeMol(trial, catchErrors=True) == Chem.SanitizeFlags.SANITIZE_NONE:
            Chem.Kekulize(trial, clearAromaticFlags=True)
            molecule = trial
    whole = Chem.Mol(molecule)
    Chem.SanitizeMol(whole)
    if any(whole.HasSubstructMatch(pattern) for pattern in UNWANTED):
        return None
    smiles = Chem.MolToSmiles(whole)
    if EmbedMolecule(Chem.AddHs(Chem.MolFromSmiles(smiles)), randomSeed=EMBEDDING_SEED) != 0:
        return None  # no such shape in space
    return str(smiles)


def main() -> None:
    """Prints the molecules, smallest formulas first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--larger", action="store_true", help="more, and up to 14 heavy atoms")
    stock = LARGER if parser.parse_args().larger else GROWN
    RDLogger.DisableLog("rdApp.*")
    generator = random.Random(stock.seed)
    found: set[str] = set()
    while len(found) < stock.n_molecules:
        smiles = grow(generator, stock)
        if smiles is not None:
            found.add(smiles)
    print("# Grown by grow_molecules.py: bonding patterns of H, C, N and O.")
    for smiles in sorted(found, key=lambda s: (len(s), s)):
        sys.stdout.write(smiles + "\n")


if __name__ == "__main__":
    main()
