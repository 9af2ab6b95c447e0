/* run.c: the verb "run": texts through the model with edits; activations of any points, likeliest tokens and losses
 * come out. Activations go to a spool at offsets known beforehand, so that neither their size nor a slow reader matters
 * to the worker. */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/spool.h"
#include "core/lab/experiment.h"
#include "core/model/point_shape.h"
#include "core/model/points.h"

/* Likeliest tokens in one reply, over all positions of all texts. */
#define MOST_TOP ((int64_t)1 << 20)

struct run {
  struct experiment e;
  struct lab_run_args args; /* numbers only */
  struct point *points;     /* [n_points], beside result.tensors */
  int n_points;
  int32_t last_layer;
  int64_t *heads;
  size_t n_heads;
  struct lab_run_text *texts;
  struct lab_run_result result;
  struct spool *spool;
  float *row;               /* scratch: one row of the widest tensor */
  float *spread; /* behind row: one head of it */
};

static struct run *run_of(struct experiment *e) { return (struct run *)e; }

static void clear(struct experiment *e) {
  spool_close(run_of(e)->spool);
  free(run_of(e)->row);
}

/* ---- points ---- */

static bool is_glob(const char *name) { return strpbrk(name, "*?") != NULL; }

/* Scores and pattern of every text have the places of the longest one. */
static int32_t longest(const struct run *run) {
  size_t most = 1;
  for (size_t t = 0; t < run->e.n_texts; t++)
    if (run->e.texts[t].n > most) most = run->e.texts[t].n;
  return (int32_t)most;
}

static int add_point(struct run *run, struct point point, struct error *error) {
  for (int i = 0; i < run->n_points; i++)
    if (point_index(run->points[i]) == point_index(point)) return 0;
  char name[POINT_NAME_BYTES];
  const struct arch *arch = &run->e.model->arch;
  struct lab_tensor *tensor = (struct lab_tensor *)(uintptr_t)&run->result.tensors[run->n_points];
  tensor->name = arena_text(&run->e.arena, point_name(point, name), strlen(point_name(point, name)), error);
  if (!tensor->name) return -1;
  struct point_shape shape = point_shape(arch, point.site);
  tensor->n_dims = shape.heads ? 2 : 1;
  tensor->dims[0] = shape.heads ? (run->n_heads ? (int64_t)run->n_heads : shape.heads) : shape.width;
  tensor->dims[1] = shape.square ? longest(run) : shape.heads ? shape.width : 1;
  tensor->width = tensor->dims[0] * tensor->dims[1];
  tensor->square = shape.square;
  run->points[run->n_points++] = point;
  return 0;
}

/* Every point that a name of whatever spelling fits. */
static int add_glob(struct run *run, const char *glob, const char *field, struct error *error) {
  struct point *points;
  struct error inner = ERROR_INIT;
  size_t n;
  if (points_select(glob, &run->e.model->arch, &points, &n, &inner) != 0)
    return error_set_field(error, inner.code, field, "%s: %s", field, inner.text);
  int failed = 0;
  for (size_t i = 0; i < n && !failed; i++) failed = add_point(run, points[i], error);
  free(points);
  return failed;
}

static int add_named(struct run *run, const char *name, const char *field, struct error *error) {
  struct point point;
  struct error inner = ERROR_INIT;
  if (is_glob(name)) return add_glob(run, name, field, error);
  if (point_find(name, &run->e.model->arch, &point, &inner) != 0)
    return error_set_field(error, inner.code, field, "%s: %s", field, inner.text);
  return add_point(run, point, error);
}

