"""Tables 2 and 4: every cell re-derived independently, and what is missing said."""

import csv
import re
import shutil
import statistics
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import evaluations, experiment, record

from mars.errors import UserError
from mars.files import write_json, write_jsonl
from mars.paper import published
from mars.paper.evaluations import read_evaluations
from mars.paper.published import AVERAGE, BENCHMARKS
from mars.paper.show import WIDTH, show
from mars.paper.tables import write_table
from mars.paper.writers import NOT_RUN, latex

MARS = "MARS-0.5B (B=4)"
quick = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def cells(folder, number):
    """The CSV by (scale, row, quantity, benchmark)."""
    with open(folder / f"table{number}.csv", newline="") as stream:
        return {
            (line["scale"], line["row"], line["quantity"], line["benchmark"]): line
            for line in csv.DictReader(stream)
        }


def write(number, spec, records, folder, samples=None):
    return write_table(
        number, experiment_spec=spec, records=records, samples=samples, output=folder
    )


def scores_of(samples):
    return [sample["scores"]["none"]["exact_match"] for sample in samples]


@quick
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40))
def test_table_2_cells_re_derive_from_the_records(tmp_path, seed, n):
    spec = experiment()
    records, samples = evaluations(spec, seed, n)
    write(2, spec, records, tmp_path, samples)
    found = cells(tmp_path, 2)
    rows = {
        ("0.5B", "Base (no fine-tune)"): "m1",
        ("0.5B", "AR SFT (5 ep)"): "m2",
        ("0.5B", "AR SFT (10 ep)"): "m3",
        ("0.5B", MARS): "m4",
        ("0.5B", "MARS-0.5B w/o SFT loss (B=4)"): "m5",
        ("7B", "MARS-7B (B=4)"): "m6",
    }
    for (scale, row), model in rows.items():
        means, variances = [], []
        for title in BENCHMARKS:
            scores = scores_of(samples[model, "plain", title.lower()])
            cell = found[scale, row, "accuracy", title]
            error = statistics.stdev(scores) / n**0.5
            assert cell["model"] == model
            assert float(cell["value"]) == pytest.approx(100 * statistics.mean(scores), abs=1e-5)
            assert float(cell["stderr"]) == pytest.approx(100 * error, abs=1e-5)
            assert int(cell["n"]) == n
            means.append(100 * statistics.mean(scores))
            variances.append((100 * error) ** 2)
        average = found[scale, row, "accuracy", AVERAGE]
        assert float(average["value"]) == pytest.approx(statistics.mean(means), abs=1e-5)
        assert float(average["stderr"]) == pytest.approx(sum(variances) ** 0.5 / 6, abs=1e-5)
    # Block diffusion and two models of the large scale are not in this experiment.
    absent = [line for (scale, row, *_), line in found.items() if (scale, row) not in rows]
    assert len(absent) == 3 * 7
    assert {line["value"] for line in absent} == {NOT_RUN}


@quick
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40))
def test_table_4_cells_re_derive_from_the_records(tmp_path, seed, n):
    spec = experiment()
    records, samples = evaluations(spec, seed, n)
    write(4, spec, records, tmp_path, samples)
    found = cells(tmp_path, 4)
    for scale, row, model in (("0.5B", MARS, "m4"), ("7B", "MARS-7B (B=4)", "m6")):
        for title in BENCHMARKS:
            speed_of = records[model, "fast", title.lower()]["tokens_per_forward"]
            after = scores_of(samples[model, "fast", title.lower()])
            before = scores_of(samples[model, "plain", title.lower()])
            change = found[scale, row, "delta_from_tau_1", title]
            differences = [a - b for a, b in zip(after, before, strict=True)]
            assert float(found[scale, row, "accuracy", title]["value"]) == pytest.approx(
                100 * statistics.mean(after), abs=1e-5
            )
            assert float(change["value"]) == pytest.approx(
                100 * statistics.mean(differences), abs=1e-5
            )
            assert float(change["stderr"]) == pytest.approx(
                100 * statistics.stdev(differences) / n**0.5, abs=1e-5
            )
            speed = found[scale, row, "tokens_per_forward", title]
            assert float(speed["value"]) == pytest.approx(speed_of["value"], abs=1e-5)
            assert float(speed["stderr"]) == pytest.approx(speed_of["stderr"], abs=1e-5)
        speeds = [
            records[model, "fast", title.lower()]["tokens_per_forward"]["value"]
            for title in BENCHMARKS
        ]
        average = found[scale, row, "tokens_per_forward", AVERAGE]
        assert float(average["value"]) == pytest.approx(statistics.mean(speeds), abs=1e-5)


