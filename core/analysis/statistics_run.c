/* statistics_run.c: two tasks are under way at a time: while the engine computes one, this thread adds the other.
 * Documents are added in their order, whatever order tasks end in. */
#include "core/analysis/statistics_run.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/awaited.h"
#include "core/base/clock.h"

#define FLIGHTS 2

/* One task: some documents in a row and what became of them. */
struct flight {
  struct statistics_run *run;
  int64_t first;            /* document */
  int n;                    /* documents; 0: not in use */
  struct sparse *codes;     /* [max_sequences] */
  int32_t *ids;             /* of all of them, one behind the other */
  struct awaited task;
};

/* ---- from the engine ---- */

static int on_tapped(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  struct flight *flight = context;
  return dict_encode(flight->run->dict, tapped->rows, tapped->n_rows, &flight->codes[sequence], error);
}

static void on_done(void *context, const struct error *error) {
  struct flight *flight = context;
  awaited_done(&flight->task, error);
}

static const struct engine_events events = {.tapped = on_tapped, .done = on_done};

/* ---- flights ---- */

static int flight_open(struct flight *flight, struct statistics_run *run, struct error *error) {
  memset(flight, 0, sizeof *flight);
  flight->run = run;
  awaited_open(&flight->task, run->engine);
  flight->codes = calloc((size_t)run->max_sequences, sizeof *flight->codes);
  return flight->codes ? 0 : error_memory(error, (size_t)run->max_sequences * sizeof *flight->codes);
}

static void flight_close(struct flight *flight) {
  awaited_close(&flight->task);
  for (int i = 0; flight->codes && i < flight->run->max_sequences; i++) sparse_clear(&flight->codes[i]);
  free(flight->codes);
  free(flight->ids);
}

/* How many documents from `first` make a task: as many as rows, sequences and memory for keys and values allow. */
static int count_documents(const struct statistics_run *run, int64_t first) {
  enum { MOST = 256 };
  int32_t positions[MOST];
  int64_t rows = 0, all = corpus_documents(run->corpus);
  int n = 0;
  while (n < run->max_sequences && n < MOST && first + n < all) {
    positions[n] = corpus_length(run->corpus, first + n);
    rows += positions[n];
    if (n && rows > run->max_rows) break;
    n++;
  }
  int fitting = engine_fitting(run->engine, run->model, positions, n);
  return n && fitting < 1 ? 1 : fitting;
}

/* Empty documents (an empty line without BOS) have nothing to run. */
static void fill(struct flight *flight, struct engine_sequence *sequences, int *n_sequences) {
  int32_t *ids = flight->ids;
  const struct statistics_run *run = flight->run;
  const struct dict_info *info = dict_info(run->dict);
  *n_sequences = 0;
  for (int i = 0; i < flight->n; i++) {
    int32_t length = corpus_length(run->corpus, flight->first + i);
    flight->codes[i].n_rows = 0;
    if (length == 0) continue;
    corpus_ids(run->corpus, flight->first + i, ids);
    sequences[(*n_sequences)++] = (struct engine_sequence){.tokens = ids, .n_tokens = length,
                                                           .last_layer = point_layers(info->in), .taps = &info->in,
                                                           .n_taps = 1, .eos = -1, .n_logprobs = -1};
    ids += length;
  }
}

static int launch(struct flight *flight, int64_t first, struct error *error) {
  struct statistics_run *run = flight->run;
  flight->first = first;
  flight->n = count_documents(run, first);
  if (flight->n == 0) return 0;
  size_t rows = 0;
  for (int i = 0; i < flight->n; i++) rows += (size_t)corpus_length(run->corpus, first + i);
  struct engine_sequence *sequences = calloc((size_t)flight->n, sizeof *sequences);
  int32_t *ids = realloc(flight->ids, (rows + 1) * sizeof *ids);
  if (ids) flight->ids = ids;
  int failed = sequences && ids ? 0 : error_memory(error, rows * sizeof *ids), n = 0;
  if (!failed) fill(flight, sequences, &n);
  struct engine_task_args args = {.model = run->model, .sequences = sequences, .n_sequences = n, .events = &events,
                                  .context = flight, .background = true};
  if (!failed && n) failed = awaited_submit(&flight->task, &args, error);
  free(sequences);
  if (failed) flight->n = 0;
  return failed;
}

/* Waits for a flight and adds its documents. Sequence k of the task is its k-th document that is not empty. */
static int land(struct flight *flight, struct error *error) {
  struct statistics_run *run = flight->run;
  if (awaited_wait(&flight->task, error) != 0) return -1;
  static const size_t nothing[] = {0};
  const struct sparse empty = {.n_rows = 0, .start = (size_t *)(uintptr_t)nothing};
  int64_t begin = clock_ns();
  const int32_t *ids = flight->ids;
  int sequence = 0, failed = 0;
  for (int i = 0; !failed && i < flight->n; i++) {
    int32_t length = corpus_length(run->corpus, flight->first + i);
    const struct sparse *codes = length ? &flight->codes[sequence++] : &empty;
    failed = statistics_add(run->statistics, flight->first + i, ids, length, codes, 0, error);
    ids += length;
  }
  flight->n = 0;
  run->upkeep_seconds += (double)(clock_ns() - begin) * 1e-9;
  return failed;
}

int statistics_run(struct statistics_run *run, struct error *error) {
  struct flight flights[FLIGHTS];
  int opened = 0, result = 0, turn = 0;
  for (; opened < FLIGHTS && !result; opened++) result = flight_open(&flights[opened], run, error);
  int64_t next = statistics_documents(run->statistics);
  run->upkeep_seconds = 0;
  for (int i = 0; i < FLIGHTS && !result; i++) {
    result = launch(&flights[i], next, error);
    next += flights[i].n;
  }
  while (!result && flights[turn].n) {
    if ((result = land(&flights[turn], error)) != 0) break;
    if ((result = launch(&flights[turn], next, error)) != 0) break;
    next += flights[turn].n;
    result = run->progress(run->context, statistics_documents(run->statistics));
    turn = (turn + 1) % FLIGHTS;
  }
  for (int i = 0; i < opened; i++) flight_close(&flights[i]);
  return result;
}
