"""Samples while they are few, a sketch once they are many: what is exact, what is within 1 %, and merging is free."""

import math
import random
from bisect import bisect_left
from functools import reduce
from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metricslib.sketch import (
    EXACT,
    NO_SAMPLES,
    Distribution,
    bucket,
    bucket_counts,
    bucket_middle,
    bucket_power,
    bucket_upper,
)

LEAST, MOST = 2.0**-40, 2.0**40
MAGNITUDES = st.one_of(
    st.floats(LEAST, MOST),
    st.floats(1, 1000),
    st.integers(-40, 40).map(lambda power: 2.0**power),
    st.integers(-40, 39).flatmap(
        lambda power: st.sampled_from([math.nextafter(2.0**power, side) for side in (0, MOST)])
    ),
).filter(lambda magnitude: LEAST <= magnitude <= MOST)
SAMPLES = st.one_of(st.just(0.0), MAGNITUDES, MAGNITUDES.map(lambda magnitude: -magnitude))
ANY_FINITE = st.floats(allow_nan=False, allow_infinity=False)
PERCENTS = st.one_of(st.sampled_from([1, 10, 50, 90, 95, 99, 99.9, 100, -1, -10, -50, -90, -100]), st.floats(-100, 100))


def frozen(values=(), limit=EXACT):
    return Distribution(values, limit=limit).freeze()


def weighted(pairs, limit=EXACT):
    distribution = Distribution(limit=limit)
    for value, weight in pairs:
        distribution.add(value, weight)
    return distribution.freeze()


def merged(distributions, limit=EXACT):
    whole = Distribution(limit=limit)
    for distribution in distributions:
        whole.merge(distribution)
    return whole.freeze()


def contents(distribution):
    return sorted(distribution.powers().items()), sorted((distribution._buckets or {}).items())


def in_buckets(pairs):
    """Weights by bucket."""
    counts = {}
    for value, weight in pairs:
        counts[bucket(value)] = counts.get(bucket(value), 0) + weight
    return counts


def ranked(samples, percent):
    """The sample at the boundary of `percent`, by statsd's rank rule over sorted samples of weight 1; None: skipped."""
    n = len(samples)
    k = 1 if n == 1 else math.floor(abs(percent) / 100 * n + 0.5)
    if k == 0:
        return None
    return samples[k - 1] if percent > 0 else samples[n - k]


def statsd(samples, percent):
    """statsd's own arithmetic, line by line: weight, boundary, sum, sum of squares, mean. It has NaN for -100."""
    values = sorted(samples)
    count = len(values)
    cumulative, cumulative_squares = [values[0]], [values[0] * values[0]]
    for i in range(1, count):
        cumulative.append(values[i] + cumulative[i - 1])
        cumulative_squares.append(values[i] * values[i] + cumulative_squares[i - 1])
    total, squares, mean, boundary, k = values[0], values[0] * values[0], values[0], values[-1], 1
    if count > 1:
        k = math.floor(abs(percent) / 100 * count + 0.5)
        if k == 0:
            return None
        if percent > 0:
            boundary = values[k - 1]
            total, squares = cumulative[k - 1], cumulative_squares[k - 1]
        else:
            boundary = values[count - k]
            total = cumulative[count - 1] - cumulative[count - k - 1]
            squares = cumulative_squares[count - 1] - cumulative_squares[count - k - 1]
        mean = total / k
    return k, boundary, total, squares, mean


# -- buckets


@given(SAMPLES | ANY_FINITE)
def test_a_sample_lies_in_its_bucket_lower_bound_exclusive_upper_inclusive(value):
    """`(lower, upper]` away from zero, for magnitudes from 2⁻⁴⁰ to 2⁴⁰; zero has a bucket of its own."""
    key = bucket(value)
    assert (key > 0) - (key < 0) == (value > 0) - (value < 0)
    assert abs(key) <= 5121
    clamped = min(max(abs(value), LEAST), MOST) if value else 0.0
    assert clamped <= abs(bucket_upper(key))
    if abs(key) > 1:
        assert clamped > abs(bucket_upper(abs(key) - 1))


def test_every_bound_belongs_to_the_bucket_below_and_its_neighbours_do_not():
    """All 5121 bounds, exactly: the bound, the next double above it, and the next below."""
    for key in range(1, 5122):
        upper = bucket_upper(key)
        assert bucket(upper) == key
        assert bucket(-upper) == -key
        assert bucket_upper(-key) == -upper
        assert bucket(math.nextafter(upper, 0)) == key
        assert bucket(math.nextafter(upper, math.inf)) == min(key + 1, 5121)
    assert (bucket_upper(0), bucket(0.0), bucket(-0.0)) == (0.0, 0, 0)
    assert (bucket_upper(1), bucket_upper(5121)) == (LEAST, MOST)


