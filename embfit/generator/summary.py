"""The summary of a generation for its report: counts by filter and style, and sample queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from embfit.generator.filter_marks import Marks
from embfit.generator.protocol import GeneratedQuery, Generation

SHOWN = 300  # characters of a document


def describe_generation(generator: str, made: Generation, marks: Marks, examples: int) -> dict[str, Any]:
    """Return the section `generation` of `report.json`.

    Args:
        generator: the generator's name.
        made: the generated queries.
        marks: the results of the filters.
        examples: the number of sample queries, for the kept ones and for each filter.
    """
    ranked = {name: sum(rank is not None and rank == 1 for rank in ranks) for name, ranks in marks.ranks.items()}
    return {
        "generator": generator,
        **made.facts,
        "documents": len({query.document.row for query in made.queries}),
        "generated": len(made.queries),
        "kept": marks.kept,
        "dropped": dict(marks.counts),
        "source_first": ranked,
        **marks.facts,
        "styles": _styles(made.queries, marks),
        "examples": _examples(made.queries, marks, examples),
    }


def _styles(queries: Sequence[GeneratedQuery], marks: Marks) -> dict[str, dict[str, int]]:
    made = Counter(query.style for query in queries)
    kept = Counter(query.style for query, mark in zip(queries, marks.dropped_by, strict=True) if mark is None)
    return {style: {"generated": count, "kept": kept[style]} for style, count in made.items()}


def _examples(queries: Sequence[GeneratedQuery], marks: Marks, count: int) -> dict[str, list[Mapping[str, Any]]]:
    """Return sample queries by the filter that drops them, `kept` first, spread evenly over the documents."""
    places: dict[str, list[int]] = {"kept": [], **{name: [] for name in marks.counts}}
    for place, mark in enumerate(marks.dropped_by):
        places[mark or "kept"].append(place)
    return {
        name: [_shown(queries[place], marks, place) for place in _spread(found, count)]
        for name, found in places.items()
        if found and count
    }


def _spread(places: Sequence[int], count: int) -> list[int]:
    """Return so many places at most, evenly spaced among all."""
    taken = min(count, len(places))
    return [places[number * len(places) // taken] for number in range(taken)]


def _shown(query: GeneratedQuery, marks: Marks, place: int) -> dict[str, Any]:
    return {
        "query": query.text,
        "style": query.style,
        "document": {"id": query.document.id, "text": query.document.text[:SHOWN]},
        "ranks": {name: ranks[place] for name, ranks in marks.ranks.items()},
        **({"grade": marks.grades[place]} if any(grade is not None for grade in marks.grades) else {}),
    }


def why_none_is_kept(facts: Mapping[str, Any]) -> str:
    """Return why no query of a generation is kept, given the result of `describe_generation`."""
    dropped = ", ".join(f"{name} {count:,}" for name, count in facts["dropped"].items() if count)
    return f"filters dropped all of them: {dropped}" if facts["generated"] else "none was written"
