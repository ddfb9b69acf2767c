"""Promotes a version that passes the gates, rolls back, and prunes unused versions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from embfit.bundle.gates import GateResult, Gates, SameQueries
from embfit.bundle.manifest import read_manifest, verify
from embfit.bundle.opening import INDEX
from embfit.bundle.pointers import Pointer
from embfit.bundle.versions import BundleVersions
from embfit.errors import UserError
from embfit.index import DatabaseIndex, load_hosted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Promotion:
    """The outcome of a promotion.

    Args:
        version: the number of the version.
        champion: the number of the champion afterwards.
        results: the results of the gates.
        forced: whether it was promoted despite a failed gate.
    """

    version: int
    champion: int | None
    results: Sequence[GateResult]
    forced: bool = False

    @property
    def promoted(self) -> bool:
        """Whether the version is champion now."""
        return self.champion == self.version


@dataclass(frozen=True)
class Pruning:
    """The outcome of a pruning.

    Args:
        removed: versions that were removed, or would be.
        kept: versions that could not be removed, and why.
        collections: removed collections of databases that belonged to no version, with their places.
    """

    removed: Sequence[int]
    kept: Mapping[int, str]
    collections: Sequence[str] = field(default_factory=list)


def promote(
    versions: BundleVersions,
    which: str | int,
    gates: Gates,
    force: bool = False,
    measured_again: SameQueries | None = None,
) -> Promotion:
    """Make a version the champion if it is undamaged and passes the gates; the old champion becomes `previous`.

    If two processes promote at once, one waits, and its version is then compared with the other's. A killed process
    leaves all pointers as they were, or as they are after the promotion.

    Args:
        versions: the versions of the bundle.
        which: the number of the version, or a pointer's name.
        gates: the gates.
        force: whether to promote it even if a gate fails.
        measured_again: the results of both models on the version's documents, if known.

    Raises:
        UserError: the version does not exist, a file is damaged, or its database does not answer or lacks the version's
            collection.
    """
    versions.number(which)
    with versions.changing():
        number, champion = versions.number(which), versions.pointer("champion")
        folder = versions.path(number)
        verify(folder, read_manifest(folder))
        hosted = _hosted(folder)
        if number == champion:
            if versions.pointer("challenger") == number:
                versions.point({"challenger": None})
            _show_to_others(hosted)
            return Promotion(number, champion, ())
        results = gates.check(folder, None if champion is None else versions.path(champion), measured_again)
        passed = all(result.passed for result in results)
        if not (passed or force):
            return Promotion(number, champion, results)
        before = None if champion is None else load_hosted(versions.path(champion) / INDEX)
        moves: dict[Pointer, int | None] = {"champion": number}
        if champion is not None:
            moves["previous"] = champion
        if versions.pointer("challenger") == number:
            moves["challenger"] = None
        versions.point(moves)
        _show_to_others(hosted)
        _warn_of_alias(before, hosted, f"{versions.name}@{number}")
        return Promotion(number, number, results, forced=not passed)


def rollback(versions: BundleVersions) -> tuple[int, int]:
    """Make the previous version the champion again; return its number and that of the replaced one.

    The replaced version becomes `previous`, so a second call undoes the first.

    Raises:
        UserError: there is no previous version, or one of its files is damaged.
    """
    versions.number("champion")
    with versions.changing():
        champion, previous = versions.number("champion"), versions.pointer("previous")
        if previous is None or previous == champion or previous not in versions.numbers():
            raise UserError(
                f"{versions.name} has no previous version to go back to; it has "
                f"{', '.join(map(str, versions.numbers()))}: embfit bundle promote {versions.name}@NUMBER"
            )
        folder = versions.path(previous)
        verify(folder, read_manifest(folder))
        hosted, before = _hosted(folder), load_hosted(versions.path(champion) / INDEX)
        versions.point({"champion": previous, "previous": champion})
        _show_to_others(hosted)
        _warn_of_alias(before, hosted, f"{versions.name}@{previous}")
        return previous, champion


def prune(versions: BundleVersions, keep: int, dry_run: bool = False) -> Pruning:
    """Remove old versions, and the collections that unfinished builds left in databases.

    Versions that a pointer names are never removed. A version's collection in a database is removed with it. A version
    that is open in a process, or whose database refuses, stays; the others are still removed.

    Args:
        versions: the versions of the bundle.
        keep: how many of the newest other versions stay.
        dry_run: whether to report only what would be removed.

    Raises:
        UserError: the bundle does not exist.
    """
    versions.number(versions.numbers()[-1] if versions.numbers() else "champion")
    with versions.changing():
        numbers = versions.numbers()
        stay = {*numbers[max(0, len(numbers) - keep) :], *versions.pointers().values()}
        old = [number for number in numbers if number not in stay]
        databases = _databases(versions)
        removed, kept = (old, {}) if dry_run else _remove(versions, old)
        return Pruning(removed, kept, _remove_left(versions, databases, dry_run))


def _remove(versions: BundleVersions, old: Sequence[int]) -> tuple[list[int], dict[int, str]]:
    """Remove versions; return the removed ones, and the reasons why the others stay."""
    removed, kept = [], {}
    for number in old:
        try:
            if versions.remove(number, partial(_drop_collection, versions.identity())):
                removed.append(number)
            else:
                kept[number] = "a process has it open"
        except UserError as error:
            kept[number] = str(error)
    return removed, kept


def _databases(versions: BundleVersions) -> dict[str, DatabaseIndex]:
    """Return one index for each database that holds collections of the versions."""
    found = {}
    for number in versions.numbers():
        try:
            hosted = load_hosted(versions.folder / str(number) / INDEX)
        except UserError as error:
            log.warning("%s@%d: %s", versions.name, number, error)
            continue
        if hosted is not None:
            found[hosted.database.place] = hosted
    return found


def _remove_left(versions: BundleVersions, databases: Mapping[str, DatabaseIndex], dry_run: bool) -> list[str]:
    """Remove collections that belong to no version from databases; return them with their places."""
    removed: list[str] = []
    with versions.not_publishing() as alone:
        for place, hosted in databases.items() if alone else ():
            try:
                names = hosted.remove_left(versions.identity(), versions.numbers(), dry_run)
                removed += [f"{name} ({place})" for name in names]
            except UserError as error:
                log.warning("%s; what unfinished builds left there stays", error)
    return removed


def _hosted(folder: Path) -> DatabaseIndex | None:
    """Return the checked index of a version whose vectors are in a database; None for other versions."""
    hosted = load_hosted(folder / INDEX)
    if hosted is not None:
        hosted.check()
        hosted.keep()
    return hosted


def _show_to_others(hosted: DatabaseIndex | None) -> None:
    """Point a database's alias to the champion's collection, for other readers; embfit's servers do not use it.

    Raises:
        UserError: the database refuses. The version is champion nevertheless.
    """
    if hosted is None:
        return
    try:
        hosted.set_alias()
    except UserError as error:
        raise type(error)(
            f"the version is champion, but the alias of other readers names another version: {error}; promote it again"
        ) from error


def _warn_of_alias(before: DatabaseIndex | None, now: DatabaseIndex | None, label: str) -> None:
    """Warn if the new champion has no collection in the old one's database, whose alias then stays as it is."""
    if before is not None and (now is None or now.database.place != before.database.place):
        log.warning(
            "%s has no collection in %s: other readers of the alias %s there still get %s; tell them, or remove it",
            *(label, before.database.place, before.alias, before.name),
        )


def _drop_collection(identity: str, folder: Path) -> None:
    """Remove a version's collection from its database."""
    hosted = load_hosted(folder / INDEX)
    if hosted is not None:
        hosted.drop(identity)
