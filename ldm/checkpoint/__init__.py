"""The only place that opens or writes a weight file."""

from ldm.checkpoint.diffusers_folder import diffusers_config, is_diffusers_folder
from ldm.checkpoint.fit import LoadReport
from ldm.checkpoint.loading import load_model, load_weights, model_node
from ldm.checkpoint.pickle_machine import Name, StandIn
from ldm.checkpoint.reading import is_lightning_checkpoint, read_file, read_metadata, read_state_dict
from ldm.checkpoint.saving import save_state_dict, write_file

__all__ = [
    "LoadReport",
    "Name",
    "StandIn",
    "diffusers_config",
    "is_diffusers_folder",
    "is_lightning_checkpoint",
    "load_model",
    "load_weights",
    "model_node",
    "read_file",
    "read_metadata",
    "read_state_dict",
    "save_state_dict",
    "write_file",
]
