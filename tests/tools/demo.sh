#!/usr/bin/env bash
# Starts the demo in the foreground and, once it answers, prints what to open and what to type. `demo.sh STEERD`
# DEMO_LISTEN chooses another address, DEMO_STORE another file for what it remembers.
set -euo pipefail
trap '[ $? -ne 1 ] || echo "where port 8080 is taken: make demo DEMO_LISTEN=127.0.0.1:8081" >&2' EXIT
steerd=${1:?usage: demo.sh STEERD}
listen=${DEMO_LISTEN:-127.0.0.1:8080}
store=${DEMO_STORE:-build/demo.sqlite}

mkdir -p build/trained # where the page of jobs puts a dictionary that is trained there
"$steerd" serve --listen "$listen" --store "$store" --source-folders build/trained --log-level warn | while read -r word url; do
  [ "$word" = ready ] || continue
  cat <<TEXT

steerd serves its demo: a small English model, a sparse autoencoder and a transcoder for each
layer, of 2,048 features each.
Open  $url/  in a browser, or type (in another terminal):

  curl -s $url/models
  curl -s $url/activations -d '{"text": "The princess walked in the dark forest", "source": "2-res-demo"}'
  curl -s $url/steer -d '{"prompt": "One day, the children went to the", "temperature": 0.4, "seed": 3, "n_tokens": 30,
    "features": [{"layer": "2-res-demo", "index": 1890, "strength": 22}]}'

Every endpoint: $url/docs        Stop: Ctrl-C

TEXT
  echo "ready $url"
done
