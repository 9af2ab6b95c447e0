#!/usr/bin/env bash
# Builds each fuzz_*.c with libFuzzer, ASan and UBSan and runs it for FUZZ_SECONDS (default 20) or FUZZ_RUNS executions
# each, one after the other: `run.sh [FUZZ_SOURCE...]`. What it learns stays in build/fuzz/corpus, so that later runs go deeper;
# an input that breaks a reader is kept in build/fuzz/crashes and belongs into a unit test. Skips by name where
# clang or its fuzzing runtime is missing.
set -uo pipefail
cd "$(dirname "$0")/../.."
bound=-max_total_time=${FUZZ_SECONDS:-20}
[ -z "${FUZZ_RUNS:-}" ] || bound=-runs=$FUZZ_RUNS
clang=${CLANG:-clang}
[ $# -gt 0 ] || set -- tests/fuzz/fuzz_*.c

command -v "$clang" >/dev/null || { echo "skip: fuzzing ($clang is not installed)"; exit 0; }
build=build/fuzz
mkdir -p $build/crashes
flags='-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined'
echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n ? 0 : 0; }' >$build/probe.c
$clang $flags -o $build/probe $build/probe.c 2>$build/probe.log || {
  echo "skip: fuzzing ($clang has no fuzzing runtime: apt-get install libclang-rt-dev)"; exit 0; }

# Seeds: real files of each format; the torch fuzzer also reads bare pickles.
seeds() {
  local seed to=$build/corpus/$1 vectors=tests/vectors/tensor_files
  mkdir -p "$to"
  case $1 in
    fuzz_safetensors) cp $vectors/*.safetensors $vectors/sharded/*.safetensors "$to" ;;
    fuzz_torch)
      cp $vectors/{mixed,protocol4,no_crc}.pth "$to"
      for file in mixed protocol4 no_crc; do
        unzip -p $vectors/$file.pth "$file/data.pkl" >"$to/$file.pkl" 2>/dev/null || rm -f "$to/$file.pkl"
      done ;;
    fuzz_npz)
      cp $vectors/{arrays,arrays_compressed,savez,objects}.npz "$to"
      { printf y; cat $vectors/vector.npy; } >"$to/packed"
      { printf x; cat $vectors/vector.npy; } >"$to/stored" ;;
    fuzz_dict)
      local samples=tests/vectors/dict-formats n=0 file
      for file in tests/vectors/dict-kinds/gated/cfg.json $samples/skip-toy/layers.1.mlp/cfg.json \
        $samples/dictionary_learning/dl-batchtopk/trainer_0/config.json \
        $samples/gemma-scope-2-270m-pt/transcoder/layer_1_width_16k_l0_small_affine/config.json \
        $samples/Llama3_1-8B-Base-L1R-8x/hyperparams.json $samples/r1/L1R/config.json $samples/ct-toy/config.yaml \
        $samples/attn-saes/*_cfg.json $samples/described.ini tests/vectors/dict-clt/relu/config.yaml \
        tests/vectors/dict-clt/clt/*/config.json; do
        { printf "\\x$(printf %02x $n)"; cat "$file"; } >"$to/$n"
        n=$((n + 1))
      done ;;
    fuzz_config)
      cp config/demo/config.json "$to/demo.json"
      for config in $(find tests/vectors -name config.json); do cp "$config" "$to/$(echo "$config" | tr / _)"; done ;;
    fuzz_tokenizer)  # the first byte says what the others are
      for kind in tests/vectors/tokenizer/kinds/*/tokenizer.json; do
        seed=$to/$(basename "$(dirname "$kind")")
        { printf '\000'; cat "$kind"; } >"$seed.json"
        { printf '\002'; sed -e 's/,"model":.*//' -e 's/^{//' "$kind"; } >"$seed.parts"
      done
      for kind in tests/vectors/tokenizer/pieces/*/tokenizer.model; do
        { printf '\005'; cat "$kind"; } >"$to/$(basename "$(dirname "$kind")").model"
      done
      for kind in tests/vectors/tokenizer/pieces/*/*.json; do
        case $kind in */cases.json) ;; *) { printf '\006'; cat "$kind"; } >"$to/$(echo "$kind" | tr / _)" ;; esac
      done
      printf "\004a's  12\n\xc3\xa9e\xcc\x81 <s>" >"$to/text"
      printf '\003aaaa\000\000\000\000\001\000\000\000u\000\000\000\000\001\000\000\000s\000\000\000\000\001\000\000\000t\000\000\000\000\001\000\000\000a' >"$to/bin" ;;
    fuzz_texts)
      python3 - "$to" <<'SEEDS'
