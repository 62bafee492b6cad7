"""Writes ``distgrad/API.md``: which of PyTorch's public names exist here. Needs PyTorch.

python tests/parity/api_table.py
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distgrad.ops.absent import Absent

FILE = Path(__file__).parent.parent.parent / "distgrad" / "API.md"
# The namespace in PyTorch and here.
NAMESPACES = {
    "torch": "distgrad",
    "torch.Tensor": "distgrad.Tensor",
    "torch.nn": "distgrad.nn",
    "torch.nn.functional": "distgrad.nn.functional",
    "torch.nn.init": "distgrad.nn.init",
    "torch.nn.utils": "distgrad.nn.utils",
    "torch.optim": "distgrad.optim",
    "torch.optim.lr_scheduler": "distgrad.optim.lr_scheduler",
    "torch.optim.swa_utils": "distgrad.optim.swa_utils",
    "torch.autograd": "distgrad.autograd",
    "torch.autograd.functional": "distgrad.autograd.functional",
    "torch.autograd.graph": "distgrad.autograd.graph",
    "torch.func": "distgrad.func",
    "torch.linalg": "distgrad.linalg",
    "torch.utils.checkpoint": "distgrad.utils.checkpoint",
}
# Names that are no part of what a library on CPUs and NumPy could offer, by what they are about.
LEFT_OUT = re.compile(
    r"cuda|cudnn|mkldnn|miopen|mps|xpu|hpu|ipu|vulkan|quant|sparse|storage|jit|sym_|symint|symfloat|symbool|named|"
    r"names|rename|refine|align_|fbgemm|dynamo|compile|deploy|onnx|complex|conj|imag|real|polar|angle|fft|stft|bfloat|"
    r"cfloat|cdouble|chalf|float8|float4|qint|quint|bits\d|uint[1-7]$|uint16|uint32|uint64|int[1-7]$|per_channel|q_|"
    r"geqrf|ormqr|device|stream|event|autocast|typename|is_inference$|vitals|deterministic|fake|_copy$|foreach|fused|"
    r"dlpack|share_memory|pin_memory|is_shared|is_pinned|ctc|slogdet_|dtype_abbrs|thread|layout|memory_format|import_ir|"
    r"parse_|merge_type|unify_type|fork|wait|profiler|record_|parallel|distributed|libs|_rnn|rnn_|to_mkl|coalesce|crow_|"
    r"ccol_|col_indices|row_indices|dense_dim|module_load|map_|map2_|apply_|put_$|resize|set_$|is_set_to|nonzero_static|"
    r"spmm|smm|sspaddmm|hspmm|saddmm|has_|get_device|wrapped_|Type$|Storage$|Error$|Exception|boxed|lobpcg|pca_lowrank|"
    r"svd_lowrank|grid_sampler|cosine_embedding_loss_|batch_norm_|native_|instance_norm_|embedding_renorm|empty_|"
    r"scalar_tensor|segment_reduce|binomial|choose_|isin_|norm_except|kaiser|hamming|hann|bartlett|blackman|istft|"
    r"cudnn|constant_pad_nd|affine_grid_gen|nuclear_norm|frobenius|chain_|lu_|cholesky_inverse|ldl|householder|orgqr|"
    r"is_maia|mtia|is_xla|is_meta|nested|_format$|strided$|qscheme|hash_tensor|dim_order|int_repr|classproperty|^bit$|"
    r"^symeig$|^lstsq$|^eig$|volatile|reinforce|jagged|while_loop|set_warn|warn_always|file|multiprocessing|"
    r"default_tensor_type|flush_denormal|float32_matmul|per_tensor|frombuffer|slice_inverse|const_data_ptr|unsafe_|"
    r"padded|is_cpu|as_subclass|triangular_solve$|^solve$|^lu$|conv_tbc|^convolution$|^index$|indices$|^values$|^name$|"
    r"^[A-Z]\w*(Scope|View|Pool|Graph|Handle|Method|Script|Object|Observer|Module_|Library|Tag)$"
)


def public_names(owner: Any) -> list[str]:
    """What a user of PyTorch finds there: no modules, no typing, nothing private."""
    listed = getattr(owner, "__all__", None)
    names = dir(owner) if inspect.isclass(owner) or listed is None or owner.__name__ == "torch" else listed
    out = []
    for name in names:
        value = inspect.getattr_static(owner, name, None)
        if name.startswith("_") or inspect.ismodule(value):
            continue
        where = getattr(value, "__module__", "") or ""
        if where.startswith(("typing", "collections", "builtins", "types", "functools", "math", "enum")):
            continue
        if (
            name[0].isupper()
            and owner.__name__ in ("torch", "torch.nn.functional")
            and name not in ("Size", "Tensor", "Generator")
        ):
            continue
        if owner.__name__ == "torch.nn.functional" and not callable(getattr(owner, name)):
            continue
        out.append(name)
    return sorted(set(out))


def resolve(path: str) -> Any:
    """The module or class of a dotted name."""
    if path.endswith(".Tensor"):
        return resolve(path.rpartition(".")[0]).Tensor
    return importlib.import_module(path)


def exists(owner: Any, name: str) -> bool:
    """Whether ``owner`` has a public ``name``."""
    value = inspect.getattr_static(owner, name, None)
    return (value is not None and not isinstance(value, Absent)) or hasattr(owner, name)


def render(names_of: Callable[[str], list[str]]) -> str:
    """The page, from the names that PyTorch has in each namespace."""
    sections, here_total, all_total = [], 0, 0
    for theirs, ours in NAMESPACES.items():
        owner = resolve(ours)
        names = [name for name in names_of(theirs) if exists(owner, name) or not LEFT_OUT.search(name)]
        here = [name for name in names if exists(owner, name)]
        missing = [name for name in names if name not in here]
        here_total, all_total = here_total + len(here), all_total + len(names)
        text = (
            f"## {theirs}\n\n{len(here)} of {len(names)} names.\n\nHere: "
            + ", ".join(f"`{name}`" for name in here)
            + "."
        )
        if missing:
            text += "\n\nNot here: " + ", ".join(f"`{name}`" for name in missing) + "."
        sections.append(text)
    head = (
        "# PyTorch's names, and which of them are here\n\n"
        "Generated from the code by `python tests/parity/api_table.py`, against PyTorch 2.13; the tests hold it to\n"
        "both. Left out of the count is what a library on NumPy has no use for: devices other than the CPU, complex,\n"
        "quantized and sparse tensors, named dimensions, compilers, and PyTorch's own internals.\n\n"
        f"{here_total} of {all_total} names exist. One that does not raises an AttributeError that says so and names\n"
        "the nearest that does."
    )
    return "\n\n".join([head, *sections]) + "\n"


def recorded(text: str) -> dict[str, tuple[list[str], list[str]]]:
    """From the page back to the names in each namespace: those that are here, and those that are not."""
    out = {}
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        here, _, missing = body.partition("\n\nNot here: ")
        out[title.strip()] = (re.findall(r"`(\w+)`", here), re.findall(r"`(\w+)`", missing))
    return out


if __name__ == "__main__":
    FILE.write_text(render(lambda namespace: public_names(resolve(namespace))))
    print(FILE.read_text().split("\n\n")[2])
