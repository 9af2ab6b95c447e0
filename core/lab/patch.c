/* patch.c: the verb "patch": a matrix of runs of the corrupted text, each with one piece of the clean run put in.
 *
 * Stage 0 runs both texts and keeps the clean rows of the point and the corrupted residual stream as every layer begins.
 * Stage 1 runs the corrupted text once more, whose keys and values the cells attend to; a cell at layer l and position p
 * begins there, from the kept residual: it computes the layers from l on and the positions from p on, and nothing else
 * differs from a run of its own. All cells take their turns in shared steps. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab/experiment.h"
#include "core/model/point_shape.h"
#include "core/model/points.h"

enum { CLEAN, CORRUPTED };

struct patch {
  struct experiment e;
  enum lab_axes axes;
  enum lab_metric metric;
  enum site site;
  int64_t width, each;       /* of a row of the point, of one head */
  struct point *taps[2];     /* CLEAN: the point at every layer; CORRUPTED: resid_pre */
  float *rows[2];            /* [n_layers][n_tokens][width] and [..][d_model] */
  int32_t *answers;
  double *values, *matrix;
  uint8_t *mask;
  struct lab_patch_result result;
};

static struct patch *patch_of(struct experiment *e) { return (struct patch *)e; }

static void clear(struct experiment *e) {
  for (int i = 0; i < 2; i++) free(patch_of(e)->rows[i]);
}

/* ---- while it runs ---- */

static int64_t row_width(const struct patch *patch, int run) {
  return run == CLEAN ? patch->width : patch->e.model->arch.d_model;
}

static int on_tapped(struct experiment *e, int pass, const struct engine_tapped *tapped, struct error *error) {
  struct patch *patch = patch_of(e);
  size_t width = (size_t)row_width(patch, pass), n = patch->result.n_tokens;
  float *to = patch->rows[pass] + ((size_t)tapped->tap * n + (size_t)tapped->position) * width;
  return tapped->backend->ops->read(tapped->backend, to, tapped->rows.at, (size_t)tapped->n_rows * width * sizeof *to, error);
}

static double measure(const struct patch *patch, const float *logits) {
  int32_t right = patch->answers[0];
  if (patch->metric == LAB_LOGIT_DIFFERENCE) return (double)logits[right] - (double)logits[patch->answers[1]];
  double logprob = (double)sampler_logprob(logits, patch->e.model->arch.vocabulary, right);
  return patch->metric == LAB_LOGPROB ? logprob : exp(logprob);
}

static int on_logits(struct experiment *e, int pass, int32_t position, const float *logits, struct error *error) {
  struct patch *patch = patch_of(e);
  (void)position, (void)error;
  double value = measure(patch, logits);
  if (e->stage == 0)
    *(pass == CLEAN ? &patch->result.clean : &patch->result.corrupted) = value;
  else if (pass > 0)
    patch->values[pass - 1] = value;
  return 0;
}

static int first_stage(struct patch *patch, struct error *error) {
  struct pass *passes = experiment_passes(&patch->e, 2, error);
  for (int i = 0; passes && i < 2; i++) {
    if (experiment_plain(&patch->e, &passes[i], (size_t)i, false, error) != 0) return -1;
    passes[i].taps = patch->taps[i];
    passes[i].n_taps = (int)patch->result.n_layers;
    passes[i].logits = LOGITS_LAST;
  }
  return passes ? 0 : -1;
}

/* ---- cells ---- */

/* The columns [begin, end) of the clean rows of layer l (by its number in the list) at the positions of the mask. */
static int add_edit(struct patch *patch, size_t l, int64_t begin, int64_t end, struct edit_list *list, struct error *error) {
  size_t n = patch->result.n_tokens, columns = (size_t)(end - begin), k = 0;
  float *v = malloc(n * columns * sizeof *v);
  if (!v) return error_memory(error, n * columns * sizeof *v);
  for (size_t p = 0; p < n; p++)
    if (patch->mask[p])
      memcpy(v + k++ * columns, patch->rows[CLEAN] + (l * n + p) * (size_t)patch->width + begin, columns * sizeof *v);
  struct edit edit = {.point = {(int)patch->result.layers[l], patch->site}, .kind = EDIT_ROW_REPLACE,
                      .column_begin = (int32_t)begin, .column_end = (int32_t)end, .v = v, .prompt = true,
                      .mask = patch->mask, .n_mask = (int32_t)n};
  int failed = edit_list_add(list, &edit, error);
  free(v);
  return failed;
}

