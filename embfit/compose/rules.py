"""What values of one group ask of another: one small function per rule, listed in `RULES`.

A rule takes the resolved configuration, whose every value has its type already, and yields problems. A rule asks the
classes that were chosen what they are (`hints` has the marks), or looks for keys; it must not fail on choices that lack
them, since packs bring choices of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from embfit.compose.compatibility import groups_fit_task, marks, target_at
from embfit.compose.problems import Problem
from embfit.compose.targets import MissingTargetError
from embfit.compose.tasks import TaskDeclaration, declaration
from embfit.object_storage import address_problem, is_remote
from embfit.suggestions import lies_beside, suggestion
from embfit.type_hints import Location

Values = Mapping[str, Any]


def negatives_fit_depth(values: Values) -> Iterator[Problem]:
    """A miner cannot return more negatives than it looks at."""
    for path, miner in _nodes(values.get("miner"), "miner"):
        if "negatives" in miner and "depth" in miner:
            looked_at = miner["depth"] - miner.get("skip", 0)
            if miner["negatives"] > looked_at:
                limit = f"{max(looked_at, 0)} ranks up to {path}.depth={miner['depth']}"
                message = f"{miner['negatives']} exceeds the {limit} that are looked at; lower it or raise {path}.depth"
                yield Problem(f"{path}.negatives", message)


def mined_again_for_all(values: Values) -> Iterator[Problem]:
    """Batches are planned once, for the queries that were mined for at first."""
    if (values.get("training") or {}).get("remine_every") is None:
        return
    for path, miner in _nodes(values.get("miner"), "miner"):
        if miner.get("unreached") == "drop" and not path.endswith(".candidates"):  # of which the search alone is used
            message = "drop cannot go with training.remine_every, which mines for the same queries each time"
            yield Problem(f"{path}.unreached", f"{message}; set {path}.unreached=keep")


def dims_ascend(values: Values) -> Iterator[Problem]:
    """Matryoshka's dimensions are prefixes of one another, each named once."""
    dims = (values.get("loss") or {}).get("dims")
    if isinstance(dims, list) and dims != sorted(set(dims)):
        yield Problem("loss.dims", f"{dims} does not ascend; write {sorted(set(dims))}")


def locations_given(values: Values) -> Iterator[Problem]:
    """A location that a choice leaves to its user, such as the folder of an own model, is set."""
    for key, value, mark in _locations(values):
        if mark.required and value in (None, ""):
            yield Problem(key, f"is not set; add {key}={mark.example}")


def systems_exist(values: Values) -> Iterator[Problem]:
    """The evaluator knows the systems that are measured or reranked, and the systems that those are made of."""
    known = (values.get("evaluator") or {}).get("systems") or {}
    asked = [("task.systems", name) for name in (values.get("task") or {}).get("systems") or []]
    if candidates := (values.get("model") or {}).get("candidates"):
        asked.append(("model.candidates", candidates))
    for key, name in asked:
        if name not in known:
            yield Problem(key, f"evaluator.systems has no '{name}'{suggestion(name, known)}")
        else:
            of = known[name].get("of") or []  # several systems, or one
            parts = [of] if isinstance(of, str) else of
            new = [(f"evaluator.systems.{name}.of", part) for part in parts]
            asked += [part for part in new if part not in asked]


def best_weights_chosen_apart(values: Values) -> Iterator[Problem]:
    """The split that chooses the weights flatters them, so it is not reported."""
    evaluator = values.get("evaluator") or {}
    trains = _trains(values)
    for key in ("split", "production"):
        if trains and evaluator.get(key) is not None and evaluator[key] == evaluator.get("dev_split"):
            message = f"{evaluator[key]} is evaluator.dev_split too, whose queries choose the weights that are reported"
            yield Problem(f"evaluator.{key}", f"{message}; set one of the two to another split")


