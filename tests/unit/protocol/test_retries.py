"""Retry policies: how often, how soon, after which errors."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import HandlerError, OptionError
from headgate.protocol.children import Backoff
from headgate.protocol.retries import Retries, RetryPolicy


def waits(policy, error=None, chance=0.0, most=10):
    found = []
    for failed in range(1, most):
        wait = policy.decide(error or ValueError("no"), failed, chance)
        if wait is None:
            break
        found.append(wait)
    return found


def test_a_message_is_tried_three_times_unless_told_otherwise():
    assert waits(RetryPolicy()) == [0.1, 0.2]


def test_waits_grow_up_to_the_longest():
    assert waits(RetryPolicy(7, first=1, factor=3, most=20)) == [1, 3, 9, 20, 20, 20]


def test_jitter_shortens_a_wait_by_chance():
    policy = RetryPolicy(first=1, jitter=0.5)
    assert [policy.decide(ValueError(), 1, chance) for chance in (0, 0.5, 1)] == [1, 0.75, 0.5]


def test_once_is_once_and_none_is_no_limit():
    assert waits(RetryPolicy(1)) == []
    assert RetryPolicy(None).decide(ValueError(), 10**9, 0) == 30


def test_only_the_chosen_errors_are_tried_again():
    policy = RetryPolicy(on=(OSError, LookupError))
    assert policy.decide(TimeoutError(), 1, 0) is not None
    assert policy.decide(KeyError(), 1, 0) is not None
    assert policy.decide(ValueError(), 1, 0) is None


def test_a_reason_that_is_no_exception_counts_as_a_plain_one():
    assert RetryPolicy().decide("sold out", 1, 0) == 0.1
    assert RetryPolicy(on=OSError).decide("sold out", 1, 0) is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit(), BaseException()])
def test_what_is_no_error_is_never_tried_again(error):
    assert RetryPolicy().decide(error, 1, 0) is None
    assert Retries({Exception: RetryPolicy()}).decide(error, 1, 0) is None


def test_policies_compare_by_what_they_say():
    assert RetryPolicy(5, first=1) == RetryPolicy(5, first=1) != RetryPolicy(5, first=2)
    assert len({RetryPolicy(5), RetryPolicy(5)}) == 1
    assert "_backoff" not in repr(RetryPolicy())
    with pytest.raises(AttributeError):
        RetryPolicy().attempts = 4  # type: ignore[misc]


@given(
    st.integers(1, 20),
    st.floats(0, 10),
    st.floats(1, 10),
    st.floats(0, 100),
    st.floats(0, 1),
    st.integers(1, 30),
    st.floats(0, 1),
)
def test_waits_are_those_of_a_backoff(attempts, first, factor, most, jitter, failed, chance):
    """And there is one exactly as long as attempts are left."""
    wait = RetryPolicy(attempts, first, factor, most, jitter).decide(ValueError(), failed, chance)
    assert (wait is None) == (failed >= attempts)
    assert wait is None or wait == Backoff(first, factor, most, jitter).delay(failed, chance)
    assert wait is None or 0 <= wait <= most


# -- by class ---------------------------------------------------------------------------------------------------------

SLOW, FAST = RetryPolicy(9, first=5), RetryPolicy(2, first=0)


def test_the_most_specific_class_counts_whatever_the_order_of_the_mapping():
    for order in ([Exception, OSError, TimeoutError], [TimeoutError, OSError, Exception]):
        chosen = {Exception: FAST, OSError: None, TimeoutError: SLOW}
        retries = Retries({each: chosen[each] for each in order})
        assert retries.policy(TimeoutError()) is SLOW
        assert retries.policy(ConnectionResetError()) is None
        assert retries.policy(KeyError()) is FAST
        assert retries.policy("a reason") is FAST


def test_never_means_never():
    retries = Retries({ValueError: None, Exception: SLOW})
    assert retries.decide(ValueError(), 1, 0) is None
    assert retries.decide(UnicodeError(), 1, 0) is None
    assert retries.decide(KeyError(), 1, 0) == 5


def test_what_is_not_in_the_mapping_is_never_tried_again():
    assert Retries({OSError: SLOW}).decide(ValueError(), 1, 0) is None
    assert Retries({}).decide(ValueError(), 1, 0) is None
    assert Retries(None).decide(ValueError(), 1, 0) is None


def test_one_policy_is_for_all():
    assert Retries(SLOW).policy(ValueError()) is SLOW
    assert Retries(SLOW).decide(ValueError(), 8, 0) == 30
    assert Retries(SLOW).decide(ValueError(), 9, 0) is None


def test_of_several_bases_the_first_counts_as_with_methods():
    class Both(KeyError, OSError):
        pass

    assert Retries({OSError: SLOW, LookupError: FAST}).policy(Both()) is FAST


def test_the_mapping_may_change_afterwards():
    mapping = {ValueError: SLOW}
    retries = Retries(mapping)
    mapping.clear()
    assert retries.policy(ValueError()) is SLOW


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("attempts", 0),
        ("attempts", True),
        ("attempts", 2.0),
        ("attempts", "3"),
        ("first", -1),
        ("first", math.nan),
        ("factor", 0.5),
        ("most", "30"),
        ("jitter", 1.5),
        ("on", "ValueError"),
        ("on", KeyboardInterrupt),
        ("on", (ValueError, 3)),
        ("on", [ValueError]),
        ("ordered", None),
    ],
)
def test_wrong_options_are_refused(option, value):
    with pytest.raises(OptionError) as caught:
        RetryPolicy(**{option: value})
    assert (caught.value.where, caught.value.option, caught.value.got) == ("RetryPolicy", option, value)


@pytest.mark.parametrize("policies", [3, "x", [SLOW], {"x": SLOW}, {ValueError: 3}, {KeyboardInterrupt: SLOW}])
def test_what_is_no_choice_of_policies_is_refused(policies):
    with pytest.raises(OptionError, match="Orders: expected option 'retry'"):
        Retries(policies, where="Orders")


def test_errors_of_the_library_can_be_classes_too():
    assert Retries({HandlerError: SLOW}).policy(HandlerError("s", "c", "e", 1)) is SLOW
