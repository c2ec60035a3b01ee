"""The command lines: options -> one function of the workflows, or of the training.

The files in the repository's root and the commands that an installation brings (``ldm-txt2img``, ``ldm-styleid``,
``ldm-train``) both call ``command`` of the module here. Nothing that takes time is imported before that: from there on
Ctrl-C is one line, while torch is being imported as well.
"""
