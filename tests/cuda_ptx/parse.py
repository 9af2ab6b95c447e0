"""Reads PTX as nvcc writes it: kernels, their parameters, registers, shared memory and instructions, each with its line.

Knows the grammar alone: what an instruction means is in emit.py. What it does not understand is an error, never skipped.
"""
import re
from dataclasses import dataclass, field


class Unknown(Exception):
    """Something that is not understood; the place is in the text."""


@dataclass
class Instruction:
    line: int
    text: str
    guard: str  # a predicate register, or ""
    guard_not: bool
    name: str  # with all that stands behind its dots
    operands: list


@dataclass
class Label:
    line: int
    name: str


@dataclass
class Variable:
    """A piece of shared memory; size 0: what the launch gives."""
    name: str
    align: int
    size: int


@dataclass
class Kernel:
    name: str
    line: int
    parameters: dict  # name -> (offset, bytes)
    parameter_bytes: int
    most_threads: int  # 0: nothing said
    registers: dict = field(default_factory=dict)  # C++ name -> type, in their order
    shared: list = field(default_factory=list)
    body: list = field(default_factory=list)


BYTES = {"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "b32": 4, "u32": 4, "s32": 4, "f32": 4, "b64": 8, "u64": 8, "s64": 8, "f64": 8}
REGISTER_TYPES = {"pred", "b16", "u16", "s16", "b32", "u32", "s32", "f32", "b64", "u64", "s64", "f64"}
VARIABLE = re.compile(r"\.(?:align (\d+) )?\.?(\w+) ([\w$]+)(?:\[(\d*)\])?$")


def plain(text):
    """Without comments, all lines in their place."""
    text = re.sub(r"/\*.*?\*/", lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def split_operands(text):
    """At commas that no brackets hold together."""
    parts, depth, begin = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "{[(") - (c in "}])")
        if c == "," and depth == 0:
            parts.append(text[begin:i].strip())
            begin = i + 1
    last = text[begin:].strip()
    return parts + [last] if last else parts


def variable_of(text, where):
    """`.align 4 .b8 name[128]` and `.align 4 .u32 name`."""
    found = VARIABLE.match(" ".join(text.split()))
    if not found or found[2] not in BYTES:
        raise Unknown(f"{where}: a declaration that is not understood: {text}")
    count = 1 if found[4] is None else int(found[4] or 0)
    return Variable(found[3], int(found[1] or BYTES[found[2]]), BYTES[found[2]] * count)


class Body:
    """The statements between the braces of a kernel."""

    def __init__(self, kernel, path):
        self.kernel, self.path = kernel, path
        self.scopes, self.n_scopes = [{}], 0  # PTX name -> C++ name, innermost last

    def declare_register(self, text, where):
        found = re.match(r"\.reg \.(\w+)\s+(.+)$", " ".join(text.split()))
        if not found or found[1] not in REGISTER_TYPES:
            raise Unknown(f"{where}: registers that are not understood: {text}")
        for name in split_operands(found[2]):
            many = re.match(r"(%[\w$]+)<(\d+)>$", name)
            names = [f"{many[1]}{i}" for i in range(int(many[2]))] if many else [name]
            for one in names:
                inner = f"_{self.n_scopes}" if len(self.scopes) > 1 else ""
                own = "R" + one.lstrip("%").replace("$", "_") + inner
                self.scopes[-1][one] = own
                self.kernel.registers[own] = found[1]

    def rename(self, text):
        """Registers by their C++ names, marked by %."""
        def own(found):
            for scope in reversed(self.scopes):
                if found[0] in scope:
                    return "%" + scope[found[0]]
            return found[0]
        return re.sub(r"%[\w$]+", own, text)

    def statement(self, text, line):
        where = f"{self.path}:{line}"
        text = " ".join(text.split())
        if text.startswith(".reg"):
            self.declare_register(text, where)
        elif text.startswith(".shared"):
            self.kernel.shared.append(variable_of(text[len(".shared "):], where))
        elif text.startswith(".pragma "):
            pass  # wishes about loops, and which bytes of a wide load somebody looks at
        elif text.startswith("."):
            raise Unknown(f"{where}: a directive that is not understood: {text}")
        else:
            found = re.match(r"(?:@(!?)(%[\w$]+) )?([a-z][\w.:]*) ?(.*)$", self.rename(text))
            if not found:
                raise Unknown(f"{where}: a statement that is not understood: {text}")
            guard = found[2] or ""
            self.kernel.body.append(Instruction(line, text, guard, found[1] == "!", found[3], split_operands(found[4])))

    def read(self, text, line):
        """Statements end with a semicolon, labels with a colon; braces where a statement could begin are scopes."""
        begin = i = 0
        while i < len(text):
            c = text[i]
            fresh = not text[begin:i].strip()
            if c == "{" and fresh:
                self.scopes.append({})
                self.n_scopes += 1
                line, begin = line + text.count("\n", begin, i), i + 1
            elif c == "}" and fresh:
                self.scopes.pop()
                line, begin = line + text.count("\n", begin, i), i + 1
            elif c == ";":
                lead = len(text[begin:i]) - len(text[begin:i].lstrip())
                at = line + text.count("\n", begin, begin + lead)
                self.statement(text[begin:i].strip(), at)
                line, begin = line + text.count("\n", begin, i), i + 1
            elif c == ":" and re.fullmatch(r"\s*[A-Za-z_$][\w$]*", text[begin:i]):
                line, name = line + text.count("\n", begin, i), text[begin:i].strip()
                self.kernel.body.append(Label(line, name))
                begin = i + 1
            i += 1
        if text[begin:].strip() or len(self.scopes) != 1:
            raise Unknown(f"{self.path}:{line}: {self.kernel.name} does not end where it should")


def matching(text, at, opening, closing):
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] == opening) - (text[i] == closing)
        if depth == 0:
            return i
    raise Unknown(f"a {opening} that is never closed")


