"""`embfit bundle`: the versions of bundles, which of them is used, and what differs between two."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from embfit.bundle import BundleSettings, BundleVersions, open_bundle, read_manifest
from embfit.bundle.difference import differences
from embfit.bundle.gates import METRIC
from embfit.bundle.promotion import promote, prune, rollback
from embfit.bundle.transfer import pull, push
from embfit.bundle.versions import bundle_names
from embfit.command.removal import MEGABYTE
from embfit.compose.build import make
from embfit.compose.command_line import Parser
from embfit.compose.composition import compose, hydra_session, resolve_config
from embfit.compose.explain import aligned, headed
from embfit.compose.loader import make_loader
from embfit.compose.preflight import check_group
from embfit.errors import ConfigError, UserError
from embfit.object_storage import is_remote
from embfit.run.full_disk import advice_on_full_disk


def run(arguments: Sequence[str]) -> None:
    """Run `embfit bundle ARGUMENTS`.

    Raises:
        ConfigError: the arguments are wrong.
        UserError: there is no such version, it is damaged, or a gate did not let it pass.
    """
    overrides = [word for word in arguments if "=" in word and not word.startswith("-")]  # wherever they stand
    given = _parser().parse_args([word for word in arguments if word not in overrides])
    given.settings = _settings(overrides)
    with advice_on_full_disk({"bundle.dir": given.settings.folder}):
        given.do(given)


def _parser() -> Parser:
    parser = Parser(
        prog="embfit bundle",
        description="Show, check, promote, compare, remove and copy versions of bundles.",
        epilog="KEY=VALUE sets a key of the group bundle, such as bundle.dir=DIR.",
    )
    verbs = parser.add_subparsers(required=True, metavar="list|verify|promote|rollback|prune|diff|push|pull")
    listing = verbs.add_parser("list", help="list versions with their pointers, size and quality")
    listing.add_argument("names", nargs="*", metavar="NAME", help="names of bundles (default: all)")
    listing.set_defaults(do=_list)
    verify = verbs.add_parser("verify", help="read every file, and compare the model's vectors with the published ones")
    verify.add_argument("version", help="NAME for all versions, or NAME@VERSION")
    verify.set_defaults(do=_verify)
    promotion = verbs.add_parser("promote", help="make a version the champion, if the gates let it pass")
    promotion.add_argument("version", help="NAME for the challenger, or NAME@VERSION")
    promotion.add_argument("--force", action="store_true", help="promote even if a gate does not let it pass")
    promotion.set_defaults(do=_promote)
    back = verbs.add_parser("rollback", help="make the previous version the champion again")
    back.add_argument("name", help="the bundle's name")
    back.set_defaults(do=_rollback)
    pruning = verbs.add_parser("prune", help="remove old versions that no pointer names; without --yes, only list them")
    pruning.add_argument("name", help="the bundle's name")
    pruning.add_argument("--keep", type=_count, default=3, help="newest versions that stay (default: 3)")
    pruning.add_argument("--yes", action="store_true", help="remove the listed versions")
    pruning.set_defaults(do=_prune)
    diff = verbs.add_parser("diff", help="show what differs between two versions: documents, model, quality, answers")
    diff.add_argument("a", help="the first version: NAME@VERSION")
    diff.add_argument("b", help="the second version: NAME@VERSION")
    diff.set_defaults(do=_diff)
    for verb, do, told in (
        ("push", _push, "copy versions and pointers into object storage"),
        ("pull", _pull, "copy versions and pointers from object storage"),
    ):
        moving = verbs.add_parser(verb, help=told)
        moving.add_argument("version", help="NAME for all versions that a pointer names, or NAME@VERSION")
        moving.add_argument(
            "address", type=_address, help="the folder of all bundles in object storage: s3://BUCKET/FOLDER"
        )
        moving.set_defaults(do=do)
    return parser


def _settings(overrides: Sequence[str]) -> BundleSettings:
    """Compose and check the group `bundle`."""
    loader = make_loader()
    with hydra_session(loader):
        found = resolve_config(loader, compose(loader, overrides), overrides)
    check_group(found.values, "bundle", found.origins)
    settings: BundleSettings = make(found.values["bundle"], "bundle")
    return settings


def _named(version: str, settings: BundleSettings) -> tuple[BundleVersions, str]:
    """Return a bundle's versions, and what stands behind the `@`."""
    name, _, which = version.partition("@")
    return replace(settings, name=name).versions, which


