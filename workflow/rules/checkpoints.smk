# Models: ready ones, pre-trained ones, and what is fine-tuned from them. A chain of models takes as
# long as its jobs together, so bases come before children and these before evaluations.


use rule stage as import_checkpoint with:
    output:
        made=f"{RESULTS}/checkpoints/{{model}}/manifest.json",
        record=f"{RESULTS}/provenance/import_checkpoint/{{model}}.json",
    log:
        f"{RESULTS}/logs/import_checkpoint/{{model}}.log",
    benchmark:
        f"{RESULTS}/logs/import_checkpoint/{{model}}.tsv"
    wildcard_constraints:
        model=names(name for name in EXPERIMENT.models if name not in TRAINED),
    params:
        spec=spec_of("import_checkpoint"),
    message:
        "Import {wildcards.model}"


use rule stage as train with:
    input:
        inputs_of("train"),
    output:
        made=f"{RESULTS}/checkpoints/{{model}}/manifest.json",
        record=f"{RESULTS}/provenance/train/{{model}}.json",
    log:
        f"{RESULTS}/logs/train/{{model}}.log",
    benchmark:
        f"{RESULTS}/logs/train/{{model}}.tsv"
    wildcard_constraints:
        model=names(name for name in TRAINED if name not in PRETRAINED),
    priority: 1
    threads: EXPERIMENT.threads
    resources:
        gpu=gpus_of_training,
        options=options_of_training,
    params:
        spec=spec_of("train"),
    message:
        "Train {wildcards.model}"


use rule train as pretrain with:
    output:
        made=f"{RESULTS}/checkpoints/{{model}}/manifest.json",
        record=f"{RESULTS}/provenance/pretrain/{{model}}.json",
    log:
        f"{RESULTS}/logs/pretrain/{{model}}.log",
    benchmark:
        f"{RESULTS}/logs/pretrain/{{model}}.tsv"
    wildcard_constraints:
        model=names(PRETRAINED),
    priority: 2
    params:
        spec=spec_of("pretrain"),
    message:
        "Pre-train {wildcards.model}"
