# A plain `snakemake` at the root runs the workflow; everything is in workflow/.
include: "workflow/Snakefile"