def test_published_numbers_stand_beside_ours_unchanged(tmp_path):
    spec = experiment()
    for number, rows in ((2, published.table2()), (4, published.table4())):
        write(number, spec, evaluations(spec, 0)[0], tmp_path)
        found = cells(tmp_path, number)
        assert len(found) == sum(len(row.scores) for row in rows) * 7
        for row in rows:
            for quantity, scores in row.scores.items():
                for title, score in scores.items():
                    assert float(found[row.scale, row.label, quantity, title]["published"]) == score


@pytest.mark.parametrize("number", [2, 4])
def test_without_records_every_cell_says_so(tmp_path, number):
    files = write(number, experiment(), {}, tmp_path)
    found = cells(tmp_path, number)
    assert all(line[key] == NOT_RUN for line in found.values() for key in ("value", "stderr", "n"))
    for file in files:
        rows = [line for line in file.read_text().splitlines() if "MARS-7B" in line]
        assert rows
        assert all(NOT_RUN in row for row in rows)


def test_no_cell_is_ever_empty(tmp_path):
    spec = experiment()
    records, _ = evaluations(spec, 1)
    del records["m4", "fast", "bbh"], records["m2", "plain", "gpqa"]
    for number in (2, 4):
        write(number, spec, records, tmp_path)
        assert all(value for line in cells(tmp_path, number).values() for value in line.values())
        for line in (tmp_path / f"table{number}.md").read_text().splitlines():
            if line.startswith("|"):
                assert all(cell.strip() for cell in line.strip("|").split("|"))


def test_a_missing_benchmark_takes_the_average_with_it(tmp_path):
    spec = experiment()
    records, _ = evaluations(spec, 1)
    del records["m4", "plain", "bbh"]
    write(2, spec, records, tmp_path)
    write(4, spec, records, tmp_path)
    table2, table4 = cells(tmp_path, 2), cells(tmp_path, 4)
    assert table2["0.5B", MARS, "accuracy", "BBH"]["value"] == NOT_RUN
    assert table2["0.5B", MARS, "accuracy", AVERAGE]["value"] == NOT_RUN
    assert table2["0.5B", MARS, "accuracy", "GPQA"]["value"] != NOT_RUN
    # The accuracy at tau is there, the change from one-token mode is not.
    assert table4["0.5B", MARS, "accuracy", AVERAGE]["value"] != NOT_RUN
    assert table4["0.5B", MARS, "delta_from_tau_1", "BBH"]["value"] == NOT_RUN


def test_fewer_benchmarks_average_both_sides_over_the_same(tmp_path):
    spec = experiment(titles=("GSM8K", "IFEval", "HumanEval"))
    records, _ = evaluations(spec, 2)
    write(2, spec, records, tmp_path)
    found = cells(tmp_path, 2)
    titles = ("IFEval", "GSM8K", "HumanEval")
    average = found["0.5B", MARS, "accuracy", AVERAGE]
    values = [float(found["0.5B", MARS, "accuracy", title]["value"]) for title in titles]
    assert float(average["value"]) == pytest.approx(statistics.mean(values), abs=1e-5)
    assert float(average["published"]) == pytest.approx((51.3 + 32.8 + 40.2) / 3, abs=1e-3)
    assert found["0.5B", MARS, "accuracy", "BBH"]["value"] == NOT_RUN
    assert "Avg is over IFEval, GSM8K, HumanEval" in (tmp_path / "table2.md").read_text()


