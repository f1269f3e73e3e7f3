"""Gradients of packed rows with parameters sharded over processes; run by a test through torchrun.

Prints the largest relative difference to the gradients of one process.
"""

import torch
import torch.distributed as dist
from test_dual_stream import MASK, make_documents, make_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from mars.training.dense_attention import DENSE
from mars.training.dual_stream import mars_stream
from mars.training.packed_model import PackedModel
from mars.training.packing import pack

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
model = make_model(torch.float32)
model.set_attn_implementation(DENSE)
streams = [mars_stream(d, p, block_size=4, mask_token_id=MASK) for d, p in make_documents()]
rows = pack(streams, row_length=48, rows_per_forward=1, normalisation="sequence", ar_weight=1.0)
rows += [rows[0].silent()] * (-len(rows) % world)
assert len(rows) > 2 * world

packed = PackedModel(model, 1.0)
for part in rows:
    packed(part)[0].backward()
expected = {name: parameter.grad.clone() for name, parameter in packed.named_parameters()}
packed.zero_grad()

mesh = init_device_mesh("cpu", (world,))
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(packed, mesh=mesh)
for part in rows[rank::world]:
    (packed(part)[0] * world).backward()
differences = [
    float((parameter.grad.full_tensor() - expected[name]).abs().max() / expected[name].abs().max())
    for name, parameter in packed.named_parameters()
]
if rank == 0:
    print("largest difference", max(differences))
dist.destroy_process_group()
