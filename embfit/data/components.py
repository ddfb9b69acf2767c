"""Connected components: which items must stay together because they share something."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)


def components(bonds: Mapping[Item, Iterable[Hashable]]) -> list[list[Item]]:
    """Group items that share a bond, directly or through other items (disjoint sets with path halving, Tarjan 1975).

    Args:
        bonds: item → the bonds that it has; two items with an equal bond belong together.

    Returns:
        The components. They and the items in each stand in the order of the mapping.
    """
    parent: dict[Item, Item] = {item: item for item in bonds}

    def root(item: Item) -> Item:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    holder: dict[Hashable, Item] = {}
    for item, its_bonds in bonds.items():
        for bond in its_bonds:
            parent[root(item)] = root(holder.setdefault(bond, item))
    together: dict[Item, list[Item]] = {}
    for item in bonds:
        together.setdefault(root(item), []).append(item)
    return list(together.values())
