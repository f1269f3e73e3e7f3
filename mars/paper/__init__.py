"""The paper's artefacts from our records, with the published numbers beside ours."""
