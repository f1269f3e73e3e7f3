# The paper's tables and figures from the records of evaluations and trainings.


rule table:
    input:
        evaluations=lambda wildcards: manifests_behind(
            "evaluations", "table", number=int(wildcards.number)
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
        evaluations=manifests_behind("evaluations", "findings"),
    output:
        csv=report(
            f"{RESULTS}/tables/findings.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "released code"},
        ),
        md=f"{RESULTS}/tables/findings.md",
        tex=f"{RESULTS}/tables/findings.tex",
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
        csv=report(
            f"{RESULTS}/tables/table7.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "7"},
        ),
        md=f"{RESULTS}/tables/table7.md",
        tex=f"{RESULTS}/tables/table7.tex",
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


rule comparison:
    input:
        tables=[f"{RESULTS}/tables/{name}.csv" for name in TABLES if name in COMPARED],
    output:
        csv=f"{RESULTS}/comparison.csv",
        md=f"{RESULTS}/comparison.md",
        record=f"{RESULTS}/provenance/comparison.json",
    log:
        f"{RESULTS}/logs/comparison.log",
    benchmark:
        f"{RESULTS}/logs/comparison.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=stage_spec("comparison"),
    message:
        "Compare with the published numbers"
    shell:
        "python -m mars compare --spec {params.spec:q} --output $(dirname {output.csv})"
        " --record {output.record} {input.tables} > {log} 2>&1"


rule claims:
    input:
        manifests_behind("evaluations", "claims"),
        manifests_behind("checkpoints", "claims"),
        [f"{RESULTS}/tables/{name}.csv" for name in TABLES if name in ("table5", "table6")],
        [rules.live_tau.output.manifest] if "live_tau" in EXPERIMENT.artefacts else [],
    output:
        json=f"{RESULTS}/claims.json",
        md=f"{RESULTS}/claims.md",
        record=f"{RESULTS}/provenance/claims.json",
    log:
        f"{RESULTS}/logs/claims.log",
    benchmark:
        f"{RESULTS}/logs/claims.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=stage_spec("claims"),
    message:
        "Judge the claims of the paper"
    shell:
        "python -m mars claims --spec {params.spec:q} --output $(dirname {output.json})"
        " --record {output.record} {input} > {log} 2>&1"


# All of it on one page; what the experiment does not make is said to be not run.
rule report:
    input:
        artefacts=[file for name in EXPERIMENT.artefacts for file in files_of(name)],
        verdicts=[f"{RESULTS}/claims.json", f"{RESULTS}/comparison.csv"],
        curves=[f"{RESULTS}/figures/training_curves.png"] if TRAINED else [],
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
