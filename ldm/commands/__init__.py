"""The command lines: options -> one function of the workflows, or of the training.

The files in the repository's root and the commands that an installation brings (``ldm-txt2img``, ``ldm-styleid``,
``ldm-train``) both call ``run`` of the module here.
"""
