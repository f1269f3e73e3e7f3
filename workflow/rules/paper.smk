# Tables, figures and verdicts from the records of all that went before; the page that shows them.


use rule stage as table with:
    input:
        inputs_of("table"),
    output:
        made=report(
            f"{RESULTS}/tables/{{artefact}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{artefact}"},
        ),
        md=f"{RESULTS}/tables/{{artefact}}.md",
        tex=f"{RESULTS}/tables/{{artefact}}.tex",
        jsonl=f"{RESULTS}/tables/{{artefact}}.jsonl",
        record=f"{RESULTS}/provenance/table/{{artefact}}.json",
    log:
        f"{RESULTS}/logs/table/{{artefact}}.log",
    benchmark:
        f"{RESULTS}/logs/table/{{artefact}}.tsv"
    wildcard_constraints:
        artefact=names(name for name in SHOWN if ARTEFACTS[name].kind == "table"),
    params:
        spec=spec_of("table"),
    message:
        "Write {wildcards.artefact}"


use rule stage as figure with:
    input:
        inputs_of("figure"),
    output:
        made=f"{RESULTS}/figures/{{artefact}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{artefact}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{artefact}"},
        ),
        record=f"{RESULTS}/provenance/figure/{{artefact}}.json",
    log:
        f"{RESULTS}/logs/figure/{{artefact}}.log",
    benchmark:
        f"{RESULTS}/logs/figure/{{artefact}}.tsv"
    wildcard_constraints:
        artefact=names(name for name in SHOWN if ARTEFACTS[name].kind == "figure"),
    resources:
        # Figure 1 decodes an answer once more: samples do not say which tokens came together.
        gpu=lambda wildcards: (
            EXPERIMENT.resources.evaluation_gpus if wildcards.artefact == "figure1" else 0
        ),
        launch="",
        options="",
    params:
        spec=spec_of("figure"),
    message:
        "Draw {wildcards.artefact}"


use rule stage as comparison with:
    input:
        inputs_of("comparison"),
    output:
        made=f"{RESULTS}/comparison.csv",
        md=f"{RESULTS}/comparison.md",
        record=f"{RESULTS}/provenance/comparison.json",
    log:
        f"{RESULTS}/logs/comparison.log",
    benchmark:
        f"{RESULTS}/logs/comparison.tsv"
    params:
        spec=spec_of("comparison"),
    message:
        "Compare with the published numbers"


use rule stage as claims with:
    input:
        inputs_of("claims"),
    output:
        made=f"{RESULTS}/claims.json",
        md=f"{RESULTS}/claims.md",
        record=f"{RESULTS}/provenance/claims.json",
    log:
        f"{RESULTS}/logs/claims.log",
    benchmark:
        f"{RESULTS}/logs/claims.tsv"
    params:
        spec=spec_of("claims"),
    message:
        "Judge the claims of the paper"


# All of it on one page; what the experiment does not make is said to be not run.
use rule stage as report with:
    input:
        inputs_of("report"),
    output:
        made=report(
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
    params:
        spec=spec_of("report"),
    message:
        "Write the report"
