/* llama2c.h: one checkpoint of llama2.c in f32: versions 0 (what its run.c reads) and 1 of its exporter. Private to this
 * room; tensors.h is the way in, model.h for the whole model.
 *
 *   version 0    7 x i32: width, MLP width, layers, heads, key-value heads, vocabulary (negative: the unembedding is a
 *                matrix of its own), context. Then f32: embedding; of all layers at once: attention norms, q, k, v, o, MLP
 *                norms, gate, down, up; final norm; two tables of rotary cosines and sines, which are not read; the
 *                unembedding where it is its own. There is no magic number: a file is taken for one when its size is exactly
 *                what these seven numbers make.
 *   version 1    i32 0x616b3432, i32 version, the seven numbers, u8 shared unembedding, zeros up to 256 bytes. Then f32: of
 *                all layers attention norms, MLP norms; final norm, embedding; of all layers q, k, v, o, gate, down, up; the
 *                unembedding where it is its own.
 *
 * Version 2 (8 bits) is refused by name. Rows of q and k are as Meta has them: pairs that turn together stand side by side
 * (ROTARY_NEIGHBOURS), and nothing is permuted. */
#ifndef STEERD_CORE_MODEL_LLAMA2C_H
#define STEERD_CORE_MODEL_LLAMA2C_H

#include "core/base/mapfile.h"
#include "core/model/tensor_list.h"

/* Whether a mapped file is such a checkpoint, or claims to be one of version 1 or later. */
bool llama2c_begins(const struct mapfile *file);

/* Appends the tensors of such a file under the names that Llama has on Hugging Face; their data borrows the mapping. */
int llama2c_read(const char *path, const struct mapfile *file, struct tensor_list *list, struct error *error) MUST_CHECK;

/* The config.json that describes the checkpoint at `path`, but for the pairing of rotary positions. ERROR_FORMAT when it
 * is none. */
int llama2c_config(const char *path, char out[512], struct error *error) MUST_CHECK;

#endif
