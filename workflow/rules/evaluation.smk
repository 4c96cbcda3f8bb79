# Scores of synthetic sets, and the same scores of real data as the ceiling a reader compares with.


def protocol(wildcards):
    return grid.canonical(CONFIG.protocol_of(wildcards.dataset))


def classifiers(wildcards, input):
    return os.path.dirname(input.classifiers)


rule classifiers:
    input:
        train=f"{DATA}/train.npz",
        test=f"{DATA}/test.npz",
    output:
        card=f"{CLASSIFIERS}/classifiers.json",
    params:
        protocol=protocol,
        folder=lambda wildcards, output: os.path.dirname(output.card),
    log:
        f"{LOGS}/classifiers/{{dataset}}.log",
    benchmark:
        f"{LOGS}/classifiers/{{dataset}}.tsv"
    threads: CONFIG.threads
    resources:
        runtime=minutes("classifiers"),
    priority: 70
    shell:
        logged(
            "{PYTHON} -m evaluation.classifiers --train {input.train} --test {input.test}"
            " --protocol {params.protocol:q} --seed 0 --threads {threads} --out {params.folder}"
        )


rule fidelity:
    input:
        samples=f"{RUN}/samples.npz",
        real=f"{DATA}/train.npz",
        classifiers=f"{CLASSIFIERS}/classifiers.json",
    output:
        f"{RUN}/fidelity.json",
    params:
        protocol=protocol,
        classifiers=classifiers,
    log:
        f"{LOGS}/fidelity/{RUN_LOG}.log",
    benchmark:
        f"{LOGS}/fidelity/{RUN_LOG}.tsv"
    threads: CONFIG.threads
    group: RUN_GROUP
    resources:
        runtime=minutes("fidelity"),
    priority: 50
    shell:
        logged(
            "{PYTHON} -m evaluation.fidelity --samples {input.samples} --real {input.real}"
            " --classifiers {params.classifiers} --protocol {params.protocol:q} --threads {threads} --out {output}"
        )


rule utility:
    input:
        samples=f"{RUN}/samples.npz",
        test=f"{DATA}/test.npz",
        classifiers=f"{CLASSIFIERS}/classifiers.json",
    output:
        f"{RUN}/utility.json",
    params:
        protocol=protocol,
        classifiers=classifiers,
    log:
        f"{LOGS}/utility/{RUN_LOG}.log",
    benchmark:
        f"{LOGS}/utility/{RUN_LOG}.tsv"
    threads: CONFIG.threads
    group: RUN_GROUP
    resources:
        runtime=minutes("utility"),
    priority: 50
    shell:
        logged(
            "{PYTHON} -m evaluation.utility --samples {input.samples} --test {input.test}"
            " --classifiers {params.classifiers} --protocol {params.protocol:q} --seed {wildcards.seed}"
            " --threads {threads} --out {output}"
        )


rule real_fidelity:
    input:
        test=f"{DATA}/test.npz",
        train=f"{DATA}/train.npz",
        classifiers=f"{CLASSIFIERS}/classifiers.json",
    output:
        f"{REAL}/fidelity.json",
    params:
        protocol=protocol,
        classifiers=classifiers,
    log:
        f"{LOGS}/fidelity/{{dataset}}-real.log",
    benchmark:
        f"{LOGS}/fidelity/{{dataset}}-real.tsv"
    threads: CONFIG.threads
    resources:
        runtime=minutes("real_fidelity"),
    priority: 40
    shell:
        logged(
            "{PYTHON} -m evaluation.fidelity --samples {input.test} --real {input.train}"
            " --classifiers {params.classifiers} --protocol {params.protocol:q} --threads {threads} --out {output}"
        )


rule real_utility:
    input:
        test=f"{DATA}/test.npz",
        train=f"{DATA}/train.npz",
        classifiers=f"{CLASSIFIERS}/classifiers.json",
    output:
        f"{REAL}/utility.json",
    params:
        protocol=protocol,
        classifiers=classifiers,
    log:
        f"{LOGS}/utility/{{dataset}}-real.log",
    benchmark:
        f"{LOGS}/utility/{{dataset}}-real.tsv"
    threads: CONFIG.threads
    resources:
        runtime=minutes("real_utility"),
    priority: 40
    shell:
        logged(
            "{PYTHON} -m evaluation.utility --real --samples {input.train} --test {input.test}"
            " --r2g-samples {input.test} --classifiers {params.classifiers} --protocol {params.protocol:q} --seed 0"
            " --threads {threads} --out {output}"
        )
