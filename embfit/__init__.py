"""embfit fine-tunes text-embedding models for one domain's retrieval, and every step is chosen by YAML.

Start with ``python -m embfit --help``; the README shows the main job and `docs/` has one page per configuration group.
"""

__version__ = "0.1.0"
