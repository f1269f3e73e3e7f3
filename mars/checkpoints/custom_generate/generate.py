"""MARS decoding behind ``model.generate(..., custom_generate=..., trust_remote_code=True)``.

Needs the package ``mars-repro``. Without this file the checkpoint is an ordinary AR model.
"""

from mars.decoding.generate import custom_generate as generate  # noqa: F401
