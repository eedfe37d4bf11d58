"""`methods.md`: what was done, in prose that can go into a paper, with versions and citations."""

import itertools
from collections.abc import Sequence
from typing import Any

from trip_mm.elements import formula
from trip_mm.precision.record import PrecisionCheck
from trip_mm.simulation.box import describe_box
from trip_mm.simulation.building import BuiltStructure
from trip_mm.simulation.committee_reporter import kcal_per_mol_angstrom
from trip_mm.simulation.plan import RunPlan
from trip_mm.simulation.platforms import PlatformChoice
from trip_mm.simulation.potentials import amber14_cutoff
from trip_mm.simulation.schedule import RAMP_INCREMENTS, temperature_schedule
from trip_mm.simulation.stage import ResolvedStage
from trip_mm.units import NM_TO_ANGSTROM

_CITATIONS = {
    "trip": (
        "B. Hedelius, TrIP: Transformer Interatomic Potential, thesis, Brigham Young University "
        "(2024)."
    ),
    "openmm": (
        "P. Eastman et al., OpenMM 8: Molecular Dynamics Simulation with Machine Learning "
        "Potentials, J. Phys. Chem. B 128, 109 (2024)."
    ),
    "openmm-torch": "OpenMM-Torch, https://github.com/openmm/openmm-torch.",
    "openmm-ml": "OpenMM-ML, https://github.com/openmm/openmm-ml.",
    "middle": (
        "Z. Zhang, X. Liu, K. Yan, M. E. Tuckerman, J. Liu, Unified Efficient Thermostat Scheme "
        "for the Canonical Ensemble with Holonomic or Isokinetic Constraints via Molecular "
        "Dynamics, J. Phys. Chem. A 123, 6056 (2019)."
    ),
    "barostat": (
        "J. Aqvist, P. Wennerstrom, M. Nervall, S. Bjelic, B. O. Brandsdal, Molecular dynamics "
        "simulations of water and biomolecules with a Monte Carlo constant pressure algorithm, "
        "Chem. Phys. Lett. 384, 288 (2004)."
    ),
    "amber14": (
        "J. A. Maier et al., ff14SB: Improving the Accuracy of Protein Side Chain and Backbone "
        "Parameters from ff99SB, J. Chem. Theory Comput. 11, 3696 (2015)."
    ),
    "tip3pfb": (
        "L.-P. Wang, T. J. Martinez, V. S. Pande, Building Force Fields: An Automatic, Systematic, "
        "and Reproducible Approach, J. Phys. Chem. Lett. 5, 1885 (2014)."
    ),
    "pme": (
        "U. Essmann et al., A smooth particle mesh Ewald method, J. Chem. Phys. 103, 8577 (1995)."
    ),
    "gfn2": (
        "C. Bannwarth, S. Ehlert, S. Grimme, GFN2-xTB, J. Chem. Theory Comput. 15, 1652 (2019)."
    ),
    "respa": (
        "M. Tuckerman, B. J. Berne, G. J. Martyna, Reversible multiple time scale molecular "
        "dynamics, J. Chem. Phys. 97, 1990 (1992)."
    ),
    "baoab-respa": (
        "L. Lagardere, F. Aviat, J.-P. Piquemal, Pushing the Limits of Multiple-Time-Step "
        "Strategies for Polarizable Point Dipole Molecular Dynamics, J. Phys. Chem. Lett. 10, "
        "2593 (2019)."
    ),
    "ml-respa": (
        "X. Fu, A. Musaelian, A. Johansson, T. Jaakkola, B. Kozinsky, Learning Interatomic "
        "Potentials at Multiple Scales, arXiv:2310.13756 (2023)."
    ),
    "mdanalysis": (
        "R. J. Gowers et al., MDAnalysis: A Python Package for the Rapid Analysis of Molecular "
        "Dynamics Simulations, Proc. 15th Python in Science Conf., 98 (2016)."
    ),
}