def _list(given: argparse.Namespace) -> None:
    settings = given.settings
    bundles = [BundleVersions(settings.folder, name) for name in given.names or bundle_names(settings.folder)]
    if not bundles:
        raise UserError(f"there are no bundles in {settings.dir}; task=index bundle.name=NAME makes one")
    rows = [row for versions in bundles for row in _rows(versions)]
    print("\n".join(aligned([("version", "is", "made", "documents", "index", "MB", METRIC, "p50 ms"), *rows])))


def _rows(versions: BundleVersions) -> list[tuple[str, ...]]:
    rows = []
    for number in versions.numbers() or [versions.number()]:  # which says that there is none
        is_ = ", ".join(name for name, named in versions.pointers().items() if named == number) or "-"
        try:
            manifest = versions.manifest(number)
        except UserError:
            rows.append((f"{versions.name}@{number}", is_, "damaged", *["-"] * 5))
            continue
        quality = manifest.quality.metrics.get(METRIC) if manifest.quality else None
        rows.append(
            (
                manifest.label,
                is_,
                manifest.created[:16],
                f"{manifest.documents.count:,}",
                manifest.index.kind,
                f"{manifest.bytes / MEGABYTE:,.1f}",
                "-" if quality is None else f"{quality:.4f}",
                f"{manifest.latency_ms['p50']:.1f}" if "p50" in manifest.latency_ms else "-",
            )
        )
    return rows


def _verify(given: argparse.Namespace) -> None:
    versions, which = _named(given.version, given.settings)
    numbers = [versions.number(which)] if which else versions.numbers() or [versions.number()]
    wrong = 0
    for number in numbers:
        try:
            with open_bundle(versions.folder, number) as bundle:
                print(
                    f"ok       {bundle.label}: {len(bundle.manifest.files)} files as published, and its model's vectors"
                )
        except UserError as error:
            wrong += 1
            print(f"DAMAGED  {versions.name}@{number}: {error}")
    if wrong:
        raise UserError(f"{versions.name}: {wrong} of {len(numbers)} versions cannot be used")


def _promote(given: argparse.Namespace) -> None:
    settings = given.settings
    versions, which = _named(given.version, settings)
    done = promote(versions, which or "challenger", settings.gates, given.force)
    for result in done.results:
        print(result.line)
    replace(settings, name=versions.name).register()
    label = f"{versions.name}@{done.version}"
    if not done.promoted:
        failed = ", ".join(result.gate for result in done.results if not result.passed)
        raise UserError(f"{label} is not promoted: {failed}; --force promotes it all the same")
    print(f"{label} is champion" + (", though gates did not let it pass (--force)" if done.forced else ""))


def _rollback(given: argparse.Namespace) -> None:
    settings = given.settings
    versions, which = _named(given.name, settings)
    if which:
        raise ConfigError(f"rollback goes to the previous version; embfit bundle promote {given.name} to another")
    now, before = rollback(versions)
    replace(settings, name=versions.name).register()
    print(f"{versions.name}@{now} is champion, in the place of {versions.name}@{before}")


def _prune(given: argparse.Namespace) -> None:
    versions, _ = _named(given.name, given.settings)
    done = prune(versions, given.keep, dry_run=not given.yes)
    listed = ", ".join([f"{versions.name}@{number}" for number in done.removed] + [*done.collections]) or "none"
    print(f"removed: {listed}" if given.yes else f"old: {listed}; nothing was removed, --yes removes them")
    for number, why in done.kept.items():
        print(f"kept: {versions.name}@{number}: {why}")


def _diff(given: argparse.Namespace) -> None:
    settings = given.settings
    named = [_named(version, settings) for version in (given.a, given.b)]
    folders = [versions.path(which or "champion") for versions, which in named]
    a, b = ((folder, read_manifest(folder)) for folder in folders)
    for heading, rows in differences(*a, *b):
        print(headed(heading, rows))


def _push(given: argparse.Namespace) -> None:
    versions, which = _named(given.version, given.settings)
    print(f"pushed to {given.address}: {_labels(versions, push(versions, given.address, which))}")


def _pull(given: argparse.Namespace) -> None:
    versions, which = _named(given.version, given.settings)
    print(f"pulled from {given.address}: {_labels(versions, pull(versions, given.address, which))}")


def _labels(versions: BundleVersions, numbers: Sequence[int]) -> str:
    return ", ".join(f"{versions.name}@{number}" for number in numbers) or "nothing, all was there"


def _address(text: str) -> str:
    if not is_remote(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address in object storage, such as s3://BUCKET/FOLDER")
    return text


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of versions")
    return int(text)
