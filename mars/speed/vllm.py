"""Table 6 beyond the paper: drafts in stock vLLM, over vLLM's own decoding token by token.

All that draft for one target, and the target alone, are started together and take turns, one
question at a time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mars.checkpoints.for_vllm import export_for_vllm
from mars.checkpoints.load import load_model
from mars.data.tokenizer import load_tokenizer
from mars.evaluation.scores import mean
from mars.provenance.files import write_json
from mars.provenance.manifest import new_folder
from mars.speed.methods import Pass
from mars.speed.questions import Questions
from mars.speed.rounds import Round, ratios, spread, take_turns
from mars.speed.timing import circumstances, weights_of
from mars.speed.vllm_engine import python_with_vllm, running

if TYPE_CHECKING:
    from mars.provenance.stage import Job
    from mars.speed.stage import VllmSpec

ALONE = " alone"  # the target, of which every token is a forward; no model has this name
GPU_MEMORY = 0.85  # of a GPU, shared by the engines of a target


def measure_vllm(spec: VllmSpec, job: Job) -> None:
    """Write one record per pair, whose speed-up is over the target alone in vLLM.

    Raises:
        UserError: there is no vLLM, or a pair is none.
    """
    python_with_vllm()  # before the questions are read
    section, checkpoints = spec.section, job.inputs.folders("checkpoints")
    # Any model asks the same questions; a draft, being small, leaves a GPU to vLLM.
    first = checkpoints[section.pairs[0].draft]
    model = load_model(first, getattr(torch, spec.precision))
    questions = Questions(model, load_tokenizer(first), spec, section.questions, job.inputs.hub)
    with new_folder(job.output) as output:
        for target in dict.fromkeys(pair.target for pair in section.pairs):
            drafts = [pair.draft for pair in section.pairs if pair.target == target]
            for record in measure_target(spec, questions, target, drafts, checkpoints):
                record |= circumstances(job.spec.job)
                write_json(output / f"{record['draft']}--{target}.json", record)


def measure_target(
    spec: VllmSpec,
    questions: Questions,
    target: str,
    drafts: Sequence[str],
    checkpoints: dict[str, Path],
) -> list[dict[str, Any]]:
    """The records of all that draft for one target, without the circumstances."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        served = export_for_vllm(checkpoints[target], work / "target")
        ready = {
            one: export_for_vllm(checkpoints[one], work / "drafts" / one, served.folder)
            for one in drafts
        }
        wanted = spec.section.draft_tokens
        rules = {one: draft.speculative_config(wanted) for one, draft in ready.items()}
        engines = _jobs(spec, questions, served.folder, rules)
        outputs, rounds, about = _decode_in_turns(engines, spec.section.rounds, work)
    alone = outputs[ALONE].tokens
    return [
        {
            "draft": one,
            "target": target,
            "block_size": draft.block_size,
            "draft_tokens": rules[one]["num_speculative_tokens"],
            "changes": {"draft": draft.changes, "target": served.changes},
            "weights": {name: weights_of(checkpoints[name]) for name in (one, target)},
            "sequences": len(questions),
            "tokens": outputs[one].count,
            "target_forwards": outputs[one].forwards,
            "tokens_per_target_forward": outputs[one].count / outputs[one].forwards,
            **_times(rounds, one),
            "alone": _times(rounds, ALONE),
            "speedup": spread(ratios(rounds, one, ALONE)),
            "accuracy": mean(questions.scores(outputs[one].tokens))._asdict(),
            "equal_to_greedy": sum(map(list.__eq__, outputs[one].tokens, alone)),
            "repeats_agree": all(turn[one].tokens == outputs[one].tokens for turn in rounds),
            "benchmark": spec.benchmark.task,
            "rounds": spec.section.rounds,
            **spec.model_dump(include={"max_new_tokens", "precision"}),
            **about,
        }
        for one, draft in ready.items()
    ]


def _decode_in_turns(
    jobs: dict[str, dict[str, Any]], limit: int, work: Path
) -> tuple[dict[str, Pass], list[Round], dict[str, Any]]:
    """Start an engine for each job and let them take turns; also what records say of that."""
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(running(job, work / f"engine-{number}.json"))
            for number, (name, job) in enumerate(jobs.items())
        }
        load = [os.getloadavg()[0]]
        runners = {name: engine.decode for name, engine in engines.items()}
        outputs, rounds = take_turns(runners, limit, print)
        load.append(os.getloadavg()[0])
    about = {
        "threads": torch.get_num_threads(),
        "load_average": load,
        "in_vllm": engines[ALONE].versions,
    }
    return outputs, rounds, about


def _times(rounds: Sequence[Round], name: str) -> dict[str, Any]:
    return {
        key: spread([getattr(turn[name], key) for turn in rounds])
        for key in ("seconds", "tokens_per_second")
    }


def _jobs(
    spec: VllmSpec, questions: Questions, served: Path, rules: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What each engine is told: the target alone, then each draft."""
    longest = max(map(len, questions.prompts)) + spec.max_new_tokens
    further = max(rule["num_speculative_tokens"] for rule in rules.values())
    engine = {
        "model": str(served),
        "dtype": spec.precision,
        "max_model_len": longest + further + 1,  # a draft may reach beyond the last token
        "max_num_seqs": 1,
        "enable_prefix_caching": False,  # or a later round would find the prompts computed
        "disable_log_stats": False,  # the counters of drafts
        # Compiling takes longer than these CPU runs do; on a GPU it is what people serve with.
        "enforce_eager": not torch.cuda.is_available(),
        "gpu_memory_utilization": GPU_MEMORY / (1 + len(rules)),
    }
    shared = {
        "prompts": questions.prompts,
        "eos": list(questions.lm.eos_token_ids),
        "max_new_tokens": spec.max_new_tokens,
    }
    return {
        ALONE: {**shared, "engine": engine},
        **{
            one: {**shared, "engine": {**engine, "speculative_config": rule}}
            for one, rule in rules.items()
        },
    }
