# What is timed: Table 5 with its heat map, Table 6, the live tau. Whoever times something wants the
# machine for itself, so these jobs are alone; they come after everything that is not.
TIMED_DATA = data_manifests([EXPERIMENT.benchmarks[SPEED.benchmark].dataset] if SPEED else [])


rule speed_sweep:
    input:
        data=TIMED_DATA,
        checkpoint=timed_models("wall_clock"),
    output:
        manifest=f"{RESULTS}/speed/table5/manifest.json",
        record=f"{RESULTS}/provenance/speed_sweep.json",
    log:
        f"{RESULTS}/logs/speed_sweep.log",
    benchmark:
        f"{RESULTS}/logs/speed_sweep.tsv"
    priority: -1
    conda:
        "../../environment.yml"
    threads: alone
    resources:
        gpu=EVALUATION_GPUS,
        slurm_extra=WHOLE_NODE,
    params:
        spec=stage_spec("speed_sweep"),
    message:
        "Time decoding methods, batch sizes and cache granularities"
    shell:
        "OMP_NUM_THREADS={threads} python -m mars with-gpus {resources.gpu} speed-sweep --spec {params.spec:q}"
        " --checkpoint $(dirname {input.checkpoint}) --data {input.data}"
        " --output $(dirname {output.manifest}) --record {output.record} > {log} 2>&1"


rule speculative:
    input:
        data=TIMED_DATA,
        checkpoints=timed_models("speculative"),
    output:
        manifest=f"{RESULTS}/speed/speculative/manifest.json",
        record=f"{RESULTS}/provenance/speculative.json",
    log:
        f"{RESULTS}/logs/speculative.log",
    benchmark:
        f"{RESULTS}/logs/speculative.tsv"
    priority: -1
    conda:
        "../../environment.yml"
    threads: alone
    resources:
        gpu=EVALUATION_GPUS,
        slurm_extra=WHOLE_NODE,
    params:
        spec=stage_spec("speculative"),
    message:
        "Time MARS together with speculative decoding"
    shell:
        "OMP_NUM_THREADS={threads} python -m mars with-gpus {resources.gpu} speculative --spec {params.spec:q}"
        " --data {input.data} --output $(dirname {output.manifest}) --record {output.record}"
        " {input.checkpoints} > {log} 2>&1"


rule live_tau:
    input:
        data=TIMED_DATA,
        checkpoint=timed_models("live_tau"),
    output:
        manifest=f"{RESULTS}/speed/live_tau/manifest.json",
        record=f"{RESULTS}/provenance/live_tau.json",
    log:
        f"{RESULTS}/logs/live_tau.log",
    benchmark:
        f"{RESULTS}/logs/live_tau.tsv"
    priority: -1
    conda:
        "../../environment.yml"
    threads: alone
    resources:
        gpu=EVALUATION_GPUS,
        slurm_extra=WHOLE_NODE,
    params:
        spec=stage_spec("live_tau"),
    message:
        "Serve a load that rises and falls, tau fixed and tau adapted"
    shell:
        "OMP_NUM_THREADS={threads} python -m mars with-gpus {resources.gpu} live-tau --spec {params.spec:q}"
        " --checkpoint $(dirname {input.checkpoint}) --data {input.data}"
        " --output $(dirname {output.manifest}) --record {output.record} > {log} 2>&1"


rule speed_table:
    input:
        lambda wildcards: {
            "5": rules.speed_sweep.output.manifest,
            "6": rules.speculative.output.manifest,
        }[wildcards.number],
    output:
        multiext(f"{RESULTS}/tables/table{{number}}", csv=".csv", md=".md", tex=".tex"),
        record=f"{RESULTS}/provenance/speed_table/table{{number}}.json",
    log:
        f"{RESULTS}/logs/speed_table/table{{number}}.log",
    benchmark:
        f"{RESULTS}/logs/speed_table/table{{number}}.tsv"
    wildcard_constraints:
        number="[56]",
    conda:
        "../../environment.yml"
    params:
        spec=lambda wildcards: spec(EXPERIMENT, "speed_table", number=int(wildcards.number)),
    message:
        "Write table {wildcards.number}"
    shell:
        "python -m mars speed-table --spec {params.spec:q} --output $(dirname {output.csv})"
        " --record {output.record} {input} > {log} 2>&1"
