# The benchmark as a graph of files: data -> critics -> training -> samples -> scores -> tables and figures.
#
#   snakemake --cores 2                                  preset quick, everything
#   snakemake --cores 2 --config preset=smoke            another preset (smoke, own, quick, long, teachers, paper)
#   snakemake --cores 2 --config datasets=mnist runs=dpac,gs_wgan epsilons=1,10 seeds=0,1
#   snakemake --cores 2 results/quick/runs/mnist/dpac/eps10/seed0/utility.json
#   snakemake --cores 2 --configfile mine.yaml           pictures of your own: extends: quick, datasets: {NAME: {folder: PATH}}
#   snakemake --configfile mine.yaml --cores 1 print_config      its settings and where each came from
#
# Every step is a `python -m ...` command of its own; `snakemake -n -p` prints them.

include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/methods.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        TABLES,
        RANKING,
        FIGURES,
        PLOTS,
        f"{OUT}/scores.csv",
        f"{OUT}/audit.csv",
        f"{OUT}/report.html",
        f"{OUT}/provenance.json",


onstart:
    warn_unprotected(CONFIG)
    PROGRESS.start(workflow)


onsuccess:
    PROGRESS.stop()


onerror:
    PROGRESS.stop()