@given(SAMPLES | ANY_FINITE, SAMPLES | ANY_FINITE)
def test_keys_are_in_the_order_of_their_values(one, other):
    """So ranks can be found by key alone."""
    low, high = sorted((one, other))
    assert bucket(low) <= bucket(high)


@given(SAMPLES)
def test_the_middle_of_a_bucket_is_within_one_percent_of_all_in_it(value):
    """0.8 %, to be exact."""
    assert bucket_middle(bucket(value)) == pytest.approx(value, rel=1 / 127, abs=0)


@given(st.lists(SAMPLES | ANY_FINITE, min_size=1))
@example([2.0**power for power in range(-45, 46)])
@example([5e-324, 1e308, LEAST, MOST])
@example([0.0, -0.0])
def test_a_batch_falls_into_the_same_buckets_as_its_samples_one_by_one(values):
    """The fast way, by the bits of the doubles, is the specification's."""
    counts = {}
    for key, count in bucket_counts(values):
        counts[key] = counts.get(key, 0) + count
    assert counts == in_buckets((value, 1) for value in values)


def test_the_bits_agree_with_the_specification_at_every_bound():
    """One by one, so that no error in one bucket can hide behind another."""
    for key in range(1, 5122):
        upper = bucket_upper(key)
        for value in (upper, math.nextafter(upper, 0), math.nextafter(upper, math.inf)):
            assert list(bucket_counts([value])) == [(bucket(value), 1)]
            assert list(bucket_counts([-value])) == [(-bucket(value), 1)]


@given(SAMPLES)
def test_the_power_of_a_bucket_is_the_least_that_bounds_it(value):
    """Prometheus' bound: the least p with value ≤ 2ᵖ; what is not positive stands at the lowest."""
    power = bucket_power(bucket(value))
    assert value <= 2.0**power
    assert power == -40 or value > 2.0 ** (power - 1)


# -- exact


@given(
    st.lists(ANY_FINITE.map(lambda value: math.ldexp(math.frexp(value)[0], 20)), min_size=1, max_size=EXACT), PERCENTS
)
def test_up_to_the_bound_shares_are_statsds_to_the_last_digit(samples, percent):
    """Boundary, count, sum, sum of squares and mean of every percent equal statsd's arithmetic, not nearly."""
    distribution = frozen(samples)
    assert distribution.exact
    (share,) = distribution.shares([percent])
    if percent == 0 or math.floor(abs(percent) / 100 * len(samples) + 0.5) < len(samples) or percent > 0:
        expected = statsd(samples, percent)
        assert share == expected
    else:
        assert share == (len(samples), min(samples), distribution.sum, distribution.sum_squares, distribution.mean)


