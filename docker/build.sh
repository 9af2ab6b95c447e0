#!/usr/bin/env bash
# Builds an image with docker, or with podman where that is what answers: `build.sh cpu|cuda VERSION COMMIT`. Where neither is there
# it says so and ends well, as `make cuda` does without nvcc.
set -euo pipefail
kind=${1:?usage: build.sh cpu|cuda VERSION COMMIT} version=${2:?} commit=${3:?}
name=steerd
[ "$kind" = cpu ] || name=steerd-$kind

why='neither docker nor podman found'
command -v docker >/dev/null && why='docker is there, but its daemon does not answer, and podman was not found'
for program in docker podman; do
  "$program" info >/dev/null 2>&1 && break
  program=
done
if [ -z "$program" ]; then
  echo "skip: the container image $name ($why)"
  exit 0
fi
# Podman's own format of images has no room for the health check.
options=()
[ "$program" = docker ] || options=(--format docker)
DOCKER_BUILDKIT=1 "$program" build "${options[@]}" --build-arg COMMIT="$commit" -t "$name:$version" -t "$name:latest" \
  -f "docker/Dockerfile.$kind" .
gpu=
[ "$kind" = cpu ] || gpu=' --gpus all'
echo
echo "the demo, on http://127.0.0.1:8080:  $program run --rm$gpu -p 127.0.0.1:8080:8080 $name serve --insecure yes"
