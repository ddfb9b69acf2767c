"""`task=refresh`: a bundle kept up with its data: what changed, training, a version, gates, promotion."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from embfit.atomic_files import write_text
from embfit.bundle import Manifest
from embfit.bundle.opening import MODEL
from embfit.bundle.promotion import Promotion, promote
from embfit.bundle.publishing import Published
from embfit.bundle.seen_documents import SeenDocuments
from embfit.bundle.settings import BundleSettings
from embfit.compose.tasks import task
from embfit.errors import ConfigError, UserError
from embfit.evaluator import Retrieval
from embfit.generator import NoGenerator
from embfit.index import IndexBuilder
from embfit.model import Encoder, EncoderChoice, encoder_at
from embfit.records import Collection, Report
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.bundle_version import make_version
from embfit.task.data_facts import describe
from embfit.task.finetune import finetune
from embfit.task.generated_data import Writer
from embfit.task.protocols import Data, EmbeddingLoss, Miner, Teacher
from embfit.task.refresh_plan import RefreshPlan, Train, plan_refresh
from embfit.task.refresh_queries import TrainedOn
from embfit.task.reporting import REPORT, close, print_places
from embfit.task.train_once import COSTLY, TRAINED
from embfit.task.trained_dims import trained_dims
from embfit.training import Training

if TYPE_CHECKING:
    import pytorch_lightning as pl

VERDICT = "verdict.json"

Decision: TypeAlias = Literal["promoted", "refused", "unchanged"]
Made: TypeAlias = Literal["trained", "kept"]


@dataclass(frozen=True)
class Attempt:
    """A version that was made to become champion.

    Args:
        model: `trained` where its model was trained in this refresh; `kept` where it is the champion's or, in a first
            version, the configured one.
        published: the version, and what was measured of it.
        promotion: what the gates said.
    """

    model: Made
    published: Published
    promotion: Promotion

    @property
    def manifest(self) -> Manifest:
        """The version's manifest."""
        return self.published.manifest

    @property
    def sentences(self) -> list[str]:
        """The lines that are printed of it."""
        now = "champion" if self.promotion.promoted else "not promoted: a gate did not let it pass"
        return [*(result.line for result in self.promotion.results), f"{self.manifest.label} is {now}"]


@task(
    outputs=(*REPORT, *TRAINED, VERDICT, "tensorboard", "csv", "queries*.parquet"),
    costly=COSTLY,
    paid=("generation",),
    spreads=True,
)
def refresh(
    data: Data,
    model: EncoderChoice,
    generator: Writer,
    evaluation: Writer,
    miner: Miner,
    teacher: Teacher,
    loss: EmbeddingLoss,
    training: Training,
    trainer: partial[pl.Trainer],
    devices: Devices,
    index: IndexBuilder,
    bundle: BundleSettings,
    evaluator: Retrieval,
    store: Store,
    run: RunFolder,
    train: Train = "auto",
    fallback: bool = True,
    dry_run: bool = False,
    review: str | None = None,
) -> Report | None:
    """Bring a bundle up to its data: train where pairs are new, make a version, promote it if the gates let it pass.

    Training starts from the champion's weights, and champion and challenger are compared on the same queries and
    today's documents. Where nothing changed since the champion, nothing is done.

    Args:
        data: has the documents, and pairs to train on where there are any.
        model: is the model of the first version; for later ones, how it is trained and computed.
        generator: writes training queries about the documents; what was answered for a document is not asked again.
        evaluation: writes queries of a dev or test split that the data lack.
        miner: finds negatives.
        teacher: is trained before the model, which then learns from its scores; or none.
        loss: of the training.
        training: how it is done.
        trainer: Lightning's Trainer.
        devices: all of them encode.
        index: how documents are searched.
        bundle: the bundle, and its gates.
        evaluator: measures.
        store: keeps the results of stages.
        run: gets the model, the report and `verdict.json`.
        train: `auto` trains where there are pairs, or with a generator documents, that the champion's model was not
            trained on, `always` where there are any, `never` renews the documents alone.
        fallback: whether today's documents are published with the champion's model where the new one is refused.
        dry_run: say what would be done, with the seconds that it took the last time, and do nothing.
        review: the file that `embfit review` made people export: their decisions override the generator's filters.

    Raises:
        ConfigError: `model` is of another kind than the champion's model.
        UserError: no version passed the gates.
    """
    with run.stage("load data"):
        collection = data.load(store)
        plan = plan_refresh(bundle.versions, collection, train, not isinstance(generator, NoGenerator))
    print("\n".join(plan.lines()), flush=True)
    if dry_run:
        return None
    attempts: list[Attempt] = []
    report = trained = None
    renewal = Renewal(plan, collection, index, bundle, evaluator, store, run, devices)
    with plan.champion_held(bundle.versions):
        kept = renewal.trained_further(model)
        if plan.trains:
            report = finetune(
                data=data,
                model=kept,
                generator=generator,
                evaluation=evaluation,
                miner=miner,
                teacher=teacher,
                loss=loss,
                training=training,
                trainer=trainer,
                devices=devices,
                evaluator=evaluator,
                store=store,
                run=run,
                review=review,
            )
            tuned = encoder_at(str(run.dir / "model"), model)
            trained = renewal.trained_on(report)
            attempts.append(renewal.attempt("trained", tuned, trained))
        if not (attempts or plan.nothing) or (fallback and plan.outdated and not attempts[-1].promotion.promoted):
            attempts.append(renewal.attempt("kept", kept, trained))
    if attempts:
        bundle.register()
    return _close(report, attempts, renewal)


