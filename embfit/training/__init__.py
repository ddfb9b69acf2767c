"""Training: from a training set to the weights that are kept, for bi-encoders and cross-encoders.

`Training` (`training.py`) and `ListTraining` (`list_training.py`) are the two choices of the `training` group. What
they have in common is in `settings.py`, whose `fit_on` is a training in six lines.

What is trained on:

- `batches`: examples as arrays, and batches of unique rows; `grouping` says which examples share a batch;
- `guide`: a frozen encoder masks doubtful negatives; `remining` gives later epochs other examples;
- `in_batch`: a bi-encoder's batches and their loss; `lists`: a cross-encoder's.

One optimizer step is `in_batch.InBatch.training_step` (or that of `lists`), and then, in `step/`:

- `gradients`: everything between a batch's inputs and the gradients of all weights, read top to bottom;
- `module`: the Lightning module, which updates the weights and records measurements; `full_state` gathers the weights
  that ranks shard;
- and the parts of these: `loss_parts` (the loss over blocks of queries, and the accuracy), `gradient_cache`,
  `backbone` (how it computes in training), `memory` and `memory_limit` (how many graphs are kept),
  `optimization` with `schedule`, `metrics` and `prefetch`.

One process's training is `fit/`:

- `fit`: from the first step, or a checkpoint, to the weights that are kept; `loop`: Lightning's Trainer around it;
- the callbacks: `validation`, `checkpoint`, `interruption`, `time_limit`, `progress`; and the `curve` for the report.

Several processes are `ranks/`:

- `launch` starts or calls the other ranks (`run.devices` says how many there are, and where), `worker` is their
  program, in `rendezvous` they wait for each other, and `collectives` has what they exchange in a step;
- `sharding` shards a model's weights, and `units` says which are gathered together.
"""

from embfit.training.fit.plan import Fit
from embfit.training.list_training import ListTraining
from embfit.training.training import Training

__all__ = ["Fit", "ListTraining", "Training"]