def read_parameters(kernel, text, where):
    offset = 0
    for one in split_operands(text):
        declared = variable_of(re.sub(r"^\.param ", "", " ".join(one.split())), where)
        offset = (offset + declared.align - 1) // declared.align * declared.align
        kernel.parameters[declared.name] = (offset, declared.size)
        offset += declared.size
    kernel.parameter_bytes = offset


MODULE = re.compile(
    r"\s*(?:\.version [\d.]+|\.target (?P<target>\w+)|\.address_size 64|(?P<shared>(?:\.extern |\.visible |\.weak )*\.shared (?P<what>[^;]*);)"
    r"|(?:\.visible |\.weak )*\.entry (?P<entry>[\w$]+)\()")


def read_module(path):
    """The kernels of a file."""
    text, at, globals_, kernels = plain(path.read_text()), 0, [], []
    while text[at:].strip():
        found = MODULE.match(text, at)
        line = text.count("\n", 0, found.start() if found else at) + 1
        if not found:
            raise Unknown(f"{path}:{line}: not understood: {text[at:].strip().splitlines()[0]}")
        at = found.end()
        if found["shared"]:
            globals_.append(variable_of(found["what"], f"{path}:{line}"))
        if not found["entry"]:
            continue
        line = text.count("\n", 0, at) + 1
        closed = matching(text, at - 1, "(", ")")
        opened = text.index("{", closed)
        ended = matching(text, opened, "{", "}")
        kernel = Kernel(found["entry"], line, {}, 0, 0)
        read_parameters(kernel, text[at:closed], f"{path}:{line}")
        for directive in text[closed + 1:opened].split("\n"):
            limit = re.match(r"\s*\.maxntid (\d+), (\d+), (\d+)\s*$", directive)
            if limit:
                kernel.most_threads = int(limit[1]) * int(limit[2]) * int(limit[3])
            elif directive.strip() and not re.match(r"\s*\.minnctapersm \d+\s*$", directive):
                raise Unknown(f"{path}:{line}: a directive that is not understood: {directive.strip()}")
        body = text[opened + 1:ended]
        Body(kernel, path).read(body, text.count("\n", 0, opened + 1) + 1)
        kernel.shared += [one for one in globals_ if re.search(r"(?<![\w$])" + re.escape(one.name) + r"(?![\w$])", body)]
        kernels.append(kernel)
        at = ended + 1
    return kernels
