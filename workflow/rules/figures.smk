# The figures. Those from evaluations ask for the models that they are about, no others.


# One question is decoded once more: the samples do not say which tokens came together.
rule figure_1:
    input:
        unpack(example_inputs),
    output:
        pdf=f"{RESULTS}/figures/figure1.pdf",
        png=report(
            f"{RESULTS}/figures/figure1.png",
            caption="../report/figure1.rst",
            category="Figures",
            labels={"figure": "1"},
        ),
        html=f"{RESULTS}/figures/figure1.html",
        json=f"{RESULTS}/figures/figure1.json",
        record=f"{RESULTS}/provenance/figure_1.json",
    log:
        f"{RESULTS}/logs/figure_1.log",
    benchmark:
        f"{RESULTS}/logs/figure_1.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=EVALUATION_GPUS,
    params:
        spec=stage_spec("figure_1"),
    message:
        "Decode and draw figure 1"
    shell:
        "python -m mars with-gpus {resources.gpu} figure --spec {params.spec:q}"
        " --output $(dirname {output.pdf})"
        " --record {output.record} {input.checkpoint} {input.evaluation} {input.data}"
        " > {log} 2>&1"


rule figure:
    input:
        evaluations=lambda wildcards: expand(
            f"{RESULTS}/evaluations/{{model}}/manifest.json",
            model=swept_models(EXPERIMENT, wildcards.number),
        ),
    output:
        pdf=f"{RESULTS}/figures/figure{{number}}.pdf",
        png=report(
            f"{RESULTS}/figures/figure{{number}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{number}"},
        ),
        csv=f"{RESULTS}/figures/figure{{number}}.csv",
        record=f"{RESULTS}/provenance/figure_{{number}}.json",
    log:
        f"{RESULTS}/logs/figure_{{number}}.log",
    benchmark:
        f"{RESULTS}/logs/figure_{{number}}.tsv"
    wildcard_constraints:
        number="3|6",
    conda:
        "../../environment.yml"
    params:
        spec=lambda wildcards: spec(EXPERIMENT, f"figure_{wildcards.number}"),
    message:
        "Draw figure {wildcards.number}"
    shell:
        "python -m mars figure --spec {params.spec:q}"
        " --output $(dirname {output.pdf}) --record {output.record} {input.evaluations}"
        " > {log} 2>&1"


rule heat_map:
    input:
        sweep=rules.speed_sweep.output.manifest,
    output:
        pdf=f"{RESULTS}/figures/heat_map.pdf",
        png=report(
            f"{RESULTS}/figures/heat_map.png",
            caption="../report/heat_map.rst",
            category="Figures",
            labels={"figure": "heat map"},
        ),
        csv=f"{RESULTS}/figures/heat_map.csv",
        record=f"{RESULTS}/provenance/figure_heat_map.json",
    log:
        f"{RESULTS}/logs/figure_heat_map.log",
    benchmark:
        f"{RESULTS}/logs/figure_heat_map.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=stage_spec("figure_heat_map"),
    message:
        "Draw the heat map of the block cache"
    shell:
        "python -m mars figure --spec {params.spec:q} --output $(dirname {output.pdf})"
        " --record {output.record} {input.sweep} > {log} 2>&1"


rule live_tau_figure:
    input:
        served=rules.live_tau.output.manifest,
    output:
        pdf=f"{RESULTS}/figures/live_tau.pdf",
        png=report(
            f"{RESULTS}/figures/live_tau.png",
            caption="../report/live_tau.rst",
            category="Figures",
            labels={"figure": "live tau"},
        ),
        record=f"{RESULTS}/provenance/figure_live_tau.json",
    log:
        f"{RESULTS}/logs/figure_live_tau.log",
    benchmark:
        f"{RESULTS}/logs/figure_live_tau.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=stage_spec("figure_live_tau"),
    message:
        "Draw tau as a live knob"
    shell:
        "python -m mars figure --spec {params.spec:q} --output $(dirname {output.pdf})"
        " --record {output.record} {input.served} > {log} 2>&1"


rule training_curves:
    input:
        curves=expand(f"{RESULTS}/checkpoints/{{model}}/training.jsonl", model=TRAINED),
    output:
        pdf=f"{RESULTS}/figures/training_curves.pdf",
        png=report(
            f"{RESULTS}/figures/training_curves.png",
            caption="../report/training_curves.rst",
            category="Figures",
            labels={"figure": "training losses"},
        ),
        record=f"{RESULTS}/provenance/training_curves.json",
    log:
        f"{RESULTS}/logs/training_curves.log",
    benchmark:
        f"{RESULTS}/logs/training_curves.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=stage_spec("training_curves"),
    message:
        "Plot the training losses"
    shell:
        "python -m mars training-curves --spec {params.spec:q} --output {output.pdf}"
        " --record {output.record} {input.curves} > {log} 2>&1"
