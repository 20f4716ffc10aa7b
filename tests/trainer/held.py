"""What a process holds in tensors, found from its living objects: a leak counts like anything else."""

from __future__ import annotations

import gc

import torch


def held_bytes(*, beside):
    """Return the bytes of all tensors' memory but that of `beside`; what gc.freeze has put aside does not count."""

    def memory(tensor):
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        storage = local.untyped_storage()
        return storage.data_ptr(), storage.nbytes()

    gc.collect()
    own = {memory(tensor)[0] for tensor in beside}
    found = dict(memory(thing) for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))
    return sum(size for place, size in found.items() if place not in own)


def weights_of(module):
    """Return what a module's weights lie in, whole or in shares."""
    parameters = list(module.parameters())
    shares = [parameter.ds_tensor for parameter in parameters if hasattr(parameter, "ds_tensor")]
    return [*parameters, *shares, *module.buffers()]
