/* train_write.c: a trained dictionary as a folder of SAELens 6: cfg.json beside sae_weights.safetensors. Scale and lengths are folded
 * in: with s' = scale_out (of what is made), n = |W_dec[f]|, what is written is W_enc n scale / s', b_enc n / s', W_dec / n, b_dec / s',
 * threshold / s'; scale / s' is 1 but for a transcoder. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/buffer.h"
#include "core/base/json_writer.h"
#include "core/dict/train_int.h"

#define PATH_BYTES 4096

/* ---- files ---- */

struct file {
  FILE *stream;
  char name[PATH_BYTES], path[PATH_BYTES + 8]; /* as it is to be called; while it is written */
};

static int file_begin(struct file *file, const char *folder, const char *name, struct error *error) {
  if (snprintf(file->name, sizeof file->name, "%s/%s", folder, name) >= (int)sizeof file->name)
    return error_set(error, ERROR_ARGUMENT, "the folder's path '%.80s...' is too long", folder);
  snprintf(file->path, sizeof file->path, "%s.part", file->name);
  file->stream = fopen(file->path, "wbe");
  return file->stream ? 0 : error_set(error, ERROR_IO, "'%.200s' could not be made: %s", file->path, strerror(errno));
}

/* On the disk before it has its name. */
static int file_end(struct file *file, struct error *error) {
  int failed = 0;
  if (fflush(file->stream) != 0 || fsync(fileno(file->stream)) != 0 || ferror(file->stream))
    failed = error_set(error, ERROR_IO, "'%.200s' could not be written: %s", file->path, strerror(errno));
  fclose(file->stream);
  if (!failed && rename(file->path, file->name) != 0)
    failed = error_set(error, ERROR_IO, "'%.200s' could not be named: %s", file->name, strerror(errno));
  if (failed) unlink(file->path);
  return failed;
}

/* ---- weights ---- */

struct tensor {
  const char *name;
  int64_t rows, columns; /* columns 0: a vector of `rows` */
};

static size_t tensor_bytes(const struct tensor *tensor) {
  return (size_t)tensor->rows * (size_t)(tensor->columns ? tensor->columns : 1) * sizeof(float);
}

static void write_header(const struct tensor *tensors, size_t n, struct buffer *out) {
  struct json_writer w;
  size_t at = 0;
  jw_init(&w, out);
  jw_open(&w, '{');
  for (size_t i = 0; i < n; i++) {
    jw_key(&w, tensors[i].name);
    jw_open(&w, '{');
    jw_member_text(&w, "dtype", "F32");
    jw_key(&w, "shape");
    jw_open(&w, '[');
    jw_int(&w, tensors[i].rows);
    if (tensors[i].columns) jw_int(&w, tensors[i].columns);
    jw_close(&w, ']');
    jw_key(&w, "data_offsets");
    jw_open(&w, '[');
    jw_int(&w, (int64_t)at);
    jw_int(&w, (int64_t)(at += tensor_bytes(&tensors[i])));
    jw_close(&w, ']');
    jw_close(&w, '}');
  }
  jw_close(&w, '}');
  while (out->length % 8) buffer_char(out, ' ');
}

static void put(FILE *stream, const float *values, int64_t n) { fwrite(values, sizeof *values, (size_t)n, stream); }

/* W_enc [width, n_feat]: some inputs at a time, so that the features' rows are read in runs. */
#define INPUTS 16
static void put_encoder(const struct trainer *t, FILE *stream, float *columns) {
  int64_t width = t->options.width, n_feat = t->options.n_feat;
  double by = t->scale / t->scale_out;
  for (int64_t in = 0; in < width; in += INPUTS) {
    int64_t n = width - in < INPUTS ? width - in : INPUTS;
    for (int64_t f = 0; f < n_feat; f++)
      for (int64_t i = 0; i < n; i++) columns[i * n_feat + f] = (float)((double)(t->enc.value[f * width + in + i] * t->norms[f]) * by);
    put(stream, columns, n * n_feat);
  }
}

static void put_decoder(const struct trainer *t, FILE *stream, float *row) {
  int64_t width = train_width_out(&t->options);
  for (int64_t f = 0; f < t->options.n_feat; f++) {
    for (int64_t i = 0; i < width; i++) row[i] = t->dec.value[f * width + i] / t->norms[f];
    put(stream, row, width);
  }
}

