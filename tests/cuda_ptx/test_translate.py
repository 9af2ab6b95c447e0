"""translate.py on small pieces of PTX: what it makes of them, and what it refuses by file, line and instruction."""
import pathlib
import sys
import tempfile

from parse import Unknown, read_module
from translate import translate_kernel

KERNEL = """.version 9.0
.target sm_90
.address_size 64
.extern .shared .align 16 .b8 memory[];

.entry some_kernel(
	.param .align 8 .b8 some_kernel_param_0[24]
)
.maxntid 64, 1, 1
{{
	.reg .pred 	%p<3>;
	.reg .b16 	%rs<3>;
	.reg .f32 	%f<4>;
	.reg .b32 	%r<5>;
	.reg .b64 	%rd<4>;
	.shared .align 4 .b8 held[20];
	// a comment; with a semicolon
	{}
	ret;
}}
"""
LINE = 18  # of what is put in

MADE = [
    ("add.s32 \t%r1, %r2, -1;", "Rr1 = (uint32_t)((int32_t)((uint32_t)(int32_t)Rr2 + (uint32_t)(int32_t)4294967295ull));"),
    ("fma.rn.f32 %f1, %f2, %f3, 0f3F800000;", "Rf1 = fused(Rf2, Rf3, bits<float>(0x3F800000u));"),
    ("@!%p1 bra $L_1;\n$L_1:", "if (!Rp1) { goto L_1; }"),
    ("setp.geu.f32 %p1, %f1, %f2;", "Rp1 = !(Rf1 < Rf2);"),
    ("ld.global.cg.v2.u32 {%r1, _}, [%rd1+8];", "{ const unsigned char *at_ = global_at(Rrd1 + (uint64_t)8ll, 8, sites[0], 18); "
     "Rr1 = (uint32_t)(fetch<uint32_t>(at_ + 0)); (void)(fetch<uint32_t>(at_ + 4)); }"),
    ("ld.shared.s16 %r1, [held+2];", "Rr1 = (uint32_t)(int16_t)(fetch<int16_t>(shared_at(v, 1024u + (uint32_t)2ll, 2, 18)));"),
    ("mov.u32 %r1, memory;", "Rr1 = (uint32_t)(1136u);"),
    ("ld.param.u64 %rd1, [some_kernel_param_0+16];", "Rrd1 = (uint64_t)(fetch<uint64_t>(v.parameters + 16));"),
    ("mov.u32 %r1, %ctaid.y;", "Rr1 = (uint32_t)(v.ctaid.y);"),
    ("{ .reg .b32 %temp; mov.b64 {%temp, %r1}, %rd1; }", "{ uint64_t all_ = Rrd1; Rtemp_1 = (uint32_t)((uint32_t)(all_ >> 0)); Rr1 = (uint32_t)((uint32_t)(all_ >> 32)); }"),
    ("atom.shared.max.s32 %r1, [%r2], %r3;", "Rr1 = (uint32_t)(change<int32_t>(shared_at(v, Rr2, 4, 18), [&](int32_t was_) "
     "{ return (int32_t)(was_ < (int32_t)Rr3 ? (int32_t)Rr3 : was_); }));"),
]
REFUSED = ["add.f32 %f1, %f2, %f3;", "mul.f32 %f1, %f2, %f3;", "add.rz.f32 %f1, %f2, %f3;", "add.rn.ftz.f32 %f1, %f2, %f3;", "fma.rn.sat.f32 %f1, %f1, %f2, %f3;",
           "add.s32 %r1, %rd2, 1;", "ex2.approx.f32 %f1, %f2;", "sin.approx.f32 %f1, %f2;", "cvt.rn.f16.f32 %rs1, %f1;", "shfl.sync.bfly.b64 %rd1, %rd1, 1, 31, -1;",
           "bar.sync 1;", "bar.sync 0, 32;", "ld.local.u32 %r1, [%rd1];", "ld.const.u32 %r1, [%rd1];", "setp.lt.and.s32 %p1, %r1, %r2, %p2;", "bra $nowhere;",
           "mov.u32 %r1, unknown;", "mov.u32 %r1, %clock;", "call foo;", "prmt.b32.f4e %r1, %r2, %r3, %r4;", "membar.cta;", "ld.param.u64 %rd1, [some_kernel_param_0+20];",
           "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1,%f1,%f1,%f1}, {%r1,%r1}, {%r1}, {%f1,%f1,%f1,%f1};", "cp.async.ca.shared.global [%r1], [%rd1], 4;",
           "setp.hi.s32 %p1, %r1, %r2;", "setp.lt.b32 %p1, %r1, %r2;", "add.s32 %r1, %r2, 0f3F800000;", ".local .b8 depot[8];", "ld.v4.u64 {%rd1,%rd1,%rd1}, [%rd1];"]


def translated(text):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "some.ptx"
        path.write_text(KERNEL.format(text))
        (kernel,) = read_module(path)
        return translate_kernel(kernel, path, 0)


def main():
    wrong = []
    for text, want in MADE:
        lines, entry = translated(text)
        if not any(want in line for line in lines):
            wrong.append(f"{text!r} became\n  " + "\n  ".join(line for line in lines if "#line 18" in line))
        if '"some_kernel", kernel_0, 24, 64, 20, shared_0, 1, 1136,' not in entry:
            wrong.append(f"the table has {entry}")
    for text in REFUSED:
        try:
            translated(text)
            wrong.append(f"{text!r} was not refused")
        except Unknown as why:
            if f":{LINE}" not in str(why) and "nowhere" not in str(why):
                wrong.append(f"{text!r}: no line in {why}")
    print("\n".join(wrong) or f"translating PTX: {len(MADE)} instructions as they should be, {len(REFUSED)} refused")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
