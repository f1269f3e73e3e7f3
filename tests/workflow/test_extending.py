"""What ARCHITECTURE.md says must be touched to add something is enough: one of each is added."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from mars.paper.tables.tidy_csv import read_csv
from tests.support.ci_experiment import environment

ROOT = Path(__file__).resolve().parents[2]
MOST = {  # files of each row
    "a decoding method, evaluated and timed": 3,
    "a table of evaluations": 3,
    "a key of `training`": 3,
    "a key of a model": 4,
    "a miniature benchmark": 3,
}


def rows() -> dict[str, list[str]]:
    """The table "To add something": the files of each row."""
    section = (ROOT / "ARCHITECTURE.md").read_text().partition("## To add something")[2]
    found = re.findall(r"(?m)^\| (.*?) \| (`.*) \|$", section.partition("\n## ")[0])
    return {what: re.findall(r"`(\S+)`", files) for what, files in found}


def test_every_row_names_files_that_are_there():
    assert {what: len(files) for what, files in rows().items()} == MOST
    for files in rows().values():
        for file in files:
            assert "<" in file or (ROOT / file).is_file(), file


def insert(path: Path, before: str, text: str) -> None:
    content = path.read_text()
    assert content.count(before) == 1, f"{path} has not one {before!r}; adapt the test"
    path.write_text(content.replace(before, f"{text}{before}"))


def python(project: Path, program: str, *arguments: str) -> str:
    """What a program prints that imports the edited package."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(
        command, cwd=project, env=environment(project), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_decoding_method(edited: Path):
    (edited / "mars/decoding/again.py").write_text(
        "from mars.decoding.window import decode_window as decode_again\n"
    )
    registry = edited / "mars/decoding/methods.py"
    insert(
        registry,
        '        Method("cursor", options',
        '        Method("again", options=RULE, in_settings=True),\n',
    )
    insert(
        registry,
        '        Timed("cursor", "cursor", "MARS + cursor cache"),',
        '        Timed("again", "again", "MARS once more"),\n',
    )
    insert(
        registry,
        "    from mars.decoding.block_diffusion import decode_block_diffusion\n",
        "    from mars.decoding.again import decode_again\n",
    )
    text = registry.read_text()
    start = text.index("return {", text.index("def batch_decoders"))
    registry.write_text(f'{text[:start]}return {{"again": decode_again, {text[start + 8 :]}')
    said = python(
        edited,
        "from mars.config.experiment import Setting, WallClock\n"
        "from mars.decoding import decode\n"
        "from mars.paper.tables.wall_clock import ROWS_5\n"
        "setting = Setting(method='again', threshold=0.5)\n"
        "timed = WallClock(model='m', rounds={1: 1}, methods=['again'], cache_blocks=[4])\n"
        "from transformers import Qwen2Config, Qwen2ForCausalLM\n"
        "size = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)\n"
        "size |= dict(num_key_value_heads=1, intermediate_size=16, vocab_size=32)\n"
        "model = Qwen2ForCausalLM(Qwen2Config(**size)).eval()\n"
        "rule = dict(block_size=4, threshold=0.01, max_new_tokens=6, eos_token_id=1)\n"
        "both = [decode(model, [[3, 4]], mask_token_id=2, method=name, **rule)\n"
        "        for name in ('again', 'window')]\n"
        "print(both[0][0].tokens == both[1][0].tokens, ROWS_5['again'])\n",
    )
    assert said.startswith("True MARS once more")


