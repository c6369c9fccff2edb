"""Read what `torch.save` wrote without running anything that the file names.

`torch.load(weights_only=True)` keeps its allow-list in a global of the process, which any thread and package may add
to, and calls what is on it with the file's own arguments. Here the list belongs to the call, and a file cannot call a
class: it gets an empty instance and sets its attributes, which is all that a pickled module needs. What a file names is
never a value of the result, so the result holds nothing that could be called later. Sizes are checked before memory is
taken.
"""

from __future__ import annotations

import enum
import io
import math
import pickletools
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from yoloprune.errors import UserError
from yoloprune.files import check_regular

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LEGACY_MAGIC", "Find", "ForeignNameError", "LegacyFile", "TorchArchive", "damaged", "names_in", "read"]

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle of `torch.save` before PyTorch 1.6."""

Find = Callable[[str], Any]
"""From a dotted name to the class that a file may have empty instances of, or the function that it may call, which must
check its arguments; None for all others."""

_LARGEST_FILE = 2 << 30  # bytes
_LARGEST_PICKLE = 8 << 20  # bytes; the largest detector, YOLOv9e, has half a megabyte and 200,000 operations
_MOST_OPERATIONS = 400_000
_LARGEST_DIRECTORY = 16 << 20  # bytes that a zip archive's list of records may have
_MOST_VALUES = 2_000_000  # in all containers, as many as there were if none was shared
_DEEPEST = 100  # containers and modules inside one another; networks have about 30
_SPARE = 64 << 20  # bytes that tensors may take, each with memory of its own, beyond twice the file's size

_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.storage.UntypedStorage": torch.uint8,
}
_PLAIN = (str, int, float, bool, type(None))  # the only keys: hashing a deep tuple overflows the process's stack
_HOOKS = ("forward", "forward_pre", "backward", "backward_pre", "state_dict", "state_dict_pre")
_HOOKS += ("load_state_dict_pre", "load_state_dict_post")

_TAKEN = {"forward", "type"}  # methods whose place attributes take: forward_fuse of fused modules, and a class's name


class ForeignNameError(UserError):
    """A file names, or calls, what it may not.

    Attributes:
        what: "names 'posix.system'" for `os.system`, as pickles have it.
    """

    def __init__(self, path: str | Path, what: str):
        super().__init__(f"'{path}' {what}, which may run any code: refused.")
        self.what = what


def read(path: str | Path, find: Find = lambda name: None, *, legacy: bool = False) -> Any:
    """Read a file of `torch.save`: tensors, numbers, text, containers, and what `find` knows.

    Args:
        path: A zip archive, as `torch.save` writes it since PyTorch 1.6.
        find: What the file may name beyond tensors.
        legacy: Whether it is instead the row of pickles that `torch.save` wrote before.

    Returns:
        What was saved, on the CPU.

    Raises:
        ForeignNameError: The file names something else.
        UserError: It is no such archive, truncated, damaged, or larger than any detector's.
        OSError: There is no such file, or it cannot be read.
    """
    with (LegacyFile if legacy else TorchArchive).open(path) as archive, damaged(path):
        return _Unpickler(archive, find).load()


def names_in(path: str | Path, *, legacy: bool = False) -> list[str]:
    """The dotted names in the pickle of a file of `torch.save`, in order; nothing is built.

    Raises:
        UserError: As `read`.
    """
    with (LegacyFile if legacy else TorchArchive).open(path) as archive, damaged(path):
        return list(dict.fromkeys(_dotted(arg) for op, arg in _operations(archive) if op == "GLOBAL"))


@contextmanager
def damaged(path: str | Path) -> Iterator[None]:
    """Within the block, which parses bytes that may be anything, whatever goes wrong means a damaged file.

    Raises:
        UserError: Something went wrong.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"'{path}' is truncated or damaged; copy or download it again.") from error


