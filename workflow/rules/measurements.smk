# What models score and how fast they decode.


# One job per model: all its settings and benchmarks share one process.
use rule stage as evaluate with:
    input:
        inputs_of("evaluate"),
    output:
        made=f"{RESULTS}/evaluations/{{model}}/manifest.json",
        record=f"{RESULTS}/provenance/evaluate/{{model}}.json",
    log:
        f"{RESULTS}/logs/evaluate/{{model}}.log",
    benchmark:
        f"{RESULTS}/logs/evaluate/{{model}}.tsv"
    threads: EXPERIMENT.threads
    resources:
        gpu=EXPERIMENT.resources.evaluation_gpus,
        launch="",
        options=options_of_evaluation,
    params:
        spec=spec_of("evaluate"),
    message:
        "Evaluate {wildcards.model}"


# What each place of the decoding window predicts.
use rule evaluate as probe with:
    input:
        inputs_of("probe"),
    output:
        made=f"{RESULTS}/probes/{{model}}/manifest.json",
        record=f"{RESULTS}/provenance/probe/{{model}}.json",
    log:
        f"{RESULTS}/logs/probe/{{model}}.log",
    benchmark:
        f"{RESULTS}/logs/probe/{{model}}.tsv"
    params:
        spec=spec_of("probe"),
    message:
        "Probe the masks of {wildcards.model}"


# Whoever times something wants the machine for itself: here all cores, of which every other job
# needs one; of a cluster a node. These jobs come after everything that is not timed.
use rule evaluate as measure with:
    input:
        inputs_of("measure"),
    output:
        made=f"{RESULTS}/speed/{{part}}/manifest.json",
        record=f"{RESULTS}/provenance/measure/{{part}}.json",
    log:
        f"{RESULTS}/logs/measure/{{part}}.log",
    benchmark:
        f"{RESULTS}/logs/measure/{{part}}.tsv"
    wildcard_constraints:
        part=names(MEASURE),
    priority: -1
    threads: lambda wildcards: workflow.cores
    resources:
        gpu=EXPERIMENT.resources.evaluation_gpus,
        slurm_extra="--exclusive",
        launch="",
        options="",
    params:
        spec=spec_of("measure"),
    message:
        "Time decoding: {wildcards.part}"
