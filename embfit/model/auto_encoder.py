"""Opens an encoder by its path: the files there say whether it is a bi-encoder or a late-interaction model."""

from __future__ import annotations

from embfit.model.encoder_choice import EncoderChoice
from embfit.model.late_interaction_choice import LateInteraction
from embfit.model.late_interaction_folder import holds_late_interaction
from embfit.model.location import find_model
from embfit.model.pretrained import Pretrained


def encoder_at(path: str, like: EncoderChoice, revision: str | None = None) -> EncoderChoice:
    """Return the choice of an encoder with the settings of its own folder.

    Args:
        path: a folder, or a name on the Hub.
        like: supplies all other settings: attention, number formats, back end, and whether to run models' code.
        revision: the branch, tag or commit on the Hub.

    Raises:
        UserError: the path has no model.
    """
    kind = LateInteraction if holds_late_interaction(find_model(path, revision, like.packages)) else Pretrained
    return kind(
        path=path,
        revision=revision,
        packages=like.packages,
        attention=like.attention,
        dtype=like.dtype,
        precision=like.precision,
        backend=like.backend,
        trust_remote_code=like.trust_remote_code,
    )
