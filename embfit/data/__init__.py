"""Collections: where documents, queries and judgements come from, and how they are split."""

from embfit.data.beir import Beir
from embfit.data.click_log import ClickLog
from embfit.data.documents import Documents
from embfit.data.hub import Hub
from embfit.data.pairs import Pairs
from embfit.data.python_docs import PythonDocs

__all__ = ["Beir", "ClickLog", "Documents", "Hub", "Pairs", "PythonDocs"]
