# Plan (no data is read), warm start (private, shared between runs), training under the ledger, sampling; or, in the place
# of all four, samples that were made elsewhere.
#
# A method's own file is an input of its rules: editing one method reruns it and no other. Checkpoints and the ledger
# stay undeclared, since Snakemake deletes what a failed job declared: a retry or a later call continues from them.


def method_file(wildcards):
    return code(f"methods/{job(wildcards).method}.py")


def full_hyper(one):
    """Returns a job's hyper-parameters as the plan will find them: published settings first, if asked for."""
    published = registry.paper_settings(one.method, one.dataset, one.epsilon) if one.paper else {}
    return registry.hyper(one.method, {**published, **one.hyper})


WARM_STARTS = {}
STARTS = {}


def start(one):
    """Returns what makes a job's warm start and its settings, both None where it needs none: the same for every seed."""
    key = one.dataset, one.run, one.epsilon
    if key not in STARTS:
        cls = registry.load(one.method)
        settings = cls.warm_start(full_hyper(one))
        STARTS[key] = (None, None) if settings is None else (cls.make_warm_start.__func__.__module__, settings)
    return STARTS[key]


def warm_start(one):
    """Returns the folder of a job's shared warm start, or None where its method needs none."""
    maker, settings = start(one)
    if maker is None:
        return None
    text = grid.canonical([maker, one.dataset, settings, one.seed])
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    entry = (one.method, settings, one.seed, maker)
    WARM_STARTS[one.dataset, key] = min(entry, WARM_STARTS.get((one.dataset, key), entry), key=lambda item: item[0])
    return CRITICS.format(dataset=one.dataset, key=key)


for one in TRAINED:
    warm_start(one)


def warm_start_entry(wildcards):
    return WARM_STARTS[wildcards.dataset, wildcards.key]


def warm_start_code(wildcards):
    maker = warm_start_entry(wildcards)[3]
    return [] if maker.startswith("methods.core") else [code(maker.replace(".", "/") + ".py")]


def done_file(wildcards):
    folder = warm_start(job(wildcards))
    return f"{folder}/done.json" if folder else []


rule plan:
    wildcard_constraints:
        run=TRAINED_RUN,
    input:
        card=f"{DATA}/card.json",
        code=method_file,
    output:
        plan=f"{RUN}/plan.json",
    params:
        method=lambda wildcards: job(wildcards).method,
        hyper=lambda wildcards: grid.canonical(job(wildcards).hyper),
        accounting=lambda wildcards: job(wildcards).accounting,
        paper=lambda wildcards: "--paper" if job(wildcards).paper else "",
        over_budget=lambda wildcards: "--over-budget" if job(wildcards).over_budget else "",
        delta=CONFIG.delta,
    log:
        f"{LOGS}/plan/{RUN_LOG}.log",
    threads: 1
    group: RUN_GROUP
    resources:
        runtime=minutes("plan"),
    priority: 100
    shell:
        logged(
            "{PYTHON} -m methods plan --method {params.method} --run {wildcards.run} --hyper {params.hyper:q}"
            " --card {input.card} --epsilon {wildcards.epsilon} --delta {params.delta}"
            " --accounting {params.accounting} --seed {wildcards.seed} {params.paper} {params.over_budget}"
            " --out {output.plan}"
        )


rule warmstart:
    input:
        data=f"{DATA}/train.npz",
        card=f"{DATA}/card.json",
        code=warm_start_code,
    output:
        done=f"{CRITICS}/done.json",
    params:
        # The settings are in the key. Reading `input` keeps these from being compared between calls, so that the
        # same artifact is not made again when another of the methods that share it is named here.
        method=lambda wildcards, input: warm_start_entry(wildcards)[0],
        settings=lambda wildcards, input: grid.canonical(warm_start_entry(wildcards)[1]),
        seed=lambda wildcards, input: warm_start_entry(wildcards)[2],
        folder=lambda wildcards, output: os.path.dirname(output.done),
    log:
        f"{LOGS}/warmstart/{{dataset}}-{{key}}.log",
    benchmark:
        f"{LOGS}/warmstart/{{dataset}}-{{key}}.tsv"
    threads: CONFIG.threads
    resources:
        runtime=minutes("warmstart"),
    priority: 90
    retries: 1
    shell:
        logged(
            "{PYTHON} -m methods warm-start --method {params.method} --settings {params.settings:q}"
            " --card {input.card} --data {input.data} --seed {params.seed} --threads {threads} --out {params.folder}"
        )


