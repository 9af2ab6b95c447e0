/* feed.c: documents through the engine's background into a buffer of rows, two tasks under way at a time. Knows no dictionary. */
#include "core/analysis/feed.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/awaited.h"
#include "core/base/checked.h"
#include "core/base/random.h"

#define FLIGHTS 2
#define MOST_DOCUMENTS 256 /* of a task */
#define STREAM_DOCUMENTS ((uint64_t)1 << 40) /* of random numbers: + the walk; ... */
#define STREAM_ROWS ((uint64_t)2 << 40)      /* ... + the buffer */

/* Documents in the order of a task, and where their rows go. */
struct flight {
  const struct feed_options *options;
  int n;                      /* documents; 0: not in use */
  int64_t documents[MOST_DOCUMENTS];
  float *rows[FEED_POINTS];   /* where rows go, */
  int64_t to[MOST_DOCUMENTS]; /* and which of them is a document's first that counts */
  int64_t room[MOST_DOCUMENTS]; /* rows that are wanted at most */
  struct awaited task;
};

struct feed {
  struct feed_options options;
  struct feed_state state;
  bool filled;
  int64_t next_document; /* behind this buffer */
  float *rows[FEED_POINTS]; /* of each point [batch * batches, width] */
  int32_t *order;        /* of them */
  int64_t *walk;         /* documents in the order of walk number `walk_number` */
  int64_t walk_number;
};

/* ---- shuffling ---- */

/* A whole number below n, n < 2^32, all equally likely but for 2^-32 n. */
static uint32_t draw_below(uint64_t seed, uint64_t stream, uint64_t position, uint32_t n) {
  uint32_t words[4];
  random_words(seed, stream, position, words);
  return (uint32_t)((uint64_t)words[0] * n >> 32);
}

static void shuffle_rows(struct feed *feed) {
  int64_t n = feed->options.batch * feed->options.batches;
  for (int64_t i = 0; i < n; i++) feed->order[i] = (int32_t)i;
  for (int64_t i = n - 1; i > 0; i--) {
    uint32_t j = draw_below(feed->options.seed, STREAM_ROWS + (uint64_t)feed->state.buffers, (uint64_t)i, (uint32_t)i + 1);
    int32_t was = feed->order[i];
    feed->order[i] = feed->order[j];
    feed->order[j] = was;
  }
}

static void shuffle_documents(struct feed *feed, int64_t number) {
  int64_t n = feed->options.documents;
  for (int64_t i = 0; i < n; i++) feed->walk[i] = feed->options.first + i;
  for (int64_t i = n - 1; i > 0; i--) {
    uint32_t j = draw_below(feed->options.seed, STREAM_DOCUMENTS + (uint64_t)number, (uint64_t)i, (uint32_t)i + 1);
    int64_t was = feed->walk[i];
    feed->walk[i] = feed->walk[j];
    feed->walk[j] = was;
  }
  feed->walk_number = number;
}

/* Number `at` over all walks. */
static int64_t document_at(struct feed *feed, int64_t at) {
  if (at / feed->options.documents != feed->walk_number) shuffle_documents(feed, at / feed->options.documents);
  return feed->walk[at % feed->options.documents];
}

/* ---- from the engine ---- */

static int on_tapped(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  struct flight *flight = context;
  int64_t skip = flight->options->skip_first ? 1 : 0, width = flight->options->widths[tapped->tap];
  float *to = flight->rows[tapped->tap];
  int64_t begin = tapped->position - skip, end = begin + tapped->n_rows, left_out = begin < 0 ? -begin : 0;
  assert(tapped->width == width);
  if (end > flight->room[sequence]) end = flight->room[sequence];
  if (begin + left_out >= end) return 0;
  struct span from = span_at(tapped->rows.at, (size_t)(left_out * width) * sizeof(float));
  return tapped->backend->ops->read(tapped->backend, to + (flight->to[sequence] + begin + left_out) * width, from,
                                    (size_t)((end - begin - left_out) * width) * sizeof(float), error);
}

static void on_done(void *context, const struct error *error) {
  struct flight *flight = context;
  awaited_done(&flight->task, error);
}

static const struct engine_events events = {.tapped = on_tapped, .done = on_done, .reads_tapped = true};

/* ---- flights ---- */

/* Whose documents come next, and where their rows go: false when there is none, or no room. */
struct source {
  bool (*next)(struct source *source, int64_t *document, int64_t *to, int64_t *room);
  struct feed *feed;
  const struct feed_options *options;
  float *const *rows; /* [FEED_POINTS] */
  int64_t document, filled, total;
};

