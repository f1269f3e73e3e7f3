# Data sets in hub layout, the tokenizer trained on them, token ids.


use rule stage as generate_data with:
    output:
        made=f"{RESULTS}/data/hub/manifest.json",
        record=f"{RESULTS}/provenance/generate_data.json",
    log:
        f"{RESULTS}/logs/generate_data.log",
    benchmark:
        f"{RESULTS}/logs/generate_data.tsv"
    params:
        spec=spec_of("generate_data"),
    message:
        "Write the corpus and the six miniature benchmarks"


use rule stage as fetch_dataset with:
    output:
        made=f"{RESULTS}/data/hub/{{repository}}/manifest.json",
        record=f"{RESULTS}/provenance/fetch_dataset/{{repository}}.json",
    log:
        f"{RESULTS}/logs/fetch_dataset/{{repository}}.log",
    benchmark:
        f"{RESULTS}/logs/fetch_dataset/{{repository}}.tsv"
    wildcard_constraints:
        repository=names(EXPERIMENT.datasets()),
    params:
        spec=spec_of("fetch_dataset"),
    message:
        "Fetch {wildcards.repository}"


use rule stage as train_tokenizer with:
    input:
        inputs_of("train_tokenizer"),
    output:
        made=f"{RESULTS}/data/tokenizer/manifest.json",
        record=f"{RESULTS}/provenance/train_tokenizer.json",
    log:
        f"{RESULTS}/logs/train_tokenizer.log",
    benchmark:
        f"{RESULTS}/logs/train_tokenizer.tsv"
    params:
        spec=spec_of("train_tokenizer"),
    message:
        "Train the tokenizer"


use rule stage as tokenize with:
    input:
        inputs_of("tokenize"),
    output:
        made=f"{RESULTS}/data/tokens/{{scale}}/{{kind}}/manifest.json",
        record=f"{RESULTS}/provenance/tokenize/{{scale}}/{{kind}}.json",
    log:
        f"{RESULTS}/logs/tokenize/{{scale}}-{{kind}}.log",
    benchmark:
        f"{RESULTS}/logs/tokenize/{{scale}}-{{kind}}.tsv"
    threads: EXPERIMENT.threads
    params:
        spec=spec_of("tokenize"),
    message:
        "Tokenise the {wildcards.kind} for {wildcards.scale}"
