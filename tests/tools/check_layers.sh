#!/usr/bin/env bash
# The house's walls: includes go one way (docs/architecture.md). Every include is written from the root, so
# the line itself names the room. Fails on an arrow that turns back and on a third-party header in a room
# that may not know it.
set -euo pipefail
cd "$(dirname "$0")/../.."

bad=0
# deny ROOM PATTERN: no file of ROOM may include a path that matches PATTERN.
deny() {
  local found
  found=$(grep -rnE "#include [\"<]($2)" "$1" --include='*.[ch]' 2>/dev/null || true)
  [ -z "$found" ] && return
  echo "layer broken: $1 must not include $2"; echo "$found"; bad=1
}
# home HEADER DIR...: only these may include a third-party header.
home() {
  local header=$1 found; shift
  found=$(grep -rlE "#include <$header>" server core api --include='*.[ch]' 2>/dev/null |
          grep -vE "^($(IFS='|'; echo "$*"))" || true)
  [ -z "$found" ] && return
  echo "layer broken: <$header> belongs to $*, found in:"; echo "$found"; bad=1
}

rooms='core/|api/|server/'
deny core/base   'core/(math|model|dict|engine|analysis|store)/|core/(core|lab|archive|inspect|pull)|api/|server/'
deny core/math   'core/(model|dict|engine|analysis|store)/|core/(core|lab|archive|inspect|pull)|api/|server/'
deny core/model  'core/(dict|engine|analysis|store)/|core/(core|lab|archive|inspect|pull)|api/|server/'
deny core/dict   'core/(engine|analysis|store)/|core/(core|lab|archive|inspect|pull)|api/|server/'
deny core/store  'core/(math|model|dict|engine|analysis)/|core/(core|lab|archive|inspect|pull)|api/|server/'
deny core/engine 'core/(analysis|store)/|core/(core|lab|archive|inspect|pull)|api/|server/'
deny core/analysis 'core/store/|core/(core|lab|archive|inspect|pull)|api/|server/'
deny api         'core/(math|model|dict|engine|analysis|store|lab|archive|inspect|pull)/|server/'
deny server      'core/(math|model|dict|engine|analysis|store|lab|archive|inspect|pull)/'

home 'microhttpd\.h' server/
home 'jansson\.h'    api/ core/base/json
home 'sqlite3\.h'    core/store/
home '(cblas|cublas[^>]*)\.h' core/math/
home 'pcre2\.h'      core/model/
home 'ini\.h'        server/ core/base/ini

# No backend detail outside its own folder: the engine and the plan see ops.h only.
deny core/engine 'core/math/(cpu|ref|cuda)/'
deny core/model  'core/math/(cpu|ref|cuda)/'
deny core/dict   'core/math/(cpu|ref|cuda)/'

# Every kernel waits for the one before it, before it returns or does anything else that may depend on it (device.cuh).
kernels=$(awk '
  /__global__/ { name = FILENAME ":" FNR; inside = 1; follows = 0 }
  inside && /grid_follow\(\);/ { follows = 1 }
  inside && /return|__syncthreads/ && !follows { print name ": returns or waits before grid_follow()"; follows = 1 }
  inside && /^}/ { if (!follows) print name ": no grid_follow()"; inside = 0; n++ }
  END { if (!n) print "no kernel found" }' core/math/cuda/*.cu core/math/cuda/*.cuh)
kernels+=$(grep -nE '<<<|cudaLaunchKernel' core/math/cuda/*.cu core/math/cuda/*.c | sed 's/$/: not launched by launch()/' || true)
[ -z "$kernels" ] || { echo 'kernels broken:'; echo "$kernels"; bad=1; }

# Where kernels are, functions of the host have no variables that last: the emulator takes such for shared memory (tests/cuda_host/shared.ld).
lasting=$(grep -nE '^[[:space:]]+static ' core/math/cuda/*.cu core/math/cuda/*.cuh tests/gpu/*.cu tests/cuda_host/*.cu | grep -vE 'static (const|__device__)' || true)
[ -z "$lasting" ] || { echo 'static variables inside of functions, beside kernels:'; echo "$lasting"; bad=1; }

# Names of files are plain: a slip of a shell leaves others behind (without git, as from an archive, there is nothing to ask).
names=$(git ls-files 2>/dev/null | grep -vE '^[A-Za-z0-9._/-]+$' || true)
[ -z "$names" ] || { echo 'names of files broken:'; echo "$names"; bad=1; }

[ $bad -eq 0 ] && echo 'layers: every include points the right way'
exit $bad
