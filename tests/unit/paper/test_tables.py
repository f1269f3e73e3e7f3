"""The tables of evaluations: every cell re-derived independently, and what is missing said."""

import csv
import re
import shutil
import statistics
import subprocess

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mars.errors import UserError
from mars.paper.evaluations import EvaluationKey, Evaluations, selection
from mars.paper.published import AVERAGE
from mars.paper.specs import BaseOrigin
from mars.paper.tables import files
from mars.paper.tables.evaluated import BEYOND
from mars.paper.tables.latex import latex
from mars.paper.tables.stage import EVALUATED
from mars.paper.tables.table import NOT_RUN, read_record
from mars.paper.tables.terminal import WIDTH, show
from mars.provenance.files import write_json, write_jsonl
from tests.support.synthetic_evaluations import (
    SWEEP,
    changed,
    evaluations,
    experiment,
    record,
    speed,
)
from tests.support.synthetic_evaluations import model as model_of
from tests.support.synthetic_evaluations import setting as setting_of

MARS = "MARS-0.5B (B=4)"
TABLES = {number: EVALUATED[f"table{number}"] for number in (2, 3, 4, 8, 9)}
quick = settings(
    max_examples=8,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a failure is as clear at any size
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def cells(folder, number):
    """The CSV by (scale, row, quantity, benchmark)."""
    with open(folder / f"table{number}.csv", newline="") as stream:
        return {
            (line["scale"], line["row"], line["quantity"], line["benchmark"]): line
            for line in csv.DictReader(stream)
        }


def write(number, spec, records, folder, samples=None):
    return files.write(TABLES[number].table(spec, Evaluations(spec, records, samples)), folder)


def scores_of(samples):
    return [sample["scores"]["none"]["exact_match"] for sample in samples]


def derived(spec, samples, line):
    """Value and standard error of a CSV line, from the questions by formulas written out."""
    keys = {b.title: key for key, b in spec.benchmarks.items()}
    if line["benchmark"] == AVERAGE:
        parts = [derived(spec, samples, {**line, "benchmark": title}) for title in keys]
        values, errors = zip(*parts, strict=True)
        return statistics.mean(values), sum(e**2 for e in errors) ** 0.5 / len(parts)
    key = keys[line["benchmark"]]
    found = samples[line["model"], line["setting"], key]
    if line["quantity"].startswith("tokens_per_forward"):
        return speed(found, line["quantity"].removeprefix("tokens_per_forward_"))
    scores = scores_of(found)
    if line["quantity"] != "accuracy":
        against = line.get("against", "n/a")
        other = (line["model"], "plain") if against == "n/a" else against.split("/")
        before = scores_of(samples[*other, key])
        scores = [a - b for a, b in zip(scores, before, strict=True)]
    return 100 * statistics.mean(scores), 100 * statistics.stdev(scores) / len(scores) ** 0.5


def assert_derived(spec, samples, lines):
    """Every number of ours follows from the samples; says how many there were."""
    run = [line for line in lines if line["value"] != NOT_RUN]
    for line in run:
        value, error = derived(spec, samples, line)
        assert float(line["value"]) == pytest.approx(value, abs=1e-5)
        assert float(line["stderr"]) == pytest.approx(error, abs=1e-5)
    return len(run)


@quick
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40))
def test_every_cell_of_every_table_re_derives_from_the_questions(tmp_path, seed, n):
    spec = experiment()
    records, samples = evaluations(spec, seed, n)
    counts = {}
    for number in TABLES:
        write(number, spec, records, tmp_path, samples)
        counts[number] = assert_derived(spec, samples, cells(tmp_path, number).values())
    files.write(EVALUATED["findings"].table(spec, Evaluations(spec, records, samples)), tmp_path)
    with open(tmp_path / "findings.csv", newline="") as stream:
        counts["findings"] = assert_derived(spec, samples, csv.DictReader(stream))
    # Rows run: table 2: 6 and the penalty; 3: 6 and 1/t; 4: 3 and, on two benchmarks, 2 with a
    # change; 8: 5 models at 7 taus on 2 benchmarks; 9: 3 and the penalty.
    assert counts == {
        2: 7 * 7,
        3: 7 * 7,
        4: 3 * 3 * 7 + 2 * 3 * 2,
        8: 5 * 7 * 2 * 2,
        9: 4 * 2 * 7,
        # Here, there and the difference of A1; A2 of 3 models, counted both ways; A5, accuracy and
        # speed of 2 models here, of one there, and the difference; B2 here of 2 models, there of 1;
        # C5 here, accuracy and speed.
        "findings": 3 * 7 + 3 * 2 * 7 + (2 * 2 * 7 + 3 * 2) + (3 * 7 + 7) + 2 * 7,
    }


