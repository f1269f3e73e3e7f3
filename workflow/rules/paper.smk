# The paper's tables and figures from the records of evaluations and trainings.


def evaluations_behind(stage, **target):
    """The evaluations of the models that an artefact shows."""
    models = json.loads(spec(EXPERIMENT, stage, **target))["config"]["models"]
    return expand(f"{RESULTS}/evaluations/{{model}}/manifest.json", model=models)


rule table:
    input:
        evaluations=lambda wildcards: evaluations_behind("table", number=int(wildcards.number)),
    output:
        multiext(f"{RESULTS}/tables/table{{number}}", csv=".csv", md=".md", tex=".tex"),
        record=f"{RESULTS}/provenance/table/table{{number}}.json",
    log:
        f"{RESULTS}/logs/table/table{{number}}.log",
    benchmark:
        f"{RESULTS}/logs/table/table{{number}}.tsv"
    wildcard_constraints:
        number="[23489]",
    conda:
        "../../environment.yml"
    params:
        spec=lambda wildcards: spec(EXPERIMENT, "table", number=int(wildcards.number)),
    message:
        "Write table {wildcards.number}"
    shell:
        "python -m mars table --spec {params.spec:q} --output $(dirname {output.csv})"
        " --record {output.record} {input.evaluations} > {log} 2>&1"


rule findings:
    input:
        evaluations=evaluations_behind("findings"),
    output:
        multiext(f"{RESULTS}/tables/findings", csv=".csv", md=".md", tex=".tex"),
        record=f"{RESULTS}/provenance/findings.json",
    log:
        f"{RESULTS}/logs/findings.log",
    benchmark:
        f"{RESULTS}/logs/findings.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=stage_spec("findings"),
    message:
        "Write what published numbers may owe to the released code"
    shell:
        "python -m mars findings --spec {params.spec:q} --output $(dirname {output.csv})"
        " --record {output.record} {input.evaluations} > {log} 2>&1"


rule hyperparameters:
    input:
        trainings=expand(f"{RESULTS}/provenance/train/{{model}}.json", model=TRAINED),
    output:
        multiext(f"{RESULTS}/tables/table7", csv=".csv", md=".md", tex=".tex"),
        record=f"{RESULTS}/provenance/hyperparameters.json",
    log:
        f"{RESULTS}/logs/hyperparameters.log",
    benchmark:
        f"{RESULTS}/logs/hyperparameters.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=stage_spec("hyperparameters"),
    message:
        "Write table 7"
    shell:
        "python -m mars hyperparameters --spec {params.spec:q} --output $(dirname {output.csv})"
        " --record {output.record} {input.trainings} > {log} 2>&1"


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
