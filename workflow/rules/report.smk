# scores.csv, tables, figures, the page that shows them, and where they came from.

import yaml

from evaluation.report.layout import load_layout

LAYOUT = code("workflow/config/report.yaml")
WHOLE = load_layout(LAYOUT)
SHOWN = WHOLE.only(CONFIG.datasets) if CONFIG.own else WHOLE
SETTINGS = "results/published/settings.yaml"
SETTLED = {entry["method"] for entry in yaml.safe_load((ROOT / SETTINGS).read_text(encoding="utf-8"))["settings"]}


def table_files(section):
    """Returns the files of all tables that a section of the layout describes."""
    return expand(f"{OUT}/tables/{{name}}.{{kind}}", name=getattr(SHOWN, section), kind=["csv", "md", "tex"])


# Written by `workflow.tune choose`.
TUNING = f"results/reference/tuning/{CONFIG.extends or CONFIG.preset}/costs.csv"
TUNING_COSTS = [code(TUNING)] if (ROOT / TUNING).exists() else []


def alone(wildcards, input):
    """Returns the option that shows the configured data sets alone. It reads `input`, which they change anyway."""
    return f"--datasets {' '.join(CONFIG.datasets)}" if CONFIG.own else ""


def left_out(wildcards, input):
    """Returns the option that names what this configuration does not show, for files of an earlier one may lie there."""
    names = [
        name
        for section in ("tables", "published_costs", "audit", "frontier", "claims", "figures")
        for name in getattr(WHOLE, section)
        if name not in getattr(SHOWN, section)
    ]
    return f"--leave-out {' '.join(names)}" if names else ""


def origins():
    """Returns run -> data set -> setting -> where it came from, for all jobs; a method's defaults are left out."""
    layers = [*FILES, presets.Layer(merging.COMMAND_LINE, command_line(FILES))]
    merged, found = merging.read(layers, dataset_stage.NAMES), {}
    # Seeds differ in no setting.
    for one in {(one.dataset, one.run, one.epsilon): one for one in JOBS}.values():
        published = registry.paper_settings(one.method, one.dataset, one.epsilon) if one.paper else {}
        stated = setting_origins(merged, one.run, one.method, one.dataset, one.hyper, published)
        found.setdefault(one.run, {}).setdefault(one.dataset, {}).update(stated)
    return grid.canonical(found)


SCORES_TABLES, COSTS_TABLES, AUDIT_TABLES, FRONTIER_TABLES, CLAIMS_TABLES = map(
    table_files, ["tables", "published_costs", "audit", "frontier", "claims"]
)
TABLES = SCORES_TABLES + COSTS_TABLES + AUDIT_TABLES + FRONTIER_TABLES + CLAIMS_TABLES
FIGURES = expand(f"{OUT}/figures/{{name}}.{{kind}}", name=SHOWN.figures, kind=["png", "pdf"])
PLOTS = expand(f"{OUT}/figures/{{name}}.{{kind}}", name=SHOWN.plots, kind=["png", "pdf"])
REAL_FOLDERS = [REAL.format(dataset=dataset) for dataset in CONFIG.datasets]
RUN_FOLDERS = [one.folder(OUT) for one in JOBS]
TRAINED_FOLDERS = [one.folder(OUT) for one in TRAINED]
RANKING = expand(f"{OUT}/tables/rank.{{kind}}", kind=["csv", "md"])
# What commands read that take all runs: on a command line, which has a limit, a thousand would not find room.
RUN_LIST = f"{OUT}/lists/runs.txt"
PLAN_LIST = f"{OUT}/lists/plans.txt"


rule run_lists:
    output:
        runs=RUN_LIST,
        plans=PLAN_LIST,
    params:
        root=OUT,
        grid=grid.canonical(run_list.compact(JOBS)),
    log:
        f"{LOGS}/report/run_lists.log",
    threads: 1
    priority: 200
    shell:
        logged(
            "{PYTHON} -m workflow.run_list --root {params.root} --grid {params.grid:q} --runs {output.runs}"
            " --plans {output.plans}"
        )


# Seconds each: on a cluster they run where the call runs, and wait in no queue.
localrules: run_lists, collect, scores_tables, claims_table, audit_table, plots, rank


