# Data sets in hub layout, tokenizer, token ids, base models that are ready-made.

if GENERATED:

    rule generate_data:
        output:
            manifest=f"{HUB}/manifest.json",
            record=f"{RESULTS}/provenance/generate_data.json",
        log:
            f"{RESULTS}/logs/generate_data.log",
        benchmark:
            f"{RESULTS}/logs/generate_data.tsv"
        conda:
            "../../environment.yml"
        params:
            spec=stage_spec("generate_data"),
        message:
            "Write the corpus and the six miniature benchmarks"
        shell:
            "python -m mars generate-data --spec {params.spec:q} --output $(dirname {output.manifest})"
            " --record {output.record} > {log} 2>&1"

else:

    rule fetch_dataset:
        output:
            manifest=f"{HUB}/{{repository}}/manifest.json",
            record=f"{RESULTS}/provenance/fetch_dataset/{{repository}}.json",
        log:
            f"{RESULTS}/logs/fetch_dataset/{{repository}}.log",
        benchmark:
            f"{RESULTS}/logs/fetch_dataset/{{repository}}.tsv"
        wildcard_constraints:
            repository=names(datasets_of(EXPERIMENT)),
        conda:
            "../../environment.yml"
        params:
            spec=stage_spec("fetch_dataset"),
        message:
            "Fetch {wildcards.repository}"
        shell:
            "python -m mars fetch-dataset --spec {params.spec:q} --output $(dirname {output.manifest})"
            " --record {output.record} > {log} 2>&1"


rule train_tokenizer:
    input:
        data=data_manifests([]),
    output:
        manifest=f"{RESULTS}/data/tokenizer/manifest.json",
        record=f"{RESULTS}/provenance/train_tokenizer.json",
    log:
        f"{RESULTS}/logs/train_tokenizer.log",
    benchmark:
        f"{RESULTS}/logs/train_tokenizer.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=stage_spec("train_tokenizer"),
    message:
        "Train the tokenizer"
    shell:
        "python -m mars train-tokenizer --spec {params.spec:q} --data {input.data}"
        " --output $(dirname {output.manifest}) --record {output.record} > {log} 2>&1"


rule tokenize:
    input:
        data=lambda wildcards: data_manifests([EXPERIMENT.data.dataset] if not GENERATED else []),
        tokenizer=lambda wildcards: f"{tokenizer_of(wildcards.scale)}/manifest.json",
    output:
        manifest=f"{RESULTS}/data/tokens/{{scale}}/{{kind}}/manifest.json",
        record=f"{RESULTS}/provenance/tokenize/{{scale}}-{{kind}}.json",
    log:
        f"{RESULTS}/logs/tokenize/{{scale}}-{{kind}}.log",
    benchmark:
        f"{RESULTS}/logs/tokenize/{{scale}}-{{kind}}.tsv"
    conda:
        "../../environment.yml"
    params:
        spec=stage_spec("tokenize"),
    message:
        "Tokenise the {wildcards.kind} for {wildcards.scale}"
    shell:
        "python -m mars tokenize --spec {params.spec:q} --data {input.data}"
        " --tokenizer $(dirname {input.tokenizer}) --output $(dirname {output.manifest})"
        " --record {output.record} > {log} 2>&1"


rule import_base:
    output:
        manifest=f"{RESULTS}/checkpoints/{{model}}/manifest.json",
        record=f"{RESULTS}/provenance/import_base/{{model}}.json",
    log:
        f"{RESULTS}/logs/import_base/{{model}}.log",
    benchmark:
        f"{RESULTS}/logs/import_base/{{model}}.tsv"
    wildcard_constraints:
        model=names(IMPORTED),
    conda:
        "../../environment.yml"
    params:
        spec=stage_spec("import_base"),
    message:
        "Import the base model {wildcards.model}"
    shell:
        "python -m mars import-base --spec {params.spec:q} --output $(dirname {output.manifest})"
        " --record {output.record} > {log} 2>&1"


rule import_released:
    output:
        manifest=f"{RESULTS}/checkpoints/{{model}}/manifest.json",
        record=f"{RESULTS}/provenance/import_released/{{model}}.json",
    log:
        f"{RESULTS}/logs/import_released/{{model}}.log",
    benchmark:
        f"{RESULTS}/logs/import_released/{{model}}.tsv"
    wildcard_constraints:
        model=names(RELEASED),
    conda:
        "../../environment.yml"
    params:
        spec=stage_spec("import_released"),
    message:
        "Import the authors' checkpoint of {wildcards.model}"
    shell:
        "python -m mars import-released --spec {params.spec:q} --output $(dirname {output.manifest})"
        " --record {output.record} > {log} 2>&1"