@dataclass(frozen=True)
class Renewal:
    """Makes the versions of one refresh.

    Args:
        plan: what is to be done.
        collection: today's data.
        index: how documents are searched.
        bundle: the bundle, and its gates.
        evaluator: measures.
        store: keeps the results of stages.
        run: the folder of the run.
        devices: all of them encode.
    """

    plan: RefreshPlan
    collection: Collection
    index: IndexBuilder
    bundle: BundleSettings
    evaluator: Retrieval
    store: Store
    run: RunFolder
    devices: Devices

    def trained_further(self, model: EncoderChoice) -> EncoderChoice:
        """Return the champion's model, to be trained and computed as the configured one; that one without a champion.

        Raises:
            ConfigError: they are of different kinds.
        """
        champion = self.plan.champion
        if champion is None:
            return model
        found = encoder_at(str(self.bundle.versions.path(champion.version) / MODEL), model)
        if type(found) is not type(model):
            raise ConfigError(
                f"model is a {type(model).__name__}, and that of {champion.label} a {type(found).__name__}; choose a "
                "model of its kind, or begin another bundle (bundle.name)"
            )
        return found.trained_like(model)

    def trained_on(self, report: Report) -> TrainedOn:
        """Return what a training of this refresh tells about its queries."""
        champion = self.plan.champion
        number = None if champion is None else champion.version
        return TrainedOn.of(report, self.run.dir, self.collection, number, self.plan.seen)

    def attempt(self, made: Made, choice: EncoderChoice, trained: TrainedOn | None = None) -> Attempt:
        """Make a version, and let it be champion if the gates let it pass.

        Args:
            made: where its model is from.
            choice: its model.
            trained: what the training in this refresh tells, be it of this model or of one that was refused.
        """
        champion, versions = self.plan.champion, self.bundle.versions
        context = self.evaluator.context(self.collection, self.store, choice, self.devices.all)
        contexts = [context.on(split) for split in self.evaluator.splits]
        seen = SeenDocuments.of(self.plan.seen)
        if champion is not None:
            seen |= SeenDocuments.read(versions.path(champion.version))
        again = None if trained is None else trained.compared
        if made == "trained":
            pairs, dims = self.plan.pairs, _trained_dims(context.encoder)
            seen |= SeenDocuments.of(() if trained is None else trained.documents)
        elif champion is None:
            pairs, dims = "", _trained_dims(context.encoder)
        else:
            pairs, dims = champion.trained_on, champion.model.dims
            again = None if again is None else replace(again, after=again.before)
        published = make_version(self.bundle, self.index, contexts, self.run, dims, pairs, seen)
        with self.run.stage("promote"):
            promotion = promote(versions, published.manifest.version, self.bundle.gates, measured_again=again)
        return Attempt(made, published, promotion)


def _trained_dims(encoder: Encoder) -> Sequence[int]:
    return trained_dims(Path(encoder.source), encoder.width, encoder.single)


def _close(report: Report | None, attempts: Sequence[Attempt], renewal: Renewal) -> Report | None:
    """Write the verdict, print it, and refuse where no version was promoted."""
    plan, run = renewal.plan, renewal.run
    verdict = _verdict(attempts, renewal)
    write_text(run.dir / VERDICT, json.dumps(verdict, indent=2, ensure_ascii=False) + "\n")
    sentences = [sentence for attempt in attempts for sentence in attempt.sentences]
    if plan.champion is not None and not attempts:
        sentences.append(f"{plan.champion.label} is up to date and stays champion")
    made = [("bundle", str(renewal.bundle.versions.path(one.manifest.version))) for one in attempts]
    made.append(("verdict", str(run.dir / VERDICT)))
    if report is None and attempts:
        report = _report(attempts[-1], renewal)
        close(report, run, renewal.collection, made, sentences=sentences)
    else:
        print_places(made, sentences)
    if verdict["decision"] == "refused":
        failed = [result.line for result in attempts[-1].promotion.results if not result.passed]
        stays = f"; {plan.champion.label} stays champion" if plan.champion else ""
        raise UserError(
            f"{attempts[-1].manifest.label} is not promoted: {'; '.join(failed)}{stays} (embfit bundle promote "
            f"{plan.name} --force promotes it all the same)"
        )
    return report


def _report(attempt: Attempt, renewal: Renewal) -> Report:
    """Return the report of a refresh that trained nothing."""
    evaluations = attempt.published.measured.evaluations
    return Report(
        task="refresh",
        evaluations=evaluations[:1],
        comparisons=[],
        data=describe(renewal.collection),
        timings=renewal.run.timings,
        production=evaluations[1:],
    )


def _verdict(attempts: Sequence[Attempt], renewal: Renewal) -> dict[str, Any]:
    """Return what schedulers read."""
    plan = renewal.plan
    promoted = [one for one in attempts if one.promotion.promoted]
    decision: Decision = "promoted" if promoted else "refused" if attempts else "unchanged"
    return {
        "bundle": plan.name,
        "decision": decision,
        "model": promoted[-1].model if promoted else None,
        "champion": renewal.bundle.versions.pointer("champion"),
        "champion_before": plan.champion.version if plan.champion else None,
        "documents": plan.documents,
        "added": len(plan.changes.added),
        "changed": len(plan.changes.changed),
        "removed": len(plan.changes.removed),
        "versions": [
            {
                "version": one.manifest.version,
                "model": one.model,
                "promoted": one.promotion.promoted,
                "metrics": dict(one.manifest.quality.metrics) if one.manifest.quality else {},
                "latency_ms": dict(one.manifest.latency_ms),
                "gates": [asdict(result) for result in one.promotion.results],
            }
            for one in attempts
        ],
        "seconds": renewal.run.timings,
    }
