/* neurons.c: the neurons of a model's layers as sources. They cost next to nothing, so they are not loaded: one is made, and known
 * to the store, when somebody names its layer, and is there until the lab is closed. Knows no list of sources. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab/sources.h"

bool neurons_named(const char *id) { return *id && strspn(id, "0123456789") == strlen(id); }

/* -1: no layer is called so ("12" of 12 layers, "07"). */
static int layer_named(const char *id, int n_layer) {
  char name[16];
  long layer = strlen(id) < 9 ? strtol(id, NULL, 10) : -1;
  snprintf(name, sizeof name, "%ld", layer);
  return layer >= 0 && layer < n_layer && strcmp(name, id) == 0 ? (int)layer : -1;
}

static struct lab_source *make(const struct lab *lab, const struct model *model, int layer, struct error *error) {
  char id[16];
  snprintf(id, sizeof id, "%d", layer);
  const struct lab_source_spec spec = {model->id, id, model->path};
  struct dict *dict = dict_open_neurons(model, layer, error);
  struct lab_source *source = dict ? source_new(dict, &spec, &model->arch, error) : NULL;
  if (!source || archive_put_source(lab, source, false, error) == 0) return source;
  source_close(source);
  return NULL;
}

/* Whoever comes second finds what the first has made. */
static struct lab_source *find_or_make(const struct lab *lab, const struct lab_model *opened, int layer, struct error *error) {
  pthread_mutex_lock(&lab->sources->neurons);
  struct lab_source *source = atomic_load(&opened->neurons[layer]);
  if (!source && (source = make(lab, opened->model, layer, error))) atomic_store(&opened->neurons[layer], source);
  pthread_mutex_unlock(&lab->sources->neurons);
  return source;
}

static void refuse(const struct lab_model_info *model, const char *id, const char *field, struct error *error) {
  const char *plain = id + strspn(id, "0");
  if (model->d_mlp > 0 && plain > id && layer_named(*plain ? plain : "0", model->n_layer) >= 0)
    error_set_field(error, ERROR_NOT_FOUND, field, "there is no source '%.32s'; the MLP neurons of that layer are '%.32s'", id, *plain ? plain : "0");
  else if (model->d_mlp == 0)
    error_set_field(error, ERROR_NOT_FOUND, field, "source '%.32s' means the MLP neurons of that layer, and model '%s' has no MLP", id, model->id);
  else
    error_set_field(error, ERROR_NOT_FOUND, field, "source '%.32s' means the MLP neurons of that layer; model '%s' has the layers 0 to %d", id,
                    model->id, model->n_layer - 1);
}

const struct lab_source_info *neurons_find(const struct lab *lab, const struct lab_model_info *model, const char *id, const char *field,
                                           struct error *error) {
  const struct lab_model *opened = lab_model_of(lab, model);
  int layer = layer_named(id, model->n_layer);
  if (model->d_mlp == 0 || layer < 0) {
    refuse(model, id, field, error);
    return NULL;
  }
  struct lab_source *source = atomic_load(&opened->neurons[layer]);
  if (!source) source = find_or_make(lab, opened, layer, error);
  if (!source) return NULL;
  lab_source_used(lab, &source->info);
  return &source->info;
}

void neurons_close(struct lab *lab) {
  for (size_t m = 0; m < lab->n_models; m++) {
    struct lab_model *opened = &lab->models[m];
    for (int l = 0; opened->neurons && l < opened->model->arch.n_layer; l++) source_close(atomic_load(&opened->neurons[l]));
    free(opened->neurons);
  }
}