rule collect:
    input:
        list=RUN_LIST,
        runs=[f"{folder}/run.json" for folder in RUN_FOLDERS],
        fidelity=[f"{folder}/fidelity.json" for folder in RUN_FOLDERS + REAL_FOLDERS],
        utility=[f"{folder}/utility.json" for folder in RUN_FOLDERS + REAL_FOLDERS],
    output:
        f"{OUT}/scores.csv",
    params:
        preset=CONFIG.preset,
        root=OUT,
        real=REAL_FOLDERS,
    log:
        f"{LOGS}/report/collect.log",
    threads: 1
    shell:
        logged(
            "{PYTHON} -m evaluation.report.collect --preset {params.preset} --root {params.root} --out {output}"
            " @{input.list} {params.real}"
        )


rule scores_tables:
    input:
        scores=f"{OUT}/scores.csv",
        published=code("results/published/scores.csv"),
        layout=LAYOUT,
        tuning=TUNING_COSTS,
    output:
        SCORES_TABLES,
    params:
        num=CONFIG.sample_counts,
        folder=f"{OUT}/tables",
        alone=alone,
    log:
        f"{LOGS}/report/scores_tables.log",
    threads: 1
    shell:
        logged(
            "{PYTHON} -m evaluation.report.scores_tables --scores {input.scores} --published {input.published:q}"
            " --layout {input.layout:q} --num-samples {params.num:q} {params.alone}"
            " --out {params.folder}" + (" --tuning {input.tuning:q}" if TUNING_COSTS else "")
        )


rule published_costs:
    input:
        settings=code(SETTINGS),
        code=[code(f"methods/{name}.py") for name in sorted(SETTLED & set(registry.names()))],
    output:
        f"{OUT}/published_costs.csv",
    log:
        f"{LOGS}/report/published_costs.log",
    benchmark:
        f"{LOGS}/report/published_costs.tsv"
    threads: 1
    resources:
        runtime=minutes("published_costs"),
    # Not last, where it would keep one core busy for a minute and the others idle.
    priority: 60
    shell:
        logged("{PYTHON} -m methods published-costs --settings {input.settings:q} --out {output}")


if COSTS_TABLES:

    localrules: published_costs_table

    rule published_costs_table:
        input:
            costs=f"{OUT}/published_costs.csv",
            layout=LAYOUT,
        output:
            COSTS_TABLES,
        params:
            folder=f"{OUT}/tables",
        log:
            f"{LOGS}/report/published_costs_table.log",
        threads: 1
        shell:
            logged(
                "{PYTHON} -m evaluation.report.published_costs --published-costs {input.costs} --layout {input.layout:q}"
                " --out {params.folder}"
            )


if FRONTIER_TABLES:

    localrules: frontier_table

    rule frontier_table:
        input:
            scores=f"{OUT}/scores.csv",
            frontier=code("results/published/frontier.csv"),
            cards=expand(f"{DATA}/card.json", dataset=CONFIG.datasets),
            layout=LAYOUT,
        output:
            FRONTIER_TABLES,
        params:
            delta=f"{CONFIG.delta:g}",
            folder=f"{OUT}/tables",
            alone=alone,
        log:
            f"{LOGS}/report/frontier_table.log",
        threads: 1
        shell:
            logged(
                "{PYTHON} -m evaluation.report.frontier --scores {input.scores} --frontier {input.frontier:q}"
                " --cards {input.cards} --delta {params.delta} --layout {input.layout:q} {params.alone}"
                " --out {params.folder}"
            )


rule claims_table:
    input:
        scores=f"{OUT}/scores.csv",
        published=code("results/published/scores.csv"),
        layout=LAYOUT,
    output:
        CLAIMS_TABLES,
    params:
        folder=f"{OUT}/tables",
        alone=alone,
    log:
        f"{LOGS}/report/claims_table.log",
    threads: 1
    shell:
        logged(
            "{PYTHON} -m evaluation.report.verdicts --scores {input.scores} --published {input.published:q}"
            " --layout {input.layout:q} {params.alone} --out {params.folder}"
        )


rule audit:
    input:
        list=PLAN_LIST,
        plans=[f"{folder}/plan.json" for folder in TRAINED_FOLDERS],
    output:
        f"{OUT}/audit.csv",
    params:
        seconds=CONFIG.audit_seconds,
    log:
        f"{LOGS}/report/audit.log",
    benchmark:
        f"{LOGS}/report/audit.tsv"
    threads: 1
    resources:
        runtime=minutes("audit"),
    priority: 60
    shell:
        logged("{PYTHON} -m methods audit --plan @{input.list} --seconds {params.seconds} --out {output}")


