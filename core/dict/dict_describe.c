/* dict_describe.c: what would be made of a path, in lines for a reader: the decision, the fields behind it, the tensors and
 * every step between a row and its activations. Prepares nothing. */
#include <stdlib.h>

#include "core/dict/dict_formats.h"
#include "core/dict/dict_internal.h"
#include "core/model/points.h"

static const char *const role_words[ROLE_COUNT] = {
    [ROLE_W_ENC] = "W_enc", [ROLE_W_DEC] = "W_dec", [ROLE_B_ENC] = "b_enc", [ROLE_B_DEC] = "b_dec",
    [ROLE_THRESHOLD] = "threshold", [ROLE_GAIN] = "r_mag", [ROLE_SHIFT] = "b_mag",
    [ROLE_SCALING] = "factors of decoder rows", [ROLE_SKIP] = "skip"};

/* ---- tensors ----------------------------------------------------------------------------------------- */

static void describe_tensors(const struct dict_config *config, const struct tensors *tensors, const struct tensors *decoder,
                             const struct dict_found *found, struct buffer *out) {
  char shape[128];
  for (int role = 0; role < ROLE_COUNT; role++) {
    const struct tensor *tensor = &found->of[role];
    if (!tensor->data) continue;
    const struct tensor *whole = tensors_find(decoder && role == ROLE_W_DEC ? decoder : tensors, tensor->name);
    buffer_printf(out, "tensor: %s is '%s' %s%s\n", role_words[role], tensor->name, tensor_describe(whole, shape),
                  config->tensors[role].transposed ? ", transposed" : "");
  }
  for (const char *const *unused = config->unused; unused && *unused; unused++)
    if (tensors_find(tensors, *unused)) buffer_printf(out, "tensor: '%s' is not used\n", *unused);
}

/* ---- steps ------------------------------------------------------------------------------------------- */

static void describe_input(const struct dict_config *config, const struct dict_info *info, struct buffer *out) {
  if (config->head >= 0) buffer_printf(out, "step: only head %lld of each row is read\n", (long long)config->head);
  if (info->center_mean) buffer_text(out, "step: the mean of each row is taken away (trained on centred weights)\n");
  if (info->norm == DICT_NORM_SCALE)
    buffer_printf(out, "step: rows are multiplied by %.9g, what is decoded is divided by %.9g\n", (double)info->scale,
                  (double)info->out_scale);
  if (info->norm == DICT_NORM_LENGTH)
    buffer_text(out, "step: each row is brought to the length sqrt(d_in), and what is decoded back\n");
  if (info->norm == DICT_NORM_STANDARD)
    buffer_text(out, "step: each row is brought to mean 0 and deviation 1 (n - 1, 1e-5 added), and what is decoded back\n");
  buffer_printf(out, "step: b_dec is %ssubtracted from the input\n", info->apply_b_dec_to_input ? "" : "not ");
}

static void describe_activation(const struct dict_config *config, const struct dict_info *info, struct buffer *out) {
  switch (info->kind) {
    case DICT_RELU: buffer_text(out, "step: activations are what is above 0\n"); break;
    case DICT_JUMPRELU:
      buffer_text(out, "step: activations are what is above the threshold of their feature");
      if (!config->tensors[ROLE_THRESHOLD].name) buffer_printf(out, ", %.9g for all", config->threshold * config->threshold_scale);
      if (config->threshold_is_log) buffer_text(out, ", kept as its logarithm");
      buffer_char(out, '\n');
      break;
    case DICT_TOPK:
      buffer_printf(out, "step: the %d largest of each row stay, compared %s, where they are above 0\n", info->k,
                    info->selects_folded ? "times the length of their decoder row" : "as they are");
      break;
    case DICT_GATED: buffer_text(out, "step: a gate opens where x W_enc + b_gate is above 0; what passes is another line of it\n"); break;
    case DICT_GROUPMAX:
      buffer_printf(out, "step: of each of %d groups of neighbours the largest stays, where it is above 0\n", info->k);
      break;
    default: break;
  }
}

static void describe_output(const struct dict_info *info, struct buffer *out) {
  buffer_printf(out, "step: activations are shown %s\n",
                info->folded ? "times the length of their decoder row, which is brought to length 1" : "as they are");
  if (info->cross)
    buffer_text(out, "step: a feature writes a row to each of its layers; what stands for a layer's output is the sum of what all layers "
                     "up to it write there, and its b_dec\n");
  if (info->skip) buffer_text(out, "step: the input times a matrix of its own is added to what is decoded\n");
}

