"""Which conformations are of one molecule, however the files divide them."""

from collections.abc import Sequence

from trip_mm.training.formats import COMP6_KEYS, Hdf5Group
from trip_mm.training.groups import Group


def is_of_comp6(group: Group) -> bool:
    """Whether a group comes from a file of COMP6's layout."""
    return isinstance(group, Hdf5Group) and group.keys == COMP6_KEYS


def by_molecule(groups: Sequence[Group]) -> list[tuple[Group, ...]]:
    """Gathers the groups that are parts of one molecule, in the order of their first one.

    COMP6 tells molecules apart, also isomers, by their path in the file. Everywhere else the class
    of system and the formula stand for the molecule, in whatever file the conformations lie: a
    directory of finished parts and the file that they are joined to are the same.
    """
    members: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        path = group.name if isinstance(group, Hdf5Group) and is_of_comp6(group) else ""
        members.setdefault((path, group.system_class, group.formula), []).append(group)
    return [tuple(own) for own in members.values()]