/* Keys and values may have fewer heads than queries. */
static int check_heads(const struct run *run, int i, struct error *error) {
  struct point_shape shape = point_shape(&run->e.model->arch, run->points[i].site);
  const char *name = run->result.tensors[i].name;
  if (run->n_heads && run->result.tensors[i].n_dims < 2)
    return error_set_field(error, ERROR_ARGUMENT, "heads", "heads: '%s' has no heads; attn.hook_z has", name);
  for (size_t h = 0; h < run->n_heads; h++) {
    char field[32];
    if (run->heads[h] < shape.heads) continue;
    snprintf(field, sizeof field, "heads[%zu]", h);
    return error_set_field(error, ERROR_ARGUMENT, field, "%s is %" PRId64 ", '%s' has heads 0 to %d", field, run->heads[h],
                           name, shape.heads - 1);
  }
  return 0;
}

static int find_points(struct run *run, const struct lab_run_args *args, struct error *error) {
  size_t most = (size_t)point_count(run->e.model->arch.n_layer) + 1;
  run->points = arena_array(&run->e.arena, most, sizeof *run->points, error);
  run->result.tensors = arena_array(&run->e.arena, most, sizeof *run->result.tensors, error);
  if (!run->points || !run->result.tensors) return -1;
  for (size_t i = 0; i < args->n_points; i++) {
    char field[32];
    snprintf(field, sizeof field, "points[%zu]", i);
    if (add_named(run, args->points[i], field, error) != 0) return -1;
  }
  for (int i = 0; i < run->n_points; i++)
    if (check_heads(run, i, error) != 0) return -1;
  return 0;
}

/* How far the passes run; a stop gives the residual stream there as a tensor of its own. */
static int find_stop(struct run *run, const struct lab_run_args *args, struct error *error) {
  int32_t n_layer = run->e.model->arch.n_layer;
  bool logits = args->top_k > 0 || args->loss, stops = args->stop_at_layer != INT64_MIN;
  int64_t stop = args->stop_at_layer < 0 ? args->stop_at_layer + n_layer : args->stop_at_layer;
  run->last_layer = logits ? n_layer : 0;
  for (int i = 0; i < run->n_points; i++)
    if (point_layers(run->points[i]) > run->last_layer) run->last_layer = point_layers(run->points[i]);
  if (!stops) return 0;
  if (stop < 0 || stop > n_layer)
    return error_set_field(error, ERROR_ARGUMENT, "stopAtLayer", "stopAtLayer is %" PRId64 ", the model has %d layers",
                           args->stop_at_layer, n_layer);
  if (run->last_layer > stop)
    return error_set_field(error, ERROR_ARGUMENT, "stopAtLayer", "stopAtLayer is %" PRId64 ", but %s need layer %d",
                           args->stop_at_layer, logits ? "logits" : "the points", run->last_layer - 1);
  run->last_layer = (int32_t)stop;
  struct point point = stop < n_layer ? (struct point){(int)stop, SITE_RESID_PRE} : (struct point){n_layer - 1, SITE_RESID_POST};
  int before = run->n_points;
  if (add_point(run, point, error) != 0) return -1;
  for (int i = 0; i < run->n_points; i++)
    if (point_index(run->points[i]) == point_index(point) && i >= before)
      ((struct lab_tensor *)(uintptr_t)&run->result.tensors[i])->name = "residual";
  return 0;
}

/* ---- room for the result ---- */

static int prepare_positions(struct run *run, const struct lab_run_args *args, size_t t, struct error *error) {
  struct lab_run_text *text = &run->texts[t];
  size_t n = args->n_positions ? args->n_positions : text->n_tokens;
  int64_t *positions = arena_array(&run->e.arena, n, sizeof *positions, error);
  if (!positions) return -1;
  for (size_t i = 0; i < n; i++) {
    positions[i] = (int64_t)i;
    if (args->n_positions &&
        experiment_position(args->positions[i], text->n_tokens, "positions", i, &positions[i], error) != 0)
      return -1;
  }
  text->positions = positions;
  text->n_positions = n;
  return 0;
}

static int prepare_special(struct run *run, struct lab_run_text *text, struct error *error) {
  bool *special = arena_array(&run->e.arena, text->n_tokens, sizeof *special, error);
  for (size_t i = 0; special && i < text->n_tokens; i++)
    special[i] = tokenizer_is_special(run->e.model->tokenizer, text->ids[i]);
  text->special = special;
  return special ? 0 : -1;
}