class _CheckpointFile:
    """A file that `torch.save` wrote, open.

    Attributes:
        path: The file.
        size: Its size in bytes.
    """

    def __init__(self, path: Path, file: BinaryIO):
        self.path = path
        self.size = file.seek(0, io.SEEK_END)
        if self.size > _LARGEST_FILE:
            raise UserError(f"'{path}' has {self.size / 2**30:.1f} GiB, more than the checkpoint of any detector.")

    @classmethod
    @contextmanager
    def open(cls, path: str | Path) -> Iterator[Self]:
        """Open the file for the time of a block.

        Raises:
            UserError: It is not what `torch.save` writes in this format, or larger than any detector's.
            OSError: There is no such file, or it cannot be read.
        """
        path = Path(path)
        check_regular(path)
        with path.open("rb") as file:
            with damaged(path):
                archive = cls(path, file)
            yield archive


class TorchArchive(_CheckpointFile):
    """The zip archive of a checkpoint, in which every record is stored as it is.

    Attributes:
        path: The file.
        size: Its size in bytes.
        records: Its records by name, without the folder that all of them are in.
    """

    def __init__(self, path: Path, file: BinaryIO):
        super().__init__(path, file)
        if _directory_size(file, self.size) > _LARGEST_DIRECTORY:
            raise UserError(f"'{path}' is a zip archive but not a PyTorch checkpoint.")
        self._zip = zipfile.ZipFile(file)
        entries = self._zip.infolist()
        self.records = {entry.filename.partition("/")[2]: entry for entry in entries}
        if "constants.pkl" in self.records:
            raise UserError(
                f"'{path}' is a TorchScript archive, which cannot be pruned; give the .pt it was exported from."
            )
        if "data.pkl" not in self.records:
            raise UserError(f"'{path}' is a zip archive but not a PyTorch checkpoint.")
        if any(entry.compress_type or entry.compress_size != entry.file_size for entry in entries):
            raise UserError(f"'{path}' is a compressed archive, which PyTorch never writes.")
        if sum(entry.file_size for entry in entries) > self.size:
            raise UserError(f"'{path}' declares more bytes than it has; PyTorch did not write it.")

    def read(self, name: str, most: int = _LARGEST_FILE) -> bytes:
        """The content of a record of at most `most` bytes, whose checksum must be right."""
        entry = self.records[name]
        if entry.file_size > most:
            raise UserError(f"'{self.path}' has {name} of {entry.file_size} bytes, more than any checkpoint.")
        return self._zip.read(entry)

    def pickle(self) -> bytes:
        """The pickle, which names the tensors' memories."""
        if "byteorder" in self.records and self.read("byteorder", 16).decode() != sys.byteorder:
            raise UserError(f"'{self.path}' is from a machine of another byte order; save it anew on this one.")
        return self.read("data.pkl", _LARGEST_PICKLE)

    def memory(self, key: str, size: int) -> Tensor:
        """The memory of tensors that has this key: bytes, at least `size` of them."""
        content = self.read(f"data/{key}")
        values = torch.empty(len(content), dtype=torch.uint8)  # aligned as torch's are, which decides the last bits
        values.numpy()[:] = np.frombuffer(content, np.uint8)
        return values

    def finish(self) -> None:
        """Called once the pickle is read."""

    def check_sums(self) -> None:
        """Compare the checksums of all records; `read` does it for one, and torch for none.

        Raises:
            zipfile.BadZipFile: One is wrong.
        """
        if self._zip.testzip():
            raise zipfile.BadZipFile


class LegacyFile(_CheckpointFile):
    """What `torch.save` wrote before PyTorch 1.6: pickles in a row, and behind them the memories of tensors.

    Attributes:
        path: The file.
        size: Its size in bytes.
    """

    def __init__(self, path: Path, file: BinaryIO):
        super().__init__(path, file)
        self._file = file
        self._memories: dict[str, Tensor] = {}
        self._ends = [0]
        for _ in range(5):  # magic number, protocol, the machine, what was saved, keys of memories in their order
            file.seek(self._ends[-1])
            first = file.read(_LARGEST_PICKLE)
            *_, (_, _, stop) = pickletools.genops(first)
            self._ends.append(self._ends[-1] + stop + 1)

    def pickle(self) -> bytes:
        """The pickle of what was saved."""
        return self._part(3)

    def _part(self, number: int) -> bytes:
        self._file.seek(self._ends[number])
        return self._file.read(self._ends[number + 1] - self._ends[number])

    def memory(self, key: str, size: int) -> Tensor:
        """The memory of tensors that has this key: `size` bytes, which `finish` fills."""
        if size > self.size - sum(map(len, self._memories.values())):
            raise ValueError
        self._memories[key] = torch.zeros(size, dtype=torch.uint8)
        return self._memories[key]

    def finish(self) -> None:
        """Fill the memories, which follow the pickles, each behind the number of its values."""
        keys = [arg for operation, arg, _ in pickletools.genops(self._part(4)) if operation.name == "BINUNICODE"]
        if sorted(keys) != sorted(self._memories):
            raise ValueError
        self._file.seek(self._ends[5])
        for key in keys:
            memory = self._memories[key]
            (count,) = struct.unpack("<q", self._file.read(8))
            content = self._file.read(len(memory))
            if count <= 0 < len(memory) or len(memory) % max(count, 1) or len(content) != len(memory):
                raise ValueError
            memory.numpy()[:] = np.frombuffer(content, np.uint8)


