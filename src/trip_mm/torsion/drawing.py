"""Inline SVG of torsion profiles and of molecules with the driven torsion marked."""

import html
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D

from trip_mm.torsion.dihedrals import Dihedral
from trip_mm.torsion.profile import Profile
from trip_mm.torsion.records import mol_from_mapped_smiles

COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D")
"""Okabe-Ito: told apart by colour-blind readers too; black is the reference's."""

REFERENCE_COLOR = "#000000"
_MIDDLE = 'text-anchor="middle"'
_DASHES = ("", "6 3", "2 2", "8 3 2 3")


@dataclass(frozen=True)
class Frame:
    """Size of a picture and its margins, pixels."""

    width: int = 380
    height: int = 230
    left: int = 44
    right: int = 16
    top: int = 10
    bottom: int = 38

    def x(self, angle_deg: float) -> float:
        """Returns the horizontal place of an angle; the axis goes from -180 to 180 degrees."""
        return self.left + (angle_deg + 180.0) / 360.0 * (self.width - self.left - self.right)

    def y(self, energy: float, top_energy: float) -> float:
        """Returns the vertical place of an energy; the axis goes from 0 to `top_energy`."""
        inner = self.height - self.top - self.bottom
        return self.top + (1.0 - energy / top_energy) * inner


def profile_svg(profiles: dict[int, Profile], title: str, frame: Frame | None = None) -> str:
    """Draws profiles, each above its own minimum.

    Args:
        profiles: by number, which decides on the colour; 0 is the reference.
        title: read out by screen readers and shown when the pointer rests.
        frame: size of the picture.
    """
    frame = frame or Frame()
    highest = max(float(profile.relative_kcal_per_mol.max()) for profile in profiles.values())
    step, top = _ticks(max(highest, 0.1))
    parts = [
        f'<svg viewBox="0 0 {frame.width} {frame.height}" width="{frame.width}" '
        f'height="{frame.height}" role="img" font-family="sans-serif" font-size="11">'
        f"<title>{html.escape(title)}</title>",
        _axes(frame, step, top),
    ]
    # The reference is drawn last, so that it stays visible.
    for number in sorted(profiles, reverse=True):
        parts.append(_curve(frame, profiles[number], number, top))
    return "".join([*parts, "</svg>"])


def _ticks(highest: float) -> tuple[float, float]:
    """Returns a round step for about four intervals, and the top of the axis."""
    raw = highest / 4.0
    power = 10.0 ** np.floor(np.log10(raw))
    step = float(next(power * m for m in (1.0, 2.0, 5.0, 10.0) if power * m >= raw))
    return step, step * float(np.ceil(highest * 1.02 / step))


def _axes(frame: Frame, step: float, top: float) -> str:
    left, right = frame.x(-180.0), frame.x(180.0)
    bottom = frame.height - frame.bottom
    lines = []
    for count in range(round(top / step) + 1):
        y = frame.y(count * step, top)
        ends = f'x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        lines.append(f'<line stroke="#e4e4e4" {ends}/>')
        place = f'x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end"'
        lines.append(f"<text {place}>{count * step:g}</text>")
    for angle in range(-180, 181, 60):
        x = frame.x(angle)
        ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"'
        lines.append(f'<line stroke="#888888" {ends}/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 16}" {_MIDDLE}>{angle}</text>')
    middle = (left + right) / 2.0
    place = f'x="{middle:.1f}" y="{frame.height - 5}"'
    lines.append(f"<text {place} {_MIDDLE}>dihedral (degrees)</text>")
    height = (frame.top + bottom) / 2.0
    lines.append(
        f'<text {_MIDDLE} transform="translate(11 {height:.1f}) rotate(-90)">kcal/mol</text>'
    )
    return "".join(lines)