static int prepare_text(struct run *run, const struct lab_run_args *args, size_t t, struct error *error) {
  struct lab_run_text *text = &run->texts[t];
  struct arena *arena = &run->e.arena;
  const struct lab_ids *ids = &run->e.texts[t];
  text->ids = ids->ids;
  text->n_tokens = ids->n;
  text->loss = NAN;
  if (experiment_tokens(&run->e, ids, &text->tokens, error) != 0 || prepare_special(run, text, error) != 0 ||
      prepare_positions(run, args, t, error) != 0)
    return -1;
  text->offsets = arena_array(arena, (size_t)run->n_points, sizeof *text->offsets, error);
  if (args->loss) text->losses = arena_array(arena, ids->n, sizeof *text->losses, error);
  if (args->top_k) text->top = arena_array(arena, text->n_positions * (size_t)args->top_k, sizeof *text->top, error);
  return text->offsets && (!args->loss || text->losses) && (!args->top_k || text->top) ? 0 : -1;
}

static int place_tensors(struct run *run, struct error *error) {
  int64_t at = 0, widest = 1;
  for (int i = 0; i < run->n_points; i++) {
    int64_t width = point_width(&run->e.model->arch, run->points[i].site, longest(run));
    if (width > widest) widest = width;
    for (size_t t = 0; t < run->e.n_texts; t++) {
      ((int64_t *)(uintptr_t)run->texts[t].offsets)[i] = at;
      at += (int64_t)run->texts[t].n_positions * run->result.tensors[i].width * (int64_t)sizeof(float);
      if (at > LABORATORY_MAX_BYTES)
        return error_set_field(error, ERROR_LIMIT, "points", "the activations asked for take more than %" PRId64
                               " MiB; ask for fewer points, positions or texts", LABORATORY_MAX_BYTES >> 20);
    }
  }
  run->result.bytes = at;
  run->row = malloc((size_t)(widest + longest(run)) * sizeof *run->row);
  if (!run->row) return error_memory(error, (size_t)(widest + longest(run)) * sizeof *run->row);
  run->spread = run->row + widest;
  return 0;
}

/* Nobody's mistake, and another request may fit: the disk is full, or whoever runs the server must look at TMPDIR. */
static int refuse_disk(const struct run *run, const struct error *inner, struct error *error) {
  log_warn("activations cannot be kept until they are asked for: %s", inner->text);
  return error_set_field(error, ERROR_BUSY, "points", "the server's disk has no room for the activations of this request (%" PRId64
                         " KiB); ask for fewer points or positions, or try later", (run->result.bytes + 1023) >> 10);
}

static int keep(struct run *run, int64_t offset, const float *from, size_t floats, struct error *error) {
  struct error inner = ERROR_INIT;
  if (spool_write(run->spool, offset, from, floats * sizeof *from, &inner) == 0) return 0;
  return refuse_disk(run, &inner, error);
}

static int prepare(struct run *run, const struct lab_run_args *args, struct error *error) {
  int64_t top = 0, context = run->e.model->arch.n_ctx;
  if ((int64_t)args->n_positions > context) /* all of them are looked through at every token */
    return error_set_field(error, ERROR_LIMIT, "positions", "'positions' names %zu tokens, a text has at most %" PRId64,
                           args->n_positions, context);
  run->texts = arena_array(&run->e.arena, run->e.n_texts, sizeof *run->texts, error);
  if (!run->texts) return -1;
  for (size_t t = 0; t < run->e.n_texts; t++)
    top += (int64_t)args->top_k * (int64_t)(args->n_positions ? args->n_positions : run->e.texts[t].n);
  if (top > MOST_TOP)
    return error_set_field(error, ERROR_LIMIT, "topK", "topK at every position gives %" PRId64 " rows, at most %" PRId64
                           " are given; name positions", top, MOST_TOP);
  for (size_t t = 0; t < run->e.n_texts; t++)
    if (prepare_text(run, args, t, error) != 0) return -1;
  run->result.texts = run->texts;
  run->result.n_texts = run->e.n_texts;
  run->result.n_tensors = (size_t)run->n_points;
  run->result.top_k = args->top_k;
  if (place_tensors(run, error) != 0) return -1;
  if (!run->n_points) return 0;
  struct error inner = ERROR_INIT;
  run->spool = spool_open(&inner);
  return run->spool ? 0 : refuse_disk(run, &inner, error);
}