def test_a_table_of_evaluations(edited: Path, run: Path):
    stage = edited / "mars/paper/tables/stage.py"
    insert(
        stage,
        "        FINDINGS,\n",
        '        EvaluatedTable("table2b", "Once more.", published.table2),\n',
    )
    insert(
        stage,
        '    OfEvaluations("table8"',
        '    OfEvaluations("table2b", "Table 2 once more"),\n',
    )
    config = edited / "config/ci.yaml"
    overlay = run / "more.yaml"
    overlay.write_text("artefacts: [table2b]\n")
    arguments = ["--config", str(config), "--config", str(overlay)]
    mars = [sys.executable, "-m", "mars"]
    spec = subprocess.run(
        [*mars, "spec", "table2b", *arguments],
        cwd=run,
        env=environment(edited),
        capture_output=True,
        text=True,
    )
    assert spec.returncode == 0, spec.stderr
    inputs = sorted(run.glob("results/ci/evaluations/*/manifest.json"))
    command = [*mars, "run", "--spec", spec.stdout, "--output", "results/ci/tables/table2b.csv"]
    command += ["--record", "record.json", *map(str, inputs)]
    done = subprocess.run(command, cwd=run, env=environment(edited), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    old, new = (read_csv(run / f"results/ci/tables/{name}.csv") for name in ("table2", "table2b"))
    assert new == [line for line in old if "beyond the paper" not in line["row"]]


PLANNED = (
    "from mars.config.experiment import load_experiment, parse_experiment, read_experiment\n"
    "from mars.training.stage import TRAIN\n"
    "content = read_experiment('config/ci.yaml')\n"
    "content{place}['loudness'] = 3\n"
    "experiment = parse_experiment(content, 'ci')\n"
    "for model in ('ar-small', 'mars-b4-small'):\n"
    "    print(TRAIN.planned(experiment, {{'model': model}}).config{config}['loudness'])\n"
)


def test_a_key_of_training(edited: Path):
    insert(
        edited / "mars/config/experiment.py",
        "    eos_to_block: bool",
        '    loudness: int = Field(0, description="of the log")\n',
    )
    said = python(edited, PLANNED.format(place="['training']", config="['training']"))
    assert said.split() == ["3", "3"]
    reference = subprocess.run(
        [sys.executable, "-m", "mars", "schema", "--markdown"],
        cwd=edited,
        env=environment(edited),
        capture_output=True,
        text=True,
    )
    assert "loudness" in reference.stdout


def test_a_key_of_a_model(edited: Path):
    insert(
        edited / "mars/config/experiment.py",
        "    epochs_factor: Positive",
        '    loudness: int = Field(0, description="of the log")\n',
    )
    stage = edited / "mars/training/stage.py"
    insert(stage, "    ar_weight: float | None = None", "    loudness: int = 0\n")
    insert(stage, "        ar_weight=entry.ar_weight if", "        loudness=entry.loudness,\n")
    said = python(edited, PLANNED.format(place="['models']['ar-small']", config=""))
    assert said.split() == ["3", "0"]


def test_a_miniature_benchmark(edited: Path):
    (edited / "mars/data/minibench/echo.py").write_text(
        "from mars.data.minibench.miniature import Example, Miniature, conversation\n\n\n"
        "class Echo(Miniature):\n"
        "    repository = 'someone/echo'\n"
        "    parts = ('main',)\n"
        "    corpus_share, documents_share = 1, 1\n\n"
        "    def example(self, rng, part):\n"
        "        word = str(rng.randrange(10**6))\n"
        "        messages = conversation(f'Say {word}.', word)\n"
        "        row = {'question': f'Say {word}.', 'answer': word}\n"
        "        return Example(word, messages, row, (f'Say {word}.', f' {word}'), part)\n"
    )
    generate = edited / "mars/data/minibench/generate.py"
    insert(
        generate,
        "from mars.data.minibench.instructions_if",
        "from mars.data.minibench.echo import Echo\n",
    )
    insert(generate, "        FourOptions(world),\n", "        Echo(),\n")
    said = python(
        edited,
        "import sys\n"
        "from pathlib import Path\n"
        "from mars.config.experiment import load_experiment\n"
        "from mars.data.minibench.generate import generate\n"
        "generate(load_experiment('config/ci.yaml').data, Path(sys.argv[1]))\n"
        "print(*(path.name for path in Path(sys.argv[1], 'someone').iterdir()))\n",
        str(edited / "hub"),
    )
    assert said.split() == ["echo"]