import json, sys
for i, case in enumerate(json.load(open("tests/vectors/chat/chats.json"))["cases"]):
    open(f"{sys.argv[1]}/chat{i}", "wb").write(b"\0" + case["template"].encode())
SEEDS
      printf '\001{"sha":"%040d","siblings":[{"rfilename":"config.json","size":2,"blobId":"%040d"},{"rfilename":"a/model.safetensors","size":9,"lfs":{"sha256":"%064d","size":9}}]}' \
        0 0 0 >"$to/listing" ;;
    fuzz_control_vector) cp tests/vectors/control-vectors/{*.gguf,*.safetensors,*.npz} "$to" ;;
    fuzz_request)
      printf '\000{"flag":true,"n_tokens":4,"number":1.5,"index":"12","text":"a","source":3,"sources":["a",1],"texts":["a","b"],"choice":"two","choices":["one"]}' >"$to/body1"
      printf '\003{"names":["a",1],"ints":[1],"numbers":[1.5,2],"places":[-1],"tokens":[[1],[2]],"prompts":[1,2],"weights":{"3":-1},"content":[{"type":"text","text":"x"}],"grid":[[1,2]],"one":{"idx":1},"many":[{"index":2,"strength":3}]}' >"$to/body2"
      printf '\001/a/b%%20c?flag=1&count=3&texts=a,b&ints=1,2&text=%%C3%%A9+x&choice=two' >"$to/target"
      printf '\002POST\nHost:localhost\nContent-Length:12\nExpect:100-continue\nAccept-Encoding:br;q=1, gzip;q=0' >"$to/head1"
      printf '\002POST\nHost:a\nTransfer-Encoding:chunked\nX-Request-Id:abc.1-2' >"$to/head2" ;;
    fuzz_lines)
      local n=0 part line
      for part in $(find config/demo -name '*.jsonl*'); do
        while IFS= read -r line; do { printf '\000'; printf %s "$line" | head -c 7000; } >"$to/line$((n++))"; done < <(gzip -cdf "$part" | head -n 2)
      done
      python3 - "$to" <<'SEEDS'
import struct, sys
counts = 20 + 2 * 128 + 4 + 6  # the checkpoint of test_llama2c.c
for name, header in (("v0", struct.pack("<7i", 4, 6, 2, 2, 1, 5, 3)), ("v1", struct.pack("<Ii7iB", 0x616b3432, 1, 4, 6, 2, 2, 1, 5, 3, 1).ljust(256, b"\0"))):
    open(f"{sys.argv[1]}/{name}", "wb").write(b"\1" + header + bytes(4 * (counts if name == "v0" else counts - 6)))
SEEDS
      ;;
    fuzz_ini) printf '[a]\nx = 1 ; y\n# z\n[b c]\n p:q\n' >"$to/seed.ini" ;;
  esac
}

# The parsers in one archive, of which each fuzzer takes what it needs.
library=$build/parsers.a
if [ ! -e $library ] || [ -n "$(find core api server -name '*.[ch]' -newer $library | head -n 1)" ]; then
  rm -f $library
  for source in core/base/*.c core/model/*.c core/dict/*.c core/math/*.c core/math/{ref,cpu}/*.c core/archive_{read,write}.c \
    api/{body,field,parse,values}.c server/guard.c; do
    object=$build/$(echo "$source" | tr / _).o
    case $source in # kernels for one instruction set, as in the Makefile
      *_avx2.c) set_of='-mavx2 -mfma -mf16c' ;;
      *_avx512.c) set_of='-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c' ;;
      *) set_of= ;;
    esac
    # shellcheck disable=SC2086
    $clang -std=c11 -D_GNU_SOURCE -I. -O1 -g $set_of -fsanitize=fuzzer-no-link,address,undefined \
           -fno-sanitize-recover=undefined -c -o "$object" "$source" && ar rcs $library "$object" || exit 1
  done
fi

bad=0
for source in "$@"; do
  name=$(basename "$source" .c)
  $clang -std=c11 -D_GNU_SOURCE -I. -O1 -g $flags -o $build/"$name" "$source" $library \
         -ljansson -linih -lpcre2-8 -lz -lm -lpthread || { bad=1; continue; }
  seeds "$name"
  if $build/"$name" "$bound" -timeout=5 -rss_limit_mb=512 -max_len=8192 -print_final_stats=1 \
       -artifact_prefix=$build/crashes/"$name"- $build/corpus/"$name" >$build/"$name".log 2>&1; then
    echo "ok    $name  $(sed -n 's/^stat::\(number_of_executed_units\|average_exec_per_sec\|peak_rss_mb\): */\1 /p' \
      $build/"$name".log | tr '\n' ' ')"
  else
    echo "FAIL  $name"; tail -n 40 $build/"$name".log; bad=1
  fi
done
exit $bad
