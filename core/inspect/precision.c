/* precision.c: what a model loses when its matrices are kept in fewer bits, measured: the same text through the
 * weights as they are and through rounded ones, every other thing equal. Owns the text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/kv.h"
#include "core/inspect/inspect_int.h"
#include "core/model/plan.h"

#define MAX_TOKENS 96

static const char text[] =
    "The harbour was quiet that morning. Two fishermen mended a net on the stones and spoke of the storm that had kept "
    "them ashore since Tuesday. \"It will clear by noon,\" said the older one, \"it always does when the wind turns east.\" "
    "A girl came down the steps with a basket of bread, counted seven boats, and asked which of them was her father's.";

/* One run over the text. */
struct run {
  const int32_t *ids;
  int32_t n;
  float *logits; /* [n, vocabulary] */
};

/* Token ids of the text; where the vocabulary cannot write it, ids spread over the vocabulary. */
static int32_t choose_ids(const struct model *model, int32_t ids[MAX_TOKENS], bool *written) {
  int32_t *found = NULL, n = 0, most = model->arch.n_ctx < MAX_TOKENS ? (int32_t)model->arch.n_ctx : MAX_TOKENS;
  size_t count = 0;
  int flags = tokenizer_prepends_bos(model->tokenizer) ? TOKENIZE_BOS : 0;
  *written = tokenizer_encode(model->tokenizer, text, strlen(text), flags, &found, &count, NULL) == 0 && count > 1;
  for (; n < most && (!*written || n < (int32_t)count); n++)
    ids[n] = *written ? found[n] : (int32_t)((n * (int64_t)2654435761) % tokenizer_size(model->tokenizer));
  free(found);
  return n;
}

/* ---- running ---- */

struct tables {
  int32_t position[MAX_TOKENS], source[MAX_TOKENS], logit_row[MAX_TOKENS];
  uint8_t origin[MAX_TOKENS];
  struct step_slot slot;
  struct row_range *range; /* [n_layer + 1] */
  int32_t *kv;             /* [n_layer][blocks] */
};

static int read_logits(struct plan *plan, const struct run *run, struct error *error) {
  const struct model *model = plan_model(plan);
  struct rows rows = plan_logits(plan);
  size_t v = (size_t)model->arch.vocabulary;
  for (int32_t i = 0; i < run->n; i++)
    if (model->backend->ops->read(model->backend, run->logits + (size_t)i * v,
                                  span_at(rows.at, (size_t)i * (size_t)rows.ld * sizeof(float)), v * sizeof(float),
                                  error) != 0)
      return -1;
  return 0;
}

static int run_step(struct plan *plan, const struct run *run, struct span kv, struct tables *t, int32_t blocks,
                    struct error *error) {
  int32_t layers = plan_model(plan)->arch.n_layer;
  struct step step = {.n_layer = layers, .n_rows = run->n, .token = run->ids, .position = t->position,
                      .origin = t->origin, .source = t->source, .n_slots = 1, .slots = &t->slot, .active = t->range,
                      .arriving = t->range, .kv = kv, .kv_table = t->kv, .kv_blocks = blocks, .n_logit_rows = run->n,
                      .logit_row = t->logit_row};
  t->slot = (struct step_slot){.rows = {0, run->n}, .position = 0, .first = 0, .last = layers};
  for (int32_t l = 0; l <= layers; l++) t->range[l] = (struct row_range){0, run->n};
  for (int32_t i = 0; i < layers * blocks; i++) t->kv[i] = i;
  for (int32_t i = 0; i < run->n; i++) t->position[i] = t->logit_row[i] = i;
  return plan_run(plan, &step, error) == 0 ? read_logits(plan, run, error) : -1;
}

static int run_text(const struct model *model, const struct run *run, struct error *error) {
  struct tables tables = {.range = NULL};
  struct memory *kv = NULL;
  int rc = -1;
  int32_t blocks = (run->n + KV_BLOCK - 1) / KV_BLOCK, layers = model->arch.n_layer;
  struct plan *plan = plan_new(model, (struct plan_limits){run->n, run->n}, error);
  tables.range = calloc((size_t)layers + 1, sizeof *tables.range);
  tables.kv = calloc((size_t)layers * (size_t)blocks, sizeof *tables.kv);
  if (!plan) goto out;
  if (!tables.range || !tables.kv) {
    error_memory(error, (size_t)layers * sizeof *tables.range);
    goto out;
  }
  if (model->backend->ops->alloc(model->backend, kv_sequence_bytes(model, run->n), &kv, error) == 0)
    rc = run_step(plan, run, (struct span){kv, 0}, &tables, blocks, error);
out:
  model->backend->ops->free(model->backend, kv);
  free(tables.range);
  free(tables.kv);
  plan_free(plan);
  return rc;
}

/* ---- comparing ---- */

struct difference {
  double relative; /* rms of the change of the logits over the rms of the logits around their mean */
  int agree;       /* positions where the likeliest next token is the same */
  double loss[2];  /* nats a token, as it is and rounded */
};

static size_t best(const float *logits, size_t n) {
  size_t at = 0;
  for (size_t i = 1; i < n; i++)
    if (logits[i] > logits[at]) at = i;
  return at;
}

