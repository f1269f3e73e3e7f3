"""Where numbers come from: code fingerprints, manifests of folders, records of jobs."""