def test_rows_stand_for_the_models_that_they_describe(tmp_path):
    spec = experiment()
    records, samples = evaluations(spec, 0)
    expected = {
        2: {
            ("0.5B", "Base (no fine-tune)"): ("m1", "plain"),
            ("0.5B", "AR SFT (5 ep)"): ("m2", "plain"),
            ("0.5B", "AR SFT (10 ep)"): ("m3", "plain"),
            ("0.5B", MARS): ("m4", "plain"),
            ("0.5B", "MARS-0.5B w/o SFT loss (B=4)"): ("m5", "plain"),
            ("7B", "MARS-7B (B=4)"): ("m6", "plain"),
            ("0.5B", f"AR SFT (5 ep), inherited repetition penalty{BEYOND}"): ("m2", "penalty"),
        },
        3: {
            ("0.5B", "AR SFT"): ("m2", "plain"),
            ("0.5B", MARS): ("m4", "plain"),
            ("0.5B", "MARS-0.5B (B=16)"): ("m7", "plain"),
            ("0.5B", "MARS-0.5B w/o SFT loss (B=4)"): ("m5", "plain"),
            ("0.5B", "MARS-0.5B w/o SFT loss (B=16)"): ("m8", "plain"),
            ("7B", "MARS-7B (B=4)"): ("m6", "plain"),
            ("0.5B", f"MARS-0.5B w/o SFT loss (B=4), 1/t weighting{BEYOND}"): ("m9", "plain"),
        },
        4: {
            ("0.5B", MARS): ("m4", "fast"),
            ("0.5B", "MARS-0.5B (B=16)"): ("m7", "fast"),
            ("7B", "MARS-7B (B=4)"): ("m6", "fast"),
            ("0.5B", f"{MARS}, lossless, tau = 0.5{BEYOND}"): ("m4", "exact"),
            ("0.5B", f"{MARS}, block cache with the authors' window{BEYOND}"): ("m4", "theirs"),
        },
        8: {
            ("0.5B", f"{MARS}, tau = 1"): ("m4", "plain"),
            ("0.5B", f"{MARS}, tau = 0.95"): ("m4", "fast"),
            ("0.5B", "MARS-0.5B w/o SFT loss (B=16), tau = 0.6"): ("m8", "tau0.6"),
            ("7B", "MARS-7B (B=4), tau = 0.5"): ("m6", "tau0.5"),
        },
        9: {
            ("0.5B", "AR SFT (0.5B)"): ("m2", "plain"),
            ("0.5B", "Jacobi on AR SFT (0.5B)"): ("m2", "jacobi"),
            ("0.5B", "MARS (0.5B, B=4, tau=0.95)"): ("m4", "fast"),
            ("0.5B", f"AR SFT (0.5B), inherited repetition penalty{BEYOND}"): ("m2", "penalty"),
        },
    }
    for number, rows in expected.items():
        write(number, spec, records, tmp_path, samples)
        lines = cells(tmp_path, number).values()
        shown = {(c["scale"], c["row"]): (c["model"], c["setting"]) for c in lines}
        assert rows.items() <= shown.items()
        run = {(c["scale"], c["row"]) for c in lines if c["value"] != NOT_RUN}
        assert number == 8 or run == set(rows)