static bool has_threshold(const struct trainer *t) { return t->options.kind == TRAIN_BATCHTOPK || t->options.kind == TRAIN_JUMPRELU; }

/* Of s. */
static double threshold_of(const struct trainer *t, int64_t f) {
  if (t->options.kind == TRAIN_JUMPRELU) return (double)t->thresholds.value[f] * t->norms[f];
  return t->weight > 0 ? t->threshold / t->weight : 0;
}

static void put_vectors(const struct trainer *t, FILE *stream, float *values) {
  int64_t width = train_width_out(&t->options), n_feat = t->options.n_feat;
  for (int64_t f = 0; f < n_feat; f++) values[f] = (float)((double)t->b_enc.value[f] * t->norms[f] / t->scale_out);
  put(stream, values, n_feat);
  for (int64_t i = 0; i < width; i++) values[i] = (float)(t->b_dec.value[i] / t->scale_out);
  put(stream, values, width);
  if (!has_threshold(t)) return;
  for (int64_t f = 0; f < n_feat; f++) values[f] = (float)(threshold_of(t, f) / t->scale_out);
  put(stream, values, n_feat);
}

static int write_weights(const struct trainer *t, const char *folder, struct error *error) {
  int64_t out = train_width_out(&t->options), n_feat = t->options.n_feat;
  const struct tensor tensors[] = {{"W_enc", t->options.width, n_feat}, {"W_dec", n_feat, out}, {"b_enc", n_feat, 0}, {"b_dec", out, 0},
                                   {"threshold", n_feat, 0}};
  struct buffer header;
  struct file file;
  float *some = train_floats(INPUTS, n_feat > out ? n_feat : out);
  if (!some) return error_memory(error, (size_t)n_feat * INPUTS * sizeof *some);
  buffer_init(&header, 0);
  write_header(tensors, has_threshold(t) ? 5 : 4, &header);
  uint64_t length = header.length;
  int failed = buffer_check(&header, error) != 0 || file_begin(&file, folder, "sae_weights.safetensors", error) != 0 ? -1 : 0;
  if (!failed) {
    fwrite(&length, sizeof length, 1, file.stream); /* little-endian, as all machines are that steerd runs on */
    fwrite(header.data, 1, header.length, file.stream);
    put_encoder(t, file.stream, some);
    put_decoder(t, file.stream, some);
    put_vectors(t, file.stream, some);
    failed = file_end(&file, error);
  }
  buffer_clear(&header);
  free(some);
  return failed;
}

/* ---- the description ---- */

static void write_jump(const struct train_options *o, struct json_writer *w) {
  jw_member_f64(w, "jumprelu_init_threshold", o->threshold);
  jw_member_f64(w, "jumprelu_bandwidth", o->bandwidth);
  jw_member_text(w, "jumprelu_sparsity_loss_mode", train_l0_loss_name(o->l0_loss));
  jw_member_f64(w, "l0_coefficient", o->l0);
  jw_member_int(w, "l0_warm_up_steps", o->l0_warm_up);
  if (o->l0_loss == TRAIN_L0_TANH) jw_member_f64(w, "jumprelu_tanh_scale", o->tanh_scale);
  if (o->l0_loss == TRAIN_L0_QUADRATIC) jw_member_f64(w, "target_l0", o->target_l0);
  jw_member_f64(w, "pre_act_loss_coefficient", o->pre_act);
  jw_member_bool(w, "jumprelu_ste_to_input", o->ste_to_input);
}

static void write_training(const struct trainer *t, struct json_writer *w) {
  const struct train_options *o = &t->options;
  jw_key(w, "training");
  jw_open(w, '{');
  jw_member_text(w, "kind", train_kind_name(o->kind));
  jw_member_int(w, "steps", t->step);
  jw_member_int(w, "batch", o->batch);
  jw_member_int(w, "seed", (int64_t)o->seed);
  jw_member_f64(w, "rate", o->rate);
  jw_member_int(w, "warm_up", o->warm_up);
  jw_member_int(w, "decay", o->decay);
  if (o->k) jw_member_int(w, "k", o->k);
  if (o->kind == TRAIN_RELU) jw_member_f64(w, "l1", o->l1);
  if (o->kind == TRAIN_RELU) jw_member_int(w, "l1_warm_up", o->l1_warm_up);
  jw_member_f64(w, "aux", o->aux);
  jw_member_int(w, "dead_after", o->dead_after);
  jw_member_f64(w, "init_norm", o->init_norm);
  if (o->kind == TRAIN_JUMPRELU) write_jump(o, w);
  jw_member_f64(w, "scale", t->scale);
  if (o->width_out) jw_member_f64(w, "scale_out", t->scale_out);
  jw_close(w, '}');
}

