# The paper's tables from the evaluation records.


rule table:
    input:
        evaluations=expand(
            f"{RESULTS}/evaluations/{{model}}/manifest.json", model=EXPERIMENT.evaluated_models()
        ),
    output:
        csv=report(
            f"{RESULTS}/tables/table{{number}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{number}"},
        ),
        md=f"{RESULTS}/tables/table{{number}}.md",
        tex=f"{RESULTS}/tables/table{{number}}.tex",
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


# All of it on one page; what the experiment does not make is said to be not run.
rule report:
    input:
        artefacts=[file for name in EXPERIMENT.artefacts for file in files_of(name)],
        curves=f"{RESULTS}/figures/training_curves.png",
    output:
        page=report(
            f"{RESULTS}/report.html",
            caption="../report/report.rst",
            category="The whole experiment",
            labels={"page": "report"},
        ),
        record=f"{RESULTS}/provenance/report.json",
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/logs/report.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=stage_spec("report"),
    message:
        "Write the report"
    shell:
        "python -m mars report --spec {params.spec:q} --output {output.page}"
        " --record {output.record} > {log} 2>&1"