def _curve(frame: Frame, profile: Profile, number: int, top: float) -> str:
    color = REFERENCE_COLOR if number == 0 else COLORS[(number - 1) % len(COLORS)]
    dash = _DASHES[(number - 1) % len(_DASHES)] if number else ""
    points = [
        (frame.x(float(angle)), frame.y(float(energy), top))
        for angle, energy in zip(profile.angles_deg, profile.relative_kcal_per_mol, strict=True)
    ]
    # -180 and 180 degrees are the same point: the curve starts where it ends.
    if profile.angles_deg[-1] == 180.0:
        points.insert(0, (frame.x(-180.0), points[-1][1]))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    style = f' stroke-dasharray="{dash}"' if dash else ""
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>' for x, y in points)
    return (
        f'<g fill="{color}" stroke="{color}"><title>{html.escape(profile.label)}</title>'
        f'<polyline points="{path}" fill="none" stroke-width="1.6"{style}/>'
        f'<g stroke="none">{dots}</g></g>'
    )


def legend_svg(number: int) -> str:
    """Returns the piece of line that stands for a profile in the legend; 0 is the reference."""
    color = REFERENCE_COLOR if number == 0 else COLORS[(number - 1) % len(COLORS)]
    dash = _DASHES[(number - 1) % len(_DASHES)] if number else ""
    style = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        '<svg width="30" height="10" aria-hidden="true">'
        f'<line x1="0" x2="30" y1="5" y2="5" stroke="{color}" stroke-width="2"{style}/>'
        f'<circle cx="15" cy="5" r="2.6" fill="{color}"/></svg>'
    )


def _without_plain_hydrogens(mol: Chem.Mol, dihedral: Dihedral) -> Chem.Mol:
    """Returns the molecule with those hydrogens alone that are part of the dihedral.

    The property `driven` of an atom is its place in the dihedral, 1 to 4, and 0 elsewhere. RDKit
    removes the hydrogens: the sense of a stereocentre depends on the order of its neighbours.
    """
    copy = Chem.Mol(mol)
    for atom in copy.GetAtoms():
        place = 1 + dihedral.index(atom.GetIdx()) if atom.GetIdx() in dihedral else 0
        atom.SetIntProp("driven", place)
        atom.SetAtomMapNum(place)
    parameters: Any = Chem.RemoveHsParameters()
    parameters.removeMapped = False
    shown = Chem.RemoveHs(copy, parameters)
    for atom in shown.GetAtoms():
        atom.SetAtomMapNum(0)
    return shown


def molecule_svg(smiles: str, dihedral: Dihedral, width: int = 200, height: int = 170) -> str:
    """Draws a molecule with the driven torsion marked; hydrogens only where they are part of it.

    Args:
        smiles: mapped.
        dihedral: atom indices.
        width: pixels.
        height: pixels.
    """
    shown = _without_plain_hydrogens(mol_from_mapped_smiles(smiles), dihedral)
    rdDepictor.Compute2DCoords(shown)
    place = {a.GetIntProp("driven"): a.GetIdx() for a in shown.GetAtoms() if a.GetIntProp("driven")}
    atoms = [place[number] for number in (1, 2, 3, 4)]
    # An improper dihedral has pairs that are not bonded.
    found = [shown.GetBondBetweenAtoms(one, other) for one, other in pairwise(atoms)]
    bonds = [bond.GetIdx() for bond in found if bond is not None]
    canvas = rdMolDraw2D.MolDraw2DSVG(width, height)
    options: Any = canvas.drawOptions()
    options.clearBackground = False
    options.setHighlightColour((1.0, 0.82, 0.4))
    rdMolDraw2D.PrepareAndDrawMolecule(
        canvas, shown, highlightAtoms=atoms, highlightBonds=bonds, kekulize=True
    )
    canvas.FinishDrawing()
    drawn = str(canvas.GetDrawingText())
    # Declarations and comments of a file of its own have no place within a page.
    return re.sub(r"<\?xml.*?\?>|<!--.*?-->|\s(?=\n)", "", drawn, flags=re.DOTALL).strip()