def _directory_size(file: BinaryIO, size: int) -> int:
    """Declared bytes of a zip archive's list of records, which `zipfile` reads at once."""
    file.seek(max(0, size - (1 << 16) - 22))  # the longest comment, and the record that ends the archive
    tail = file.read()
    end = tail.rindex(b"PK\5\6")
    (declared,) = struct.unpack_from("<L", tail, end + 12)
    wide = tail.rfind(b"PK\6\6", 0, end)
    return declared if wide < 0 else max(declared % 0xFFFFFFFF, *struct.unpack_from("<Q", tail, wide + 40))


def _operations(archive: TorchArchive | LegacyFile) -> Iterator[tuple[str, Any]]:
    """The operations of the pickle, each with its argument."""
    operations = pickletools.genops(archive.pickle())
    for number, (operation, arg, _) in enumerate(operations):
        if number > _MOST_OPERATIONS:
            raise UserError(f"'{archive.path}' has a pickle longer than any checkpoint's.")
        yield operation.name, arg


def _dotted(arg: str) -> str:
    """The name that a GLOBAL operation has as "module name", in Python 2's names as protocol 2 asks."""
    return arg.replace("__builtin__ ", "builtins ").replace(" ", ".", 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Name:
    """What a file has named: neither callable nor iterable, so that only the unpickler can do something with it."""

    text: str
    found: Any


@dataclass(frozen=True, slots=True, eq=False)
class _Storage:
    """The memory of tensors, which the pickle refers to by the name of a record."""

    memory: torch.UntypedStorage
    dtype: torch.dtype


@dataclass
class _Unpickler:
    """The operations of pickle protocol 2 that `torch.save` needs; the names are those of `pickletools`."""

    archive: TorchArchive | LegacyFile
    find: Find
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)  # the stacks under each mark
    memo: dict[int, Any] = field(default_factory=dict)
    made: dict[int, Any] = field(default_factory=dict)  # instances that get attributes, by identity
    memories: dict[str, torch.UntypedStorage] = field(default_factory=dict)
    taken: int = 0  # bytes of all tensors, had each memory of its own

    def load(self) -> Any:
        self._run()
        self.archive.finish()
        (value,) = self.stack
        self._check(value, {}, 0)
        return value

    def _run(self) -> None:
        for operation, arg in _operations(self.archive):
            match operation:
                case "BINGET" | "LONG_BINGET":
                    self.stack.append(self.memo[arg])
                case "BINPUT" | "LONG_BINPUT":
                    self.memo[arg] = self.stack[-1]
                case "BININT1" | "BININT2" | "BININT" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                    self.stack.append(arg)
                case "REDUCE":
                    self._reduce(*self._take(2))
                case "EMPTY_TUPLE":
                    self.stack.append(())
                case "MARK":
                    self.below.append(self.stack)
                    self.stack = []
                case "EMPTY_DICT":
                    self.stack.append({})
                case "TUPLE":
                    items = self._marked()
                    self.stack.append(tuple(items))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    items = self._take(int(operation[-1]))
                    self.stack.append(tuple(items))
                case "NEWTRUE" | "NEWFALSE":
                    self.stack.append(operation == "NEWTRUE")
                case "SETITEMS":
                    self._set_items(self._marked())
                case "SETITEM":
                    self._set_items(self._take(2))
                case "BINPERSID":
                    self._persistent(*self.stack.pop())
                case "NONE":
                    self.stack.append(None)
                case "EMPTY_LIST":
                    self.stack.append([])
                case "NEWOBJ":
                    self._new(*self._take(2))
                case "BUILD":
                    self._build(self.stack.pop())
                case "APPENDS":
                    self._extend(self._marked())
                case "APPEND":
                    self._extend(self._take(1))
                case "GLOBAL":
                    self._global(_dotted(arg))
                case "PROTO" | "STOP":
                    pass
                case _:
                    raise ForeignNameError(self.archive.path, f"has the pickle operation {operation}")

    def _take(self, number: int) -> list[Any]:
        items = self.stack[-number:]
        del self.stack[-number:]
        return items

    def _marked(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        _expect(self.stack[-1], list).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = _expect(self.stack[-1], dict, OrderedDict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_expect(key, *_PLAIN)] = value

    def _global(self, name: str) -> None:
        if name in _DTYPES:
            self.stack.append(_DTYPES[name])
            return
        found = _STORAGES.get(name) or _CALLS.get(name) or self.find(name)
        if found is None:
            raise ForeignNameError(self.archive.path, f"names '{name}'")
        self.stack.append(_Name(name, found))

    def _reduce(self, name: _Name, args: tuple[Any, ...]) -> None:
        found, args = _expect(name, _Name).found, _expect(args, tuple)
        if found in (_Unpickler._tensor, _Unpickler._parameter):
            self.stack.append(found(self, *args))
        elif isinstance(found, type) and not issubclass(found, enum.Enum):
            self._new(name, args)  # SimpleNamespace writes a call without arguments
        else:
            self.stack.append(found(*args))

    def _new(self, name: _Name, args: tuple[Any, ...]) -> None:
        found = _expect(name, _Name).found
        if not isinstance(found, type) or _expect(args, tuple):
            raise ForeignNameError(self.archive.path, f"calls '{name.text}'")
        value = found.__new__(found)
        self.made[id(value)] = value
        self.stack.append(value)

    def _build(self, state: Any) -> None:
        value = self.stack[-1]
        if type(value) is OrderedDict:
            value._metadata = state["_metadata"]  # a state_dict's versions of modules
        elif isinstance(value, np.dtype):
            if state[1] not in ("<", "|", "="):
                raise ValueError
        elif isinstance(value, np.ndarray):
            _set_values(value, *state)
        elif self.made.get(id(value)) is value:
            _set_attributes(value, state)
        else:
            raise TypeError

    def _persistent(self, kind: str, name: _Name, key: str, location: str, count: int = 0, view: None = None) -> None:
        if kind == "module":  # before PyTorch 1.6: a class, with the source that it had
            self.stack.append(_expect(name, _Name))
            return
        dtype = _STORAGES[_expect(name, _Name).text]
        size = _expect(count, int) * dtype.itemsize
        if key not in self.memories:
            self.memories[_expect(key, str)] = self.archive.memory(key, size).untyped_storage()
        if kind != "storage" or view is not None or not 0 <= size <= self.memories[key].nbytes():
            raise ValueError
        self.stack.append(_Storage(self.memories[key], dtype))

    def _tensor(
        self, storage: _Storage, offset: int, size: Any, stride: Any, grad: bool, hooks: Any, *more: Any
    ) -> Tensor:
        """`torch._utils._rebuild_tensor_v2`, and `_v3`, which adds a dtype; bounds are checked here."""
        dtype = next((value for value in more if isinstance(value, torch.dtype)), storage.dtype)
        size, stride = tuple(size), tuple(stride)
        if any(type(number) is not int or number < 0 for number in (offset, *size, *stride)):
            raise ValueError
        last = offset + sum((number - 1) * step for number, step in zip(size, stride, strict=True))
        self.taken += math.prod(size) * dtype.itemsize
        if (last + 1 if all(size) else 0) * dtype.itemsize > storage.memory.nbytes():
            raise ValueError
        if self.taken > 2 * self.archive.size + _SPARE:
            raise UserError(f"'{self.archive.path}' has tensors larger than the file; PyTorch did not write it.")
        return torch.empty(0, dtype=dtype).set_(storage.memory, offset, size, stride).requires_grad_(grad is True)

    def _parameter(self, data: Tensor, grad: bool, hooks: Any, state: Any = None) -> nn.Parameter:
        """`torch._utils._rebuild_parameter`, and `_rebuild_parameter_with_state`, which adds attributes."""
        parameter = nn.Parameter(_expect(data, Tensor), requires_grad=grad is True)
        if state:
            _set_attributes(parameter, state)
        return parameter

    def _check(self, value: Any, counts: dict[int, int | None], depth: int) -> int:
        """Check a value and all in it, and count the values that it would have if none was shared.

        A list that holds another twice, which holds another twice, … takes 20 bytes for each doubling, and no program
        can print it.
        """
        if isinstance(value, (_Name, _Storage)):
            raise TypeError  # no network has a class for an attribute
        shared = isinstance(value, (list, tuple, set, dict))
        if not shared and id(value) not in self.made:
            return 1
        if id(value) in counts:
            if shared and counts[id(value)] is None:
                raise RecursionError
            return counts[id(value)] or 1
        if depth > _DEEPEST:
            raise RecursionError
        counts[id(value)] = None
        if isinstance(value, nn.Module):
            _check_module(vars(value))
        items = (value if not isinstance(value, dict) else value.values()) if shared else vars(value).values()
        count = 1 + sum(self._check(item, counts, depth + 1) for item in items)
        if count > _MOST_VALUES:
            raise OverflowError
        counts[id(value)] = count if shared else 1  # instances are visited once
        return counts[id(value)]


def _expect(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise TypeError
    return value


def _set_attributes(value: Any, state: Any) -> None:
    """Give an instance its attributes, none of which may take the place of a method."""
    if isinstance(state, tuple) and len(state) == 2 and state[1] is None:  # nothing in slots
        state = state[0]
    for name in _expect(state, dict):
        own = getattr(type(value), _expect(name, str), None)
        if name.startswith("__") or (callable(own) and name not in _TAKEN):
            raise TypeError
    if hasattr(type(value), "__setstate__"):
        type(value).__setstate__(value, state)
    else:
        vars(value).update(state)


def _set_values(
    array: np.ndarray, version: int, shape: tuple[int, ...], dtype: np.dtype, order: bool, content: Any
) -> None:
    """Give an array of NumPy, which a file has made without values, its numbers."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(content, bytes):
        raise TypeError
    array.__setstate__((1, _expect(shape, tuple), dtype, order is True, content))


def _check_module(attributes: dict[str, Any]) -> None:
    """Check that a module's own dictionaries hold what torch takes for granted in them, and no hooks."""
    for name, kind in (("_parameters", nn.Parameter), ("_buffers", Tensor), ("_modules", nn.Module)):
        for key, value in _expect(attributes[name], dict, OrderedDict).items():
            if not (isinstance(key, str) and (value is None or isinstance(value, kind))):
                raise TypeError
    if any(_expect(attributes.get(f"_{name}_hooks", {}), dict, OrderedDict) for name in _HOOKS):
        raise TypeError


def _ordered() -> OrderedDict:
    return OrderedDict()


def _set(items: list[Any]) -> set[Any]:
    return {_expect(item, *_PLAIN) for item in items}


def _size(size: tuple[int, ...]) -> torch.Size:
    return torch.Size(_expect(size, tuple))


def _device(*args: Any) -> torch.device:
    return torch.device("cpu")


def _encode(text: str, encoding: str) -> bytes:
    return _expect(text, str).encode({"latin1": "latin1"}[encoding])


_CALLS: dict[str, Any] = {
    "collections.OrderedDict": _ordered,
    "builtins.set": _set,
    "torch.Size": _size,
    "torch.device": _device,
    "_codecs.encode": _encode,  # how protocol 2 writes bytes
    "torch._utils._rebuild_tensor_v2": _Unpickler._tensor,
    "torch._utils._rebuild_tensor_v3": _Unpickler._tensor,
    "torch._utils._rebuild_parameter": _Unpickler._parameter,
    "torch._utils._rebuild_parameter_with_state": _Unpickler._parameter,
}
