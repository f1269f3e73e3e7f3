"""The paper's figures from our records; each module draws one of them."""