@given(st.lists(SAMPLES, min_size=1, max_size=EXACT))
def test_up_to_the_bound_all_else_is_statsds_to_the_last_digit(samples):
    """Sum, mean, deviation and median: smallest first, and the deviation in a second pass."""
    values = sorted(samples)
    n = len(values)
    total = reduce(lambda one, other: one + other, values)
    squares = reduce(lambda one, other: one + other, [value * value for value in values])
    deviation = math.sqrt(
        reduce(lambda a, b: a + b, [(value - total / n) * (value - total / n) for value in values]) / n
    )
    distribution = frozen(samples)
    assert (distribution.count, distribution.sum, distribution.sum_squares) == (n, total, squares)
    assert (distribution.min, distribution.max) == (values[0], values[-1])
    assert distribution.mean == total / n
    assert distribution.std == deviation
    assert distribution.median == (values[n // 2] if n % 2 else (values[n // 2 - 1] + values[n // 2]) / 2)


RATES = st.one_of(st.sampled_from([0.3, 0.1, 0.7, 1 / 3, 0.001, 0.5]), st.floats(0.001, 1))


@given(st.lists(SAMPLES, min_size=1, max_size=120), RATES, PERCENTS)
def test_samples_of_one_rate_are_statsds_lines_to_the_last_digit(samples, rate, percent):
    """With equal rates k is counted over the lines; sums scale by 1/rate, and nothing else does."""
    weight = 1 / rate
    distribution = weighted([(sample, weight) for sample in samples])
    lines = frozen(samples)
    (share,), (line,) = distribution.shares([percent]), lines.shares([percent])
    assert (distribution.mean, distribution.std, distribution.median) == (lines.mean, lines.std, lines.median)
    assert (distribution.min, distribution.max) == (lines.min, lines.max)
    assert (distribution.sum, distribution.sum_squares) == (lines.sum * weight, lines.sum_squares * weight)
    assert distribution.count == reduce(lambda one, other: one + other, [weight] * len(samples))  # as statsd counts
    assert (share is None) == (line is None)
    if share:
        assert share.weight == pytest.approx(line.weight * weight)
        assert share[1:] == (line.boundary, line.sum * weight, line.sum_squares * weight, line.mean)
        if line.weight < len(samples):
            assert share.weight == line.weight * weight


@given(
    st.lists(st.integers(-1000, 1000), min_size=1, max_size=60),
    RATES,
    PERCENTS,
    st.sampled_from([EXACT, 2]),
    st.booleans(),
)
@example([10] * 3, 0.3, 90, EXACT, False)
@example([10] * 3, 0.3, 90, 2, False)
@example([11] * 3, 0.7, -90, 2, True)
def test_a_mean_lies_among_the_samples(samples, rate, percent, limit, mixed):
    """Between lower and upper, with rates of any kind and however many samples there are."""
    weights = [1 / rate, 1 / 0.7] if mixed else [1 / rate]
    pairs = [(float(value), weights[place % len(weights)]) for place, value in enumerate(samples)]
    distribution = weighted(pairs, limit)
    assert distribution.min <= distribution.mean <= distribution.max
    (share,) = distribution.shares([percent])
    if share and percent > 0:
        assert distribution.min <= share.mean <= share.boundary
    elif share:
        assert share.boundary <= share.mean <= distribution.max


@given(st.lists(st.tuples(SAMPLES, st.integers(1, 50)), min_size=1, max_size=60), PERCENTS)
def test_a_weight_stands_for_as_many_equal_samples(pairs, percent):
    """With mixed rates the rank is over the total weight: as if every sample had been sent so many times."""
    unrolled = sorted(value for value, weight in pairs for _ in range(weight))
    distribution = weighted(pairs)
    if len({weight for _, weight in pairs}) == 1:
        return  # equal rates: the test above
    (share,) = distribution.shares([percent])
    assert (share and share.boundary) == ranked(unrolled, percent)
    assert distribution.count == len(unrolled)
    assert distribution.median == frozen(unrolled, limit=len(unrolled)).median


def test_the_bound_counts_samples_not_weights():
    """256 samples are kept as they are, whatever they weigh; the 257th makes a sketch."""
    distribution = Distribution()
    for number in range(EXACT):
        distribution.add(number, 1000)
    assert distribution.exact
    distribution.add(1.0)
    assert not distribution.exact
    assert frozen(range(EXACT)).exact
    assert not frozen(range(EXACT + 1)).exact


def test_without_samples_there_is_no_number():
    """Empty is false, counts 0, and has no percentile, mean or median; merging it changes nothing."""
    assert not NO_SAMPLES
    assert (NO_SAMPLES.count, NO_SAMPLES.sum, NO_SAMPLES.sum_squares) == (0, 0, 0)
    assert NO_SAMPLES.shares([90, -10]) == [None, None]
    for number in (NO_SAMPLES.mean, NO_SAMPLES.std, NO_SAMPLES.median, NO_SAMPLES.percentile(90)):
        assert math.isnan(number)
    assert NO_SAMPLES.powers() == {}
    assert list(NO_SAMPLES.entries()) == []
    for samples in ([], [1.0], range(300)):
        assert contents(merged([frozen(samples), NO_SAMPLES])) == contents(frozen(samples))
        assert contents(merged([NO_SAMPLES, frozen(samples)])) == contents(frozen(samples))


@pytest.mark.parametrize(
    ("percent", "weight", "boundary"),
    [
        (90, 5, 5),
        (50, 3, 3),
        (10, 1, 1),
        (9.9, None, None),
        (-50, 3, 3),
        (-10, 1, 5),
        (100, 5, 5),
        (-100, 5, 1),
        (0, None, None),
    ],
)
def test_shares_of_five_samples(percent, weight, boundary):
    """Worked by hand: k = floor(|p| / 100 · 5 + 0.5)."""
    (share,) = frozen([3, 1, 5, 2, 4]).shares([percent])
    assert (share and share.weight, share and share.boundary) == (weight, boundary)


def test_a_single_sample_is_in_every_share():
    """k is 1 when n is 1, even for 0 percent."""
    for percent in (1, 90, -1, 0):
        assert frozen([7.0]).shares([percent]) == [(1, 7.0, 7.0, 49.0, 7.0)]


# -- sketched


@given(st.lists(SAMPLES, min_size=1, max_size=80), st.integers(1, 40), PERCENTS)
def test_a_sketch_is_within_one_percent_of_the_sample_that_the_rank_rule_picks(samples, limit, percent):
    """Not of some neighbouring sample, and not on average; minimum and maximum are exact, count too."""
    distribution = frozen(samples, limit)
    values = sorted(samples)
    (share,) = distribution.shares([percent])
    expected = ranked(values, percent)
    assert (share is None) == (expected is None)
    if share is not None:
        assert share.boundary == pytest.approx(expected, rel=0.01, abs=0)
    assert distribution.exact == (len(samples) <= limit)
    assert (distribution.count, distribution.min, distribution.max) == (len(values), values[0], values[-1])
    assert distribution.sum == pytest.approx(math.fsum(values), abs=1e-12 * math.fsum(map(abs, values)))
    assert distribution.sum_squares == pytest.approx(math.fsum(value * value for value in values))


@given(st.lists(st.tuples(SAMPLES, st.integers(1, 1000)), min_size=2, max_size=80), PERCENTS)
def test_a_sketch_of_weighted_samples_keeps_the_promise_too(pairs, percent):
    """As if every sample had been added `weight` times."""
    distribution = weighted(pairs, limit=1)
    values = sorted(pairs)
    number = sum(weight for _, weight in pairs)
    unit = pairs[0][1] if len({weight for _, weight in pairs}) == 1 else 1
    k = math.floor(abs(percent) / 100 * (number // unit) + 0.5) * unit
    (share,) = distribution.shares([percent])
    assert (share is None) == (k == 0)
    if share is not None:
        reached = list(accumulate(weight for _, weight in values))
        expected, _ = values[bisect_left(reached, k if percent > 0 else number - k + 1)]
        assert share.boundary == pytest.approx(expected, rel=0.01, abs=0)
    assert (distribution.count, distribution.min, distribution.max) == (number, values[0][0], values[-1][0])


def test_one_percent_holds_for_a_million_samples_of_a_real_shape():
    """Log-normal latencies, every percentile from 0.1 to 99.9, against the sorted samples."""
    rng = random.Random(1)
    samples = [rng.lognormvariate(3, 2) for _ in range(100_000)]
    distribution = frozen(samples)
    samples.sort()
    for tenth in range(1, 1000):
        assert distribution.percentile(tenth / 10) == pytest.approx(ranked(samples, tenth / 10), rel=0.01)
    assert distribution.median == pytest.approx((samples[49_999] + samples[50_000]) / 2, rel=0.01)
    assert distribution.std == pytest.approx(math.sqrt(math.fsum((s - distribution.mean) ** 2 for s in samples) / 1e5))


@given(st.lists(SAMPLES, min_size=2, max_size=60), PERCENTS)
def test_sums_over_a_share_of_a_sketch_are_within_one_percent_of_the_magnitudes(samples, percent):
    """A share's sum and sum of squares are sums of bucket middles, each within 1 % of its sample."""
    (sketch,), (exact,) = frozen(samples, 1).shares([percent]), frozen(samples).shares([percent])
    assert (sketch is None) == (exact is None)
    if sketch:
        assert sketch.weight == exact.weight
        magnitudes = math.fsum(map(abs, samples))
        assert sketch.sum == pytest.approx(exact.sum, abs=0.01 * magnitudes)
        assert sketch.sum_squares == pytest.approx(exact.sum_squares, abs=0.02 * math.fsum(s * s for s in samples))


@pytest.mark.parametrize("value", [1e300, -1e300, 1e-300, -1e-300, 5e-324, 2.0**41])
def test_what_is_beyond_the_buckets_keeps_its_true_extremes(value):
    """Magnitudes are clamped for the buckets alone: minimum, maximum and sum stay true."""
    distribution = frozen([value] * 300)
    assert not distribution.exact
    assert (distribution.min, distribution.max, distribution.percentile(50)) == (value, value, value)
    assert distribution.sum == pytest.approx(300 * value)


# -- merging


def split_up(samples, cuts):
    pieces, start = [], 0
    for flush in [*sorted(flush % (len(samples) + 1) for flush in cuts), len(samples)]:
        pieces.append(samples[start:flush])
        start = flush
    return pieces


@given(
    st.lists(st.tuples(SAMPLES, st.sampled_from([1, 1, 1, 10, 2.5])), min_size=1, max_size=80),
    st.lists(st.integers(0, 80), max_size=5),
    st.randoms(use_true_random=False),
    st.sampled_from([1, 10, 79, EXACT]),
)
def test_any_split_and_any_order_of_merging_gives_the_same(samples, cuts, random, limit):
    """Merging loses nothing: buckets, counts, extremes and percentiles are those of one distribution fed with all."""
    whole = weighted(samples, limit)
    pieces = [weighted(piece, limit) for piece in split_up(samples, cuts)]
    random.shuffle(pieces)
    while len(pieces) > 1:  # in any order, and in any grouping
        pieces.append(merged([pieces.pop(random.randrange(len(pieces))), pieces.pop(0)], limit))
    (other,) = pieces
    assert contents(other) == contents(whole)
    assert other.exact == whole.exact
    assert (other.count, other.min, other.max) == (whole.count, whole.min, whole.max)
    magnitudes = math.fsum(abs(value) * weight for value, weight in samples)
    assert other.sum == pytest.approx(whole.sum, abs=1e-12 * magnitudes)
    assert other.sum_squares == pytest.approx(whole.sum_squares)
    percents = [1, 25, 50, 90, 99.9, -1, -50]
    assert [share and share.boundary for share in other.shares(percents)] == [
        share and share.boundary for share in whole.shares(percents)
    ]


def test_what_is_merged_stays_as_it_is():
    """A frozen distribution may be merged into many."""
    for samples in (range(10), range(1000)):
        part = frozen(samples)
        before = (part.count, part.sum, part.min, part.max, contents(part))
        merged([part, part, frozen([5.0])])
        assert (part.count, part.sum, part.min, part.max, contents(part)) == before


@given(st.lists(SAMPLES, max_size=80), st.sampled_from([1, EXACT]))
def test_one_at_a_time_or_in_batches_is_the_same(samples, limit):
    """`add` and `extend` fill the same buckets."""
    singly = weighted([(sample, 1) for sample in samples], limit)
    half = len(samples) // 2
    batches = Distribution(samples[:half], limit=limit)
    batches.extend(samples[half:])
    batches.freeze()
    assert contents(singly) == contents(batches)
    assert (singly.count, singly.min, singly.max) == (batches.count, batches.min, batches.max)


# -- reading out


@given(st.lists(st.tuples(SAMPLES, st.sampled_from([1, 1, 10])), max_size=80), st.sampled_from([1, EXACT]))
def test_counts_up_to_a_power_of_two_are_exact(samples, limit):
    """Prometheus' histograms: the weight of all samples ≤ 2ᵖ, for every p."""
    powers = weighted(samples, limit).powers()
    for power in range(-40, 41):
        expected = sum(weight for value, weight in samples if value <= 2.0**power)
        assert sum(weight for p, weight in powers.items() if p <= power) == expected


def test_a_sample_on_a_power_of_two_counts_below_its_bound():
    """4 is in (2, 4], the next double above it in (4, 8]."""
    assert frozen([4.0]).powers() == {2: 1}
    assert frozen([math.nextafter(4.0, 5)]).powers() == {3: 1}
    assert frozen([4.0] * 300).powers() == {2: 300}
    assert frozen([0.0, -5.0, 1e-300, 1e300]).powers() == {-40: 3, 40: 1}


WEIGHTS = st.one_of(st.just([1]), st.just([10]), st.just([1 / 0.3]), st.just([1, 10, 2.5]))


@given(st.data(), WEIGHTS, st.sampled_from([1, 2, EXACT]))
def test_entries_fed_elsewhere_give_the_same_buckets_and_extremes(data, weights, limit):
    """This is how a distribution travels as statsd lines: a value with a weight for each bucket."""
    one = weighted(data.draw(st.lists(st.tuples(SAMPLES, st.sampled_from(weights)), min_size=1, max_size=60)), limit)
    entries = list(one.entries())
    assert [value for value, _ in entries] == sorted(value for value, _ in entries)
    assert all(weight > 0 for _, weight in entries)
    other = weighted(entries, limit=1)
    if len(entries) > 1:
        ours = in_buckets(one.entries()) if one.exact else one._buckets
        assert other._buckets.keys() == ours.keys()
        assert other._buckets == pytest.approx(ours)
    assert other.count == pytest.approx(one.count)
    assert (other.min, other.max) == (one.min, one.max)
    assert other.powers() == pytest.approx(one.powers())


@given(st.lists(st.floats(1, 1000), max_size=300), st.floats(0.5, 2000))
def test_weight_below_a_bound(samples, bound):
    """Less than, exclusive; exact while the samples are kept, within a bucket's width when sketched."""
    assert frozen(samples).below(bound) == sum(sample < bound for sample in samples) or len(samples) > EXACT
    sketched = frozen(samples, 1).below(bound)
    assert sum(s < bound * 0.98 for s in samples) <= sketched <= sum(s < bound * 1.02 for s in samples)