/* ---- all of it --------------------------------------------------------------------------------------- */

static void describe_bound(int64_t bound, struct buffer *out) {
  if (bound != SLICE_OPEN) buffer_printf(out, "%lld", (long long)bound);
}

/* As Python writes it, and only where something is left out. */
static void describe_positions(const struct dict_config *config, struct buffer *out) {
  const struct slice *slice = &config->slice;
  if (!slice->given && !config->excludes_special && !config->n_excluded) return;
  buffer_text(out, "counts: positions [");
  if (slice->given) describe_bound(slice->start, out);
  buffer_char(out, ':');
  if (slice->given) describe_bound(slice->stop, out);
  if (slice->given && slice->step != 1) buffer_printf(out, ":%lld", (long long)slice->step);
  buffer_text(out, "] of a context");
  if (config->excludes_special) buffer_text(out, ", but for the tokenizer's BOS, EOS, PAD and SEP");
  if (config->n_excluded) buffer_printf(out, ", but for %zu token ids", config->n_excluded);
  buffer_char(out, '\n');
}

static void describe_decision(const struct dict_config *config, const struct dict_info *info, struct buffer *out) {
  char in[POINT_NAME_BYTES], to[POINT_NAME_BYTES];
  buffer_printf(out, "kind: %s of %lld features, %s\n", dict_title(info), (long long)info->n_feat, dtype_name(info->dtype));
  buffer_printf(out, "format: %s\ndescription: %s\nweights: %s\n", config->format, config->file, config->weights);
  if (*config->decoder) buffer_printf(out, "decoder: %s\n", config->decoder);
  if (*config->model) buffer_printf(out, "model: %s\n", config->model);
  buffer_printf(out, "reads: %s, %lld wide\n", point_name(info->in, in), (long long)info->d_in);
  buffer_printf(out, "writes: %s, %lld wide", point_name(info->out, to), (long long)info->d_out);
  if (info->n_targets > 1) buffer_printf(out, ", and the same of the %d layers behind it", info->n_targets - 1);
  buffer_char(out, '\n');
  if (info->context) buffer_printf(out, "context: %lld tokens\n", (long long)info->context);
  buffer_printf(out, "texts begin with BOS: %s\n", info->prepend_bos ? "yes" : "no");
  describe_positions(config, out);
  if (info->l0 > 0) buffer_printf(out, "features a token, as its makers measured: %g\n", info->l0);
}

static void describe_fields(const struct dict_config *config, struct buffer *out) {
  for (const char *line = config->notes.data; line && *line;) {
    const char *end = line;
    while (*end && *end != '\n') end++;
    buffer_printf(out, "field: %.*s\n", (int)(end - line), line);
    line = *end ? end + 1 : end;
  }
}

static int describe(const struct dict_config *config, struct buffer *out, struct error *error) {
  static const struct dict_host nobody = {NULL, NULL, NULL, NULL};
  struct dict_info info;
  struct dict_found found;
  if (dict_config_info(config, &nobody, &info, error) != 0) return -1;
  struct tensors *tensors = tensors_open(config->weights, error), *decoder = NULL;
  if (!tensors) return -1;
  int failed = *config->decoder && !(decoder = tensors_open(config->decoder, error)) ? -1 : 0;
  if (!failed) failed = dict_find_tensors(tensors, decoder, config, &info, &found, error);
  if (!failed) {
    describe_decision(config, &info, out);
    describe_fields(config, out);
    describe_tensors(config, tensors, decoder, &found, out);
    describe_input(config, &info, out);
    describe_activation(config, &info, out);
    describe_output(&info, out);
  }
  tensors_close(tensors);
  tensors_close(decoder);
  return failed ? -1 : buffer_check(out, error);
}

int dict_describe(const char *path, const char *id, struct buffer *out, struct error *error) {
  static const struct dict_host nobody = {NULL, NULL, NULL, NULL};
  struct dict_config *config = malloc(sizeof *config);
  if (!config) return error_memory(error, sizeof *config);
  int failed = dict_config_read(path, id, &nobody, config, error);
  if (!failed) failed = describe(config, out, error);
  dict_config_clear(config);
  free(config);
  return failed;
}
