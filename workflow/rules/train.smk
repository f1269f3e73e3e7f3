# Pre-training, AR SFT, MARS: the same command, because they differ in configuration only. A chain of
# models is as long as its jobs together, so bases come before children and these before evaluations.


rule train:
    input:
        unpack(training_inputs),
    output:
        manifest=f"{RESULTS}/checkpoints/{{model}}/manifest.json",
        curve=f"{RESULTS}/checkpoints/{{model}}/training.jsonl",
        record=f"{RESULTS}/provenance/train/{{model}}.json",
    log:
        f"{RESULTS}/logs/train/{{model}}.log",
    benchmark:
        f"{RESULTS}/logs/train/{{model}}.tsv"
    wildcard_constraints:
        model=names(FINE_TUNED),
    priority: 1
    conda:
        "../../environment.yml"
    threads: EXPERIMENT.threads
    resources:
        gpu=lambda wildcards: training_resources(wildcards).gpus,
        sharded=lambda wildcards: f"--{'' if training_resources(wildcards).sharded else 'no-'}sharded",
    params:
        spec=stage_spec("train"),
    message:
        "Train {wildcards.model}"
    shell:
        "OMP_NUM_THREADS={threads}"
        " python -m mars with-gpus {resources.sharded} {resources.gpu} train --spec {params.spec:q}"
        " --parent $(dirname {input.parent}) --dataset $(dirname {input.dataset})"
        " --output $(dirname {output.manifest})"
        " --record {output.record} > {log} 2>&1"


use rule train as pretrain with:
    wildcard_constraints:
        model=names(PRETRAINED),
    priority: 2
    message:
        "Pre-train {wildcards.model}"
