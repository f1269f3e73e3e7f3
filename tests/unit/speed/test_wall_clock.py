"""What a sweep measures, and in which order."""

from mars.provenance.files import write_json
from mars.speed.methods import Cell
from mars.speed.wall_clock import _cells, _remove_others, in_order, longest_first


def test_answers_come_back_in_the_order_of_the_questions():
    prompts = [[1], [1, 2, 3], [1, 2], [4]]
    order = longest_first(prompts)
    assert [len(prompts[index]) for index in order] == [3, 2, 1, 1]
    decoded = [prompts[index] for index in order]
    assert in_order(decoded, order) == prompts


def test_the_authors_window_has_granularities_of_its_own():
    found = _cells(4, ["block_cache", "block_cache-authors", "cursor"], 0.95, [1, 2], [8])
    assert found == [
        Cell("block_cache", 4, 0.95, 1),
        Cell("block_cache", 4, 0.95, 2),
        Cell("cursor", 4, 0.95),
        Cell("block_cache-authors", 4, 0.95, 8),
    ]
    assert _cells(4, ["cursor"], 0.95, [1, 2], [8]) == [Cell("cursor", 4, 0.95)]


def test_records_of_cells_no_longer_asked_for_are_removed(tmp_path):
    kept = [Cell("cursor", 4, 0.95), Cell("hf", 4), Cell("autoregressive", 4)]
    gone = [Cell("cursor", 8, 0.95), Cell("hf", 8), Cell("block_cache", 4, 0.95, 2)]
    for cell in kept + gone:
        write_json(tmp_path / cell.file, {})
    _remove_others(tmp_path, [Cell("cursor", 4, 0.95)])
    assert {path for path in tmp_path.rglob("*.json")} == {tmp_path / cell.file for cell in kept}
