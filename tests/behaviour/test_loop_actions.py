"""The conductor's decisions, from state alone."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ondol.loop import actions
from ondol.loop.actions import ModelState, PointAlias, Retrain, Settle, StartRollout, Supersede, WalkAgain
from ondol.records.project import RetrainSpec
from ondol.records.signal import Retraining, Signal

DRIFT = Signal("sig-1", 0.0, "flights", "drift", "drift/r1", "2 columns drifted")
GOING_ON = Retraining("ret-1", 0.0, "flights", ("sig-1",), "drift", attempts=1, next_at=60.0)
QUIET = ModelState("flights", stable="r1", champion="1", serving_version="1", now=1000.0)


def test_nothing_to_do_when_everything_is_as_it_should_be() -> None:
    assert actions.next_actions(QUIET) == ()


def test_the_newest_release_that_passed_is_tried_and_older_ones_are_not() -> None:
    assert actions.next_actions(replace(QUIET, waiting=("r2", "r3"))) == (
        Supersede("flights", "r2", "r3"),
        StartRollout("flights", "r3"),
    )


def test_one_trial_at_a_time_and_no_retraining_during_it() -> None:
    busy = replace(QUIET, on_trial="r2", waiting=("r3",), signals=(DRIFT,))
    assert actions.next_actions(busy) == ()


def test_signals_are_answered_together_once_and_only_when_nothing_else_goes_on() -> None:
    drifted = replace(QUIET, signals=(DRIFT, replace(DRIFT, id="sig-2", kind="quality")))
    assert actions.next_actions(drifted) == (Retrain("flights", drifted.signals),)
    for busy in ({"walking": True}, {"can_retrain": False}, {"held": "an audit"}, {"now": 1.0}, {"ended_at": 900.0}):
        assert actions.next_actions(replace(drifted, **busy)) == ()
    by_hand = replace(drifted, signals=(replace(DRIFT, kind="hand"),), ended_at=900.0)
    assert len(actions.next_actions(by_hand)) == 1


def test_a_walk_that_came_to_no_gate_is_made_again_until_the_attempts_are_used_up() -> None:
    going_on = replace(QUIET, retraining=GOING_ON, signals=(DRIFT,))
    assert actions.next_actions(replace(going_on, walking=True)) == ()
    assert actions.next_actions(replace(going_on, now=59.0)) == ()
    assert actions.next_actions(going_on) == (WalkAgain("flights", GOING_ON),)
    last = replace(GOING_ON, attempts=3)
    assert actions.next_actions(replace(going_on, retraining=last)) == (Settle("flights", last, ""),)
    assert actions.next_actions(replace(going_on, verdict="fail")) == (Settle("flights", GOING_ON, "fail"),)


def test_it_says_what_it_waits_for() -> None:
    states = {
        "next look": replace(QUIET, signals=(DRIFT,)),
        "first release": ModelState("flights"),
        "verdict on the candidate": replace(QUIET, on_trial="r2", signals=(DRIFT,)),
        "walk that is going on": replace(QUIET, walking=True),
        "held: an audit": replace(QUIET, held="an audit", signals=(DRIFT,)),
        "walk 1 of 3": replace(QUIET, retraining=GOING_ON, now=10.0),
        "debounce": replace(QUIET, signals=(DRIFT,), now=1.0),
        "no `retrain.on`": QUIET,
        "none is answered, retraining is held: an audit": replace(
            QUIET, held="an audit", policy=RetrainSpec(on=("drift",))
        ),
        "it is given up in 1 min": replace(QUIET, retraining=replace(GOING_ON, attempts=3, next_at=70.0), now=10.0),
        "a reason to retrain (drift)": replace(QUIET, policy=RetrainSpec(on=("drift",))),
    }
    for said, state in states.items():
        assert said in actions.waits_for(state)


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
        signals=st.sampled_from([(), (DRIFT,)]),
        retraining=st.sampled_from([None, GOING_ON]),
        walking=st.booleans(),
        verdict=st.sampled_from(["", "pass", "fail"]),
        now=st.sampled_from([0.0, 1000.0]),
    )
)
def test_never_two_trials_and_never_a_trial_without_something_to_compare_with(state: ModelState) -> None:
    found = actions.next_actions(state)
    trials = [one for one in found if isinstance(one, StartRollout)]
    assert len(trials) <= 1
    if state.on_trial or not state.stable:
        assert not trials
    walks = [one for one in found if isinstance(one, (Retrain, WalkAgain))]
    assert len(walks) <= (not state.walking)
    assert not (walks and state.on_trial)
    assert not (state.retraining and any(isinstance(one, Retrain) for one in found))