static int make_cell(struct patch *patch, size_t l, size_t column, struct pass *pass, struct error *error) {
  size_t n = patch->result.n_tokens, d_model = (size_t)patch->e.model->arch.d_model;
  int64_t at = patch->result.columns[column], first = patch->axes == LAB_LAYER_POSITION ? at : 0;
  int64_t begin = patch->axes == LAB_LAYER_HEAD ? at * patch->each : 0;
  int64_t end = patch->axes == LAB_LAYER_HEAD ? begin + patch->each : patch->width;
  memset(patch->mask, patch->axes != LAB_LAYER_POSITION, n);
  patch->mask[first] = 1;
  pass->ids = patch->e.texts[CORRUPTED];
  pass->last_layer = patch->e.model->arch.n_layer;
  pass->logits = LOGITS_LAST;
  pass->resume_layer = (int32_t)patch->result.layers[l];
  pass->resume_position = (int32_t)first;
  pass->resume_rows = patch->rows[CORRUPTED] + (l * n + (size_t)first) * d_model;
  pass->edits = edit_list_new(error);
  return pass->edits ? add_edit(patch, l, begin, end, pass->edits, error) : -1;
}

static int second_stage(struct patch *patch, struct error *error) {
  size_t layers = patch->result.n_layers, columns = patch->result.n_columns;
  struct pass *passes = experiment_passes(&patch->e, 1 + layers * columns, error);
  if (!passes || experiment_plain(&patch->e, &passes[0], CORRUPTED, false, error) != 0) return -1;
  for (size_t l = 0; l < layers; l++)
    for (size_t c = 0; c < columns; c++)
      if (make_cell(patch, l, c, &passes[1 + l * columns + c], error) != 0) return -1;
  return 0;
}

static void finish(struct patch *patch) {
  double corrupted = patch->result.corrupted, whole = patch->result.clean - corrupted;
  for (size_t i = 0; i < patch->result.n_layers * patch->result.n_columns; i++)
    patch->matrix[i] = whole == 0 ? (double)NAN : (patch->values[i] - corrupted) / whole;
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  if (stage == 0) return first_stage(patch_of(e), error);
  if (stage == 1) return second_stage(patch_of(e), error);
  finish(patch_of(e));
  return 0;
}

static const struct experiment_verb verb = {.tapped = on_tapped, .logits = on_logits, .stage = on_stage, .clear = clear};

/* ---- the verb ---- */

/* The ways to write a kind: its layer may stand as N, as TransformerLens' and our tables have it, or be left out. */
static const char *const kind_forms[] = {"%s", "%s.N", "blocks.N.%s", "blocks.N.attn.%s", "blocks.N.mlp.%s"};

/* Form i of a name; layer 0 in place of N. */
static void write_form(size_t i, const char *name, const char *layer, char out[160]) {
  char whole[160];
  const char *mark = strchr(kind_forms[i], '%');
  snprintf(whole, sizeof whole, "%.*s%.100s%s", (int)(mark - kind_forms[i]), kind_forms[i], name, mark + 2);
  const char *hole = strchr(whole, 'N');
  if (hole)
    snprintf(out, 160, "%.*s%s%s", (int)(hole - whole), whole, layer, hole + 1);
  else
    snprintf(out, 160, "%s", whole);
}

