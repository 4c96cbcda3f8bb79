# Raw files -> uint8 images and int64 labels, with a card of counts and checksums.


if RAW_FILES:

    rule data:
        wildcard_constraints:
            dataset="|".join(RAW_FILES),
        output:
            train=f"{DATA}/train.npz",
            test=f"{DATA}/test.npz",
            card=f"{DATA}/card.json",
        params:
            # Compared between calls: other raw files.
            content=lambda wildcards: RAW_FILES[wildcards.dataset],
            # Not compared, for it reads `input`: the same files in another place are the same data.
            sources=lambda wildcards, input: [f"--source={folder}" for folder in CONFIG.data_sources],
            folder=lambda wildcards, output: os.path.dirname(output.card),
        log:
            f"{LOGS}/data/{{dataset}}.log",
        benchmark:
            f"{LOGS}/data/{{dataset}}.tsv"
        threads: 1
        resources:
            runtime=minutes("data"),
        priority: 200
        shell:
            logged("{PYTHON} -m workflow.datasets {wildcards.dataset} --out {params.folder} {params.sources:q}")


if PICTURES:

    rule own_data:
        wildcard_constraints:
            dataset="|".join(PICTURES),
        output:
            train=f"{DATA}/train.npz",
            test=f"{DATA}/test.npz",
            card=f"{DATA}/card.json",
        params:
            # Compared between calls: other pictures, or another way to read them.
            pictures=lambda wildcards: PICTURES[wildcards.dataset],
            # Not compared, for it reads `input`: the same pictures in another place are the same data.
            own=lambda wildcards, input: CONFIG.own[wildcards.dataset].to_json(),
            folder=lambda wildcards, output: os.path.dirname(output.card),
        log:
            f"{LOGS}/data/{{dataset}}.log",
        benchmark:
            f"{LOGS}/data/{{dataset}}.tsv"
        threads: 1
        resources:
            runtime=minutes("own_data"),
        priority: 200
        shell:
            logged("{PYTHON} -m workflow.datasets {wildcards.dataset} --own {params.own:q} --out {params.folder}")
