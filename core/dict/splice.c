/* splice.c: what a backend needs for a dictionary inside a step: its matrices, which come when they are first asked for (most dictionaries
 * are never spliced), and the vectors of the way back, which it has from the beginning. Knows no step. */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/dict/dict_internal.h"

static atomic_uint_least64_t serials;

static bool gapped(const struct tensor *w) { return w->stride[0] != 1 && w->stride[1] != 1; }

/* Elements of a decoder row: all that a feature writes. */
static int64_t decoder_width(const struct dict_info *info) { return info->n_targets * info->d_out; }

/* Of a layer of a cross-layer transcoder: whether all layers together fit, which are used together. Where they do not, gathering some
 * rows on the host is less than sending gigabytes of decoders in every step. They are taken to be like this one, each with a target
 * less than the one before. */
static bool fits(const struct dict *dict, size_t limit) {
  const struct dict_info *info = &dict->info;
  size_t layers = info->cross ? (size_t)(info->in.layer + info->n_targets) : 1, bytes, all;
  size_t row = (size_t)info->d_out * dtype_size(dict->w_dec.dtype), others = layers * (layers + 1) / 2 - (size_t)info->n_targets;
  if (!limit) return true;
  if (!info->cross) return dict_splice_bytes(dict) <= limit;
  return checked_mul((size_t)info->n_feat * others, row, &bytes) && checked_mul(layers - 1, resident_size(dict->resident), &all) &&
         checked_add(all, bytes, &all) && checked_add(all, dict_splice_bytes(dict), &all) && all <= limit;
}

bool dict_splices(const struct dict *dict) {
  const struct dict_info *info = &dict->info;
  bool chosen = info->kind == DICT_TOPK || info->kind == DICT_GROUPMAX;
  bool turned = info->cross && point_index(info->in) == point_index(info->out); /* no such thing is known */
  if (info->kind == DICT_NEURONS) return false; /* an edit of a neuron is one of its column */
  return dict->backend->ops->splices && !turned && !(chosen && info->k <= 0) && !gapped(&dict->w_dec) &&
         !(info->skip && gapped(&dict->skip)) && fits(dict, resident_limit(dict->resident));
}

/* The decoder and the linear path. */
static int note_decoder(const struct dict *dict, struct error *error) {
  const struct dict_info *info = &dict->info;
  struct matrix_part part;
  if (dict_decoder_part(dict, 0, info->n_feat, &part, error) != 0) return -1;
  dict->spliced->decoder = resident_beside(dict->resident, &part, decoder_width(info), error);
  return dict->spliced->decoder ? 0 : -1;
}

static int note_skip(const struct dict *dict, struct error *error) {
  const struct tensor *w = &dict->skip;
  struct matrix_part part = {.data = w->data, .dtype = w->dtype, .layout = ROWS_ARE_INPUTS, .n_out = dict->info.d_out, .ld = w->stride[0]};
  if (!dict->info.skip || gapped(w)) return 0;
  if (w->stride[1] != 1) { /* the transposed view of [d_out, d_in] */
    part.layout = ROWS_ARE_OUTPUTS;
    part.ld = w->stride[1];
  }
  dict->spliced->skip = resident_beside(dict->resident, &part, dict->info.d_in, error);
  return dict->spliced->skip ? 0 : -1;
}

size_t dict_splice_bytes(const struct dict *dict) {
  const struct dict_info *info = &dict->info;
  size_t bytes, skip = info->skip ? (size_t)info->d_in * (size_t)info->d_out * dtype_size(dict->skip.dtype) : 0;
  if (!checked_mul((size_t)info->n_feat * (size_t)decoder_width(info), dtype_size(dict->w_dec.dtype), &bytes)) return SIZE_MAX;
  return checked_add(bytes, skip, &bytes) && checked_add(bytes, resident_size(dict->resident), &bytes) ? bytes : SIZE_MAX;
}

size_t dict_splice_limit(const struct dict *dict) { return resident_limit(dict->resident); }

/* Factors of all features, then the bias, to the backend. */
static int write_vectors(const struct dict *dict, const float *vectors, size_t bytes, struct error *error) {
  const struct ops *ops = dict->backend->ops;
  struct spliced *s = dict->spliced;
  if (ops->alloc(dict->backend, bytes, &s->memory, error) != 0) return -1;
  s->splice.factor = (struct span){s->memory, 0};
  s->splice.bias = (struct span){s->memory, (size_t)dict->info.n_feat * sizeof(float)};
  if (ops->write(dict->backend, s->splice.factor, vectors, bytes, error) == 0) return 0;
  ops->free(dict->backend, s->memory);
  s->memory = NULL;
  return -1;
}