def test_rows_are_found_by_what_models_are_not_by_name(tmp_path):
    spec, renamed = experiment(), experiment()
    records, _ = evaluations(spec, 3)
    renamed["models"] = {f"x{name}": model for name, model in reversed(spec["models"].items())}
    write(2, spec, records, tmp_path / "a")
    write(2, renamed, {(f"x{m}", s, b): r for (m, s, b), r in records.items()}, tmp_path / "b")
    for suffix in ("md", "tex"):
        assert (tmp_path / f"a/table2.{suffix}").read_text() == (
            tmp_path / f"b/table2.{suffix}"
        ).read_text()


def test_two_models_for_one_row_are_both_shown(tmp_path):
    spec = experiment()
    spec["models"]["again"] = spec["models"]["m4"]
    records, _ = evaluations(spec, 4)
    write(2, spec, records, tmp_path)
    found = cells(tmp_path, 2)
    assert found["0.5B", f"{MARS} [m4]", "accuracy", "GPQA"]["model"] == "m4"
    assert found["0.5B", f"{MARS} [again]", "accuracy", "GPQA"]["model"] == "again"


def test_change_without_the_same_questions_takes_the_independent_error(tmp_path):
    spec = experiment()
    records, samples = evaluations(spec, 5, n=30)
    records["m4", "fast", "gpqa"] = record([0, 1] * 10, (1.5, 0.1))
    samples["m4", "fast", "gpqa"] = samples["m4", "fast", "gpqa"][:20]
    del samples["m4", "fast", "bbh"]
    write(4, spec, records, tmp_path, samples)
    for title in ("GPQA", "BBH"):
        cell = cells(tmp_path, 4)["0.5B", MARS, "delta_from_tau_1", title]
        errors = [
            records["m4", setting, title.lower()]["metrics"]["exact_match"]["none"]["stderr"]
            for setting in ("plain", "fast")
        ]
        expected = 100 * (errors[0] ** 2 + errors[1] ** 2) ** 0.5
        assert float(cell["stderr"]) == pytest.approx(expected, abs=1e-5)
    note = (tmp_path / "table4.md").read_text()
    assert "from paired differences per question (IFEval, " in note
    assert "independent runs, which is conservative (BBH, GPQA)" in note


def test_samples_that_are_not_the_scores_behind_the_record_are_not_used(tmp_path):
    """A score that is no mean over questions must not get the error of one."""
    spec = experiment()
    records, samples = evaluations(spec, 5, n=30)
    records["m4", "fast", "gpqa"]["metrics"]["exact_match"]["none"]["value"] += 0.25
    write(4, spec, records, tmp_path, samples)
    assert (
        "as of independent runs, which is conservative (GPQA)"
        in (tmp_path / "table4.md").read_text()
    )


def test_an_unknown_standard_error_is_named_not_zero(tmp_path):
    spec = experiment()
    records, samples = evaluations(spec, 5)
    records["m4", "plain", "gpqa"]["metrics"]["exact_match"]["none"]["stderr"] = None
    write(2, spec, records, tmp_path, samples)
    found = cells(tmp_path, 2)
    for title in ("GPQA", AVERAGE):
        assert found["0.5B", MARS, "accuracy", title]["stderr"] == "n/a"
        assert found["0.5B", MARS, "accuracy", title]["value"] != NOT_RUN


def test_notes_state_limits_and_scale(tmp_path):
    spec = experiment()
    spec["benchmarks"]["gsm8k"]["limit"] = 12
    write(2, spec, evaluations(spec, 6)[0], tmp_path)
    text = (tmp_path / "table2.md").read_text()
    assert "GSM8K 12 (limited to the first 12 of each task)" in text
    assert "absolute numbers are not reproduced" in text
    assert "60 instruction examples" in text