def folders_can_be(values: Values) -> Iterator[Problem]:
    """The folders of runs, of the store and of bundles are named, are on this machine, and are not files."""
    uses_store = (values.get("store") or {}).get("enabled", True)
    for group, instead in (("run", ""), ("store", "store.shared"), ("bundle", "embfit bundle push")):
        folder = (values.get(group) or {}).get("dir")
        if is_remote(str(folder)):
            remedy = f"; {instead} keeps a copy there" if instead else ""
            yield Problem(f"{group}.dir", f"{folder} is in object storage; name a folder of this machine{remedy}")
        elif group == "bundle" or (group == "store" and not uses_store):
            continue
        elif folder == "":  # a shell's variable that is not set; it would be the working directory
            yield Problem(f"{group}.dir", "is empty; name a folder")
        elif folder is not None:
            path = Path(folder).expanduser()
            there = next((place for place in (path, *path.parents) if place.exists()), path)
            if there.is_file():
                yield Problem(f"{group}.dir", f"{there} is a file; name a folder")


def query_to_search(values: Values) -> Iterator[Problem]:
    """A task that cannot do without a query, its free text, needs one."""
    task = target_at(values.get("task"))
    if task and "query" in task.required and "query" in _declared(values).free_text and not values.get("query"):
        name = task.name.rpartition(".")[2]
        yield Problem("query", f'task={name} needs a question: query="how to open a file"')


def bundle_is_named(values: Values) -> Iterator[Problem]:
    """A task that takes the bundle needs to know which one."""
    task = target_at(values.get("task"))
    if task and "bundle" in task.parameters and (values.get("bundle") or {}).get("name") in (None, ""):
        yield Problem("bundle.name", "is not set; name the bundle: bundle.name=docs")


def strategy_trains(values: Values) -> Iterator[Problem]:
    """Strategies that want the same number of backward passes of every rank cannot train in micro-batches."""
    strategy = str((values.get("trainer") or {}).get("strategy", "auto"))
    if strategy.startswith(("fsdp_", "deepspeed", "ddp_", "xla")):
        yield Problem(
            "trainer.strategy",
            f"{strategy} cannot train here, since ranks make different numbers of backward passes; set "
            "trainer.strategy=ddp, or fsdp, which evens them out",
        )


def weights_can_move(values: Values) -> Iterator[Problem]:
    """Weights in half precision swallow small updates; a frozen base under an adapter may have it."""
    model = values.get("model") or {}
    rank = (model.get("lora") or {}).get("rank")
    if _trains(values) and rank is None and model.get("dtype", "float32") != "float32":
        yield Problem(
            "model.dtype",
            f"{model['dtype']} weights swallow small updates; set model.dtype=float32, or train an adapter: "
            "model.lora.rank=16",
        )


def back_end_trains(values: Values) -> Iterator[Problem]:
    """Only PyTorch computes gradients."""
    back_end = (values.get("model") or {}).get("backend", "torch")
    if _trains(values) and back_end != "torch":
        yield Problem(
            "model.backend",
            f"{back_end} cannot train; set model.backend=torch, and choose {back_end} for the tuned model in the tasks "
            "that only encode (evaluate, mine, index, search)",
        )


def cluster_has_work(values: Values) -> Iterator[Problem]:
    """Workers of a cluster share what a task encodes, scores or searches, and by PyTorch alone."""
    if values.get("cluster") is None:
        return
    task = target_at(values.get("task"))
    if task and not _declared(values).spreads:
        name = task.name.rpartition(".")[2]
        yield Problem("cluster", f"task={name} computes on this machine alone; leave the cluster out")
    back_end = (values.get("model") or {}).get("backend", "torch")
    if back_end != "torch":
        message = f"{back_end} is a file in this machine's store, which workers of a cluster do not have"
        yield Problem("model.backend", f"{message}; set model.backend=torch, or leave the cluster out")


def adapter_dropout_is_on(values: Values) -> Iterator[Problem]:
    """Training without dropout has none in the adapter either."""
    dropout = ((values.get("model") or {}).get("lora") or {}).get("dropout")
    if dropout and (values.get("training") or {}).get("dropout") is False:
        yield Problem(
            "model.lora.dropout", f"{dropout} would be ignored while training.dropout=false; set that to true"
        )