static void write_metadata(const struct trainer *t, const struct train_about *about, struct json_writer *w) {
  jw_key(w, "metadata");
  jw_open(w, '{');
  jw_member_text(w, "model_name", about->model);
  jw_member_text(w, "hook_name", about->hook);
  if (about->hook_out) jw_member_text(w, "hook_name_out", about->hook_out);
  jw_member_int(w, "context_size", about->context);
  jw_member_bool(w, "prepend_bos", about->prepend_bos);
  jw_key(w, "model_from_pretrained_kwargs");
  jw_open(w, '{');
  jw_member_bool(w, "fold_ln", about->processed);
  jw_member_bool(w, "center_writing_weights", about->processed);
  jw_member_bool(w, "center_unembed", about->processed);
  jw_close(w, '}');
  if (isfinite(about->l0)) jw_member_f64(w, "l0", about->l0);
  if (isfinite(about->explained)) jw_member_f64(w, "explained_variance", about->explained);
  if (about->dataset) jw_member_text(w, "dataset_path", about->dataset);
  jw_member_text(w, "training_architecture", t->options.kind == TRAIN_RELU ? "standard" : train_kind_name(t->options.kind));
  jw_member_int(w, "training_tokens", t->step * t->options.batch);
  jw_member_text(w, "trained_by", "steerd");
  jw_member_text(w, "sae_lens_version", "6.0.0"); /* whose layout this is: without it SAELens takes the metadata for nothing */
  write_training(t, w);
  jw_close(w, '}');
}

static void write_config(const struct trainer *t, const struct train_about *about, struct buffer *out) {
  static const char *const architectures[2][TRAIN_KINDS] = {{"standard", "topk", "jumprelu", "jumprelu"},
                                                            {"transcoder", "topk_transcoder", "jumprelu_transcoder", "jumprelu_transcoder"}};
  bool transcoder = t->options.width_out > 0;
  struct json_writer w;
  jw_init(&w, out);
  jw_open(&w, '{');
  jw_member_text(&w, "architecture", architectures[transcoder][t->options.kind]);
  jw_member_int(&w, "d_in", t->options.width);
  if (transcoder) jw_member_int(&w, "d_out", t->options.width_out);
  jw_member_int(&w, "d_sae", t->options.n_feat);
  jw_member_text(&w, "dtype", "float32");
  jw_member_text(&w, "device", "cpu");
  jw_member_bool(&w, "apply_b_dec_to_input", !transcoder);
  jw_member_text(&w, "normalize_activations", "none");
  jw_member_text(&w, "reshape_activations", about->heads ? "hook_z" : "none");
  if (t->options.kind == TRAIN_TOPK) jw_member_int(&w, "k", t->options.k);
  if (t->options.kind == TRAIN_TOPK) jw_member_bool(&w, "rescale_acts_by_decoder_norm", false);
  write_metadata(t, about, &w);
  jw_close(&w, '}');
  buffer_char(out, '\n');
}

int trainer_write(const struct trainer *t, const char *folder, const struct train_about *about, struct error *error) {
  return write_weights(t, folder, error) != 0 ? -1 : trainer_describe(t, folder, about, error);
}

int trainer_describe(const struct trainer *t, const char *folder, const struct train_about *about, struct error *error) {
  struct buffer text;
  struct file file;
  buffer_init(&text, 0);
  write_config(t, about, &text);
  int failed = buffer_check(&text, error) != 0 || file_begin(&file, folder, "cfg.json", error) != 0 ? -1 : 0;
  if (!failed) {
    fwrite(text.data, 1, text.length, file.stream);
    failed = file_end(&file, error);
  }
  buffer_clear(&text);
  return failed;
}
