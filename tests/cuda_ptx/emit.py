"""What each instruction of PTX is in C++: one statement, by small functions of machine.h.

Written from the PTX ISA. An instruction, a modifier or a mix of types that is not listed here is an error: nothing is guessed.
"""
import re

from parse import BYTES, Unknown

C = {"pred": "bool", "b8": "uint8_t", "u8": "uint8_t", "s8": "int8_t", "b16": "uint16_t", "u16": "uint16_t", "s16": "int16_t", "b32": "uint32_t", "u32": "uint32_t",
     "s32": "int32_t", "f32": "float", "b64": "uint64_t", "u64": "uint64_t", "s64": "int64_t", "f64": "double"}
UNSIGNED = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t"}
WIDER = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}
FLOATS = {"f32", "f64"}
SIGNED = {"s8", "s16", "s32", "s64"}
WHOLE = {"u16", "u32", "u64", "s16", "s32", "s64"}
BITS = {"b16", "b32", "b64"}
SPECIAL = {f"%{name}.{axis}": f"v.{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"} | {"%laneid": "v.laneid"}
# How a cache is to treat an access: nothing that a result shows.
CACHE = {"ca", "cg", "cs", "cv", "lu", "wb", "wt", "nc"}
ORDER = {"weak", "volatile", "relaxed", "acquire", "release", "cta", "gpu", "sys"}


