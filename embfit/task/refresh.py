"""`task=refresh`: updates a bundle to its data: find changes, train, make a version, check the gates, promote."""

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
from embfit.task.bundle_version import check_index, make_version
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
        promotion: the results of the gates.
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
        """The lines to print about this attempt."""
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
    """Update a bundle to its data: train if pairs are new, make a version, and promote it if it passes the gates.

    Training starts from the champion's weights, and champion and challenger are compared on the same queries and
    today's documents. If nothing has changed since the champion, nothing is done.

    Args:
        data: the documents, and training pairs if there are any.
        model: the model of the first version; for later versions, only its training and compute settings apply.
        generator: writes training queries about the documents; it reuses the answers for unchanged documents.
        evaluation: writes the queries of a missing dev or test split.
        miner: finds negatives.
        teacher: is trained first, and the model learns from its scores; or none.
        loss: the loss of the training.
        training: the settings of the training.
        trainer: Lightning's Trainer.
        devices: all of them encode.
        index: the kind of index.
        bundle: the bundle, and its gates.
        evaluator: measures the models.
        store: keeps the results of stages.
        run: the run folder, which gets the model, the report and `verdict.json`.
        train: `auto` trains if there are pairs (or, with a generator, documents) that the champion's model was not
            trained on, `always` if there are any, `never` only updates the documents.
        fallback: whether to publish today's documents with the champion's model if the new model is refused.
        dry_run: whether to print only the planned stages, with their seconds of the last time.
        review: the file that reviewers export from the page of `embfit review`; it overrides the generator's filters.

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
        if not plan.nothing:
            check_index(index, kept, bundle)  # a training may take hours
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
        plan: the plan of the refresh.
        collection: today's data.
        index: the kind of index.
        bundle: the bundle, and its gates.
        evaluator: measures the models.
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
        """Return the champion's model with the configured settings; without a champion, the configured model.

        Raises:
            ConfigError: the two models are of different kinds.
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
        """Return the record of this refresh's training about its queries."""
        champion = self.plan.champion
        number = None if champion is None else champion.version
        return TrainedOn.of(report, self.run.dir, self.collection, number, self.plan.seen)

    def attempt(self, made: Made, choice: EncoderChoice, trained: TrainedOn | None = None) -> Attempt:
        """Make a version, and promote it if it passes the gates.

        Args:
            made: the origin of its model.
            choice: its model.
            trained: the record of this refresh's training, of this model or of one that was refused.
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
    """Write and print the verdict; raise an error if no version was promoted."""
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
    """Return the content of `verdict.json`, for schedulers."""
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
