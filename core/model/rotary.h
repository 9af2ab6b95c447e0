/* rotary.h: rotary positions: from config.json to frequencies, and from frequencies to the table that OP_ROTATE
 * reads. */
#ifndef STEERD_CORE_MODEL_ROTARY_H
#define STEERD_CORE_MODEL_ROTARY_H

#include "core/model/arch.h"
#include "core/model/model_config.h"

/* What holds when config.json does not say otherwise. */
struct rotary_defaults {
  const char *layers;      /* "full_attention", ...: the kind of layer in a nested rope_parameters; may be NULL */
  const char *theta_key, *part_key; /* top-level keys of the base and of the share of a head that turns */
  double theta, part;
};

/* Reads rope_parameters (or rope_scaling and the top-level keys) into *out for heads of arch->d_head; errors go to
 * `config`. rope_type longrope lowers arch->n_ctx to the context of the short factors. */
void rotary_read(struct model_config *config, const struct rotary_defaults *defaults, struct arch *arch,
                 struct rotary *out);

/* Frequencies without scaling: theta^(-2i / dims). dims is even and at most ROTARY_MAX_DIMS. */
void rotary_plain(double theta, int32_t dims, struct rotary *out);

/* One row of the table: dims / 2 cosines, then as many sines, of position * frequency. */
void rotary_row(const struct rotary *rotary, int32_t position, float *out);

#endif
