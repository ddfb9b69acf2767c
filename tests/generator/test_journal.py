"""The journal: what is asked once, what is charged, and what another process may take over."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from embfit.errors import UserError
from embfit.generator.budget import Budget, Spending
from embfit.generator.journal import Journal
from embfit.generator.journal_tables import JournalAnswer, JournalEntry

ENTRIES = [JournalEntry(f"r{number}", f"f{number}", 2, f"d{number}", "question", "tiny") for number in range(4)]
RESERVED = Spending(1, 100, 0.5)
FREE = Budget()


def test_an_answer_is_kept_and_costs_what_it_has_cost(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.plan(ENTRIES, "s")
        claim = journal.claim("r0", RESERVED, FREE, "s")
        assert claim.state == "planned"
        assert journal.spent("s") == Spending(1, 100, 0.5)
        journal.record(claim.attempt, "s", "answered", "answered", "text", Spending(1, 30, 0.1))
        assert journal.spent("s") == Spending(1, 30, pytest.approx(0.1))
        assert journal.answer(ENTRIES[0]) == JournalAnswer("r0", "answered", "text")
        assert journal.claim("r0", RESERVED, FREE, "s").attempt is None
        assert journal.seconds_per_answer("tiny") == pytest.approx(0, abs=1)
        assert journal.seconds_per_answer("other") is None
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.plan(ENTRIES[:2], "other set")
        assert journal.spent("other set") == Spending(1, 30, pytest.approx(0.1))
        assert journal.answer(ENTRIES[0]).text == "text"


def test_no_limit_is_exceeded_by_what_is_reserved(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.plan(ENTRIES, "s")
        tokens = Budget(tokens=250)
        first, second = (journal.claim(request, RESERVED, tokens, "s") for request in ("r0", "r1"))
        refused = journal.claim("r2", RESERVED, tokens, "s")
        assert refused.attempt is None
        assert refused.refusal == "budget.tokens=250: 200 is used or reserved, and a request may take 100"
        journal.record(first.attempt, "s", "answered", "answered", "", Spending(1, 50, 0))
        assert journal.claim("r2", RESERVED, tokens, "s").attempt is not None
        assert journal.claim("r3", RESERVED, Budget(requests=3), "s").refusal is not None
        assert journal.claim("r3", RESERVED, Budget(cost=1.2), "s").refusal is not None
        journal.record(second.attempt, "s", "busy", "planned", "429", Spending(1))
        assert journal.spent("s") == Spending(3, 150, 0.5)  # r0, r1 without tokens, and r2 reserved


def test_what_a_dead_process_has_sent_is_planned_again_and_stays_charged(tmp_path: Path) -> None:
    dead = Journal(tmp_path / "j.sqlite")
    dead.__enter__()
    dead.plan(ENTRIES, "s")
    dead.claim("r0", RESERVED, FREE, "s")
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.plan(ENTRIES, "s")
        assert journal.claim("r0", RESERVED, FREE, "s").state == "sent"  # its process runs
        dead._owner.release()
        assert journal.release_lost() == 1
        assert journal.claim("r0", RESERVED, FREE, "s").attempt is not None
        assert journal.spent("s") == Spending(2, 200, 1.0)
        assert journal.outcomes("r0") == ["sent", "sent"]
    dead._opened.close()


def test_an_answer_with_more_queries_serves(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        more = replace(ENTRIES[0], id="r0-of-5", count=5)
        journal.plan([more], "s")
        claim = journal.claim("r0-of-5", RESERVED, FREE, "s")
        assert journal.answer(ENTRIES[0]) == JournalAnswer("r0", "planned", None)
        journal.record(claim.attempt, "s", "answered", "answered", "five", None)
        assert journal.answer(ENTRIES[0]) == JournalAnswer("r0-of-5", "answered", "five")
        assert journal.answer(replace(ENTRIES[0], id="r0-of-6", count=6)).state == "planned"


def test_an_answer_of_the_same_family_serves_and_the_own_one_first(tmp_path: Path) -> None:
    alike = replace(ENTRIES[0], id="alike")  # such as a judge's, with another limit of tokens
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.plan([ENTRIES[0], alike], "s")
        for name in ("alike", "r0"):
            claim = journal.claim(name, RESERVED, FREE, "s")
            journal.record(claim.attempt, "s", "answered", "answered", f"of {name}", None)
            assert journal.answer(ENTRIES[0]) == JournalAnswer(name, "answered", f"of {name}")
        assert journal.answer(alike) == JournalAnswer("alike", "answered", "of alike")


def test_no_lock_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "j.sqlite").write_text("no database" * 100)
    with pytest.raises(UserError), Journal(tmp_path / "j.sqlite"):
        pass
    (tmp_path / "j.sqlite").unlink()
    with suppress(KeyboardInterrupt), Journal(tmp_path / "j.sqlite") as journal:
        journal.plan(ENTRIES, "s")
        journal.claim("r0", RESERVED, FREE, "s")
        raise KeyboardInterrupt
    assert list((tmp_path / "j.sqlite-owners").iterdir()) == []
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.plan(ENTRIES, "s")
        assert journal.claim("r0", RESERVED, FREE, "s").attempt is not None  # what it had sent was found all the same


def test_refusals_are_asked_again_on_demand(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.plan(ENTRIES, "s")
        for request, state in (("r0", "refused"), ("r1", "malformed")):
            journal.record(journal.claim(request, RESERVED, FREE, "s").attempt, "s", state, state, "no")
        journal.plan(ENTRIES, "s")
        assert [journal.answer(entry).state for entry in ENTRIES[:2]] == ["refused", "malformed"]
        journal.plan(ENTRIES, "s", again=["malformed", "answered"])
        assert [journal.answer(entry).state for entry in ENTRIES[:2]] == ["refused", "planned"]
        journal.reopen(["r0"])
        assert journal.answer(ENTRIES[0]) == JournalAnswer("r0", "planned", None)


def test_a_full_disk_names_the_journal_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.plan(ENTRIES, "s")
        kept, lost = (journal.claim(request, RESERVED, FREE, "s").attempt for request in ("r0", "r1"))
        journal.record(kept, "s", "answered", "answered", "kept", None)
        [pages] = journal._database.execute("PRAGMA page_count").fetchone()
        journal._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OSError, match=r"No space left on device: '.*j\.sqlite'"):
            journal.record(lost, "s", "answered", "answered", "x" * 100_000, None)
        journal._database.execute("PRAGMA max_page_count = 1000000")
        assert [journal.answer(entry).state for entry in ENTRIES[:2]] == ["answered", "sent"]
        journal.record(lost, "s", "answered", "answered", "found room", None)
        assert journal.answer(ENTRIES[1]).text == "found room"


def test_what_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, and no database at all" * 100)
    with pytest.raises(UserError, match=r"notes\.txt is not a journal"), Journal(path):
        pass
    database = sqlite3.connect(tmp_path / "newer.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.commit()
    database.close()
    with pytest.raises(UserError, match="another version of embfit"), Journal(tmp_path / "newer.sqlite"):
        pass
    with pytest.raises(RuntimeError, match="is entered"):
        Journal(path).spent("s")