/* A name that no form fits: what is wrong with it, in its own words. */
static int refuse_kind(const struct patch *patch, const char *name, struct error *error) {
  const struct arch *arch = &patch->e.model->arch;
  struct point point;
  struct error inner = ERROR_INIT;
  char full[160];
  for (size_t i = 0; i < sizeof kind_forms / sizeof *kind_forms; i++) {
    write_form(i, name, "0", full);
    if (point_read(full, arch->n_layer, &point, NULL) == 0 && point_missing(arch, point.site))
      return error_set_field(error, ERROR_ARGUMENT, "point", "point: this model has no '%.80s': %s", name,
                             point_missing(arch, point.site));
  }
  write_form(strchr(name, '.') ? 0 : 1, name, "N", full);
  if (point_read(full, arch->n_layer, &point, &inner) == 0) inner.text[0] = '\0';
  const char *at = strstr(inner.text, full); /* quoted as it was asked, without the N that was put to it */
  if (!at) return error_set_field(error, ERROR_ARGUMENT, "point", "point: %s", inner.text);
  return error_set_field(error, ERROR_ARGUMENT, "point", "point: %.*s%s%s", (int)(at - inner.text), inner.text, name,
                         at + strlen(full));
}

/* "z.1" is a point, and no kind. */
static int refuse_layer(const char *name, struct point point, struct error *error) {
  return error_set_field(error, ERROR_ARGUMENT, "point", "point: '%.80s' names a layer; here 'point' is the kind, '%s', and 'layers' says "
                         "at which: [%d]", name, site_name(point.site), point.layer);
}

static int find_point(const struct patch *patch, const char *name, struct point *out, struct error *error) {
  char full[160];
  for (size_t i = 0; i < sizeof kind_forms / sizeof *kind_forms; i++) {
    write_form(i, name, "0", full);
    if (point_find(full, &patch->e.model->arch, out, NULL) == 0)
      return strcmp(full, name) == 0 && strpbrk(name, "0123456789") ? refuse_layer(name, *out, error) : 0;
  }
  return refuse_kind(patch, name, error);
}

static int find_kind(struct patch *patch, const char *name, struct error *error) {
  const struct arch *arch = &patch->e.model->arch;
  struct point point;
  if (find_point(patch, name, &point, error) != 0) return -1;
  struct point_shape shape = point_shape(arch, point.site);
  if (point.site < SITE_RESID_PRE || point.site >= SITE_FINAL_SCALE)
    return error_set_field(error, ERROR_ARGUMENT, "point", "point: '%.80s' stands once in a pass and cannot be patched layer by layer", name);
  int32_t n = (int32_t)patch->result.n_tokens;
  patch->site = point.site;
  patch->width = point_width(arch, point.site, n);
  patch->each = shape.square ? n : shape.width;
  patch->result.point = site_name(point.site);
  struct error inner = ERROR_INIT;
  if (point_check_edit(arch, point, EDIT_ROW_REPLACE, 0, patch->width, n, &inner) != 0)
    return error_set_field(error, inner.code, "point", "point: %s", inner.text);
  if (patch->axes != LAB_LAYER_HEAD || shape.heads) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "axes", "axes: '%.80s' has no heads; 'z' has", name);
}

static int read_axes(struct patch *patch, const struct lab_patch_args *args, struct error *error) {
  struct lab_patch_result *result = &patch->result;
  int64_t *layers, *columns, zero = 0;
  const struct arch *arch = &patch->e.model->arch;
  int32_t heads = point_shape(arch, patch->site).heads;
  if (experiment_numbers(&patch->e, args->layers, args->n_layers, arch->n_layer, "layers", &layers, &result->n_layers, error) != 0)
    return -1;
  result->layers = layers;
  if (patch->axes != LAB_LAYER_POSITION && args->n_positions)
    return error_set_field(error, ERROR_ARGUMENT, "positions", "positions have no meaning for these axes");
  int failed = patch->axes == LAB_LAYER_POSITION
                   ? experiment_positions(&patch->e, args->positions, args->n_positions, result->n_tokens, &columns,
                                          &result->n_columns, error)
                   : experiment_numbers(&patch->e, &zero, patch->axes == LAB_LAYER, heads ? heads : 1, "heads", &columns,
                                        &result->n_columns, error);
  if (failed) return -1;
  result->columns = columns;
  return 0;
}