def methods_text(
    plan: RunPlan,
    structure: BuiltStructure,
    versions: dict[str, str],
    continuations: Sequence[dict[str, Any]] = (),
) -> str:
    """Returns the content of methods.md.

    Args:
        plan: what the run began with.
        structure: of the run.
        versions: of the software.
        continuations: as run.json records them; what it went on with.
    """
    paragraphs = [
        f"# Methods: {plan.name}",
        _system_paragraph(structure),
        *(_potential_paragraph(plan, str(p), structure) for p in plan.potentials()),
        *_multiple_timesteps_paragraphs(plan),
        *_committee_paragraphs(plan),
        "## Protocol",
        "\n".join(
            f"{index + 1}. **{stage.name}.** {_stage_sentence(plan, index)}"
            for index, stage in enumerate(plan.stages)
        ),
        _numerics_paragraph(plan, structure, continuations),
        "## Software",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "## References",
        "\n".join(f"- {citation}" for citation in _citations(plan, structure)),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _system_paragraph(structure: BuiltStructure) -> str:
    residues = list(structure.topology.residues())
    solute = [r for r in residues if next(r.atoms()).index < structure.n_solute_atoms]
    n_rest = len(residues) - len(solute)
    chains = [list(group) for _, group in itertools.groupby(solute, lambda r: r.chain.index)]
    names = " and ".join("-".join(residue.name for residue in chain) for chain in chains)
    numbers = [atom.element.atomic_number for atom in structure.topology.atoms()]
    text = f"The system has {len(numbers)} atoms"
    if solute:
        text += f": the solute {names} ({formula(numbers[: structure.n_solute_atoms])})"
        text += f" and {n_rest} solvent molecules or ions" if n_rest else ""
    else:
        text += f" in {n_rest} molecules or ions"
    text += f"; net charge {structure.net_charge:+d}." if structure.net_charge else "."
    if structure.isomeric_smiles is not None:
        text += f" The molecule {names} is {structure.isomeric_smiles} (isomeric SMILES)."
    if structure.added_atoms:
        text += (
            " PDBFixer modelled heavy atoms that the structure file lacks: "
            f"{'; '.join(structure.added_atoms)}."
        )
    if structure.box_vectors is None:
        return text + " There are no periodic boundaries."
    rows = "; ".join(
        "(" + ", ".join(f"{value * NM_TO_ANGSTROM:.3f}" for value in row) + ")"
        for row in structure.box_vectors
    )
    box = describe_box(structure.box_vectors)
    return f"{text} The periodic boundaries ({box}) have the initial lattice vectors {rows} A."


def _potential_paragraph(plan: RunPlan, potential: str, structure: BuiltStructure) -> str:
    kind, _, name = potential.partition(":")
    if kind == "amber14":
        text = f"**Amber14.** The Amber14 force field (protein: ff14SB) with {name} water"
        cutoff = amber14_cutoff(structure.box_vectors)
        if cutoff is None:
            text += ", without cutoff"
        else:
            text += (
                "; smooth particle mesh Ewald with a real-space cutoff of "
                f"{cutoff * NM_TO_ANGSTROM:.2f} A"
            )
        return text + ". Bonds to hydrogen and water are rigid."
    if kind == "trip":
        record = plan.models[potential]
        return (
            f"**TrIP.** The machine-learned potential {record.name} (TrIP, an SE(3)-Transformer; "
            f"level of theory of its labels: {record.level_of_theory}; sha256 {record.sha256}), "
            f"evaluated through OpenMM's {plan.backend} force backend. No constraints."
            + _precision_sentences(plan, potential)
        )
    double = plan.platform.precision_asked and plan.platform.precision == "double"
    text = f"**openmm-ml.** The machine-learned potential {name} of openmm-ml"
    return text + (", in double precision. No constraints." if double else ". No constraints.")


def _multiple_timesteps_paragraphs(plan: RunPlan) -> list[str]:
    paragraphs = []
    for inner in plan.inner_potentials():
        splits = [stage.multiple_timesteps for stage in plan.stages]
        names = [
            stage.name
            for stage, split in zip(plan.stages, splits, strict=True)
            if split is not None and split.inner == inner
        ]
        if inner.kind == "amber14":
            what = f"Amber14 with {inner.name} water, bonds and water flexible,"
        else:
            record = plan.models[str(inner)]
            what = f"the TrIP potential {record.name} (sha256 {record.sha256})"
        paragraphs.append(
            f"**Multiple time steps.** In {', '.join(names)} {what} acted in every inner step, and "
            "the difference of the stage's potential to it at the ends of every outer step "
            "(r-RESPA); their sum is the stage's potential."
        )
    return paragraphs


def _precision_sentences(plan: RunPlan, potential: str) -> str:
    if potential not in plan.precision_checks:
        return ""
    check = PrecisionCheck.from_dict(plan.precision_checks[potential])
    names = {"bf16": "bfloat16", "tf32": "TF32"}
    return (
        f" The matrix products of its interaction blocks had {names[check.precision]} operands and "
        "float32 sums. Before the run this was compared with float32 on the starting structure "
        f"({check.n_steps} steps of {check.timestep_fs:g} fs at constant energy on the "
        f"{check.device}): {check.force_sentence()}; {check.drift_sentence()}."
    )


def _committee_paragraphs(plan: RunPlan) -> list[str]:
    watches = dict.fromkeys(stage.committee for stage in plan.stages if stage.committee)
    paragraphs = []
    for watch in watches:
        names = [stage.name for stage in plan.stages if stage.committee == watch]
        records = [plan.models[f"trip:{name}"] for name in watch.models]
        members = ", ".join(f"{record.name} (sha256 {record.sha256})" for record in records)
        text = (
            f"**Committee.** In {', '.join(names)} the forces of {len(records)} TrIP models, "
            f"{members}, were compared every {watch.interval_steps} steps; the disagreement on an "
            "atom is the standard deviation of its force vector over the models."
        )
        if watch.stop_above_kj_per_mol_nm is not None:
            limit = kcal_per_mol_angstrom(watch.stop_above_kj_per_mol_nm)
            text += f" A disagreement above {limit:.4g} kcal/mol/A stops the run."
        paragraphs.append(text)
    return paragraphs


def _stage_sentence(plan: RunPlan, index: int) -> str:
    stage = plan.stages[index]
    on = f"on {plan.stage_potential(index)}"
    if stage.kind == "minimize":
        limit = f", at most {stage.max_iterations} iterations" if stage.max_iterations else ""
        if stage.minimizes_in_passes:
            limit = f" of{limit.removeprefix(',')}" if limit else ""
            limit = f", in passes{limit} with stiffer springs each in place of the rigid bonds"
        return (
            f"Energy minimization (L-BFGS) {on} until the root-mean-square force fell below "
            f"{stage.tolerance_kj_per_mol_nm:g} kJ/mol/nm or the energy no longer fell{limit}."
        )
    ensembles = {"nvt": "Constant volume", "npt": "Constant pressure", "nve": "Constant energy"}
    text = (
        f"{ensembles[stage.kind]} for {stage.duration_ps:g} ps "
        f"({stage.n_steps} steps of {stage.timestep_fs:g} fs) {on}, {_control(stage)}."
    )
    if plan.draws_velocities(index) and stage.temperature_start_k is not None:
        text += (
            " Velocities were drawn from the Maxwell-Boltzmann distribution at "
            f"{stage.temperature_start_k:g} K."
        )
    if stage.hydrogen_mass_u is not None:
        rigid = " (not in rigid water)" if plan.stage_potential(index).is_classical else ""
        text += f" Hydrogen masses were repartitioned to {stage.hydrogen_mass_u:g} u{rigid}."
    return text


def _control(stage: ResolvedStage) -> str:
    temperatures = temperature_schedule(stage)
    split = stage.multiple_timesteps
    inner = "" if split is None else f", {split.n_steps} inner steps in each,"
    if temperatures is None:
        return "leapfrog Verlet integrator" if split is None else f"r-RESPA integrator{inner[:-1]}"
    name = "LangevinMiddle integrator" if split is None else f"BAOAB-RESPA integrator{inner}"
    text = f"{name} with a friction of {stage.friction_per_ps:g}/ps"
    if temperatures.n_increments > 1:
        text += (
            f", heated or cooled from {temperatures.start_k:g} K to {temperatures.end_k:g} K in "
            f"{min(RAMP_INCREMENTS, stage.n_steps)} equal increments"
        )
    else:
        text += f" at {temperatures.end_k:g} K"
    if stage.pressure_bar is not None:
        text += (
            f", Monte Carlo barostat at {stage.pressure_bar:g} bar with a trial every "
            f"{stage.barostat_interval} steps, which moves molecules whole"
        )
    return text


def _numerics_paragraph(
    plan: RunPlan, structure: BuiltStructure, continuations: Sequence[dict[str, Any]]
) -> str:
    trip_acts = plan.uses_trip()
    begun = f"OpenMM's {plan.platform.describe(trip_acts)}"
    text = f"The run began on {begun}." if continuations else f"All stages ran on {begun}."
    for item in continuations:
        platform = PlatformChoice(**item["platform"])
        backend = f", force backend {item['backend']}" if plan.uses_networks() else ""
        text += (
            f" From step {item['step']} of {item['stage']} on it ran on "
            f"OpenMM's {platform.describe(trip_acts)} with {platform.threads} threads{backend}."
        )
    text += f" Every random number derives from the seed {plan.seed}."
    if _has_backbone_torsions(structure):
        text += (
            " Backbone torsions were analysed with MDAnalysis on the trajectory of the last "
            "dynamics stage."
        )
    return text


def _has_backbone_torsions(structure: BuiltStructure) -> bool:
    """Whether a residue stands between two peptide bonds."""
    before, after = set(), set()
    for bond in structure.topology.bonds():
        ends = {atom.name: atom.residue.index for atom in bond}
        if ends.keys() == {"C", "N"} and ends["C"] != ends["N"]:
            after.add(ends["C"])
            before.add(ends["N"])
    return not before.isdisjoint(after)


def _citations(plan: RunPlan, structure: BuiltStructure) -> Sequence[str]:
    used = ["openmm", *(["mdanalysis"] if _has_backbone_torsions(structure) else [])]
    ewald = ["pme"] if structure.box_vectors is not None else []
    for potential in plan.potentials():
        used.append(potential.kind)
        if potential.kind == "amber14":
            used += ewald + (["tip3pfb"] if potential.name == "tip3pfb" else [])
        if potential.kind == "trip" and plan.backend == "torch":
            used.append("openmm-torch")
        record = plan.models.get(str(potential))
        if record is not None and "gfn2" in f"{record.level_of_theory} {record.name}".lower():
            used.append("gfn2")
    for potential in plan.inner_potentials():
        used.append(potential.kind)
        if potential.kind == "amber14":
            used += ewald + (["tip3pfb"] if potential.name == "tip3pfb" else [])
        used += ["respa", "ml-respa"]
    baths = [stage for stage in plan.stages if stage.kind in ("nvt", "npt")]
    if any(stage.multiple_timesteps is None for stage in baths):
        used.append("middle")
    if any(stage.multiple_timesteps is not None for stage in baths):
        used.append("baoab-respa")
    if any(stage.kind == "npt" for stage in plan.stages):
        used.append("barostat")
    return [_CITATIONS[key] for key in dict.fromkeys(used)]