def test_the_papers_own_base_models_need_no_scale_note(tmp_path):
    spec = experiment()
    for scale in spec["scales"].values():
        repository = f"Qwen/Qwen2.5-{scale['stands_for']}-Instruct"
        scale["base"] = {"source": "hub", "repository": repository}
    write(2, spec, {}, tmp_path)
    assert "Scale differs" not in (tmp_path / "table2.md").read_text()


def test_evaluations_read_from_disk_give_the_same_table(tmp_path):
    spec = experiment()
    records, samples = evaluations(spec, 10)
    for (model, setting, benchmark), content in records.items():
        folder = tmp_path / "evaluations" / model / setting
        write_json(folder / f"{benchmark}.json", content)
        write_jsonl(folder / f"{benchmark}.samples.jsonl", samples[model, setting, benchmark])
        write_json(tmp_path / "evaluations" / model / "manifest.json", {})
    read = read_evaluations({model: tmp_path / "evaluations" / model for model in spec["models"]})
    assert read == (records, samples)


# --- LaTeX --------------------------------------------------------------------------------------


@given(st.text(alphabet="ab&%$#_{}~^\\[]±+-1 ", max_size=30))
def test_latex_leaves_no_special_character_bare(text):
    escaped = latex(text)
    for command in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", r"$\pm$"):
        escaped = escaped.replace(command, "")
    escaped = re.sub(r"^\$[+-]\$", "", escaped)
    escaped = escaped.replace("{[}", "").replace("{]}", "")
    escaped = re.sub(r"\\[&%$#_{}]", "", escaped)
    assert not re.search(r"[&%$#_{}~^\\\[\]±]", escaped)


@pytest.mark.parametrize("number", [2, 4])
def test_latex_rows_fit_the_columns(tmp_path, number):
    spec = experiment()
    spec["models"]["a_b&c[d]"] = spec["models"]["m4"]
    write(number, spec, evaluations(spec, 7)[0], tmp_path)
    text = (tmp_path / f"table{number}.tex").read_text()
    columns = len(re.search(r"\\begin{tabular}{(\w+)}", text)[1])
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = [row for row in body.replace(r"\midrule", "").split("\\\\\n") if "&" in row]
    assert len(rows) > 6
    for row in rows:
        bare = len(re.findall(r"(?<!\\)&", row))
        spanned = row.count(r"\multicolumn{2}")
        assert bare + spanned == columns - 1
        assert not row.strip().startswith("[")
    unescaped = text.replace(r"\{", "").replace(r"\}", "")
    assert unescaped.count("{") == unescaped.count("}")
    for environment in ("table", "tabular"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here to compile with")
@pytest.mark.parametrize("number", [2, 4])
def test_latex_compiles(tmp_path, number):
    spec = experiment()
    spec["models"]["a_b&c[d]"] = spec["models"]["m4"]
    write(number, spec, evaluations(spec, 8)[0], tmp_path)
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}"
        f"\\input{{table{number}}}\\end{{document}}"
    )
    subprocess.run(
        ["pdflatex", "-interaction=batchmode", "-halt-on-error", "main.tex"],
        cwd=tmp_path,
        check=True,
    )


# --- the terminal -------------------------------------------------------------------------------


def test_show_prints_both_tables_within_the_width(tmp_path, capsys):
    spec = experiment()
    records, _ = evaluations(spec, 9)
    tables = tmp_path / "tables"
    files = [file for number in (2, 4) for file in write(number, spec, records, tables)]
    show(tmp_path)
    *text, written = capsys.readouterr().out.partition("Written:")
    text = "".join(text)
    assert max(map(len, text.splitlines())) <= WIDTH
    for line in cells(tables, 2).values():
        wanted = NOT_RUN
        if line["value"] != NOT_RUN:
            wanted = f"{float(line['value']):.1f} ± {float(line['stderr']):.1f}"
        assert wanted in text
    assert "0.5B  Block Diffusion (B=4): not run" in text
    assert [line.strip() for line in written.splitlines() if line] == sorted(map(str, files))
    assert "Scale differs" in text


def test_show_before_the_run_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="run the experiment first"):
        show(tmp_path)
