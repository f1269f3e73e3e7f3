"""What the measurement of the wall clock measures, and in which order."""

from mars.config.experiment import WallClock
from mars.speed.methods import Condition
from mars.speed.timing import read_measurements, remove_others, write_measurements
from mars.speed.wall_clock import conditions_of


def test_the_authors_window_has_granularities_of_its_own():
    section = WallClock(
        model="m",
        rounds={4: 1},
        methods=["block_cache", "block_cache-authors", "cursor"],
        cache_blocks=[1, 2],
        authors_cache_blocks=[8],
        judged_cache_block=2,
    )
    found = conditions_of(section, 4, 0.95)
    assert found == [
        Condition("block_cache", 4, 0.95, 1),
        Condition("block_cache", 4, 0.95, 2),
        Condition("cursor", 4, 0.95),
        Condition("block_cache-authors", 4, 0.95, 8),
    ]
    alone = section.model_copy(update={"methods": ["cursor"]})
    assert conditions_of(alone, 4, 0.95) == [Condition("cursor", 4, 0.95)]


def test_records_of_cells_no_longer_asked_for_are_removed(tmp_path):
    kept = [Condition("cursor", 4, 0.95), Condition("hf", 4), Condition("autoregressive", 4)]
    gone = [Condition("cursor", 8, 0.95), Condition("hf", 8), Condition("block_cache", 4, 0.95, 2)]
    names = [condition.full_name for condition in kept + gone]
    write_measurements(tmp_path, {name: {"condition": name} for name in names})
    remove_others(tmp_path, [Condition("cursor", 4, 0.95)])
    assert list(read_measurements(tmp_path)) == [condition.full_name for condition in kept]
