"""The published tables read by another reader than the pipeline's."""

import pandas as pd

from mars.paper import published


def printed(number):
    """A table of the paper as a data frame."""
    (file,) = published.FOLDER.glob(f"table{number}_*.csv")
    return pd.read_csv(file)
