"""Every mistake in a configuration is one sentence that names the file, the key and the remedy."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from mars.config.experiment import (
    Setting,
    load_experiment,
    merged,
    parse_experiment,
    read_experiment,
)
from mars.config.overlays import DEFAULT
from mars.config.reference import BEGIN, END, json_schema, key_reference
from mars.errors import UserError
from mars.evaluation.stage import resolve as resolve_evaluation
from mars.paper.artefacts import ARTEFACTS
from mars.paper.evaluations import models_for, settings_for
from mars.paper.published import STAGE_EPOCHS, table, table2
from mars.paper.specs import identities, reported_models
from mars.paper.tables.findings import DIFFERENCES, FINDINGS
from mars.training.stage import resolve_training

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted(set((ROOT / "config").glob("*.yaml")) - {DEFAULT})


@pytest.fixture
def tiny() -> dict:
    return read_experiment(ROOT / "config/tiny.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_load(path: Path):
    assert load_experiment(path).experiment == path.stem


@pytest.mark.parametrize("overlay", sorted((ROOT / "config/overlays").glob("*.yaml")), ids=str)
def test_overlays_fit_their_experiment(overlay: Path):
    base = ROOT / "config" / f"{overlay.stem.partition('-')[0]}.yaml"
    assert load_experiment(base, overlay) != load_experiment(base)


def test_schema_file_is_the_schema_of_the_model():
    assert (ROOT / "config/schema.json").read_text() == json_schema()


def test_every_key_is_explained():
    schema = json.loads(json_schema())
    keys = {
        f"{title}.{key}": value
        for title, section in (("top", schema), *schema["$defs"].items())
        for key, value in section.get("properties", {}).items()
    }
    assert not {key for key, value in keys.items() if not value.get("description")}


def test_the_key_reference_is_that_of_the_model():
    """If not: put what `mars schema --markdown` prints between the marks."""
    readme = (ROOT / "config/README.md").read_text()
    assert f"{BEGIN}{key_reference()}{END}" in readme


def _edit(content: dict, key: str, value: object) -> None:
    *path, last = key.split("/")
    for part in path:
        content = content[int(part)] if isinstance(content, list) else content[part]
    content[last] = value


MISTAKES = [
    ("training/learning_rat", 1e-3, ["training.learning_rat", "unknown key", "config/README.md"]),
    ("models/ar-small/parent", "base-smal", ["models.ar-small.parent", "did you mean"]),
    ("models/ar-small/scale", "medium", ["models.ar-small.scale", "medium", "known: small, large"]),
    ("models/base-small/parent", "ar-small", ["models.base-small", "base"]),
    ("models/mars-b4-small/parent", "ar-large", ["another scale", "models.mars-b4-small.parent"]),
    ("models/ar-small/parent", "mars-b4-small", ["circle", "start from a base model"]),
    ("models/ar-small/training", {"epoch": 3}, ["models.ar-small.training.epoch"]),
    ("settings/tau-0.95/threshold", 1.5, ["settings.tau-0.95.threshold", "between 0 and 1"]),
    ("settings/tau-0.95/threshold", -0.1, ["settings.tau-0.95.threshold", "between 0 and 1"]),
    ("models/mars-b4-small/block_size", None, ["models.mars-b4-small", "block_size"]),
    ("models/ar-small/method", "sft", ["models.ar-small.method", "'sft'"]),
    ("speed/wall_clock/model", "ar-large", ["speed.wall_clock.model", "trained by mars"]),
    (
        "speed/speculative/pairs/0/draft",
        "ar-smal",
        ["speed.speculative.pairs[0].draft", "did you mean"],
    ),
    (
        "speed/wall_clock/judged_cache_block",
        64,
        ["speed.wall_clock", "`judged_cache_block` is 64, which is not timed"],
    ),
    ("speed/wall_clock", None, ["artefacts", "table5", "speed.wall_clock"]),
    (
        "probe",
        {"benchmark": "gsm8k", "models": ["ar-small"]},
        ["probe.models", "only models of mars"],
    ),
    ("probe", {"benchmark": "gsm", "models": []}, ["probe.benchmark", "did you mean 'gsm8k'"]),
    ("artefacts", ["masks"], ["`artefacts` has masks, which needs `probe`"]),
    ("speed/sweep", {"model": "mars-b4-large"}, ["`speed.sweep` is now `wall_clock`; rename it"]),
    ("settings/tau-0.95/verify", True, ["`settings.tau-0.95.verify` is now `lossless`"]),
    ("settings/jacobi/lossless", True, ["`lossless` is not an option of the method jacobi"]),
    ("settings/tau-0.95/method", "guess", ["settings.tau-0.95.method", "'jacobi', 'block_cache'"]),
    ("evaluate/0/models", ["nobody"], ["evaluate[0].models", "nobody"]),
    (
        "evaluation/endpoint",
        {"mars-b4-small": {"url": "http://node7/v1"}},
        ["`evaluation.endpoint` names 'mars-b4-small', trained by mars", "AR rows only"],
    ),
    (
        "evaluation/endpoint",
        {"ar-smal": {"url": "http://node7/v1"}},
        ["`evaluation.endpoint` names 'ar-smal'", "did you mean 'ar-small'"],
    ),
    (
        "evaluation/endpoint",
        {"ar-small": {"url": "http://me:secret@node7/v1"}},
        ["evaluation.endpoint.ar-small.url"],
    ),
    ("models/ar-small/source", "released", ["models.ar-small", "released: {repository: ...}"]),
    ("models/mars-b4-small/right_shift", False, ["models.mars-b4-small", "block_diffusion only"]),
    ("models/ar-small", None, [".parent` names 'ar-small', which does not exist"]),
    (
        "training/checkpoint_minutes",
        5,
        ["`training.checkpoint_minutes` is now `resources.checkpoint_minutes`; rename it"],
    ),
    (
        "models/ar-small/training",
        {"checkpoint_minutes": 5},
        ["`models.ar-small.training.checkpoint_minutes` is now `resources.checkpoint_minutes`"],
    ),
]


@pytest.mark.parametrize(("key", "value", "expected"), MISTAKES, ids=lambda v: str(v)[:40])
def test_a_mistake_is_one_sentence(tiny: dict, key: str, value: object, expected: list[str]):
    _edit(tiny, key, value)
    with pytest.raises(UserError) as caught:
        parse_experiment(tiny, "config/mine.yaml")
    sentence = str(caught.value)
    assert sentence.startswith("config/mine.yaml: ")
    assert "\n" not in sentence
    for part in expected:
        assert part in sentence, sentence


def test_the_released_block_diffusion_is_shifted(tiny: dict):
    """The authors trained and sampled it so (C1); the un-shifted form has to be trained here."""
    models = tiny["models"]
    name = next(one for one in models if models[one]["method"] == "block_diffusion")
    whole = parse_experiment(tiny, "tiny")
    assert whole.models[name].right_shift
    assert resolve_training(whole, name).right_shift
    assert resolve_evaluation(whole, name).right_shift
    models[name]["right_shift"] = False
    unshifted = parse_experiment(tiny, "tiny")
    assert not resolve_training(unshifted, name).right_shift
    assert not resolve_evaluation(unshifted, name).right_shift
    models[name] |= {"source": "released", "released": {"repository": "x/y"}}
    with pytest.raises(UserError, match=f"models.{name}.*`right_shift: true`; remove the key"):
        parse_experiment(tiny, "tiny")


def test_null_removes_an_entry_and_what_stands_on_it(tiny: dict):
    overlay = {"scales": {"large": None}, "benchmarks": {"gpqa": None}, "settings": {}}
    experiment = parse_experiment(merged(tiny, overlay), "tiny")
    whole = parse_experiment(tiny, "tiny")
    assert set(experiment.scales) == {"small"}
    assert set(experiment.benchmarks) == set(whole.benchmarks) - {"gpqa"}
    assert experiment.speed.wall_clock is None, "it timed a model of the removed scale"
    small = [name for name, model in whole.models.items() if model.scale == "small"]
    assert list(experiment.models) == small
    for name in small:
        expected = whole.evaluations_of(name)
        assert experiment.evaluations_of(name) == {
            setting: [b for b in names if b != "gpqa"] for setting, names in expected.items()
        }
    nothing_left = merged(tiny, {"settings": {"tau-0.95": None}})
    assert all("tau-0.95" not in g.settings for g in parse_experiment(nothing_left, "x").evaluate)


def test_the_server_of_a_removed_model_goes_with_it_and_null_removes_a_server(tiny: dict):
    url = {"url": "http://node7:8000/v1"}
    endpoint = {"ar-small": url, "ar-large": url}
    sent = merged(tiny, {"evaluation": {"endpoint": endpoint}})
    assert parse_experiment(sent, "tiny").evaluation.endpoint.keys() == endpoint.keys()
    left = merged(sent, {"scales": {"large": None}})
    assert list(parse_experiment(left, "tiny").evaluation.endpoint) == ["ar-small"]
    none = merged(left, {"evaluation": {"endpoint": {"ar-small": None}}})
    assert parse_experiment(none, "tiny").evaluation.endpoint == {}


def test_removing_what_is_not_there_is_a_mistake(tmp_path: Path):
    (tmp_path / "overlay.yaml").write_text("benchmarks: {qpqa: null}")
    with pytest.raises(UserError, match=r"`benchmarks\.qpqa` is null, which removes it, but there"):
        load_experiment(ROOT / "config/paper.yaml", tmp_path / "overlay.yaml")


def test_paper_has_every_model_of_its_tables_once():
    experiment = load_experiment(ROOT / "config/paper.yaml")
    ours = Counter(
        (
            model.scale,
            model.method,
            model.block_size,
            model.ar_weight > 0 if model.method == "mars" else None,
            model.epochs_factor,
        )
        for name, model in experiment.models.items()
        if not experiment.training_of(name).inverse_t_weighting
    )
    published = {
        (row.scale, row.method, row.block_size, row.sft_loss, max(1, row.epochs // STAGE_EPOCHS))
        for row in table2()
    }
    for line in table(3):
        if line["method"] == "mars":
            block_size, sft_loss = int(line["block_size"]), line["sft_loss"] == "true"
            published.add((line["scale"], "mars", block_size, sft_loss, 1))
    assert ours == Counter(published)


def test_two_stages_of_ar_sft_in_a_row_are_the_compute_matched_row():
    """C4: ten epochs in one schedule, or twice five."""
    content = read_experiment(ROOT / "config/paper.yaml")
    twice = {"scale": "0.5B", "method": "ar_sft", "parent": "ar-sft-0.5B"}
    models = {**content["models"], "ar-sft-twice-0.5B": twice}
    experiment = parse_experiment({**content, "models": models}, "x")
    found = identities(experiment, ["ar-sft-0.5B", "ar-sft-2x-0.5B", "ar-sft-twice-0.5B"])
    assert [one.epochs_factor for one in found.values()] == [1, 2, 2]
    assert identities(experiment, ["mars-b4-0.5B"])["mars-b4-0.5B"].epochs_factor == 1


def test_paper_has_what_is_beyond_its_tables():
    """Each finding that can be measured has its model and its setting."""
    experiment = load_experiment(ROOT / "config/paper.yaml")
    spec = FINDINGS.resolve(experiment)
    for one in DIFFERENCES:
        for row in filter(None, (one.there and one.there(row) for row in one.rows())):
            models, settings = models_for(row, spec), settings_for(row.decoding, spec.settings)
            run = [s for name in models for s in experiment.evaluations_of(name) if s in settings]
            wanted = row.scale == "0.5B" and row.block_size in (None, 4)
            assert run or not wanted, row.label


def test_paper_evaluates_every_cell_of_its_threshold_sweep():
    experiment = load_experiment(ROOT / "config/paper.yaml")
    titles = {item.title: name for name, item in experiment.benchmarks.items()}
    for line in table(8):
        (name,) = (
            name
            for name, model in experiment.models.items()
            if (model.scale, model.method) == (line["scale"], "mars")
            and model.block_size == int(line["block_size"])
            and (model.ar_weight > 0) == (line["sft_loss"] == "true")
            and not experiment.training_of(name).inverse_t_weighting
        )
        wanted = None if float(line["tau"]) == 1 else float(line["tau"])
        (setting,) = (
            key for key, value in experiment.settings.items() if value == Setting(threshold=wanted)
        )
        assert titles[line["benchmark"]] in experiment.evaluations_of(name)[setting]


def test_a_missing_section_is_named(tiny: dict):
    del tiny["training"]
    with pytest.raises(UserError, match="`training` is missing"):
        parse_experiment(tiny, "config/mine.yaml")


def test_the_default_fills_what_is_left_out_and_nothing_else(tmp_path: Path):
    whole = read_experiment(ROOT / "config/paper.yaml")
    mine = {**whole, "benchmarks": {"gsm8k": whole["benchmarks"]["gsm8k"]}, "artefacts": []}
    mine["benchmarks"]["gsm8k"].pop("filter")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    assert read_experiment(tmp_path / "mine.yaml") == mine
    del mine["artefacts"]
    chosen = {**mine, "settings": ["tau-0.5", "one-token"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(chosen))
    filled = read_experiment(tmp_path / "mine.yaml")
    assert filled["artefacts"] == yaml.safe_load(DEFAULT.read_text())["artefacts"]
    assert list(filled["settings"]) == ["tau-0.5", "one-token"]
    (tmp_path / "overlay.yaml").write_text("benchmarks: {gsm8k: {limit: 5}}\nsettings: [tau-0.55]")
    with pytest.raises(UserError, match=r"`settings` names 'tau-0\.55', which default\.yaml does"):
        load_experiment(tmp_path / "mine.yaml", tmp_path / "overlay.yaml")
    (tmp_path / "overlay.yaml").write_text("benchmarks: {gsm8k: {limit: 5}}")
    overlaid = read_experiment(tmp_path / "mine.yaml", tmp_path / "overlay.yaml")
    assert overlaid["benchmarks"] == {"gsm8k": mine["benchmarks"]["gsm8k"] | {"limit": 5}}
    assert overlaid["settings"] == filled["settings"]


def test_a_missing_file_lists_the_choices(tmp_path: Path):
    (tmp_path / "one.yaml").write_text("{}")
    with pytest.raises(UserError, match="no such configuration; choose one of one"):
        load_experiment(tmp_path / "two.yaml")


def test_broken_yaml_is_named(tmp_path: Path):
    (tmp_path / "one.yaml").write_text("a: [1,")
    with pytest.raises(UserError, match=r"one\.yaml: not valid YAML"):
        load_experiment(tmp_path / "one.yaml")


def test_what_is_trained_for_a_probe_alone_is_not_reported(tiny: dict):
    reported = reported_models(parse_experiment(tiny, "tiny"))
    tiny["models"]["short"] = {**tiny["models"]["mars-b4-small"], "epochs_factor": 0.25}
    tiny["probe"] = {"benchmark": "gsm8k", "models": ["short", "mars-b4-small"]}
    experiment = parse_experiment(tiny, "tiny")
    assert reported_models(experiment) == reported
    assert experiment.training_of("short").epochs == experiment.training.epochs / 4


def test_epochs_factor_multiplies_the_epochs(tiny: dict):
    tiny["models"]["ar-2x-small"] = {**tiny["models"]["ar-small"], "epochs_factor": 2}
    experiment = parse_experiment(tiny, "tiny")
    assert (
        experiment.training_of("ar-2x-small").epochs
        == 2 * experiment.training_of("ar-small").epochs
    )


def test_what_is_timed_on_a_removed_model_goes_with_its_artefacts(tiny: dict):
    full = parse_experiment(tiny, "tiny")
    assert {"table5", "table6"} <= set(full.artefacts)
    tiny["scales"]["large"] = None
    left = parse_experiment(tiny, "tiny")
    assert left.speed.wall_clock is left.speed.speculative is left.speed.live_tau is None
    assert set(full.artefacts) - set(left.artefacts) >= {"table5", "table6"}
    assert not any((ARTEFACTS[name].needs or "").startswith("speed.") for name in left.artefacts)


def test_what_is_probed_of_removed_models_goes_with_its_artefact(tiny: dict):
    tiny["probe"] = {"benchmark": "gsm8k", "models": ["mars-b4-small", "mars-b4-large"]}
    tiny["artefacts"].append("masks")
    tiny["scales"]["large"] = None
    assert parse_experiment(tiny, "tiny").probe.models == ["mars-b4-small"]
    tiny["models"]["mars-b4-small"] = None
    left = parse_experiment(tiny, "tiny")
    assert left.probe is None
    assert "masks" not in left.artefacts