static int read_answers(struct patch *patch, const struct lab_patch_args *args, struct error *error) {
  size_t n = args->metric == LAB_LOGIT_DIFFERENCE ? 2 : 1;
  if (experiment_answers(&patch->e, args->answers, n, args->prepend_space, "answers", &patch->answers, error) != 0) return -1;
  for (size_t i = 0; i < 2; i++) patch->result.answers[i].id = i < n ? patch->answers[i] : -1;
  return experiment_name(&patch->e, patch->result.answers, n, error);
}

static int make_room(struct patch *patch, struct error *error) {
  struct lab_patch_result *result = &patch->result;
  size_t cells = result->n_layers * result->n_columns, rows = result->n_layers * result->n_tokens;
  int64_t bytes = (int64_t)rows * (patch->width + patch->e.model->arch.d_model) * (int64_t)sizeof(float);
  if (bytes > LABORATORY_MAX_BYTES)
    return error_set(error, ERROR_LIMIT, "the runs to patch from take %lld MiB, at most %lld are allowed; name fewer layers or "
                     "shorter texts", (long long)(bytes >> 20), (long long)(LABORATORY_MAX_BYTES >> 20));
  result->values = patch->values = arena_array(&patch->e.arena, cells, sizeof *patch->values, error);
  result->matrix = patch->matrix = arena_array(&patch->e.arena, cells, sizeof *patch->matrix, error);
  patch->mask = arena_alloc(&patch->e.arena, result->n_tokens, error);
  if (!patch->values || !patch->matrix || !patch->mask) return -1;
  for (int run = 0; run < 2; run++) {
    patch->taps[run] = arena_array(&patch->e.arena, result->n_layers, sizeof *patch->taps[run], error);
    size_t floats = rows * (size_t)row_width(patch, run);
    patch->rows[run] = malloc(floats * sizeof(float));
    if (!patch->taps[run]) return -1;
    if (!patch->rows[run]) return error_memory(error, floats * sizeof(float));
    for (size_t l = 0; l < result->n_layers; l++)
      patch->taps[run][l] = (struct point){(int)result->layers[l], run == CLEAN ? patch->site : SITE_RESID_PRE};
  }
  return 0;
}

static int prepare(struct patch *patch, const struct lab_patch_args *args, struct error *error) {
  struct experiment *e = &patch->e;
  struct lab_patch_result *result = &patch->result;
  static const char *const fields[] = {"clean", "corrupted"};
  const struct lab_input *inputs[] = {&args->clean, &args->corrupted};
  patch->axes = args->axes;
  patch->metric = args->metric;
  e->texts = arena_array(&e->arena, 2, sizeof *e->texts, error);
  e->n_texts = 2;
  for (int i = 0; e->texts && i < 2; i++) {
    if (lab_input_ids(e->opened, inputs[i], args->bos, 0, fields[i], &e->arena, &e->texts[i], error) != 0 ||
        experiment_tokens(e, &e->texts[i], &result->tokens[i], error) != 0)
      return -1;
    result->ids[i] = e->texts[i].ids;
    e->job.prompt_tokens += (int64_t)e->texts[i].n;
  }
  if (!e->texts) return -1;
  if (e->texts[CLEAN].n != e->texts[CORRUPTED].n)
    return error_set_field(error, ERROR_ARGUMENT, "corrupted", "corrupted has %zu tokens, clean has %zu; they must have as many, "
                           "so that positions correspond", e->texts[CORRUPTED].n, e->texts[CLEAN].n);
  result->n_tokens = e->texts[CLEAN].n;
  if (find_kind(patch, args->point, error) != 0 || read_axes(patch, args, error) != 0 ||
      read_answers(patch, args, error) != 0)
    return -1;
  return make_room(patch, error);
}

int lab_patch(struct lab *lab, const struct lab_patch_args *args, struct lab_waker waker, struct lab_job **out,
              struct error *error) {
  struct experiment *e = experiment_new(lab, args->model, &verb, sizeof(struct patch), waker, error);
  if (!e) return -1;
  if (prepare(patch_of(e), args, error) != 0) {
    experiment_free(e);
    return -1;
  }
  return experiment_start(e, out, error);
}

const struct lab_patch_result *lab_patch_result(const struct lab_job *job) { return &((const struct patch *)job)->result; }
