"""What the tests of evaluation share: sizes, the six benchmarks."""

from mars.config.experiment import GeneratedData

SIZES = GeneratedData(
    instructions=60, pretraining_documents=20, benchmark_documents=30, vocabulary=400
)

BENCHMARKS = {
    "ifeval": {"task": "ifeval", "dataset": "google/IFEval", "metric": "prompt_level_strict_acc"},
    "bbh": {
        "task": "bbh",
        "dataset": "SaylorTwift/bbh",
        "metric": "exact_match",
        "filter": "get-answer",
        "num_fewshot": 3,
    },
    "mmlu_pro": {
        "task": "mmlu_pro",
        "dataset": "TIGER-Lab/MMLU-Pro",
        "metric": "exact_match",
        "filter": "custom-extract",
    },
    "gpqa": {
        "task": "gpqa_main_cot_zeroshot",
        "dataset": "Idavidrein/gpqa",
        "metric": "exact_match",
        "filter": "flexible-extract",
    },
    "gsm8k": {
        "task": "gsm8k_cot",
        "dataset": "openai/gsm8k",
        "metric": "exact_match",
        "filter": "flexible-extract",
    },
    "humaneval": {
        "task": "humaneval_instruct",
        "dataset": "openai/openai_humaneval",
        "metric": "pass@1",
        "filter": "create_test",
        "unsafe_code": True,
    },
}