def query_adapter_learns_by_itself(values: Values) -> Iterator[Problem]:
    """A query adapter is trained on vectors that stay as they are, and not by the steps of a whole training."""
    model, training = values.get("model") or {}, values.get("training") or {}
    rank = (model.get("query_adapter") or {}).get("rank")
    idle = [(f"model.{name}", model, name) for name in ("freeze_embeddings", "freeze_layers", "compile")]
    names = ("guide", "remine_every", "steps", "max_time", "dropout", "gradient_checkpointing")
    idle += [(f"training.{name}", training, name) for name in names]
    for key, group, name in idle if rank is not None and _trains(values) else ():
        if value := group.get(name):
            shown, nothing = ("true", "false") if value is True else (value, "0" if name == "freeze_layers" else "null")
            said = f"{shown} does nothing while model.query_adapter.rank={rank} trains no weights"
            yield Problem(key, f"{said}; set it to {nothing}")


def compiled_layers_are_kept(values: Values) -> Iterator[Problem]:
    """Compiled layers and layers computed again do not go together: each step would compile again."""
    compiled = (values.get("model") or {}).get("compile")
    if compiled and (values.get("training") or {}).get("gradient_checkpointing"):
        message = "true cannot go with training.gradient_checkpointing=true: each step would compile again"
        yield Problem("model.compile", f"{message}; set one of the two to false")


def sharded_layers_are_not_compiled(values: Values) -> Iterator[Problem]:
    """A compiled graph takes all layers of a backbone together, and FSDP gathers and frees them one by one."""
    strategy = (values.get("trainer") or {}).get("strategy")
    if strategy == "fsdp" and (values.get("model") or {}).get("compile"):
        message = "true cannot go with trainer.strategy=fsdp, which gathers and frees each layer's weights"
        yield Problem("model.compile", f"{message}; set model.compile=false")


def callbacks_have_no_work_of_ours(values: Values) -> Iterator[Problem]:
    """Checkpoints and early stopping are the training's, and Lightning's own would fail after mining."""
    knobs = {"ModelCheckpoint": "training.checkpoint_every", "EarlyStopping": "training.patience"}
    for name, callback in ((values.get("trainer") or {}).get("callbacks") or {}).items():
        knob = knobs.get(str((callback or {}).get("_target_")).rpartition(".")[2])
        if knob is not None:
            yield Problem(f"trainer.callbacks.{name}", f"is the work of embfit's training; set {knob} instead")


def teacher_is_learnt_from(values: Values) -> Iterator[Problem]:
    """A teacher that is trained first is for a loss that reads its scores."""
    teacher = target_at(values.get("teacher"))
    trains = teacher is not None and getattr(teacher.call, "gives_scores", False)
    task = target_at(values.get("task"))
    if not trains or task is None or "teacher" not in task.parameters:
        return
    losses = [target_at(node) for _, node in _nodes(values.get("loss"), "loss")]
    if not any(getattr(loss.call, "needs_teacher", False) for loss in losses if loss is not None):
        yield Problem("teacher", "gives scores that this loss does not read; set loss=distill, or teacher=none")


def lists_have_negatives(values: Values) -> Iterator[Problem]:
    """What learns the order of lists needs negatives in them; generated queries have those alone that a miner finds."""
    task, teacher, generator = (target_at(values.get(group)) for group in ("task", "teacher", "generator"))
    losses = [target_at(node) for _, node in _nodes(values.get("loss"), "loss")]
    on_lists = any(getattr(loss.call, "on_lists", False) for loss in losses if loss is not None)
    teaches = teacher is not None and getattr(teacher.call, "gives_scores", False)
    if not (on_lists or teaches) or task is None or not {"miner", "loss", "generator"} <= task.parameters.keys():
        return
    writes = generator is not None and hasattr(generator.call, "generate")
    found = [target_at(node) for _, node in _nodes(values.get("miner"), "miner")]
    known = [miner for miner in found if miner is not None]
    if writes and known and not any(getattr(miner.call, "finds_negatives", True) for miner in known):
        learner = "a teacher learns" if teaches else "this loss learns"
        message = f"finds no negatives for generated queries, and {learner} to put them below the positives"
        yield Problem("miner", f"{message}; set miner=hybrid miner.miner.negatives=8" + ", or teacher=none" * teaches)