static bool take_document(struct source *source, int64_t document, int64_t *to, int64_t *room) {
  *to = source->filled;
  *room = source->total - source->filled;
  source->filled += feed_document_rows(source->options, document);
  source->document++;
  return true;
}

static bool next_shuffled(struct source *source, int64_t *document, int64_t *to, int64_t *room) {
  if (source->filled >= source->total) return false;
  *document = document_at(source->feed, source->document);
  return take_document(source, *document, to, room);
}

static bool next_in_order(struct source *source, int64_t *document, int64_t *to, int64_t *room) {
  int64_t end = corpus_documents(source->options->corpus);
  if (source->filled >= source->total || source->document >= end) return false;
  *document = source->document;
  return take_document(source, *document, to, room);
}

/* Fills a flight; documents without a row that counts are passed over. Rows of the task. */
static int64_t load(struct flight *flight, struct source *source) {
  const struct feed_options *o = flight->options;
  int64_t rows = 0, longest = 0;
  int most = o->max_sequences < MOST_DOCUMENTS ? o->max_sequences : MOST_DOCUMENTS;
  flight->n = 0;
  while (flight->n < most && (flight->n == 0 || rows + longest <= o->max_rows)) {
    int at = flight->n;
    if (!source->next(source, &flight->documents[at], &flight->to[at], &flight->room[at])) break;
    int64_t length = corpus_length(o->corpus, flight->documents[at]);
    if (feed_document_rows(o, flight->documents[at]) == 0) continue;
    rows += length;
    if (length > longest) longest = length;
    flight->n++;
  }
  return rows;
}

/* Layers that all points need. */
static int32_t layers_of(const struct feed_options *o) {
  int32_t most = 0;
  for (int i = 0; i < o->n_points; i++)
    if (point_layers(o->points[i]) > most) most = point_layers(o->points[i]);
  return most;
}

/* In turn: how many of them run at once is the engine's affair. */
static int launch(struct flight *flight, struct source *source, struct error *error) {
  const struct feed_options *o = flight->options;
  size_t rows = (size_t)load(flight, source);
  if (flight->n == 0) return 0;
  struct engine_sequence *sequences = calloc((size_t)flight->n, sizeof *sequences);
  int32_t *ids = malloc((rows + 1) * sizeof *ids), *at = ids;
  int failed = sequences && ids ? 0 : error_memory(error, rows * sizeof *ids);
  for (int i = 0; !failed && i < flight->n; i++) {
    int32_t length = corpus_length(o->corpus, flight->documents[i]);
    corpus_ids(o->corpus, flight->documents[i], at);
    sequences[i] = (struct engine_sequence){.tokens = at, .n_tokens = length, .last_layer = layers_of(o), .taps = o->points,
                                            .n_taps = o->n_points, .eos = -1, .n_logprobs = -1};
    at += length;
  }
  struct engine_task_args args = {.model = o->model, .sequences = sequences, .n_sequences = flight->n, .events = &events,
                                  .context = flight, .background = true, .in_turn = true};
  if (!failed) failed = awaited_submit(&flight->task, &args, error);
  free(sequences);
  free(ids);
  if (failed) flight->n = 0;
  return failed;
}

static int land(struct flight *flight, struct error *error) {
  flight->n = 0;
  return awaited_wait(&flight->task, error);
}

static int is_stopped(const struct feed_options *o, struct error *error) {
  if (!o->stop || !o->stop(o->context)) return 0;
  return error_set(error, ERROR_CANCELLED, "stopped while activations were made");
}

static int fly(struct source *source, struct error *error) {
  struct flight *flights = calloc(FLIGHTS, sizeof *flights);
  if (!flights) return error_memory(error, FLIGHTS * sizeof *flights);
  int failed = 0, turn = 0;
  for (int i = 0; i < FLIGHTS; i++) {
    flights[i].options = source->options;
    memcpy(flights[i].rows, source->rows, sizeof flights[i].rows);
    awaited_open(&flights[i].task, source->options->engine);
  }
  for (int i = 0; i < FLIGHTS && !failed; i++) failed = launch(&flights[i], source, error);
  while (!failed && flights[turn].n) {
    failed = is_stopped(source->options, error) != 0 || land(&flights[turn], error) != 0 || launch(&flights[turn], source, error) != 0;
    if (source->options->progress)
      source->options->progress(source->options->context, source->filled < source->total ? source->filled : source->total, source->total);
    turn = (turn + 1) % FLIGHTS;
  }
  for (int i = 0; i < FLIGHTS; i++) awaited_close(&flights[i].task);
  free(flights);
  return failed ? -1 : 0;
}

