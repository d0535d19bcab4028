"""The study whose tables are in the pages."""

from __future__ import annotations

import pytest

from benchmarks.study import STUDIES, put
from fedali_simulations.comparing.asked import asked_for


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_is_a_comparison_that_can_be_asked_for(study):
    asked = asked_for([study.scenario], study.methods, study.seeds, study.settings, None)
    assert (asked.methods[0].title, asked.seed, asked.seeds) == ("fedali", 10, 5)
    assert asked.evaluation.generalisation_every == asked.training.rounds == study.rounds


def test_a_table_goes_between_its_marks_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- study one -->\nold\n<!-- end -->\nb\n<!-- study two -->\nkept\n<!-- end -->\n")
    put(page, "one", "| 1 |")
    assert page.read_text() == (
        "a\n<!-- study one -->\n\n| 1 |\n\n<!-- end -->\nb\n<!-- study two -->\nkept\n<!-- end -->\n"
    )
    before = page.read_text()
    put(page, "three", "| 3 |")
    assert page.read_text() == before