def test_unshifted_block_diffusion_is_a_row_beyond_the_paper(tmp_path):
    spec = experiment()
    diffusion = {"method": "block_diffusion", "block_size": 4}
    spec.models["bd"] = model_of("small", **diffusion)
    spec.models["bd-plain"] = model_of("small", **diffusion, right_shift=False)
    write(2, spec, evaluations(spec, 0)[0], tmp_path)
    shown = {c["row"]: c["model"] for c in cells(tmp_path, 2).values()}
    published = "Block Diffusion (B=4)"
    assert shown[published] == "bd"
    assert shown[f"{published}, logits not shifted{BEYOND}"] == "bd-plain"


def test_of_two_settings_that_fit_a_row_the_one_run_counts(tmp_path):
    spec = experiment()
    mild = setting_of(method="transformers", repetition_penalty=1.05)
    spec = spec.model_copy(update={"settings": {"mild": mild, **spec.settings}})
    records, samples = evaluations(spec, 0)
    write(2, spec, records, tmp_path, samples)
    shown = {line["setting"] for line in cells(tmp_path, 2).values()}
    assert shown == {"plain", "penalty"}


def test_a_tables_spec_holds_only_what_it_shows(tmp_path):
    """The numbers made from the selection are those made from everything."""
    spec = experiment()
    records, samples = evaluations(spec, 1)
    kept = {}
    for number, table in TABLES.items():
        selected = selection(table.all_rows(), spec)
        write(number, spec, records, tmp_path / "whole", samples)
        write(number, selected, records, tmp_path / "part", samples)
        assert cells(tmp_path / "whole", number) == cells(tmp_path / "part", number)
        kept[number] = set(selected.models), set(selected.settings)
    sweep = {"plain", "fast", *(f"tau{tau}" for tau in SWEEP)}
    assert kept[8] == ({"m4", "m5", "m6", "m7", "m8"}, sweep)
    assert kept[9] == ({"m2", "m4"}, {"plain", "fast", "jacobi", "penalty"})


def test_published_numbers_stand_beside_ours_unchanged(tmp_path):
    spec = experiment()
    for number, table in TABLES.items():
        write(number, spec, evaluations(spec, 0)[0], tmp_path)
        found = cells(tmp_path, number)
        printed = [line for line in found.values() if line["published"] != "n/a"]
        numbers = [score for row in table.rows() for s in row.scores.values() for score in s]
        assert len(printed) == len(numbers)
        for row in table.rows():
            for quantity, scores in row.scores.items():
                for title, score in scores.items():
                    assert float(found[row.scale, row.label, quantity, title]["published"]) == score


@pytest.mark.parametrize("number", [2, 3, 4])
def test_without_records_every_cell_says_so(tmp_path, number):
    made = write(number, experiment(), {}, tmp_path)
    found = cells(tmp_path, number)
    assert all(line[key] == NOT_RUN for line in found.values() for key in ("value", "stderr", "n"))
    for file in made[:3]:
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
    models = {f"x{name}": model for name, model in reversed(spec.models.items())}
    renamed = renamed.model_copy(update={"models": models})
    write(2, spec, records, tmp_path / "a")
    write(
        2,
        renamed,
        {EvaluationKey(f"x{m}", s, b): r for (m, s, b), r in records.items()},
        tmp_path / "b",
    )
    for suffix in ("md", "tex"):
        assert (tmp_path / f"a/table2.{suffix}").read_text() == (
            tmp_path / f"b/table2.{suffix}"
        ).read_text()


def test_two_models_for_one_row_are_both_shown(tmp_path):
    spec = experiment()
    spec.models["again"] = spec.models["m4"]
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
        "as for independent runs, which is conservative (GPQA)"
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
    spec = changed(experiment(), "gsm8k", limit=12)
    write(2, spec, evaluations(spec, 6)[0], tmp_path)
    text = (tmp_path / "table2.md").read_text()
    assert "GSM8K 12 (limited to the first 12 of each task)" in text
    assert "absolute numbers are not reproduced" in text
    assert "60 instruction examples" in text


