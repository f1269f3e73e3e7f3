"""The policies that set tau."""

from mars.decoding.policy import adaptive, fixed


def test_a_fixed_tau_minds_no_queue():
    assert {fixed(0.8)(waiting) for waiting in (0, 5, 100)} == {0.8}
    assert fixed(None)(100) is None


def test_the_controller_lowers_tau_with_the_queue():
    policy = adaptive(high=0.95, low=0.5, slots=4)
    assert policy(0) is policy(1) is None
    taus = [policy(waiting) for waiting in range(2, 12)]
    assert taus == sorted(taus, reverse=True)
    assert taus[0] < 0.95
    assert taus[-1] == policy(100) == 0.5
