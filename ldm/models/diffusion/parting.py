"""A network whose weights lie in parts in several processes."""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

PARALLEL = "data_parallel"  # the axis of Lightning's mesh along which processes see different batches


def part(network: nn.Module, mesh: DeviceMesh) -> None:
    """Leave a share of every weight of a UNet in each process of a mesh (FSDP2; Zhao et al. 2023).

    A block's weights are gathered while it computes, and its gradients averaged and parted again.
    """
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()  # other layouts cannot be parted
    blocks = (*network.get_submodule("input_blocks").children(), network.get_submodule("middle_block"),
              *network.get_submodule("output_blocks").children())  # fmt: skip
    for module in (*blocks, network):
        fully_shard(module, mesh=mesh[PARALLEL])
