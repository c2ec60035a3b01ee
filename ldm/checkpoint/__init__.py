"""The only place that opens or writes a weight file."""

from ldm.checkpoint.checksums import FIELD as CHECKSUM
from ldm.checkpoint.checksums import checksum, is_whole
from ldm.checkpoint.diffusers_folder import diffusers_config, is_diffusers_folder, is_film_folder
from ldm.checkpoint.embedding_sources import merge_embeddings, read_embeddings
from ldm.checkpoint.embeddings import EmbeddingFile, read_embedding, write_embedding
from ldm.checkpoint.fit import LoadReport
from ldm.checkpoint.loading import load_model, load_weights, model_node
from ldm.checkpoint.origin import HasOrigin, Origin
from ldm.checkpoint.pickle_machine import Name, StandIn
from ldm.checkpoint.reading import is_lightning_checkpoint, read_file, read_metadata, read_state_dict
from ldm.checkpoint.saving import save_state_dict, write_file

__all__ = [
    "CHECKSUM",
    "EmbeddingFile",
    "HasOrigin",
    "LoadReport",
    "Name",
    "Origin",
    "StandIn",
    "checksum",
    "diffusers_config",
    "is_diffusers_folder",
    "is_film_folder",
    "is_lightning_checkpoint",
    "is_whole",
    "load_model",
    "load_weights",
    "merge_embeddings",
    "model_node",
    "read_embedding",
    "read_embeddings",
    "read_file",
    "read_metadata",
        "read_state_dict",
    "save_state_dict",
    "write_embedding",
    "write_file",
]
