from __future__ import annotations

import numpy as np
import pytest

from fedali.errors import SettingsError
from fedali.layout import Layout
from fedali.methods import Method, build_method, name_of, personal_indices
from fedali.slots import (
    ModelFacts,
    Named,
    Phase,
    Slot,
    initial_vector,
    layout_of,
    model_layout,
    rest_layout,
    share_epochs,
    slot_slice,
    trained_layout,
)

FACTS = ModelFacts(Layout.of({"body.w": (2, 2), "head.w": (3,)}), 3, 5)
SLOTS = (
    Slot("control", "shared"),
    Slot("means", "shared", ("classes", "embedding")),
    Slot("own", "kept", starts="model", trained=True),
    Slot("sums", "round", ("classes",)),
)


def test_a_vector_is_the_model_then_what_trains_then_the_rest():
    whole = layout_of(FACTS, SLOTS)
    assert whole.names == (
        *("body.w", "head.w"),
        *("own/body.w", "own/head.w"),
        *("control/body.w", "control/head.w"),
        "means/",
    )
    assert model_layout(whole) == FACTS.parameters
    trained = trained_layout(whole, SLOTS)
    assert trained.size == 14
    assert rest_layout(whole, trained).size == 7 + 15
    assert (slot_slice(whole, ""), slot_slice(whole, "own")) == (slice(0, 7), slice(7, 14))
    assert slot_slice(whole, "means") == slice(21, 36)
    vector = initial_vector(FACTS, SLOTS, np.arange(7, dtype=np.float32))
    np.testing.assert_array_equal(vector[:14], [*range(7), *range(7)])
    assert not vector[14:].any()
    named = Named.of(whole, vector)
    assert set(named.model) == {"body.w", "head.w"}
    np.testing.assert_array_equal(named["own"]["head.w"], [4, 5, 6])
    assert named["means"].shape == (3, 5)
    with pytest.raises(SettingsError, match="asks for its slot 'sums'; here it has own, control, means"):
        named["sums"]


def test_without_slots_the_vector_is_the_model():
    assert layout_of(FACTS, ()) == FACTS.parameters
    assert trained_layout(FACTS.parameters, ()) == FACTS.parameters


@pytest.mark.parametrize(
    ("given", "epochs", "expected"),
    [((None, 1), 5, [4, 1]), ((None, None), 5, [3, 2]), ((2, None, 1), 4, [2, 1, 1]), ((2, 3), 5, [2, 3])],
)
def test_phases_share_the_epochs(given, epochs, expected):
    assert share_epochs(given, epochs) == expected


@pytest.mark.parametrize(("given", "epochs"), [((None, 1), 1), ((2, 3), 6), ((2, 3), 4)])
def test_phases_that_do_not_fit_are_refused(given, epochs):
    with pytest.raises(SettingsError, match="trains in phases"):
        share_epochs(given, epochs)


def test_patterns_of_a_phase():
    assert "head.w" in Phase(("head.*",))
    assert "body.w" not in Phase(("head.*",))
    assert "body.w" in Phase(("!head.*",))
    assert "head.w" not in Phase(("*", "!head.*"))


OUTSIDE = '''
from dataclasses import dataclass
from fedali.methods import Method
from fedali.slots import Slot

@dataclass(frozen=True)
class Mine(Method):
    """One of a user's own."""

    slots = (Slot("memory", "kept"),)
    pull: float = 0.5

something = 3
'''


def test_a_method_from_outside_has_the_name_it_was_asked_by(tmp_path, monkeypatch):
    (tmp_path / "my_own_method.py").write_text(OUTSIDE)
    (tmp_path / "my_broken_method.py").write_text("import not_there_at_all")
    monkeypatch.chdir(tmp_path)
    method = build_method("my_own_method:Mine", {"pull": 1.0})
    assert isinstance(method, Method)
    assert method.pull == 1.0
    assert name_of(method) == "my_own_method:Mine"
    layout = layout_of(FACTS, method.slots)
    assert personal_indices(method, layout).tolist() == list(range(7, 14))
    for name, words in {
        "my_own_method:Yours": "has no 'Yours'",
        "my_own_method:something": "is no subclass of fedali.methods.base.Method",
        "no_such_module:Mine": "there is no module 'no_such_module'",
        "my_broken_method:Mine": "needs a module that is not installed: not_there_at_all",
    }.items():
        with pytest.raises(SettingsError, match=words):
            build_method(name)
    with pytest.raises(SettingsError, match="has no option 'pulll'; did you mean 'pull'"):
        build_method("my_own_method:Mine", {"pulll": 1.0})
    with pytest.raises(SettingsError, match="its code is not run here"):
        build_method("my_own_method:Mine", doors=False)


def test_names_of_the_registry():
    assert name_of(build_method("fedali-head")) == "fedali-paper"
    assert name_of(build_method("scaffold")) == "scaffold"
