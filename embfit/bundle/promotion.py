"""Moving pointers: which version is used, after the gates; back again; and removing those that nobody uses."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from embfit.bundle.gates import GateResult, Gates, SameQueries
from embfit.bundle.manifest import read_manifest, verify
from embfit.bundle.opening import INDEX
from embfit.bundle.versions import BundleVersions
from embfit.errors import UserError
from embfit.index import DatabaseIndex, load_hosted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Promotion:
    """The outcome of a promotion.

    Args:
        version: that was to become champion.
        champion: that is champion now.
        results: what the gates said.
        forced: whether it was promoted though a gate did not let it pass.
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
    """What came of a pruning.

    Args:
        removed: versions that are gone, or would be.
        kept: versions that had to stay, and why.
        collections: of databases that no version had, with their place.
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
    """Let a version be champion if it is whole and passes the gates; the champion until now becomes `previous`.

    Of two processes that promote at once, one waits, and its version is held to the other's. A process that is killed
    here leaves the old champion or the new one; promoting again finishes what it began.

    Args:
        versions: of the bundle.
        which: the number of the version, or a pointer's name.
        gates: what it must hold to.
        force: whether it becomes champion though a gate does not let it pass.
        measured_again: what the model and the champion's reach on the version's documents, where that is known.

    Raises:
        UserError: there is no such version, a file of it is damaged, or its database does not answer or does not have
            its collection.
    """
    versions.number(which)
    with versions.changing():
        number, champion = versions.number(which), versions.pointer("champion")
        folder = versions.path(number)
        verify(folder, read_manifest(folder))
        hosted = _hosted(folder)
        if number == champion:
            _finish(versions, number)
            _show_to_others(hosted)
            return Promotion(number, champion, ())
        results = gates.check(folder, None if champion is None else versions.path(champion), measured_again)
        passed = all(result.passed for result in results)
        if not (passed or force):
            return Promotion(number, champion, results)
        before = None if champion is None else load_hosted(versions.path(champion) / INDEX)
        if champion is not None:
            versions.point("previous", champion)  # first: a crash between the two must not leave an older one there
        versions.point("champion", number)
        _finish(versions, number)
        _show_to_others(hosted)
        _warn_of_alias(before, hosted, f"{versions.name}@{number}")
        return Promotion(number, number, results, forced=not passed)


def rollback(versions: BundleVersions) -> tuple[int, int]:
    """Let the previous version be champion again, and return it with the one that it takes the place of.

    That one becomes `previous`, so that a second call undoes the first.

    Raises:
        UserError: there is no previous version, or a file of it is damaged.
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
        versions.point("champion", previous)
        versions.point("previous", champion)
        _show_to_others(hosted)
        _warn_of_alias(before, hosted, f"{versions.name}@{previous}")
        return previous, champion


def prune(versions: BundleVersions, keep: int, dry_run: bool = False) -> Pruning:
    """Remove old versions, and what builds that did not end left in the versions' databases.

    Versions that a pointer names are never removed. What a version has in a database goes with it. A version that
    cannot be removed, since a process has it open or its database does not let it go, stays, and the others go.

    Args:
        versions: of the bundle.
        keep: how many of the newest versions stay besides those.
        dry_run: whether to say what would be removed, and remove nothing.

    Raises:
        UserError: there is no such bundle.
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
    """Remove versions; return those that are gone, and why the others are not."""
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
    """Return an index in each database that versions have a collection in."""
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
    """Remove collections that no version has from databases, and return them with their place."""
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
    """Return the index of a version that lives in a database, held to what was published; None for another one."""
    hosted = load_hosted(folder / INDEX)
    if hosted is not None:
        hosted.check()
        hosted.keep()
    return hosted


def _show_to_others(hosted: DatabaseIndex | None) -> None:
    """Let the alias of a database name what the champion has there; servers of embfit do not go by it.

    Raises:
        UserError: the database does not let it. The version is champion all the same.
    """
    if hosted is None:
        return
    try:
        hosted.show()
    except UserError as error:
        raise type(error)(
            f"the version is champion, but the alias of other readers names another version: {error}; promote it again"
        ) from error


def _warn_of_alias(before: DatabaseIndex | None, now: DatabaseIndex | None, label: str) -> None:
    """Warn where the new champion has nothing in the old one's database: the alias there stays as it is."""
    if before is not None and (now is None or now.database.place != before.database.place):
        log.warning(
            "%s has no collection in %s: other readers of the alias %s there still get %s; tell them, or remove it",
            *(label, before.database.place, before.alias, before.name),
        )


def _drop_collection(identity: str, folder: Path) -> None:
    """Remove what a version of a bundle has in a database."""
    hosted = load_hosted(folder / INDEX)
    if hosted is not None:
        hosted.drop(identity)


def _finish(versions: BundleVersions, champion: int) -> None:
    """Clear the pointer of a challenger that is champion now."""
    if versions.pointer("challenger") == champion:
        versions.clear("challenger")
