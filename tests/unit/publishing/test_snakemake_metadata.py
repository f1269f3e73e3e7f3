"""Snakemake's private notes are in the format that this project knows."""

from mars.provenance.lock import locked_for
from mars.publishing.snakemake_metadata import HOLDS_FOR


def test_the_format_is_that_of_the_locked_version():
    assert locked_for(["snakemake"])["snakemake"].partition(".")[0] == HOLDS_FOR