rule spending:
    input:
        list=PLAN_LIST,
        plans=[f"{folder}/plan.json" for folder in TRAINED_FOLDERS],
    output:
        f"{OUT}/spending.csv",
    log:
        f"{LOGS}/report/spending.log",
    benchmark:
        f"{LOGS}/report/spending.tsv"
    threads: 1
    priority: 60
    shell:
        logged("{PYTHON} -m methods spending --plan @{input.list} --out {output}")


rule audit_table:
    input:
        audit=f"{OUT}/audit.csv",
        layout=LAYOUT,
    output:
        AUDIT_TABLES,
    params:
        folder=f"{OUT}/tables",
    log:
        f"{LOGS}/report/audit_table.log",
    threads: 1
    shell:
        logged("{PYTHON} -m evaluation.report.audit --audit {input.audit} --layout {input.layout:q} --out {params.folder}")


rule figures:
    input:
        list=RUN_LIST,
        samples=[f"{folder}/samples.npz" for folder in RUN_FOLDERS],
        records=[f"{folder}/run.json" for folder in RUN_FOLDERS],
        real=[f"{DATA}/test.npz".format(dataset=dataset) for dataset in CONFIG.datasets],
        layout=LAYOUT,
    output:
        FIGURES,
    params:
        root=OUT,
        folder=f"{OUT}/figures",
        rows=CONFIG.figure_rows,
        alone=alone,
    log:
        f"{LOGS}/report/figures.log",
    threads: 1
    shell:
        logged(
            "{PYTHON} -m evaluation.report.figures --root {params.root} --layout {input.layout:q} {params.alone}"
            " --rows {params.rows} --out {params.folder} --runs @{input.list}"
        )


rule plots:
    input:
        scores=f"{OUT}/scores.csv",
        layout=LAYOUT,
    output:
        PLOTS,
    params:
        folder=f"{OUT}/figures",
        alone=alone,
    log:
        f"{LOGS}/report/plots.log",
    threads: 1
    shell:
        logged(
            "{PYTHON} -m evaluation.report.score_plots --scores {input.scores} --layout {input.layout:q} {params.alone}"
            " --out {params.folder}"
        )


rule provenance:
    input:
        scores=f"{OUT}/scores.csv",
    output:
        f"{OUT}/provenance.json",
    params:
        root=OUT,
        settings=grid.canonical(CONFIG.summary()),
    log:
        f"{LOGS}/report/provenance.log",
    threads: 1
    shell:
        logged("{PYTHON} -m workflow.record --root {params.root} --settings {params.settings:q} --out {output}")


rule rank:
    input:
        scores=f"{OUT}/scores.csv",
        provenance=f"{OUT}/provenance.json",
    output:
        RANKING,
    params:
        folder=f"{OUT}/tables",
    log:
        f"{LOGS}/report/rank.log",
    threads: 1
    shell:
        logged("{PYTHON} -m evaluation.rank {input.scores} --out {params.folder}")


rule report:
    input:
        TABLES,
        RANKING,
        FIGURES,
        f"{OUT}/scores.csv",
        f"{OUT}/provenance.json",
        f"{OUT}/audit.csv",
        f"{OUT}/spending.csv",
        [f"{OUT}/published_costs.csv"] if COSTS_TABLES else [],
        [f"{folder}/run.json" for folder in TRAINED_FOLDERS],
        [f"{folder}/samples.npz" for folder in RUN_FOLDERS],
        published=code("results/published/scores.csv"),
        frontier=code("results/published/frontier.csv"),
        list=RUN_LIST,
        layout=LAYOUT,
    output:
        f"{OUT}/report.html",
    params:
        root=OUT,
        left_out=left_out,
        alone=alone,
        published=lambda wildcards, input: os.path.dirname(str(input.published)),
        origins=origins(),
    log:
        f"{LOGS}/report/page.log",
    threads: 1
    shell:
        logged(
            "{PYTHON} -m evaluation.report.page --root {params.root} {params.left_out} {params.alone}"
            " --layout {input.layout:q} --published {params.published:q} --origins {params.origins:q} --out {output}"
            " --runs @{input.list}"
        )
