/* graph_nodes.c: the nodes of an attribution graph: which transcoder stands for which MLP, what fires in it, and what it leaves out. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab/graph.h"

/* ---- transcoders ---- */

static int refuse(const char *field, const struct lab_source_info *source, const char *why, struct error *error) {
  return error_set_field(error, ERROR_ARGUMENT, field, "%s: '%.80s' can be no part of an attribution graph: %s", field, source->id, why);
}

/* Why a dictionary cannot stand for an MLP in a model that is linear but for what is held; NULL: it can. */
static const char *unfit(const struct dict_info *info) {
  if (info->kind == DICT_NEURONS) return "neurons are the MLP itself; name transcoders";
  if (!info->transcoder) return "it is a sparse autoencoder, which writes where it reads; name transcoders, which stand for an MLP";
  if (info->in.layer != info->out.layer) return "it writes to another layer than it reads";
  if (info->out.site != SITE_MLP_OUT && info->out.site != SITE_MLP_RAW) return "it does not write the output of the MLP";
  if (info->in.site < SITE_RESID_MID || info->in.site > SITE_MLP_IN || info->in.site == SITE_LN2_SCALE)
    return "it does not read what comes to the MLP (hook_resid_mid, hook_mlp_in, ln2.hook_normalized or mlp.hook_in)";
  if (info->d_in != info->in_width || info->d_out != info->out_width) return "it reads or writes a part of a row only";
  if (info->kind == DICT_GATED) return "it is gated: its activations are not linear in what it reads";
  if (info->norm == DICT_NORM_LENGTH || info->norm == DICT_NORM_STANDARD) return "it brings each row to a norm of its own first";
  return NULL;
}

bool graph_leaves_out(const struct graph_run *g, const struct dict_info *info) {
  return !info->bos_counts && g->result.ids[0] == tokenizer_bos(g->e.model->tokenizer);
}

static int take_source(struct graph_run *g, const struct lab_source_info *source, const char *field, struct error *error) {
  const struct dict *dict = lab_source_of(g->e.job.lab, source)->dict;
  const struct dict_info *info = dict_info(dict);
  const char *why = unfit(info);
  if (why) return refuse(field, source, why, error);
  struct graph_layer *layer = &g->layers[info->in.layer];
  if (layer->source)
    return error_set_field(error, ERROR_ARGUMENT, field, "%s: '%.80s' and '%.80s' both stand for the MLP of layer %d; name one of them", field,
                           layer->source->id, source->id, (int)info->in.layer);
  layer->source = source;
  layer->dict = dict;
  g->places[info->in.layer] = (struct direct_layer){info->in.site, info->out.site, graph_leaves_out(g, info)};
  return 0;
}

/* All layers of one cross-layer transcoder, or none of any: what stands for an MLP would be counted twice. */
static int check_together(struct graph_run *g, const struct lab_graph_args *args, struct error *error) {
  const struct dict *first = lab_source_of(g->e.job.lab, args->sources[0])->dict;
  g->cross = dict_info(first)->cross;
  for (size_t i = 1; i < args->n_sources; i++) {
    const struct dict *other = lab_source_of(g->e.job.lab, args->sources[i])->dict;
    bool fits = dict_info(other)->cross == g->cross && (!g->cross || dict_same_transcoder(first, other));
    if (!fits) return refuse(args->fields[i], args->sources[i], "it is not of the same transcoder as the first, and one of them writes to other layers", error);
    if (dict_info(other)->out.site != dict_info(first)->out.site)
      return refuse(args->fields[i], args->sources[i], "it writes another point than the first", error);
  }
  return 0;
}

int graph_take_sources(struct graph_run *g, const struct lab_graph_args *args, struct error *error) {
  int32_t n_layer = g->e.model->arch.n_layer;
  g->layers = arena_array(&g->e.arena, (size_t)n_layer, sizeof *g->layers, error);
  g->places = arena_array(&g->e.arena, (size_t)n_layer, sizeof *g->places, error);
  if (!g->layers || !g->places) return -1;
  for (int32_t l = 0; l < n_layer; l++) sparse_init(&g->layers[l].codes);
  for (size_t i = 0; i < args->n_sources; i++)
    if (take_source(g, args->sources[i], args->fields[i], error) != 0) return -1;
  if (check_together(g, args, error) != 0) return -1;
  const struct dict_info *first = dict_info(lab_source_of(g->e.job.lab, args->sources[0])->dict);
  for (int32_t l = 0; l < n_layer; l++)
    if (!g->layers[l].source) g->places[l] = (struct direct_layer){first->in.site, first->out.site, 0};
  return 0;
}

void graph_clear_nodes(struct graph_run *g) {
  for (int32_t l = 0; g->layers && l < g->e.model->arch.n_layer; l++) {
    sparse_clear(&g->layers[l].codes);
    free(g->layers[l].written);
    free(g->layers[l].skipped);
  }
  free(g->features);
  free(g->embedded);
}

/* ---- the text through a transcoder ---- */

