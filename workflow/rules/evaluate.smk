# One job per model: all its settings and benchmarks share one process.


rule evaluate:
    input:
        data=data_manifests([item.dataset for item in EXPERIMENT.benchmarks.values()]),
        checkpoint=f"{RESULTS}/checkpoints/{{model}}/manifest.json",
    output:
        manifest=f"{RESULTS}/evaluations/{{model}}/manifest.json",
        record=f"{RESULTS}/provenance/evaluate/{{model}}.json",
    log:
        f"{RESULTS}/logs/evaluate/{{model}}.log",
    benchmark:
        f"{RESULTS}/logs/evaluate/{{model}}.tsv"
    conda:
        "../../environment.yml"
    threads: EXPERIMENT.threads
    resources:
        gpu=EVALUATION_GPUS,
    params:
        spec=stage_spec("evaluate"),
    message:
        "Evaluate {wildcards.model}"
    shell:
        "OMP_NUM_THREADS={threads} python -m mars with-gpus {resources.gpu} evaluate --spec {params.spec:q}"
        " --checkpoint $(dirname {input.checkpoint})"
        " --output $(dirname {output.manifest}) --record {output.record} {input.data}"
        " > {log} 2>&1"
