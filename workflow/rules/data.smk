# Raw files -> uint8 images and int64 labels, with a card of counts and checksums.


rule data:
    output:
        train=f"{DATA}/train.npz",
        test=f"{DATA}/test.npz",
        card=f"{DATA}/card.json",
    params:
        sources=lambda wildcards, input: [f"--source={folder}" for folder in CONFIG.data_sources],
        folder=lambda wildcards, output: os.path.dirname(output.card),
    log:
        f"{LOGS}/data/{{dataset}}.log",
    benchmark:
        f"{LOGS}/data/{{dataset}}.tsv"
    threads: 1
    priority: 200
    shell:
        logged("{PYTHON} -m workflow.datasets {wildcards.dataset} --out {params.folder} {params.sources:q}")