static int take_rows(struct graph_run *g, struct rows rows, int64_t width, float **out, struct error *error) {
  size_t n = g->result.n_tokens, bytes = n * (size_t)width * sizeof **out;
  free(*out);
  if (!(*out = malloc(bytes))) return error_memory(error, bytes);
  return experiment_read_rows(g->e.model->backend, rows, 0, (int64_t)n, width, *out, error);
}

/* Codes of the rows that count; the others have none. */
static int encode_rows(struct graph_run *g, struct graph_layer *layer, struct rows rows, struct error *error) {
  const struct dict_info *info = dict_info(layer->dict);
  bool without = graph_leaves_out(g, info);
  int64_t n = (int64_t)g->result.n_tokens - without;
  if (without && sparse_row(&layer->codes, 0, error) != 0) return -1;
  rows.at = span_at(rows.at, without ? (size_t)rows.ld * sizeof(float) : 0);
  return n ? dict_encode(layer->dict, rows, n, &layer->codes, error) : 0;
}

int graph_encode(struct graph_run *g, int32_t l, struct error *error) {
  struct graph_layer *layer = &g->layers[l];
  int64_t width = graph_width(g);
  if (take_rows(g, direct_values(g->direct, (struct point){l, g->places[l].out}), width, &layer->written, error) != 0) return -1;
  if (!layer->source) return 0;
  struct rows in = direct_values(g->direct, (struct point){l, g->places[l].in});
  if (dict_info(layer->dict)->skip && take_rows(g, in, dict_info(layer->dict)->in_width, &layer->skipped, error) != 0) return -1;
  return encode_rows(g, layer, in, error);
}

/* ---- the list ---- */

static size_t count_features(const struct graph_run *g) {
  size_t n = 0;
  for (int32_t l = 0; l < g->e.model->arch.n_layer; l++)
    if (g->layers[l].source) n += g->layers[l].codes.start[g->layers[l].codes.n_rows];
  return n;
}

static void list_layer(struct graph_run *g, int32_t l) {
  struct graph_layer *layer = &g->layers[l];
  layer->first = layer->end = g->n_features;
  if (!layer->source) return;
  for (size_t r = 0; r < layer->codes.n_rows; r++)
    for (size_t e = layer->codes.start[r]; e < layer->codes.start[r + 1]; e++)
      g->features[g->n_features++] = (struct graph_feature){l, (int32_t)r, layer->codes.index[e], layer->codes.value[e]};
  layer->end = g->n_features;
}

int graph_list(struct graph_run *g, struct error *error) {
  size_t n = count_features(g), width = (size_t)graph_width(g);
  int32_t n_layer = g->e.model->arch.n_layer;
  g->features = calloc(n ? n : 1, sizeof *g->features);
  g->said = malloc(width * sizeof *g->said);
  if (!g->features || !g->said) return error_memory(error, n * sizeof *g->features + width * sizeof *g->said);
  for (int32_t l = 0; l < n_layer; l++) list_layer(g, l);
  return take_rows(g, direct_embedded(g->direct), graph_width(g), &g->embedded, error);
}

/* ---- what transcoders leave ---- */

/* What the layer `from` of a cross-layer transcoder says of a row that layer l writes is taken off. */
static void take_away(struct graph_run *g, const struct graph_leave *at, float *written) {
  const struct graph_layer *source = &g->layers[at->from];
  size_t width = (size_t)graph_width(g);
  memset(g->said, 0, width * sizeof *g->said);
  dict_target_add(source->dict, &source->codes, at->row, 1, at->layer - at->from, g->said);
  bool own = at->from == at->layer;
  if (own && source->skipped) dict_skip_add(source->dict, source->skipped + at->row * (size_t)dict_info(source->dict)->in_width, 1, g->said);
  const float *bias = dict_output_bias(source->dict);
  for (size_t i = 0; i < width; i++) written[i] -= own ? g->said[i] + bias[i] : g->said[i];
}

static void leave_error(struct graph_run *g, const struct graph_leave *at, float *written) {
  const struct graph_layer *layer = &g->layers[at->layer];
  size_t width = (size_t)graph_width(g);
  const float *skipped = layer->skipped ? layer->skipped + at->row * (size_t)dict_info(layer->dict)->in_width : NULL;
  dict_errors(layer->dict, &layer->codes, at->row, 1, skipped, written, g->said);
  memcpy(written, g->said, width * sizeof *written);
}

static void leave_row(struct graph_run *g, const struct graph_leave *at) {
  const struct graph_layer *source = &g->layers[at->from];
  float *written = g->layers[at->layer].written + at->row * (size_t)graph_width(g);
  if (!source->source || (at->row == 0 && graph_leaves_out(g, dict_info(source->dict)))) return;
  if (g->cross)
    take_away(g, at, written);
  else
    leave_error(g, at, written);
}

bool graph_leave(struct graph_run *g) {
  struct graph_leave *at = &g->at;
  if (at->layer == g->e.model->arch.n_layer) return false;
  leave_row(g, at);
  if (++at->row < g->result.n_tokens) return true;
  at->row = 0;
  if (++at->from > at->layer) {
    at->layer++;
    at->from = g->cross ? 0 : at->layer;
  }
  return at->layer < g->e.model->arch.n_layer;
}