/* ---- buffers ---- */

int64_t feed_document_rows(const struct feed_options *o, int64_t document) {
  int64_t rows = corpus_length(o->corpus, document) - (o->skip_first ? 1 : 0);
  return rows > 0 ? rows : 0;
}

static int64_t width_of_all(const struct feed_options *o) {
  int64_t width = 0;
  for (int i = 0; i < o->n_points; i++) width += o->widths[i];
  return width;
}

size_t feed_bytes(const struct feed_options *o) {
  size_t rows, bytes, each = (size_t)width_of_all(o) * sizeof(float) + sizeof(int32_t);
  if (!checked_mul((size_t)o->batch, (size_t)o->batches, &rows) || !checked_mul(rows, each, &bytes))
    return SIZE_MAX;
  return bytes;
}

struct feed *feed_new(const struct feed_options *o, const struct feed_state *state, struct error *error) {
  int64_t rows = 0;
  for (int64_t d = 0; d < o->documents && rows == 0; d++) rows = feed_document_rows(o, o->first + d);
  if (rows == 0) return error_set(error, ERROR_ARGUMENT, "the text has no tokens to train on"), NULL;
  struct feed *feed = calloc(1, sizeof *feed);
  if (!feed) return error_memory(error, sizeof *feed), NULL;
  size_t n = (size_t)o->batch * (size_t)o->batches;
  feed->options = *o;
  feed->state = *state;
  feed->walk_number = -1;
  bool fine = true;
  for (int i = 0; i < o->n_points; i++) fine &= (feed->rows[i] = malloc(n * (size_t)o->widths[i] * sizeof(float))) != NULL;
  feed->order = malloc(n * sizeof *feed->order);
  feed->walk = malloc((size_t)o->documents * sizeof *feed->walk);
  if (fine && feed->order && feed->walk) return feed;
  feed_free(feed);
  return error_memory(error, feed_bytes(o)), NULL;
}

void feed_free(struct feed *feed) {
  if (!feed) return;
  for (int i = 0; i < FEED_POINTS; i++) free(feed->rows[i]);
  free(feed->order);
  free(feed->walk);
  free(feed);
}

static int fill(struct feed *feed, struct error *error) {
  struct source source = {.next = next_shuffled, .feed = feed, .options = &feed->options, .rows = feed->rows, .document = feed->state.document,
                          .total = feed->options.batch * feed->options.batches};
  if (fly(&source, error) != 0) return -1;
  feed->next_document = source.document;
  feed->filled = true;
  shuffle_rows(feed);
  return 0;
}

static int make_ready(struct feed *feed, struct error *error) { return feed->filled ? 0 : fill(feed, error); }

/* A state never stands behind the last batch of a buffer, where the next one begins. */
static void count_batch(struct feed *feed) {
  if (++feed->state.dealt < feed->options.batches) return;
  feed->state = (struct feed_state){feed->state.buffers + 1, feed->next_document, 0};
  feed->filled = false;
}

int feed_rows(struct feed *feed, const float *rows[FEED_POINTS], struct error *error) {
  for (int i = 0; i < FEED_POINTS; i++) rows[i] = feed->rows[i];
  return make_ready(feed, error);
}

static void deal(const struct feed *feed, int point, float *out) {
  int64_t width = feed->options.widths[point];
  const int32_t *order = feed->order + feed->state.dealt * feed->options.batch;
  for (int64_t i = 0; i < feed->options.batch; i++) memcpy(out + i * width, feed->rows[point] + order[i] * width, (size_t)width * sizeof *out);
}

int feed_batch(struct feed *feed, float *const out[FEED_POINTS], struct error *error) {
  if (make_ready(feed, error) != 0) return -1;
  for (int i = 0; i < feed->options.n_points; i++) deal(feed, i, out[i]);
  count_batch(feed);
  return 0;
}

void feed_state(const struct feed *feed, struct feed_state *out) { *out = feed->state; }

int64_t feed_read(const struct feed_options *o, int64_t document, int64_t most, float *const out[FEED_POINTS], struct error *error) {
  struct source source = {.next = next_in_order, .options = o, .rows = out, .document = document, .total = most};
  if (fly(&source, error) != 0) return -1;
  return source.filled < most ? source.filled : most;
}
