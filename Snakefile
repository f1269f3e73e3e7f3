# A plain `snakemake` at the root runs the workflow; everything is in workflow/.
include: "workflow/Snakefile"


# An included file cannot set the default target.
rule default:
    default_target: True
    input:
        rules.all.input,