int spliced_open(struct dict *dict, struct error *error) {
  const struct dict_info *info = &dict->info;
  size_t bytes = (size_t)(info->n_feat + info->d_out) * sizeof(float);
  if (note_skip(dict, error) != 0) return -1;
  if (!dict_splices(dict)) return 0;
  float *vectors = malloc(bytes);
  if (!vectors) return error_memory(error, bytes);
  for (int64_t f = 0; f < info->n_feat; f++) vectors[f] = dict_decoder_factor(dict, f);
  for (int64_t i = 0; i < info->d_out; i++) vectors[info->n_feat + i] = dict->b_dec[i] / info->out_scale;
  int failed = write_vectors(dict, vectors, bytes, error);
  if (!failed) dict->info.bytes += bytes;
  free(vectors);
  return failed ? -1 : note_decoder(dict, error);
}

int64_t dict_splice_aside(const struct dict *dict) {
  const struct dict_info *info = &dict->info;
  if (point_index(info->in) == point_index(info->out)) return 0;
  return info->cross ? decoder_width(info) : info->d_in;
}

bool dict_splice_prepared(const struct dict *dict) {
  const struct spliced *s = dict->spliced;
  return resident_prepared(dict->resident) && (!s->decoder || resident_prepared(s->decoder)) && (!s->skip || resident_prepared(s->skip));
}

int dict_splice_prepare(const struct dict *dict, struct error *error) {
  struct resident *residents[SPLICED_PARTS] = {dict->resident, dict->spliced->decoder, dict->spliced->skip};
  for (int i = 0; i < SPLICED_PARTS; i++)
    if (residents[i] && resident_prepare(residents[i], error) != 0) return -1;
  return 0;
}

static bool is_framed(const struct dict_info *info) {
  return !info->transcoder && (info->center_mean || info->norm == DICT_NORM_LENGTH || info->norm == DICT_NORM_STANDARD);
}

/* The matrices of a splice, those that there are. All are held, or none. */
static int hold_parts(const struct dict *dict, const struct matrix *held[SPLICED_PARTS], uint64_t parts[SPLICED_PARTS],
                      struct error *error) {
  struct resident *residents[SPLICED_PARTS] = {dict->resident, dict->spliced->decoder, dict->spliced->skip};
  for (int i = 0; i < SPLICED_PARTS; i++) {
    held[i] = NULL;
    parts[i] = 0;
    if (!residents[i] || resident_hold(residents[i], &held[i], &parts[i], error) == 0) continue;
    while (i-- > 0) resident_release(residents[i]);
    return -1;
  }
  return 0;
}

int dict_splice_hold(const struct dict *dict, const struct splice **out, uint64_t *serial, struct error *error) {
  struct spliced *s = dict->spliced;
  const struct matrix *held[SPLICED_PARTS];
  uint64_t parts[SPLICED_PARTS];
  assert(dict_splices(dict));
  if (hold_parts(dict, held, parts, error) != 0) return -1;
  if (memcmp(parts, s->parts, sizeof parts) != 0) s->serial = atomic_fetch_add(&serials, 1) + 1;
  memcpy(s->parts, parts, sizeof parts);
  s->splice.encode = dict_encode_args(dict, held[0]);
  s->splice.decoder = held[1];
  s->splice.skip = held[2];
  s->splice.d_out = dict->info.d_out;
  s->splice.framed = is_framed(&dict->info);
  s->splice.apart = dict->info.cross;
  s->splice.keeps_mean = dict->info.transcoder && dict->info.center_mean && !dict->info.cross;
  *out = &s->splice;
  *serial = s->serial;
  return 0;
}

void dict_splice_release(const struct dict *dict) {
  resident_release(dict->resident);
  resident_release(dict->spliced->decoder);
  if (dict->spliced->skip) resident_release(dict->spliced->skip);
}

/* ---- the linear path by itself ------------------------------------------------------------------------- */

int dict_skip_hold(const struct dict *dict, const struct matrix **out, struct error *error) {
  uint64_t serial;
  if (dict->spliced->skip) return resident_hold(dict->spliced->skip, out, &serial, error);
  return error_set(error, ERROR_UNSUPPORTED, "the skip matrix of this dictionary has neither its rows nor its columns in one piece");
}

void dict_skip_release(const struct dict *dict) { resident_release(dict->spliced->skip); }

void spliced_clear(struct spliced *spliced, struct backend *backend) {
  resident_free(spliced->decoder);
  resident_free(spliced->skip);
  backend->ops->free(backend, spliced->memory);
}