rule train:
    wildcard_constraints:
        run=TRAINED_RUN,
    input:
        plan=f"{RUN}/plan.json",
        data=f"{DATA}/train.npz",
        code=method_file,
        warm_start=done_file,
    output:
        # log.csv, which grows from the first step on, is none: Snakemake would remove it after a kill.
        run=f"{RUN}/run.json",
        generator=f"{RUN}/generator.safetensors",
    params:
        warm_start=lambda wildcards, input: (
            f"--warm-start {os.path.dirname(str(input.warm_start))}" if input.warm_start else ""
        ),
        folder=lambda wildcards, output: os.path.dirname(output.run),
        # A submission's own call is forced to make all its steps, and a queue may begin it once more when the run has
        # ended: to train it again would charge its records again. Reading `input` keeps this from being compared.
        again=lambda wildcards, input: "--again" if workflow.is_main_process else "",
    log:
        f"{LOGS}/train/{RUN_LOG}.log",
    benchmark:
        f"{LOGS}/train/{RUN_LOG}.tsv"
    threads: CONFIG.threads
    group: RUN_GROUP
    resources:
        runtime=minutes("train"),
    priority: 80
    retries: 1
    shell:
        # A forced rerun of a finished run goes through the same door as anybody's: the log says what it costs.
        logged(
            "{PYTHON} -m methods train {params.again} --plan {input.plan} --data {input.data} {params.warm_start}"
            " --threads {threads} --out {params.folder}",
            # Killed after its record was published: to train it again would charge its records again.
            whole="[ -s {output.run} ] && [ ! -e {params.folder}/private/ledger.jsonl ]",
        )


rule sample:
    wildcard_constraints:
        run=TRAINED_RUN,
    input:
        run=f"{RUN}/run.json",
        generator=f"{RUN}/generator.safetensors",
    output:
        samples=f"{RUN}/samples.npz",
    params:
        num=lambda wildcards: CONFIG.protocol_of(wildcards.dataset)["num_samples"],
        folder=lambda wildcards, input: os.path.dirname(input.run),
    log:
        f"{LOGS}/sample/{RUN_LOG}.log",
    benchmark:
        f"{LOGS}/sample/{RUN_LOG}.tsv"
    threads: CONFIG.threads
    group: RUN_GROUP
    resources:
        runtime=minutes("sample"),
    priority: 50
    shell:
        logged(
            "{PYTHON} -m methods sample --run {params.folder} --num {params.num} --threads {threads}"
            " --out {output.samples}"
        )


if EXTERNAL:

    rule external:
        wildcard_constraints:
            run="|".join(sorted({run for _, run, _ in EXTERNAL})),
        input:
            card=f"{DATA}/card.json",
        output:
            run=f"{RUN}/run.json",
            samples=f"{RUN}/samples.npz",
        params:
            # Compared between calls: other samples.
            content=lambda wildcards: EXTERNAL[wildcards.dataset, wildcards.run, int(wildcards.seed)],
            # Not compared, for it reads `input`: the same samples in another place are the same run.
            samples=lambda wildcards, input: job(wildcards).external,
            folder=lambda wildcards, output: os.path.dirname(output.run),
        log:
            f"{LOGS}/external/{RUN_LOG}.log",
        threads: 1
        group: RUN_GROUP
        resources:
            runtime=minutes("external"),
        priority: 80
        shell:
            logged(
                "{PYTHON} -m workflow.datasets.external --samples {params.samples:q} --card {input.card}"
                " --claimed-epsilon {wildcards.epsilon} --out {params.folder}"
            )
