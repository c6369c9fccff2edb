"""What graph/tracing/internals.py and the rules rely on in PyTorch, each with a sentence for when it has changed.

yoloprune.graph is imported inside the checks only: a name that PyTorch has dropped then fails its own test, not all.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional as F

PACKAGE = Path(__file__).parents[2] / "yoloprune"
INTERNALS = PACKAGE / "graph" / "tracing" / "internals.py"

# names that internals.py takes from PyTorch, and what the graph does with them
NAMES = {
    "torch._C.DispatchKey": "selects the kernels that decompose an operator",
    "torch._C._dispatch_has_kernel_for_dispatch_key": "finds operators that PyTorch can decompose",
    "torch._ops.OpOverload": "tells ATen operators from Python functions",
    "torch.Tag": "tells element-wise, random and data-dependent operators",
    "torch.multiprocessing.reductions.StorageWeakRef": "notices that a storage was freed",
    "torch._foreach_addcmul_": "adds the regulariser's gradients",
    "torch.onnx._constants.ONNX_MAX_OPSET": "refuses an opset that cannot be written",
    "torch.nn.modules.batchnorm._BatchNorm": "finds the norms whose statistics recovery renews",
    "torch.nn.modules.batchnorm._NormBase": "updates num_features of batch and instance norms",
    "torch.nn.modules.conv._ConvNd": "updates the channels and groups of convolutions",
    "torch.nn.modules.conv._ConvTransposeNd": "updates the channels of transposed convolutions",
    "torch.nn.parameter.is_lazy": "leaves uninitialised parameters alone",
    "torch.overrides.BaseTorchFunctionMode": "has attention run operator by operator",
    "torch.overrides.TorchFunctionMode": "sees the calls of the model's own code",
    "torch.utils._python_dispatch.TorchDispatchMode": "sees every operator of an execution",
    "torch.utils._python_dispatch.is_traceable_wrapper_subclass": "leaves tensors without memory of their own alone",
    "torch.utils._pytree.tree_leaves": "finds the tensors in inputs and outputs",
    "torch.utils._pytree.tree_map": "changes the tensors in example inputs",
    "torch.nn.functional.multi_head_attention_forward": "has a rule for attention as a whole",
    "torch.nn.functional.scaled_dot_product_attention": "has a rule for attention as a whole",
    "torch.cuda.default_generators": "restores the state of random generators",
    "torch.default_generator": "restores the state of random generators",
}

# arguments that rules read by their position
ARGUMENTS = {
    "_cdist_forward": "x1 x2",
    "_trilinear": "i1 i2 i3 expand1 expand2 expand3 sumdim",
    "_weight_norm_interface": "v g",
    "_thnn_fused_gru_cell": "input_gates hidden_gates hx input_bias hidden_bias",
    "_thnn_fused_lstm_cell": "input_gates hidden_gates cx input_bias hidden_bias",
    "addmm": "self mat1 mat2",
    "cat": "tensors dim",
    "convolution": "input weight bias stride padding dilation transposed output_padding groups",
    "copy_": "self src",
    "embedding": "weight indices",
    "gather": "self dim index",
    "index": "self indices",
    "index_put": "self indices values",
    "index_select": "self dim index",
    "linear": "input weight bias",
    "mm": "self mat2",
    "native_batch_norm": "input weight bias running_mean running_var training momentum eps",
    "native_group_norm": "input weight bias N C HxW group eps",
    "native_layer_norm": "input normalized_shape weight bias eps",
    "constant_pad_nd": "self pad value",
    "slice": "self dim start end step",
}

CONTRACTS: dict[str, Callable[[ModuleType], bool]] = {}


def contract(sentence: str) -> Callable[[Callable[[ModuleType], bool]], Callable[[ModuleType], bool]]:
    """Register a check, given internals.py, of something that this sentence says."""

    def register(check: Callable[[ModuleType], bool]) -> Callable[[ModuleType], bool]:
        CONTRACTS[sentence] = check
        return check

    return register


def check_name(path: str) -> None:
    """Fail with a sentence if PyTorch has no such name."""
    found: object = torch
    for i, part in enumerate(path.split(".")[1:], 2):
        if not hasattr(found, part):
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(".".join(path.split(".")[:i]))
        if not hasattr(found, part):
            pytest.fail(
                f"PyTorch {torch.__version__} has no {path}, with which yoloprune {NAMES[path]}; "
                "yoloprune/graph/tracing/internals.py has to do it in another way."
            )
        found = getattr(found, part)


def check_contract(sentence: str) -> None:
    """Fail with the sentence if it is not true."""
    try:
        holds, why = CONTRACTS[sentence](importlib.import_module("yoloprune.graph.tracing.internals")), ""
    except Exception as error:
        holds, why = False, f" ({type(error).__name__}: {error})"
    if not holds:
        pytest.fail(
            f"In PyTorch {torch.__version__} it is no longer true that {sentence}{why}; "
            "yoloprune/graph/tracing/internals.py and what uses it have to follow."
        )


@contract("a dispatch mode sees every operator")
def _(internals: ModuleType) -> bool:
    class Seeing(internals.OperatorMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(internals.operator_name(func))
            return func(*args, **(kwargs or {}))

    seen: list[str] = []
    with torch.no_grad(), Seeing():
        (torch.ones(2, 2) @ torch.ones(2, 2)).relu_()
    return seen[-2:] == ["mm", "relu_"]


@contract("a dispatch mode may keep torch._dynamo out of its dispatch")
def _(internals: ModuleType) -> bool:
    def dispatch(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))

    mode = type("Plain", (internals.OperatorMode,), {"__torch_dispatch__": dispatch})
    return vars(mode)["__torch_dispatch__"] is dispatch


@contract("a function mode sees when code asks for a tensor's shape")
def _(internals: ModuleType) -> bool:
    class Answering(internals.FunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return "asked" if internals.is_shape_query(func) else func(*args, **(kwargs or {}))

    x = torch.ones(2, 3)
    with Answering():
        return x.shape == "asked" and x.size(1) == 3


@contract("nn.MultiheadAttention calls multi_head_attention_forward under a function mode")
def _(internals: ModuleType) -> bool:
    class Seeing(internals.FunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func.__name__)
            return func(*args, **(kwargs or {}))

    seen: list[str] = []
    x = torch.ones(1, 2, 4)
    with torch.no_grad(), Seeing():
        nn.MultiheadAttention(4, 2, batch_first=True).eval()(x, x, x)
        nn.TransformerEncoderLayer(4, 2, 4, batch_first=True).eval()(x)
        F.scaled_dot_product_attention(x, x, x)
    return seen.count("multi_head_attention_forward") == 2 and seen[-1] == "scaled_dot_product_attention"


@contract("multi_head_attention_forward has the arguments that its rule reads")
def _(internals: ModuleType) -> bool:
    needed = "query key value embed_dim_to_check num_heads in_proj_weight in_proj_bias bias_k bias_v out_proj_weight "
    needed += "out_proj_bias use_separate_proj_weight q_proj_weight k_proj_weight v_proj_weight average_attn_weights"
    return set(needed.split()) <= inspect.signature(F.multi_head_attention_forward).parameters.keys()


@contract("an operator's schema says its name, its arguments, their defaults and which it writes into")
def _(internals: ModuleType) -> bool:
    operator = torch.ops.aten.add_.Tensor
    own, other, alpha = internals.operator_arguments(operator)
    return (
        (internals.operator_name(operator), internals.qualified_name(operator)) == ("add_", "aten::add_.Tensor")
        and (own.name, own.written, own.has_default) == ("self", True, False)
        and (other.written, alpha.name, alpha.has_default, alpha.default) == (False, "alpha", True, 1)
        and internals.is_mutable(operator)
        and not internals.is_mutable(torch.ops.aten.add.Tensor)
    )


@contract("element-wise operators are tagged as such, and others are not")
def _(internals: ModuleType) -> bool:
    aten = torch.ops.aten
    elementwise = [aten.add.Tensor, aten.mul.Tensor, aten.relu.default, aten.sigmoid.default, aten.exp.default]
    others = [aten.mm.default, aten.cat.default, aten.sum.dim_IntList, aten._softmax.default, aten.cumsum.default]
    return all(map(internals.is_pointwise, elementwise)) and not any(map(internals.is_pointwise, others))


@contract("operators that draw random numbers are tagged as such")
def _(internals: ModuleType) -> bool:
    aten = torch.ops.aten
    random = [aten.rand.default, aten.bernoulli_.float, aten.native_dropout.default, aten.normal_.default]
    return all(map(internals.draws_random_numbers, random)) and not internals.draws_random_numbers(aten.mm.default)


@contract("operators whose results' shapes depend on values are tagged as such")
def _(internals: ModuleType) -> bool:
    aten = torch.ops.aten
    dynamic = [aten.nonzero.default, aten.masked_select.default]
    return all(map(internals.has_dynamic_shape, dynamic)) and not internals.has_dynamic_shape(aten.mm.default)


@contract("composite operators have a kernel that calls elementary ones")
def _(internals: ModuleType) -> bool:
    aten = torch.ops.aten
    kernel = internals.composite_kernel(aten.matmul.default)
    elementary = [aten.mm.default, aten.convolution.default, aten.native_batch_norm.default]
    product = kernel(torch.ones(2, 3), torch.ones(3, 4))
    return product.shape == (2, 4) and not any(map(internals.composite_kernel, elementary))


@contract("tree_leaves and tree_map go through lists, tuples and dictionaries")
def _(internals: ModuleType) -> bool:
    tree = [1, (2, {"a": 3})]
    return internals.leaves(tree) == [1, 2, 3] and internals.map_leaves(str, tree) == ["1", ("2", {"a": "3"})]


@contract("a view knows its base, and other tensors have none")
def _(internals: ModuleType) -> bool:
    base = torch.ones(4)
    return internals.view_base(base[1:].view(3, 1)) is base and internals.view_base(base) is None


@contract("a storage has an identity that its views share, and a weak reference knows when it is freed")
def _(internals: ModuleType) -> bool:
    x, other = torch.ones(4), torch.ones(4)
    weak = internals.StorageRef(x)
    same = internals.storage_id(x) == internals.storage_id(x[1:]) != internals.storage_id(other)
    lives = not weak.is_dead()
    del x
    return same and lives and weak.is_dead()


@contract("sparse and uninitialised tensors can be told from those with memory of their own")
def _(internals: ModuleType) -> bool:
    others = [torch.eye(2).to_sparse(), nn.LazyLinear(2).weight]
    return internals.has_own_memory(torch.ones(2)) and not any(map(internals.has_own_memory, others))


@contract("what a module keeps besides parameters, buffers and modules in dictionaries are hooks")
def _(internals: ModuleType) -> bool:
    containers = {name for name, value in vars(nn.Module()).items() if isinstance(value, dict)}
    return all(map(internals.is_hook_container, containers - {"_parameters", "_buffers", "_modules"}))


@contract("dropout on the CPU draws from the default generator")
def _(internals: ModuleType) -> bool:
    generator = internals.default_generators()[0]
    before = generator.get_state()
    F.dropout(torch.ones(64), 0.5)
    return not torch.equal(before, generator.get_state())


@contract("convolutions and norms derive from the classes whose attributes are updated")
def _(internals: ModuleType) -> bool:
    return (
        issubclass(nn.Conv1d, internals.ConvNd)
        and issubclass(nn.ConvTranspose2d, internals.ConvTransposeNd)
        and issubclass(internals.ConvTransposeNd, internals.ConvNd)
        and issubclass(nn.BatchNorm2d, internals.NormBase)
        and issubclass(nn.InstanceNorm2d, internals.NormBase)
        and issubclass(nn.SyncBatchNorm, internals.BatchNorm)
        and issubclass(internals.BatchNorm, internals.NormBase)
    )


@contract("a convolution knows its padding on all sides, the last dimension first")
def _(internals: ModuleType) -> bool:
    same = nn.Conv2d(1, 1, (3, 5), padding="same")
    return internals.padding_of(nn.Conv2d(1, 1, 3, padding=(1, 2))) == [2, 2, 1, 1] and (
        internals.padding_of(same) == [2, 2, 1, 1]
    )


@contract("products of many tensors can be added in one call")
def _(internals: ModuleType) -> bool:
    to = [torch.ones(2), torch.zeros(3)]
    internals.add_products(to, [torch.full((2,), 2.0), torch.ones(3)], [torch.full((2,), 3.0), torch.ones(3)], factor=2)
    return to[0].tolist() == [13.0, 13.0] and to[1].tolist() == [2.0, 2.0, 2.0]


@contract("the newest opset that can be written is a number that ONNX has reached")
def _(internals: ModuleType) -> bool:
    return 17 <= internals.newest_opset() < 100


@contract("every operator with a rule exists")
def _(internals: ModuleType) -> bool:
    import torchvision.ops  # noqa: F401  (it registers some)

    from yoloprune.graph.rules import RULES

    known = {schema.name.split("::")[-1] for schema in torch._C._jit_get_all_schemas()}
    if unknown := sorted(name for name in RULES if name not in known and f"{name}_" not in known):
        raise LookupError(f"there is no {', '.join(unknown)}")
    return True


@pytest.mark.contract
@pytest.mark.parametrize("path", NAMES)
def test_the_name_is_there(path: str) -> None:
    check_name(path)


@pytest.mark.contract
@pytest.mark.parametrize("sentence", CONTRACTS)
def test_it_is_still_true_that(sentence: str) -> None:
    check_contract(sentence)


@pytest.mark.contract
@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_stand_where_the_rules_read_them(name: str) -> None:
    packet = getattr(torch.ops.aten, name)
    names = [a.name for a in getattr(packet, packet.overloads()[0])._schema.arguments]
    expected = ARGUMENTS[name].split()
    assert names[: len(expected)] == expected, (
        f"In PyTorch {torch.__version__} the arguments of aten::{name} are {names}, but its rule reads {expected}; "
        "yoloprune/graph/rules has to follow."
    )


@pytest.mark.parametrize("path", NAMES)
def test_a_name_that_is_gone_is_told_in_a_sentence(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_name(path)
    parent, _, name = path.rpartition(".")
    monkeypatch.delattr(_resolve(parent), name)
    with pytest.raises(pytest.fail.Exception, match=rf"has no {path}, with which yoloprune {NAMES[path]}; "):
        check_name(path)


def _resolve(path: str) -> object:
    found: object = torch
    for part in path.split(".")[1:]:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("target", "replacement", "sentence"),
    [
        (
            "torch._C._dispatch_has_kernel_for_dispatch_key",
            lambda name, key: False,
            "composite operators have a kernel that calls elementary ones",
        ),
        (
            "torch.multiprocessing.reductions.StorageWeakRef.expired",
            lambda self: False,
            "a storage has an identity that its views share, and a weak reference knows when it is freed",
        ),
        (
            "torch.nn.functional.multi_head_attention_forward",
            lambda query, key, value: None,
            "multi_head_attention_forward has the arguments that its rule reads",
        ),
    ],
)
def test_what_is_no_longer_true_is_told_in_a_sentence(target, replacement, sentence, monkeypatch) -> None:
    check_contract(sentence)
    monkeypatch.setattr(target, replacement)
    with pytest.raises(pytest.fail.Exception, match=rf"^In PyTorch {torch.__version__.split('+')[0]}.*{sentence}"):
        check_contract(sentence)


def test_every_name_that_internals_imports_is_checked() -> None:
    imports = [node for node in ast.walk(ast.parse(INTERNALS.read_text())) if isinstance(node, ast.ImportFrom)]
    found = {f"{node.module}.{a.name}" for node in imports if node.module.startswith("torch.") for a in node.names}
    assert found <= NAMES.keys()


def test_private_names_of_torch_stand_in_internals_only() -> None:
    used = {}
    for path in (PACKAGE / "graph").rglob("*.py"):
        if path == INTERNALS:
            continue
        tree = ast.parse(path.read_text())
        own = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
        own |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        own |= {n.target.id for n in ast.walk(tree) if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
        names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)} - own - {"_replace"}  # of NamedTuple
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("torch"):
                names |= {*node.module.split("."), *(a.name for a in node.names)}
        if private := sorted(n for n in names if n.startswith("_") and not n.startswith("__")):
            used[path.name] = private
    assert not used


def test_no_other_package_takes_private_names_from_torch() -> None:
    used = []
    for path in PACKAGE.rglob("*.py"):
        if path == INTERNALS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            dotted = ""
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
                dotted = " ".join([node.module, *(alias.name for alias in node.names)])
            elif isinstance(node, ast.Attribute) and re.fullmatch(r"(torch|nn)[\w.]+", ast.unparse(node)):
                dotted = ast.unparse(node)
            parts = dotted.replace(" ", ".").split(".")
            if any(part.startswith("_") and not part.startswith("__") for part in parts):
                used.append(f"{path.name}: {dotted}")
    assert not used
