#!/usr/bin/env bash
# timm 1.0.31, torch 2.14.1: the optimizer timm.optim.Muon makes its updates orthogonal in bfloat16 whatever the type of the parameters and whatever
# the device. Its function zeropower_via_newtonschulz takes a dtype, but neither the class nor timm.optim.create_optimizer_v2 hands one on. On a CPU
# without instructions for bfloat16 PyTorch emulates these products, and a float32 training step can spend most of its time in them.
#
# Seen: parameters and gradients torch.float32; every product of a step in torch.bfloat16:
#   parameters: torch.float32
#   products of Muon's step: torch.bfloat16
#   products of zeropower_via_newtonschulz(dtype=torch.float32): torch.float32
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 timm==1.0.31 numpy
cat > "$folder/see.py" <<'PYTHON'
import torch
from timm.optim.muon import Muon, zeropower_via_newtonschulz
from torch.utils._python_dispatch import TorchDispatchMode


class Products(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.types = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "mm" in func.__name__:
            self.types.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


matrix = torch.nn.Parameter(torch.randn(32, 64))
matrix.grad = torch.randn(32, 64)
print("parameters:", matrix.dtype)
with Products() as step:
    Muon([matrix], lr=0.02).step()
print("products of Muon's step:", *step.types)
with Products() as alone:
    zeropower_via_newtonschulz(matrix.grad, 5, [(2.0, -1.5, 0.5)], dtype=torch.float32)
print("products of zeropower_via_newtonschulz(dtype=torch.float32):", *alone.types)
assert step.types == {torch.bfloat16} and alone.types == {torch.float32}
PYTHON
"$folder/venv/bin/python" "$folder/see.py"