class Writer:
    """Statements of one kernel."""

    def __init__(self, kernel, path, addresses):
        self.kernel, self.path, self.addresses = kernel, path, addresses  # addresses: of shared variables
        self.n_sites, self.labels = 0, set()
        self.traffic = 0, 0  # bytes of global memory that the last statement reads and writes

    def fail(self, why):
        raise Unknown(f"{self.path}:{self.at.line}: {why}: {self.at.text}")

    def need(self, ok, why="not understood"):
        if not ok:
            self.fail(why)

    # ---- operands ----

    def kind(self, operand):
        return self.kernel.registers.get(operand[1:]) if operand.startswith("%") else None

    def width(self, kind):
        return 0 if kind == "pred" else BYTES[kind]

    def value(self, operand, kind, narrow=False):
        """An operand as a value of the type; narrow: a register may be wider than that."""
        if operand.startswith("!"):
            self.need(kind == "pred")
            return "!" + self.value(operand[1:], kind)
        if operand in SPECIAL:
            self.need(kind in ("u32", "b32"))
            return SPECIAL[operand]
        held, name = self.kind(operand), operand[1:]
        if held:
            if narrow and held not in FLOATS and kind not in FLOATS and self.width(held) > self.width(kind) > 0:
                return f"({C[kind]}){name}"
            self.need(self.width(held) == self.width(kind) and (held == "pred") == (kind == "pred"), "a register of another size")
            if kind in FLOATS or held in FLOATS:
                return name if kind == held else f"bits<{C[kind]}>({name})"
            return f"({C[kind]}){name}" if kind in SIGNED else name
        return self.constant(operand, kind)

    def constant(self, operand, kind):
        hexes = re.fullmatch(r"0([fd])([0-9A-Fa-f]+)", operand)
        if hexes and kind in FLOATS:
            self.need((hexes[1], len(hexes[2])) == (("f", 8) if kind == "f32" else ("d", 16)))
            return f"bits<{C[kind]}>(0x{hexes[2]}{'u' if kind == 'f32' else 'ull'})"
        if kind == "pred":
            self.need(operand in ("0", "1", "-1"))
            return "false" if operand == "0" else "true"
        if kind not in FLOATS and re.fullmatch(r"-?\d+|0x[0-9A-Fa-f]+", operand):
            number = int(operand, 0)
            bits = 8 * BYTES[kind]
            self.need(-(1 << bits - 1) <= number < 1 << bits, "a number that its type does not hold")
            return f"({C[kind]}){number % (1 << bits)}ull"
        if operand in self.addresses and kind in ("u32", "b32"):
            return f"{self.addresses[operand]}u"
        if operand in self.kernel.parameters and kind in ("u64", "b64"):
            return f"parameter_address(v, {self.kernel.parameters[operand][0]})"
        self.fail(f"an operand that is not understood, {operand}")

    def put(self, operand, kind, expression, wide=False):
        """The statement that gives a register a value of the type; wide: the register may be wider, by the type's sign."""
        if operand == "_":
            return f"(void)({expression});"
        held, name = self.kind(operand), operand[1:]
        self.need(held is not None, "no register to write")
        if kind == "pred" or held == "pred":
            self.need(kind == held)
            return f"{name} = {expression};"
        if self.width(held) != self.width(kind):
            self.need(wide and held not in FLOATS and kind not in FLOATS and self.width(held) > self.width(kind), "a register of another size")
            return f"{name} = ({C[held]})({C[kind]})({expression});"
        if kind in FLOATS or held in FLOATS:
            return f"{name} = {expression};" if kind == held else f"{name} = bits<{C[held]}>(({C[kind]})({expression}));"
        return f"{name} = ({C[held]})({expression});"

    def elements(self, operand):
        return [one.strip() for one in operand[1:-1].split(",")] if operand.startswith("{") else [operand]

    def address(self, operand, kind):
        """Register and offset, or symbol and offset, as a number."""
        found = re.fullmatch(r"\[([%\w$]+)\s*(?:\+\s*(-?\d+))?\]", operand)
        self.need(found, "an address that is not understood")
        offset = int(found[2] or 0)
        base = self.value(found[1], kind)
        return f"{base} + ({C[kind]}){offset}ll" if offset else base

    # ---- memory ----

    def space_access(self, parts, operands, what):
        """(space, type, count) of ld, st, atom; modifiers that change no result are taken off."""
        kind = parts[-1]
        rest = [part for part in parts[1:-1] if part not in CACHE and part not in ORDER and not re.fullmatch(r"L[12]::\w+", part)]
        space = rest.pop(0) if rest and rest[0] in ("global", "shared", "param", "local", "const") else "generic"
        self.need(space in ("global", "shared", "generic") or (space == "param" and what == "load"), "a space that is not understood")
        return space, kind, rest

    def place(self, space, operand, bytes_):
        line = self.at.line
        if space == "shared":
            return f"shared_at(v, {self.address(operand, 'u32')}, {bytes_}, {line})"
        if space == "param":
            found = re.fullmatch(r"\[([\w$]+)(?:\+(\d+))?\]", operand)
            if found and found[1] in self.kernel.parameters:
                begin, size = self.kernel.parameters[found[1]]
                at = int(found[2] or 0)
                self.need(at + bytes_ <= size and (begin + at) % bytes_ == 0, "outside of its parameter")
                return f"v.parameters + {begin + at}"
            return f"parameter_at(v, {self.address(operand, 'u64')}, {bytes_}, {line})"
        self.n_sites += 1
        self.traffic = (0, bytes_) if self.at.name.startswith("st") else (bytes_, bytes_ if self.at.name.startswith("atom") else 0)
        name = "global_at" if space == "global" else "generic_at"
        first = "" if space == "global" else "v, "
        return f"{name}({first}{self.address(operand, 'u64')}, {bytes_}, sites[{self.n_sites - 1}], {line})"

    def counted(self, rest):
        count = {"v2": 2, "v4": 4}.get(rest[0], 0) if rest else 1
        self.need(count and len(rest) == (count > 1))
        return count

    def do_ld(self, parts, operands):
        space, kind, rest = self.space_access(parts, operands, "load")
        count = self.counted(rest)
        self.need(kind in BYTES and kind != "f16" and len(operands) == 2)
        to = self.elements(operands[0])
        self.need(len(to) == count)
        place = self.place(space, operands[1], BYTES[kind] * count)
        if count == 1:
            return self.put(to[0], kind, f"fetch<{C[kind]}>({place})", wide=True)
        puts = " ".join(self.put(one, kind, f"fetch<{C[kind]}>(at_ + {i * BYTES[kind]})", wide=True) for i, one in enumerate(to))
        return f"{{ const unsigned char *at_ = {place}; {puts} }}"

    def do_st(self, parts, operands):
        space, kind, rest = self.space_access(parts, operands, "store")
        count = self.counted(rest)
        self.need(kind in BYTES and kind != "f16" and len(operands) == 2)
        values = self.elements(operands[1])
        self.need(len(values) == count)
        place = self.place(space, operands[0], BYTES[kind] * count)
        stores = " ".join(f"keep<{C[kind]}>(at_ + {i * BYTES[kind]}, {self.value(one, kind, narrow=True)});" for i, one in enumerate(values))
        return f"{{ unsigned char *at_ = {place}; {stores} }}"

    def do_atom(self, parts, operands):
        space, kind, rest = self.space_access(parts, operands, "atom")
        self.need(len(rest) == 1 and rest[0] in ("add", "max", "min", "exch", "or", "and") and kind in C and kind not in FLOATS and len(operands) == 3)
        value, name = self.value(operands[2], kind), C[kind]
        new = {"add": f"was_ + {value}", "exch": value, "or": f"was_ | {value}", "and": f"was_ & {value}",
               "max": f"was_ < {value} ? {value} : was_", "min": f"{value} < was_ ? {value} : was_"}[rest[0]]
        place = self.place(space, operands[1], BYTES[kind])
        return self.put(operands[0], kind, f"change<{name}>({place}, [&]({name} was_) {{ return ({name})({new}); }})")

    def do_cvta(self, parts, operands):
        way = ".".join(parts[1:])
        expression = self.value(operands[1], "u64")
        names = {"to.global.u64": "global_from_generic", "shared.u64": "generic_from_shared", "to.shared.u64": "shared_from_generic"}
        self.need(way in names and len(operands) == 2)
        return self.put(operands[0], "u64", f"{names[way]}({expression}, {self.at.line})")

    # ---- numbers ----

    def numbers(self, parts, operands, allowed):
        """The type and the operands behind the first, where the modifiers are among those allowed."""
        kind = parts[-1]
        self.need(".".join(parts[1:-1]) in allowed.get(kind, ()), "modifiers that are not understood")
        return kind, [self.value(one, kind) for one in operands[1:]]

    def plain_sum(self, parts, operands, sign):
        if parts[-1] in FLOATS and "rn" not in parts:
            self.fail("may be fused with a product by ptxas: build with -fmad=false")
        kind, (a, b) = self.numbers(parts, operands, {"f32": ("rn",), "f64": ("rn",)} | {kind: ("",) for kind in WHOLE})
        if kind in FLOATS:
            return self.put(operands[0], kind, f"quiet({a} {sign} {b})")
        wide = UNSIGNED[BYTES[kind]]
        return self.put(operands[0], kind, f"({C[kind]})(({wide}){a} {sign} ({wide}){b})")

    def do_add(self, parts, operands):
        return self.plain_sum(parts, operands, "+")

    def do_sub(self, parts, operands):
        return self.plain_sum(parts, operands, "-")

    def product(self, way, kind, a, b):
        """Of whole numbers: (type of the result, expression)."""
        if way == "wide":
            self.need(kind in WIDER)
            return WIDER[kind], f"(({C[WIDER[kind]]}){a} * ({C[WIDER[kind]]}){b})"
        self.need(way in ("lo", "hi") and kind in WHOLE)
        if way == "hi":
            return kind, f"high_product<{C[kind]}>({a}, {b})"
        wide = "uint64_t" if BYTES[kind] == 8 else "uint32_t"
        return kind, f"({C[kind]})(({wide}){a} * ({wide}){b})"

    def do_mul(self, parts, operands):
        kind = parts[-1]
        if kind in FLOATS:
            if "rn" not in parts:
                self.fail("may be fused with a sum by ptxas: build with -fmad=false")
            kind, (a, b) = self.numbers(parts, operands, {"f32": ("rn",), "f64": ("rn",)})
            return self.put(operands[0], kind, f"quiet({a} * {b})")
        self.need(len(parts) == 3 and len(operands) == 3)
        result, expression = self.product(parts[1], kind, self.value(operands[1], kind), self.value(operands[2], kind))
        return self.put(operands[0], result, expression)

    def do_mad(self, parts, operands):
        kind = parts[-1]
        self.need(len(parts) == 3 and len(operands) == 4 and kind in WHOLE)
        result, expression = self.product(parts[1], kind, self.value(operands[1], kind), self.value(operands[2], kind))
        wide = UNSIGNED[BYTES[result]]
        return self.put(operands[0], result, f"({C[result]})(({wide}){expression} + ({wide}){self.value(operands[3], result)})")

    def do_fma(self, parts, operands):
        kind, (a, b, c) = self.numbers(parts, operands, {"f32": ("rn", "rm"), "f64": ("rn",)})
        name = "fused_down" if parts[1] == "rm" else "fused"
        return self.put(operands[0], kind, f"{name}({a}, {b}, {c})")

    def do_div(self, parts, operands):
        whole = {kind: ("",) for kind in WHOLE}
        kind, (a, b) = self.numbers(parts, operands, {"f32": ("rn", "approx"), "f64": ("rn",)} | whole)
        if kind in FLOATS:
            return self.put(operands[0], kind, f"divided_about({a}, {b})" if parts[1] == "approx" else f"quiet({a} / {b})")
        return self.put(operands[0], kind, f"quotient({a}, {b}, {self.at.line})")

    def do_rem(self, parts, operands):
        kind, (a, b) = self.numbers(parts, operands, {kind: ("",) for kind in WHOLE})
        return self.put(operands[0], kind, f"remainder_of({a}, {b}, {self.at.line})")

    def unary(self, parts, operands, function, allowed):
        self.need(len(operands) == 2)
        kind, (a,) = self.numbers(parts, operands, allowed)
        return self.put(operands[0], kind, f"{function}({a})")

    def do_abs(self, parts, operands):
        return self.unary(parts, operands, "magnitude", {"f32": ("",), "f64": ("",), "s32": ("",), "s64": ("",)})

    def do_neg(self, parts, operands):
        return self.unary(parts, operands, "negative", {"f32": ("",), "f64": ("",), "s32": ("",), "s64": ("",)})

    def do_sqrt(self, parts, operands):
        return self.unary(parts, operands, "root", {"f32": ("rn",), "f64": ("rn",)})

    def do_rcp(self, parts, operands):
        name = "inverse" if parts[1] == "rn" else "inverse_about"
        return self.unary(parts, operands, name, {"f32": ("rn", "approx.ftz"), "f64": ("rn", "approx.ftz")})

    def do_ex2(self, parts, operands):
        return self.unary(parts, operands, "power_about", {"f32": ("approx.ftz",)})

    def do_brev(self, parts, operands):
        return self.unary(parts, operands, "reversed", {"b32": ("",)})

    def of_32_bits(self, parts, operands, function, allowed):
        """Counts: 32 bits whatever they are taken of."""
        kind = parts[-1]
        self.need(".".join(parts[1:-1]) in allowed.get(kind, ()) and len(operands) == 2, "modifiers that are not understood")
        return self.put(operands[0], "u32", f"{function}({self.value(operands[1], kind)})")

    def do_popc(self, parts, operands):
        return self.of_32_bits(parts, operands, "ones", {"b32": ("",), "b64": ("",)})

    def do_clz(self, parts, operands):
        return self.of_32_bits(parts, operands, "leading_zeros", {"b32": ("",), "b64": ("",)})

    def do_bfind(self, parts, operands):
        """The place of the highest one; shiftamt: how far to shift it to the top."""
        return self.of_32_bits(parts, operands, "leading_zeros_or_none", {"u32": ("shiftamt",)})

    def extreme(self, parts, operands, name, compare):
        kind, (a, b) = self.numbers(parts, operands, {"f32": ("",), "f64": ("",)} | {kind: ("",) for kind in WHOLE})
        return self.put(operands[0], kind, f"{name}({a}, {b})" if kind in FLOATS else f"{a} {compare} {b} ? {a} : {b}")

    def do_min(self, parts, operands):
        return self.extreme(parts, operands, "smaller", "<")

    def do_max(self, parts, operands):
        return self.extreme(parts, operands, "larger", ">")

    def do_copysign(self, parts, operands):
        kind, (a, b) = self.numbers(parts, operands, {"f32": ("",), "f64": ("",)})
        return self.put(operands[0], kind, f"signed_as({a}, {b})")

    # ---- bits ----

    def logic(self, parts, operands, sign):
        kind = parts[-1]
        self.need(len(parts) == 2 and kind in BITS | {"pred"} and len(operands) == 3)
        return self.put(operands[0], kind, f"{self.value(operands[1], kind)} {sign} {self.value(operands[2], kind)}")

    def do_and(self, parts, operands):
        return self.logic(parts, operands, "&")

    def do_or(self, parts, operands):
        return self.logic(parts, operands, "|")

    def do_xor(self, parts, operands):
        return self.logic(parts, operands, "^")

    def do_not(self, parts, operands):
        kind = parts[-1]
        self.need(len(parts) == 2 and kind in BITS | {"pred"} and len(operands) == 2)
        return self.put(operands[0], kind, ("!" if kind == "pred" else "~") + self.value(operands[1], kind))

    def shift(self, parts, operands, function, kinds):
        kind = parts[-1]
        self.need(len(parts) == 2 and kind in kinds and len(operands) == 3)
        return self.put(operands[0], kind, f"{function}<{C[kind]}>({self.value(operands[1], kind)}, {self.value(operands[2], 'u32')})")

    def do_shl(self, parts, operands):
        return self.shift(parts, operands, "shifted_left", BITS)

    def do_shr(self, parts, operands):
        return self.shift(parts, operands, "shifted_right", BITS | WHOLE)

    def do_prmt(self, parts, operands):
        self.need(parts == ["prmt", "b32"] and len(operands) == 4, "a mode that is not understood")
        return self.put(operands[0], "b32", f"permuted({', '.join(self.value(one, 'b32') for one in operands[1:])})")

    def do_bfi(self, parts, operands):
        kind = parts[-1]
        self.need(len(parts) == 2 and kind in ("b32", "b64") and len(operands) == 5)
        a, b = self.value(operands[1], kind), self.value(operands[2], kind)
        return self.put(operands[0], kind, f"inserted<{C[kind]}>({a}, {b}, {self.value(operands[3], 'u32')}, {self.value(operands[4], 'u32')})")

    # ---- comparing, choosing, moving ----

    def do_setp(self, parts, operands):
        kind, how = parts[-1], parts[1]
        self.need(len(parts) == 3 and len(operands) == 3, "modifiers that are not understood")
        a, b = self.value(operands[1], kind), self.value(operands[2], kind)
        signs = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
        opposite = {"equ": "!=", "neu": "==", "ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}  # of the ordered one: true for NaN
        if kind in FLOATS and how in opposite and how not in ("equ", "neu"):
            return self.put(operands[0], "pred", f"!({a} {opposite[how]} {b})")
        if kind in FLOATS and how in ("equ", "ne", "neu", "num", "nan"):
            name = {"equ": "equal_or_nan", "ne": "ordered_and_unequal", "neu": "unequal_or_nan", "num": "are_numbers", "nan": "is_any_nan"}[how]
            return self.put(operands[0], "pred", f"{name}({a}, {b})")
        fitting = {"lo", "ls", "hi", "hs"} if kind in ("u16", "u32", "u64") else set()
        fitting |= {"eq", "ne"} | (set() if kind in BITS else {"lt", "le", "gt", "ge"})
        self.need(kind in C and kind != "pred" and how in fitting, "a comparison that is not understood")
        return self.put(operands[0], "pred", f"{a} {signs[how]} {b}")

    def do_selp(self, parts, operands):
        kind = parts[-1]
        self.need(len(parts) == 2 and kind in C and len(operands) == 4)
        return self.put(operands[0], kind, f"{self.value(operands[3], 'pred')} ? {self.value(operands[1], kind)} : {self.value(operands[2], kind)}")

    def do_mov(self, parts, operands):
        kind = parts[-1]
        self.need(len(parts) == 2 and kind in C and len(operands) == 2)
        to, what = self.elements(operands[0]), self.elements(operands[1])
        if len(to) == len(what) == 1:
            return self.put(to[0], kind, self.value(what[0], kind))
        n = max(len(to), len(what))
        self.need(kind in BITS and min(len(to), len(what)) == 1 and BYTES[kind] % n == 0)
        part = "b" + str(8 * BYTES[kind] // n)
        if len(to) == 1:
            pieces = [f"({C[kind]}){self.value(one, part)} << {8 * BYTES[part] * i}" for i, one in enumerate(what)]
            return self.put(to[0], kind, " | ".join(pieces))
        puts = " ".join(self.put(one, part, f"({C[part]})(all_ >> {8 * BYTES[part] * i})") for i, one in enumerate(to))
        return f"{{ {C[kind]} all_ = {self.value(what[0], kind)}; {puts} }}"

    def do_cvt(self, parts, operands):
        way = ".".join(parts[1:])
        if way in ("rn.bf16x2.f32", "rn.f16x2.f32"):
            self.need(len(operands) == 3)
            a, b = self.value(operands[1], "f32"), self.value(operands[2], "f32")
            return self.put(operands[0], "b32", f"{'pair_bf16' if 'bf16' in way else 'pair_f16'}({a}, {b})")
        self.need(len(operands) == 2)
        if way == "f32.f16":
            return self.put(operands[0], "f32", f"widened_f16({self.value(operands[1], 'b16')})")
        *how, to, of = parts[1:]
        value = self.value(operands[1], of, narrow=True)
        put = lambda expression: self.put(operands[0], to, expression, wide=True)
        whole = {"u8", "s8"} | WHOLE
        if not how and to in whole and of in whole:
            return put(f"({C[to]}){value}")
        if how == ["rn"] and to in FLOATS and of in whole or (not how and (to, of) == ("f64", "f32")) or (how == ["rn"] and (to, of) == ("f32", "f64")):
            return put(f"quiet(({C[to]}){value})")
        if len(how) == 1 and how[0] in ("rzi", "rni", "rmi", "rpi") and of in FLOATS and to in WHOLE:
            return put(f"whole<{C[to]}>({how[0]}({value}))")
        if len(how) == 1 and how[0] in ("rzi", "rni", "rmi", "rpi") and of == to and of in FLOATS:
            return put(f"quiet({how[0]}({value}))")
        if how == ["sat"] and to == of == "f32":
            return put(f"between_0_and_1({value})")
        self.fail("a conversion that is not understood")

    # ---- threads ----

    def do_bar(self, parts, operands):
        if parts == ["bar", "sync"] and operands == ["0"]:
            return f"emulated::wait_block({self.at.line});"
        self.need(parts == ["bar", "warp", "sync"] and len(operands) == 1, "a barrier that is not understood")
        return f"emulated::exchange({self.value(operands[0], 'u32')}, 0, {self.at.line}, true);"

    def do_shfl(self, parts, operands):
        self.need(len(parts) == 4 and parts[1] == "sync" and parts[2] in ("bfly", "up", "down", "idx") and parts[3] == "b32" and len(operands) == 5)
        to, _, within = operands[0].partition("|")
        a, b, c, mask = (self.value(one, "u32" if i else "b32") for i, one in enumerate(operands[1:]))
        note = self.put(within, "pred", "within_") if within else ""
        call = f"shuffled<shuffle_{parts[2]}>(v, {a}, {b}, {c}, {mask}, &within_, {self.at.line})"
        return f"{{ bool within_; {self.put(to, 'b32', call)} {note} }}"

    def do_vote(self, parts, operands):
        self.need(parts[1] == "sync" and len(operands) == 3)
        ballot = f"ballot({self.value(operands[1], 'pred')}, {self.value(operands[2], 'u32')}, {self.at.line})"
        if parts[2:] == ["ballot", "b32"]:
            return self.put(operands[0], "b32", ballot)
        self.need(parts[2:] in (["any", "pred"], ["all", "pred"]), "a vote that is not understood")
        compare = "!= 0" if parts[2] == "any" else f"== {self.value(operands[2], 'u32')}"
        return self.put(operands[0], "pred", f"{ballot} {compare}")

    def do_mma(self, parts, operands):
        names = {"sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32": "product_bf16", "sync.aligned.m16n8k16.row.col.f32.f16.f16.f32": "product_f16",
                 "sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32": "product_tf32"}
        way = ".".join(parts[1:])
        self.need(way in names and len(operands) == 4, "a product that is not understood")
        d, a, b, c = (self.elements(one) for one in operands)
        self.need((len(d), len(a), len(b), len(c)) == (4, 4, 2, 4))
        fill = lambda all_, kind: "{" + ", ".join(self.value(one, kind) for one in all_) + "}"
        puts = " ".join(self.put(one, "f32", f"d_[{i}]") for i, one in enumerate(d))
        return (f"{{ float d_[4] = {fill(c, 'f32')}; uint32_t a_[4] = {fill(a, 'b32')}, b_[2] = {fill(b, 'b32')}; "
                f"{names[way]}(d_, a_, b_, {self.at.line}); {puts} }}")

    def do_cp(self, parts, operands):
        way = ".".join(parts[1:])
        line = self.at.line
        if way == "async.commit_group":
            self.need(not operands)
            return "copies_end_group();"
        if way == "async.wait_group":
            self.need(len(operands) == 1 and operands[0].isdigit())
            return f"copies_wait({operands[0]});"
        if way == "async.bulk.prefetch.L2.global":
            self.need(len(operands) == 2)
            return f"fetch_ahead({self.address(operands[0], 'u64')}, {self.value(operands[1], 'u32')}, {line});"
        self.need(re.fullmatch(r"async\.cg\.shared\.global(\.L2::\w+)?", way) and len(operands) in (3, 4) and operands[2] == "16", "a copy that is not understood")
        wanted = self.value(operands[3], "u32") if len(operands) == 4 else "16u"
        to = f"shared_at(v, {self.address(operands[0], 'u32')}, 16, {line})"
        self.n_sites += 1
        self.traffic = 16, 0
        return f"copy_begins({to}, {self.address(operands[1], 'u64')}, {wanted}, sites[{self.n_sites - 1}], {line});"

    def do_griddepcontrol(self, parts, operands):
        self.need(parts[1:] in (["wait"], ["launch_dependents"]) and not operands)
        return "emulated::wait_grid();" if parts[1] == "wait" else ";"

    def do_membar(self, parts, operands):
        self.need(parts[1:] == ["gl"] and not operands)
        return "emulated::fence_passed();"  # fibers of one thread see each other's writes at once

    def do_bra(self, parts, operands):
        self.need(parts[1:] in ([], ["uni"]) and len(operands) == 1)
        return f"goto {label_name(operands[0])};"

    def do_ret(self, parts, operands):
        self.need(len(parts) == 1 and not operands)
        return "return;"

    # ---- all ----

    def statement(self, instruction):
        self.at, self.traffic = instruction, (0, 0)
        parts = instruction.name.split(".")
        if parts[0] == "cp" or parts[0] == "ld":  # L2::256B
            parts = [part for part in parts if part]
        does = getattr(self, "do_" + parts[0], None)
        self.need(does, "an instruction that is not understood")
        text = does(parts, instruction.operands)
        if instruction.guard:
            return f"if ({'!' if instruction.guard_not else ''}{self.value(instruction.guard, 'pred')}) {{ {text} }}"
        return text

    def label(self, label):
        self.labels.add(label.name)
        return f"{label_name(label.name)}:;"


def label_name(name):
    return name.replace("$", "")
