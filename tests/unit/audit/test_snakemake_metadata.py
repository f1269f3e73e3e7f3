"""Snakemake's private notes are in the format that this project knows."""

from mars.audit.snakemake_metadata import HOLDS_FOR
from mars.provenance.lock import locked_for


def test_the_format_is_that_of_the_locked_version():
    assert locked_for(["snakemake"])["snakemake"].partition(".")[0] == HOLDS_FOR
