# The paper's tables and figures from the evaluation records.


rule table:
    input:
        evaluations=expand(
            f"{RESULTS}/evaluations/{{model}}/manifest.json", model=EXPERIMENT.evaluated_models()
        ),
    output:
        multiext(f"{RESULTS}/tables/table{{number}}", csv=".csv", md=".md", tex=".tex"),
        record=f"{RESULTS}/provenance/table/table{{number}}.json",
    log:
        f"{RESULTS}/logs/table/table{{number}}.log",
    benchmark:
        f"{RESULTS}/logs/table/table{{number}}.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=lambda wildcards: spec(EXPERIMENT, "table", number=int(wildcards.number)),
    message:
        "Write table {wildcards.number}"
    shell:
        "python -m mars table --spec {params.spec:q} --output $(dirname {output.csv})"
        " --record {output.record} {input.evaluations} > {log} 2>&1"


# Figures 3 and 6: from the evaluations of the models that they are about.
rule figure:
    input:
        evaluations=lambda wildcards: expand(
            f"{RESULTS}/evaluations/{{model}}/manifest.json",
            model=swept_models(EXPERIMENT, wildcards.number),
        ),
    output:
        multiext(f"{RESULTS}/figures/figure{{number}}", pdf=".pdf", png=".png", csv=".csv"),
        record=f"{RESULTS}/provenance/figure/figure{{number}}.json",
    log:
        f"{RESULTS}/logs/figure/figure{{number}}.log",
    benchmark:
        f"{RESULTS}/logs/figure/figure{{number}}.tsv"
    wildcard_constraints:
        number="3|6",
    conda:
        "../../environment.yml"
    params:
        spec=lambda wildcards: spec(EXPERIMENT, f"figure_{wildcards.number}"),
    message:
        "Draw figure {wildcards.number}"
    shell:
        "python -m mars figure {wildcards.number} --spec {params.spec:q}"
        " --output $(dirname {output.pdf}) --record {output.record} {input.evaluations}"
        " > {log} 2>&1"


rule training_curves:
    input:
        curves=expand(f"{RESULTS}/checkpoints/{{model}}/training.jsonl", model=TRAINED),
    output:
        pdf=f"{RESULTS}/figures/training_curves.pdf",
        png=f"{RESULTS}/figures/training_curves.png",
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