def locations_are_there(values: Values) -> Iterator[Problem]:
    """A model or file that is named as a path is looked for before there is any work."""
    measured = (values.get("task") or {}).get("systems") or []
    unused = [f"evaluator.systems.{name}." for name in (values.get("evaluator") or {}).get("systems") or {}]
    unused = [prefix for prefix in unused if prefix.split(".")[2] not in measured]
    named: dict[str, Any] = {}
    for key, value, mark in _locations(values):
        if not mark.service and not key.startswith(tuple(unused)):
            several = value if isinstance(value, Mapping) else {}  # such as a file for each split
            named |= {f"{key}.{name}": one for name, one in several.items()} or {key: value}
    named["tuned"] = values.get("tuned")
    for key, value in named.items():
        if isinstance(value, str) and value.startswith((".", "/", "~")) and not Path(value).expanduser().exists():
            yield Problem(key, f"{value}: there is no such file or folder{lies_beside(Path(value).expanduser())}")


def addresses_can_be(values: Values) -> Iterator[Problem]:
    """An address in object storage holds no keys, and a shared store is at one."""
    shared = (values.get("store") or {}).get("shared")
    if isinstance(shared, str) and not is_remote(shared):
        yield Problem(
            "store.shared",
            f"{shared} is not an address in object storage, such as s3://BUCKET/FOLDER; machines that have a disk in "
            "common name one store.dir",
        )
    named = {"store.shared": shared}
    for key, value, mark in _locations(values):
        several = value if isinstance(value, Mapping) else {}
        if not mark.service:  # the class of a server says what is wrong with its address
            named |= {f"{key}.{name}": one for name, one in several.items()} or {key: value}
    for key, value in named.items():
        if isinstance(value, str) and is_remote(value) and (refused := address_problem(value)):
            yield Problem(key, refused)


def _locations(values: Values) -> Iterator[tuple[str, Any, Location]]:
    """Yield what says where something is, by key, with the mark that the class bears for it."""
    for group, choice in values.items():
        for path, node in _nodes(choice, group):
            target = target_at(node)
            for name, hint in target.hints.items() if target else ():
                for mark in marks(hint, Location):
                    if name in node or mark.required:
                        yield f"{path}.{name}", node.get(name), mark


def _trains(values: Values) -> bool:
    """Say whether the configured task may train a model; a refresh of documents alone does not."""
    return _declared(values).trains and (values.get("task") or {}).get("train") != "never"


def _declared(values: Values) -> TaskDeclaration:
    """Return what the configured task declares; nothing where there is no such task."""
    try:
        return declaration(str((values.get("task") or {}).get("_target_", "")))
    except MissingTargetError:
        return TaskDeclaration()


def _nodes(node: Any, path: str) -> Iterator[tuple[str, Values]]:
    """Yield a choice and those inside it, a blend's sources for example, each with its key."""
    if isinstance(node, Mapping):
        yield path, node
        for key, inside in node.items():
            yield from _nodes(inside, f"{path}.{key}")


RULES: tuple[Callable[[Values], Iterator[Problem]], ...] = (
    negatives_fit_depth,
    mined_again_for_all,
    dims_ascend,
    locations_given,
    systems_exist,
    folders_can_be,
    best_weights_chosen_apart,
    query_to_search,
    bundle_is_named,
    strategy_trains,
    weights_can_move,
    back_end_trains,
    cluster_has_work,
    adapter_dropout_is_on,
    query_adapter_learns_by_itself,
    compiled_layers_are_kept,
    sharded_layers_are_not_compiled,
    callbacks_have_no_work_of_ours,
    teacher_is_learnt_from,
    lists_have_negatives,
    locations_are_there,
    addresses_can_be,
    groups_fit_task,
)