/* ---- while it runs ---- */

/* The chosen heads of a row of scores or of a pattern, with places that the text does not have marked as hidden. */
static int write_square(struct run *run, const struct engine_tapped *tapped, int64_t offset, struct error *error) {
  const struct lab_tensor *tensor = &run->result.tensors[tapped->tap];
  struct point point = run->points[tapped->tap];
  int64_t keys = tapped->width / point_shape(&run->e.model->arch, point.site).heads, places = tensor->dims[1];
  for (int64_t j = keys; j < places; j++) run->spread[j] = point.site == SITE_SCORES ? -INFINITY : 0;
  for (int64_t h = 0; h < tensor->dims[0]; h++) {
    int64_t head = run->n_heads ? run->heads[h] : h;
    memcpy(run->spread, run->row + head * keys, (size_t)keys * sizeof *run->row);
    if (keep(run, offset + h * places * (int64_t)sizeof(float), run->spread, (size_t)places, error) != 0) return -1;
  }
  return 0;
}

static int write_row(struct run *run, const struct engine_tapped *tapped, int32_t i, int64_t offset, struct error *error) {
  const struct lab_tensor *tensor = &run->result.tensors[tapped->tap];
  struct span at = span_at(tapped->rows.at, (size_t)i * (size_t)tapped->rows.ld * sizeof(float));
  if (tapped->backend->ops->read(tapped->backend, run->row, at, (size_t)tapped->width * sizeof(float), error) != 0) return -1;
  if (point_shape(&run->e.model->arch, run->points[tapped->tap].site).square) return write_square(run, tapped, offset, error);
  if (tensor->n_dims < 2 || !run->n_heads)
    return keep(run, offset, run->row, (size_t)tensor->width, error);
  for (size_t h = 0; h < run->n_heads; h++) {
    size_t each = (size_t)tensor->dims[1];
    if (keep(run, offset + (int64_t)(h * each * sizeof(float)), run->row + run->heads[h] * tensor->dims[1], each, error) != 0)
      return -1;
  }
  return 0;
}

static int on_tapped(struct experiment *e, int pass, const struct engine_tapped *tapped, struct error *error) {
  struct run *run = run_of(e);
  const struct lab_run_text *text = &run->texts[pass];
  int64_t row_bytes = run->result.tensors[tapped->tap].width * (int64_t)sizeof(float);
  for (size_t k = 0; k < text->n_positions; k++) {
    int64_t i = text->positions[k] - tapped->position;
    if (i < 0 || i >= tapped->n_rows) continue;
    if (write_row(run, tapped, (int32_t)i, text->offsets[tapped->tap] + (int64_t)k * row_bytes, error) != 0) return -1;
  }
  return 0;
}

static int on_logits(struct experiment *e, int pass, int32_t position, const float *logits, struct error *error) {
  (void)error;
  struct run *run = run_of(e);
  struct lab_run_text *text = &run->texts[pass];
  int k = run->args.top_k;
  for (size_t i = 0; k && i < text->n_positions; i++)
    if (text->positions[i] == position)
      experiment_likeliest(e, logits, k, (struct lab_token *)(uintptr_t)text->top + i * (size_t)k);
  if (text->losses && (size_t)position + 1 < text->n_tokens)
    ((float *)(uintptr_t)text->losses)[position] = experiment_loss(e, logits, text->ids[position + 1]);
  return 0;
}

