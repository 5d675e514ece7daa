"""The conductor's decisions, from state alone."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ondol.loop import actions
from ondol.loop.actions import ModelState, PointAlias, Retrain, StartRollout, Supersede

QUIET = ModelState("flights", stable="r1", champion="1", serving_version="1", retrain_on_drift=True)


def test_nothing_to_do_when_everything_is_as_it_should_be() -> None:
    assert actions.next_actions(QUIET) == ()


def test_the_newest_release_that_passed_is_tried_and_older_ones_are_not() -> None:
    assert actions.next_actions(replace(QUIET, waiting=("r2", "r3"))) == (
        Supersede("flights", "r2", "r3"),
        StartRollout("flights", "r3"),
    )


def test_one_trial_at_a_time_and_no_retraining_during_it() -> None:
    busy = replace(QUIET, on_trial="r2", waiting=("r3",), drifted="decision-1")
    assert actions.next_actions(busy) == ()


def test_drift_is_answered_once_and_only_where_the_project_asks_for_it() -> None:
    drifted = replace(QUIET, drifted="decision-1")
    assert actions.next_actions(drifted) == (Retrain("flights", "decision-1"),)
    assert actions.next_actions(replace(drifted, retraining=True)) == ()
    assert actions.next_actions(replace(drifted, retrain_on_drift=False)) == ()
    assert actions.next_actions(replace(drifted, held="an audit")) == ()


def test_the_alias_follows_what_serves_and_a_new_one_is_a_proposal() -> None:
    elsewhere = replace(QUIET, serving_version="2")
    assert actions.next_actions(elsewhere) == (PointAlias("flights", "2"),)
    assert actions.next_actions(replace(elsewhere, on_trial="r1")) == ()
    assert actions.next_actions(replace(elsewhere, proposed="r1")) == (StartRollout("flights", "r1"),)


digests = st.sampled_from(["", "r1", "r2", "r3"])


@given(
    st.builds(
        ModelState,
        model=st.just("flights"),
        stable=digests,
        on_trial=digests,
        waiting=st.lists(st.sampled_from(["r2", "r3", "r4"]), unique=True).map(tuple),
        drifted=st.sampled_from(["", "decision-1"]),
        retraining=st.booleans(),
        retrain_on_drift=st.booleans(),
    )
)
def test_never_two_trials_and_never_a_trial_without_something_to_compare_with(state: ModelState) -> None:
    found = actions.next_actions(state)
    trials = [one for one in found if isinstance(one, StartRollout)]
    assert len(trials) <= 1
    if state.on_trial or not state.stable:
        assert not trials
    assert sum(isinstance(one, Retrain) for one in found) <= (not state.retraining)
