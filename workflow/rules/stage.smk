# Every rule is this one with files of its own: one command, which is told the spec, where the first
# output goes, and the inputs. Snakemake counts GPUs; `mars with-gpus` or the scheduler says which
# ones they are.
rule stage:
    log:
        f"{RESULTS}/logs/stage.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=0,
        options="",
    shell:
        "OMP_NUM_THREADS={threads} python -m mars with-gpus {resources.gpu} run"
        " --spec {params.spec:q} {resources.options} --output {output.made} --record {output.record}"
        " {input} > {log} 2>&1"