def test_the_papers_own_base_models_need_no_scale_note(tmp_path):
    spec = experiment()
    for name, scale in spec.scales.items():
        base = BaseOrigin(source="hub", repository=f"Qwen/Qwen2.5-{scale.stands_for}-Instruct")
        spec.scales[name] = scale.model_copy(update={"base": base})
    write(2, spec, {}, tmp_path)
    assert "The scale differs" not in (tmp_path / "table2.md").read_text()


def test_evaluations_read_from_disk_give_the_same_table(tmp_path):
    spec = experiment()
    records, samples = evaluations(spec, 10)
    for (model, setting, benchmark), content in records.items():
        folder = tmp_path / "evaluations" / model / setting
        write_json(folder / f"{benchmark}.json", content)
        write_jsonl(folder / f"{benchmark}.samples.jsonl", samples[model, setting, benchmark])
        write_json(tmp_path / "evaluations" / model / "manifest.json", {})
    folders = {model: tmp_path / "evaluations" / model for model in spec.models}
    read = Evaluations.read(spec, folders)
    assert (read.records, read.answers) == (records, samples)


@pytest.mark.parametrize("number", TABLES)
def test_the_record_of_a_table_is_the_table(tmp_path, number):
    spec = experiment()
    records, samples = evaluations(spec, 10)
    table = TABLES[number].table(spec, Evaluations(spec, records, samples))
    files.write(table, tmp_path)
    assert read_record(tmp_path / f"table{number}.jsonl") == table


# --- LaTeX --------------------------------------------------------------------------------------


@given(st.text(alphabet="ab&%$#_{}~^\\[]±+-1 <>|→", max_size=30))
def test_latex_leaves_no_special_character_bare(text):
    escaped = latex(text)
    commands = (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}")
    for command in (*commands, r"$\pm$", r"$\rightarrow$", "$<$", "$>$", "$|$"):
        escaped = escaped.replace(command, "")
    escaped = re.sub(r"^\$[+-]\$", "", escaped)
    escaped = escaped.replace("{[}", "").replace("{]}", "")
    escaped = re.sub(r"\\[&%$#_{}]", "", escaped)
    assert not re.search(r"[&%$#_{}~^\\\[\]±<>|→]", escaped)


def test_latex_has_arrows_and_quotes():
    assert latex('AR -> MARS: "n/a"') == r"AR $\rightarrow$ MARS: ``n/a''"


@pytest.mark.parametrize("number", TABLES)
def test_latex_rows_fit_the_columns(tmp_path, number):
    spec = experiment()
    spec.models["a_b&c[d]"] = spec.models["m4"]
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
@pytest.mark.parametrize("number", TABLES)
def test_latex_compiles(tmp_path, number):
    spec = experiment()
    spec.models["a_b&c[d]"] = spec.models["m4"]
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
    made = [file for number in (2, 4) for file in write(number, spec, records, tables)]
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
    assert [line.strip() for line in written.splitlines() if line] == sorted(map(str, made))
    assert "The scale differs" in text


def test_show_before_the_run_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="run the experiment first"):
        show(tmp_path)


def test_rows_that_a_server_answered_are_named(tmp_path):
    spec = experiment()
    records, samples = evaluations(spec, seed=0)
    told = "Answered by a server"
    assert not any(told in line for line in notes_of(2, spec, records, samples))
    for key in records:
        if key.model in ("m2", "m3") and key.setting == "plain":
            records[key]["endpoint"] = {"model": "theirs"}
    (note,) = (line for line in notes_of(2, spec, records, samples) if told in line)
    assert "m2, m3" in note
    assert "weights were not checked" in note
    assert not any(told in line for line in notes_of(8, spec, records, samples))


def notes_of(number, spec, records, samples):
    narrow = selection(TABLES[number].all_rows(), spec)
    kept = {key: record for key, record in records.items() if key.model in narrow.models}
    return TABLES[number].table(narrow, Evaluations(narrow, kept, samples)).notes