static double loss_of(const float *logits, size_t n, int32_t token) {
  double most = logits[best(logits, n)], sum = 0;
  for (size_t i = 0; i < n; i++) sum += exp(logits[i] - most);
  return most + log(sum) - logits[token];
}

static struct difference compare(const struct run *plain, const struct run *rounded, size_t v) {
  struct difference out = {0, 0, {0, 0}};
  double change = 0, spread = 0;
  for (int32_t r = 0; r < plain->n; r++) {
    const float *a = plain->logits + (size_t)r * v, *b = rounded->logits + (size_t)r * v;
    double mean = 0;
    for (size_t i = 0; i < v; i++) mean += a[i];
    mean /= (double)v;
    for (size_t i = 0; i < v; i++) {
      change += ((double)b[i] - a[i]) * ((double)b[i] - a[i]);
      spread += (a[i] - mean) * (a[i] - mean);
    }
    out.agree += best(a, v) == best(b, v);
    if (r + 1 == plain->n) break;
    out.loss[0] += loss_of(a, v, plain->ids[r + 1]) / (plain->n - 1);
    out.loss[1] += loss_of(b, v, plain->ids[r + 1]) / (plain->n - 1);
  }
  out.relative = sqrt(change / spread);
  return out;
}

/* ---- the section ---- */

static int run_rounded(const struct model *model, enum dtype dtype, const struct run *run, size_t *bytes,
                       struct error *error) {
  struct model rounded = *model; /* but for the weights */
  if (model_load_weights(model, dtype, &rounded.weights, error) != 0)
    return -1;
  if (rounded.arch.embed_scale_rounds && dtype != DTYPE_Q8) rounded.arch.embed_scale = dtype_round(model->arch.embed_scale, dtype);
  *bytes = rounded.weights.bytes;
  int failed = run_text(&rounded, run, error);
  weights_free(&rounded.weights, model->backend);
  return failed;
}

static int tell(struct inspect_facts *facts, const char *name, const struct run *run, const struct difference *d,
                size_t bytes, struct error *error) {
  char key[64], size[32];
  static const char s[] = "precision";
  snprintf(key, sizeof key, "%s: relative error of logits", name);
  if (fact_real(facts, s, key, d->relative, error, "%.2g", d->relative) != 0) return -1;
  snprintf(key, sizeof key, "%s: same next token", name);
  if (fact_real(facts, s, key, (double)d->agree / run->n, error, "%d of %d", d->agree, run->n) != 0) return -1;
  snprintf(key, sizeof key, "%s: loss", name);
  if (fact_real(facts, s, key, d->loss[1], error, "%.4f nats a token, %.4f as it is", d->loss[1], d->loss[0]) != 0) return -1;
  snprintf(key, sizeof key, "%s: weights", name);
  return fact_value(facts, s, key, (int64_t)bytes, error, "%s", bytes_text(bytes, size));
}

static int measure(const struct model *model, struct run *plain, struct run *rounded, struct inspect_facts *facts,
                   struct error *error) {
  static const struct {
    const char *name;
    enum dtype dtype;
  } lower[] = {{"bf16", DTYPE_BF16}, {"f16", DTYPE_F16}, {"q8", DTYPE_Q8}};
  if (run_text(model, plain, error) != 0) return -1;
  for (size_t i = 0; i < sizeof lower / sizeof *lower; i++) {
    size_t bytes = 0;
    if (model->weights.dtype != DTYPE_F32 && lower[i].dtype != DTYPE_Q8) continue; /* not fewer bits than the file has */
    if (run_rounded(model, lower[i].dtype, rounded, &bytes, error) != 0) return -1;
    struct difference d = compare(plain, rounded, (size_t)model->arch.vocabulary);
    if (tell(facts, lower[i].name, plain, &d, bytes, error) != 0) return -1;
  }
  return 0;
}

int inspect_precision(const struct model *model, struct inspect_facts *facts, struct error *error) {
  static const char s[] = "precision";
  int32_t ids[MAX_TOKENS];
  bool written = false;
  if (model->keep != DTYPE_OTHER)
    return fact_text(facts, s, "weights", error, "%s in the file, kept as %s; the model without it tells what that loses",
                     dtype_name(model->weights.dtype), dtype_name(model->keep));
  if (model->weights.dtype != DTYPE_F32 &&
      fact_text(facts, s, "weights", error, "%s in the file and run as they are; activations are f32", dtype_name(model->weights.dtype)) != 0)
    return -1;
  int32_t n = choose_ids(model, ids, &written);
  size_t bytes = (size_t)n * (size_t)model->arch.vocabulary * sizeof(float);
  struct run plain = {ids, n, malloc(bytes)}, rounded = {ids, n, malloc(bytes)};
  int failed = plain.logits && rounded.logits ? 0 : error_memory(error, bytes);
  if (!failed)
    failed = fact_text(facts, s, "measured on", error, "%d tokens%s", n,
                       written ? " of a built-in text" : " spread over the vocabulary, which cannot write the built-in text");
  if (!failed) failed = measure(model, &plain, &rounded, facts, error);
  free(plain.logits);
  free(rounded.logits);
  return failed;
}
