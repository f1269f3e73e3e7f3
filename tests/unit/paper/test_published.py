"""The published numbers: complete, and consistent where the paper's tables overlap."""

import pytest

from mars.paper import published
from mars.paper.published import AVERAGE, BENCHMARKS
from tests.support.printed_tables import printed


@pytest.mark.parametrize(
    ("number", "rows"), [(2, 9), (3, 11), (4, 18), (5, 27), (6, 3), (7, 18), (8, 126), (9, 3)]
)
def test_every_row_is_there(number, rows):
    assert len(published.table(number)) == rows


def test_unknown_table():
    with pytest.raises(KeyError, match="table 1"):
        published.table(1)


@pytest.mark.parametrize("number", [2, 3, 4, 8, 9])
def test_typed_rows_hold_every_published_number(number):
    """Independent of how a row is laid out: all numbers, counted with multiplicity."""
    table = printed(number)
    columns = [*BENCHMARKS, AVERAGE, "accuracy", "tokens_per_forward"]
    columns = [name for name in columns if name in table.columns]
    typed = [
        score
        for row in published.ROWS[number]()
        for scores in row.scores.values()
        for score in scores.values()
    ]
    assert sorted(typed) == sorted(table[columns].to_numpy().ravel())


def test_tau_1_is_one_token_mode():
    assert all(not row.decoding for row in (*published.table2(), *published.table3()))
    assert {row.decoding["threshold"] for row in published.table4()} == {0.95}
    taus = {row.extra["tau"]: row.decoding.get("threshold") for row in published.table8()}
    assert taus == {"1": None, "0.95": 0.95, **{f"0.{n}": n / 10 for n in range(5, 10)}}


def test_tables_8_and_4_agree_on_the_same_cells():
    sweep = {(r.scale, r.block_size, r.extra["tau"]): r for r in published.table8() if r.sft_loss}
    for row in published.table4():
        same = sweep[row.scale, row.block_size, "0.95"]
        for quantity, scores in same.scores.items():
            assert scores == {title: row.scores[quantity][title] for title in scores}


@pytest.mark.parametrize(("number", "tolerance"), [(2, 0.051), (3, 0.051), (4, 0.051), (9, 0.051)])
def test_printed_averages_are_the_means(number, tolerance):
    table = printed(number)
    means = table[list(BENCHMARKS)].mean(axis=1)
    assert ((means - table[AVERAGE]).abs() <= tolerance).all()


def test_printed_changes_are_table_4_minus_table_3():
    """A check of the transcription: the paper prints both terms and the difference."""
    one_token = printed(3).query("method == 'mars' and sft_loss == True")
    one_token = one_token.set_index(["scale", "block_size"])
    for row in published.table4():
        before = one_token.loc[(row.scale, row.block_size)]
        for title in BENCHMARKS:
            change = row.scores["accuracy"][title] - before[title]
            assert change == pytest.approx(row.scores["delta_from_tau_1"][title], abs=0.11)


def test_tables_2_and_3_agree_on_the_same_models():
    table3 = printed(3)
    table3 = table3[table3["block_size"] == 4]
    shared = 0
    for row in published.table2():
        if row.method == "mars":
            same = table3.query("scale == @row.scale and sft_loss == @row.sft_loss")
            assert same[list(BENCHMARKS)].iloc[0].to_dict() == {
                title: row.scores["accuracy"][title] for title in BENCHMARKS
            }
            shared += 1
    assert shared == 3


def test_the_readme_explains_every_file_and_column():
    readme = (published.FOLDER / "README.md").read_text()
    assert "2604.07023" in readme
    for file in published.FOLDER.glob("*.csv"):
        assert f"`{file.name}`" in readme
    for number in (2, 3, 4, 5, 6, 8, 9):
        for column in printed(number).columns:
            assert f"`{column}`" in readme or column in BENCHMARKS or column == "model"
