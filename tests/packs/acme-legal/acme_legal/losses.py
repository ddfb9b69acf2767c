"""A loss of team A."""

from embfit.loss import InfoNCE


class CautiousInfoNCE(InfoNCE):
    """Softer than the default, for judgements with mistakes in them."""

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__(temperature)