static int finish(struct run *run, struct error *error) {
  for (size_t t = 0; t < run->e.n_texts; t++) {
    struct lab_run_text *text = &run->texts[t];
    double sum = 0;
    for (size_t i = 0; text->losses && i + 1 < text->n_tokens; i++) sum += (double)text->losses[i];
    if (text->losses && text->n_tokens > 1) text->loss = sum / (double)(text->n_tokens - 1);
    if (text->top && experiment_name(&run->e, (struct lab_token *)(uintptr_t)text->top,
                                     text->n_positions * (size_t)run->args.top_k, error) != 0)
      return -1;
  }
  return 0;
}

static bool only_last(const struct run *run) {
  if (run->args.loss) return false;
  for (size_t t = 0; t < run->e.n_texts; t++)
    for (size_t i = 0; i < run->texts[t].n_positions; i++)
      if (run->texts[t].positions[i] + 1 != (int64_t)run->texts[t].n_tokens) return false;
  return true;
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  struct run *run = run_of(e);
  bool logits = run->args.top_k || run->args.loss;
  if (stage > 0) return finish(run, error);
  struct pass *passes = experiment_passes(e, e->n_texts, error);
  for (size_t t = 0; passes && t < e->n_texts; t++) {
    if (experiment_plain(e, &passes[t], t, true, error) != 0) return -1;
    passes[t].last_layer = run->last_layer;
    passes[t].taps = run->points;
    passes[t].n_taps = run->n_points;
    passes[t].logits = !logits ? LOGITS_NONE : only_last(run) ? LOGITS_LAST : LOGITS_ALL;
  }
  return passes ? 0 : -1;
}

static const struct experiment_verb verb = {.tapped = on_tapped, .logits = on_logits, .stage = on_stage, .clear = clear};

/* ---- the verb ---- */

static int read_heads(struct run *run, const struct lab_run_args *args, struct error *error) {
  run->heads = arena_array(&run->e.arena, args->n_heads, sizeof *run->heads, error);
  run->n_heads = args->n_heads;
  for (size_t i = 0; run->heads && i < args->n_heads; i++) {
    char field[32];
    run->heads[i] = args->heads[i];
    snprintf(field, sizeof field, "heads[%zu]", i);
    if (args->heads[i] < 0 || args->heads[i] >= run->e.model->arch.n_head)
      return error_set_field(error, ERROR_ARGUMENT, field, "%s is %" PRId64 ", the model has heads 0 to %d", field,
                             args->heads[i], run->e.model->arch.n_head - 1);
  }
  return run->heads ? 0 : -1;
}

int lab_run(struct lab *lab, const struct lab_run_args *args, struct lab_waker waker, struct lab_job **out,
            struct error *error) {
  assert(args->n_inputs >= 1 && args->top_k >= 0 && args->top_k <= LAB_TOP_MOST);
  struct experiment *e = experiment_new(lab, args->model, &verb, sizeof(struct run), waker, error);
  if (!e) return -1;
  struct run *run = run_of(e);
  run->args = (struct lab_run_args){.top_k = args->top_k, .loss = args->loss};
  if (experiment_texts(e, args->inputs, args->n_inputs, args->bos, args->n_inputs > 1, error) != 0 ||
      experiment_edits(e, lab, args->model, args->edits, args->n_edits, args->bos, error) != 0 ||
      read_heads(run, args, error) != 0 || find_points(run, args, error) != 0 || find_stop(run, args, error) != 0 ||
      prepare(run, args, error) != 0) {
    experiment_free(e);
    return -1;
  }
  return experiment_start(e, out, error);
}

const struct lab_run_result *lab_run_result(const struct lab_job *job) { return &((const struct run *)job)->result; }

int lab_run_read(struct lab_job *job, int64_t offset, void *to, size_t n, struct error *error) {
  return spool_read(((struct run *)job)->spool, offset, to, n, error);
}
